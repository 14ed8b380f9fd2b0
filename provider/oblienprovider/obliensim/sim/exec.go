package sim

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func (s *Server) runtimeInfo(c *call) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"os": runtime.GOOS, "arch": runtime.GOARCH, "cpus": runtime.NumCPU(), "home": c.m.home, "shell": "/bin/sh",
		"protocol_version": 1, "capabilities": []string{"exec", "files"}}, nil
}

// task is a command that exec has started.
type task struct {
	id      string
	argv    []string
	process provider.Process
	created time.Time
	ttl     time.Duration // of its record, after its end; negative: for ever

	exited time.Time // protected by Server.mu, like the rest
	exit   provider.Exit
	err    error
}

type execBody struct {
	Cmd     []string `json:"cmd"`
	Mode    string   `json:"exec_mode"`
	Timeout int      `json:"timeout_seconds"`
	TTL     int      `json:"ttl_seconds"`
	Stream  bool     `json:"stream"`
}

// launch starts a command.
func (s *Server) launch(c *call, body execBody) (*task, error) {
	if len(body.Cmd) == 0 {
		return nil, refuse(http.StatusBadRequest, "bad_request", "cmd is missing")
	}
	argv := body.Cmd
	switch body.Mode {
	case "", "auto", "direct":
	case "shell":
		argv = []string{"sh", "-c", strings.Join(argv, " ")}
	default:
		return nil, refuse(http.StatusBadRequest, "bad_request", "exec_mode is auto, shell or direct")
	}
	m := c.m
	s.mu.Lock()
	running := 0
	for _, t := range m.tasks {
		if t.exited.IsZero() {
			running++
		}
	}
	if running >= s.cfg.MaxTasks {
		s.mu.Unlock()
		return nil, refuse(http.StatusTooManyRequests, "rate_limited", "Too many tasks")
	}
	m.nextTask++
	t := &task{id: strconv.Itoa(m.nextTask), argv: body.Cmd, created: time.Now(), ttl: time.Duration(body.TTL) * time.Second}
	set(&t.ttl, 300*time.Second)
	m.tasks[t.id] = t
	s.mu.Unlock()

	p, err := s.host.StartProcess(c.Context(), m.token, fmt.Sprintf("exec-%s-%d", t.id, t.created.UnixNano()), provider.Cmd{Args: argv})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(m.tasks, t.id)
		if errors.Is(err, provider.ErrInvalid) {
			return nil, refuse(http.StatusBadRequest, "bad_request", "The command cannot be started")
		}
		return nil, refuse(http.StatusServiceUnavailable, "VM_UNAVAILABLE", "%v", err)
	}
	t.process = p
	s.goLocked(func() { s.attend(m, t, body.Timeout) })
	return t, nil
}

// attend waits for the end of a task, and for that of its record.
func (s *Server) attend(m *machine, t *task, timeout int) {
	ctx := s.ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
		defer cancel()
	}
	exit, err := t.process.Wait(ctx)
	if err != nil && ctx.Err() != nil && s.ctx.Err() == nil {
		_ = t.process.Signal(s.ctx, provider.Kill)
		exit, err = t.process.Wait(s.ctx)
	}
	s.mu.Lock()
	t.exited, t.exit, t.err = time.Now(), exit, err
	s.mu.Unlock()
	if t.ttl < 0 || !sleep(s.ctx, t.ttl) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.tasks[t.id] == t {
		delete(m.tasks, t.id)
	}
}

func codeOf(exit provider.Exit) int {
	if n := slices.Index([]string{"SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM"}, exit.Signal); n >= 0 {
		return 128 + n + 1
	}
	return exit.Code
}

// viewTask is the task object, with its output when it has ended.
func (s *Server) viewTask(ctx context.Context, t *task) object {
	s.mu.Lock()
	exited, exit, err := t.exited, t.exit, t.err
	s.mu.Unlock()
	o := object{"id": t.id, "command": t.argv, "status": "running", "created_at": stamp(t.created), "started_at": stamp(t.created)}
	if exited.IsZero() {
		return o
	}
	o["exited_at"] = stamp(exited)
	if err != nil {
		o["status"], o["error"] = "failed", err.Error()
		return o
	}
	var out, errs strings.Builder
	for chunk, err := range t.process.Output(ctx, provider.Offset{}) {
		if err != nil {
			break
		}
		if chunk.Stream == provider.Stdout {
			out.Write(chunk.Data)
		} else {
			errs.Write(chunk.Data)
		}
	}
	o["status"], o["exit_code"], o["stdout"], o["stderr"] = "exited", codeOf(exit), out.String(), errs.String()
	return o
}

