package sim

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// workload is a supervised process of a machine. Its fields are protected by Server.mu.
type workload struct {
	id, name, policy string
	cmd              provider.Cmd
	most             int // restarts
	status           string
	restarts         int
	exit             provider.Exit
	wanted           bool // false: it was stopped
	runs             []provider.Process
}

func (wl *workload) view() object {
	o := object{"id": wl.id, "name": wl.name, "status": wl.status, "cmd": wl.cmd.Args, "restart_policy": wl.policy, "restarts": wl.restarts}
	if wl.status == "exited" || wl.status == "failed" {
		o["exit_code"] = codeOf(wl.exit)
	}
	return o
}

func (s *Server) createWorkload(c *call, m *machine) (any, error) {
	var body struct {
		ID, Name string
		Cmd      []string
		Env      []string
		Dir      string `json:"working_dir"`
		Policy   string `json:"restart_policy"`
		Most     int    `json:"max_restarts"`
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	if len(body.Cmd) == 0 {
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "cmd is missing")
	}
	set(&body.Policy, "never")
	env := map[string]string{}
	for _, pair := range body.Env {
		if key, value, ok := strings.Cut(pair, "="); ok {
			env[key] = value
		}
	}
	s.mu.Lock()
	set(&body.ID, "wl_"+strconv.Itoa(len(m.workloads)+1))
	set(&body.Name, body.ID)
	if m.workloads[body.ID] != nil {
		s.mu.Unlock()
		return nil, refuse(http.StatusConflict, "conflict", "The workload is there already")
	}
	wl := &workload{id: body.ID, name: body.Name, policy: body.Policy, most: body.Most, status: "created",
		cmd: provider.Cmd{Args: body.Cmd, Env: env, Dir: body.Dir}}
	m.workloads[wl.id] = wl
	s.mu.Unlock()
	if err := s.begin(c.Context(), m, wl); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"success": true, "workload": wl.view()}, nil
}

// begin starts a workload, and what watches over it.
func (s *Server) begin(ctx context.Context, m *machine, wl *workload) error {
	s.mu.Lock()
	name := fmt.Sprintf("workload-%s-%d-%d", wl.id, len(wl.runs), time.Now().UnixNano())
	up := m.state == "running"
	s.mu.Unlock()
	if !up {
		return refuse(http.StatusConflict, "conflict", "Workspace is not running")
	}
	p, err := s.host.StartProcess(ctx, m.token, name, wl.cmd)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "validation_error", "The workload cannot be started: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wl.runs, wl.status, wl.wanted = append(wl.runs, p), "running", true
	s.goLocked(func() { s.supervise(m, wl, p) })
	return nil
}

// supervise waits for the end of a workload, and starts it again as its policy says.
func (s *Server) supervise(m *machine, wl *workload, p provider.Process) {
	exit, err := p.Wait(s.ctx)
	s.mu.Lock()
	wl.exit, wl.status = exit, "exited"
	if err != nil || exit.Code != 0 || exit.Signal != "" {
		wl.status = "failed"
	}
	if !wl.wanted {
		wl.status = "stopped"
	}
	again := err == nil && wl.wanted && (wl.policy == "always" || wl.policy == "on-failure" && wl.status == "failed") &&
		(wl.most == 0 || wl.restarts < wl.most)
	if again {
		wl.restarts++
		wl.status = "running"
	}
	s.mu.Unlock()
	if again && sleep(s.ctx, 10*time.Millisecond) {
		_ = s.begin(s.ctx, m, wl)
	}
}

func (s *Server) workload(c *call, m *machine) (*workload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wl := m.workloads[c.PathValue("wid")]
	if wl == nil {
		return nil, refuse(http.StatusNotFound, "not_found", "No such workload")
	}
	return wl, nil
}

func (s *Server) listWorkloads(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []object{}
	for _, wl := range m.workloads {
		all = append(all, wl.view())
	}
	return object{"success": true, "workloads": all}, nil
}

func (s *Server) getWorkload(c *call, m *machine) (any, error) {
	wl, err := s.workload(c, m)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := wl.view()
	o["success"] = true
	return o, nil
}

func (s *Server) startWorkload(c *call, m *machine) (any, error) {
	wl, err := s.workload(c, m)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	running := wl.status == "running"
	s.mu.Unlock()
	if running {
		return done(nil)
	}
	return done(s.begin(c.Context(), m, wl))
}

// stopWorkload asks a workload to end, and returns when it has.
func (s *Server) stopWorkload(c *call, m *machine) (any, error) {
	wl, err := s.workload(c, m)
	if err != nil {
		return nil, err
	}
	return done(s.end(c.Context(), wl))
}

func (s *Server) end(ctx context.Context, wl *workload) error {
	s.mu.Lock()
	wl.wanted = false
	var p provider.Process
	if n := len(wl.runs); n > 0 && wl.status == "running" {
		p = wl.runs[n-1]
	}
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	for _, sig := range []provider.Signal{provider.Term, provider.Kill} {
		if err := p.Signal(ctx, sig); err != nil {
			return err
		}
		grace, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := p.Wait(grace)
		cancel()
		if err == nil {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wl.status = "stopped"
	return nil
}

// deleteWorkloads ends and forgets one workload, or all.
func (s *Server) deleteWorkloads(c *call, m *machine) (any, error) {
	wid := c.PathValue("wid")
	s.mu.Lock()
	var doomed []*workload
	for id, wl := range m.workloads {
		if wid == "" || wid == id {
			doomed = append(doomed, wl)
			delete(m.workloads, id)
		}
	}
	s.mu.Unlock()
	if wid != "" && len(doomed) == 0 {
		return nil, refuse(http.StatusNotFound, "not_found", "No such workload")
	}
	for _, wl := range doomed {
		if err := s.end(c.Context(), wl); err != nil {
			return nil, err
		}
	}
	return done(nil)
}

// output reads what the last run of a workload has written; follow: until it ends.
func (s *Server) output(ctx context.Context, wl *workload, follow bool, write func(object)) {
	s.mu.Lock()
	var p provider.Process
	if n := len(wl.runs); n > 0 {
		p = wl.runs[n-1]
	}
	s.mu.Unlock()
	if p == nil {
		return
	}
	if !follow { // what is there now comes at once
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
	}
	for chunk, err := range p.Output(ctx, provider.Offset{}) {
		if err != nil {
			return
		}
		stream := "stdout"
		if chunk.Stream == provider.Stderr {
			stream = "stderr"
		}
		write(object{"data": string(chunk.Data), "stream": stream, "timestamp": stamp(time.Now())})
	}
}

func (s *Server) workloadLogs(c *call, m *machine) (any, error) {
	wl, err := s.workload(c, m)
	if err != nil {
		return nil, err
	}
	logs := []object{}
	s.output(c.Context(), wl, false, func(o object) { logs = append(logs, o) })
	return object{"success": true, "logs": logs}, nil
}

func (s *Server) streamWorkloadLogs(c *call, m *machine) (any, error) {
	wl, err := s.workload(c, m)
	if err != nil {
		return nil, err
	}
	c.m = m
	ctx, cancel := s.within(c)
	defer cancel()
	send := events(c.w)
	s.output(ctx, wl, true, func(o object) { send("", o) })
	return streamed{}, nil
}