// exec is POST /exec: it answers when the command has ended.
func (s *Server) exec(c *call) (any, error) {
	var body execBody
	if err := c.into(&body); err != nil {
		return nil, err
	}
	t, err := s.launch(c, body)
	if err != nil {
		return nil, err
	}
	if body.Stream {
		return s.pipe(c, t)
	}
	ctx, cancel := s.within(c)
	defer cancel()
	if _, err := t.process.Wait(ctx); err != nil && ctx.Err() != nil {
		return nil, refuse(http.StatusServiceUnavailable, "VM_UNAVAILABLE", "The workspace cannot be reached")
	}
	for s.runs(t) && sleep(ctx, time.Millisecond) {
	}
	return s.viewTask(ctx, t), nil
}

func (s *Server) runs(t *task) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.exited.IsZero()
}

// within is a context that ends with the request, with the machine's connection or with the server.
func (s *Server) within(c *call) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.Context())
	s.mu.Lock()
	defer s.mu.Unlock()
	cut := c.m.cut
	s.goLocked(func() {
		defer cancel()
		select {
		case <-cut:
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}

func (s *Server) execStream(c *call) (any, error) {
	var body execBody
	if err := c.into(&body); err != nil {
		return nil, err
	}
	t, err := s.launch(c, body)
	if err != nil {
		return nil, err
	}
	return s.pipe(c, t)
}

func (s *Server) subscribe(c *call) (any, error) {
	t, err := s.task(c, c.URL.Query().Get("task_id"))
	if err != nil {
		return nil, err
	}
	return s.pipe(c, t)
}

// pipe streams a task's output from its beginning, and its end.
func (s *Server) pipe(c *call, t *task) (any, error) {
	ctx, cancel := s.within(c)
	defer cancel()
	send := events(c.w)
	send("task_id", object{"task_id": t.id})
	for chunk, err := range t.process.Output(ctx, provider.Offset{}) {
		if err != nil {
			panic(http.ErrAbortHandler) // the connection is lost, as that to a machine would be
		}
		name := "stdout"
		if chunk.Stream == provider.Stderr {
			name = "stderr"
		}
		send(name, object{"data": base64.StdEncoding.EncodeToString(chunk.Data)})
	}
	exit, err := t.process.Wait(ctx)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	send("exit", object{"exit_code": codeOf(exit), "pid": os.Getpid()})
	return streamed{}, nil
}

// events begins a stream of server-sent events.
func events(w http.ResponseWriter) func(name string, data object) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	flush, _ := w.(http.Flusher)
	return func(name string, data object) {
		b, _ := json.Marshal(data)
		if name != "" {
			fmt.Fprintf(w, "event: %s\n", name)
		}
		fmt.Fprintf(w, "data: %s\n\n", b)
		if flush != nil {
			flush.Flush()
		}
	}
}

func (s *Server) task(c *call, id string) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := c.m.tasks[id]
	if t == nil || t.process == nil {
		return nil, refuse(http.StatusNotFound, "not_found", "No such task")
	}
	return t, nil
}

func (s *Server) listTasks(c *call) (any, error) {
	s.mu.Lock()
	var all []*task
	for _, t := range c.m.tasks {
		if t.process != nil {
			all = append(all, t)
		}
	}
	s.mu.Unlock()
	views := []object{}
	for _, t := range all {
		views = append(views, s.viewTask(c.Context(), t))
	}
	return object{"success": true, "tasks": views}, nil
}

func (s *Server) getTask(c *call) (any, error) {
	t, err := s.task(c, c.PathValue("task"))
	if err != nil {
		return nil, err
	}
	return s.viewTask(c.Context(), t), nil
}

// deleteTasks forgets one task, or all, and kills what runs.
func (s *Server) deleteTasks(c *call) (any, error) {
	s.mu.Lock()
	var doomed []*task
	for id, t := range c.m.tasks {
		if t.process != nil && (c.PathValue("task") == "" || c.PathValue("task") == id) {
			doomed = append(doomed, t)
			delete(c.m.tasks, id)
		}
	}
	s.mu.Unlock()
	if c.PathValue("task") != "" && len(doomed) == 0 {
		return nil, refuse(http.StatusNotFound, "not_found", "No such task")
	}
	for _, t := range doomed {
		if s.runs(t) {
			_ = t.process.Signal(c.Context(), provider.Kill)
		}
	}
	return object{"success": true}, nil
}
