package sim

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// change takes a machine from one of some states to another. Only one call at a time does so.
func (s *Server) change(m *machine, from []string, during string, do func() (to string, err error)) error {
	s.mu.Lock()
	was := m.state
	ok := false
	for _, f := range from {
		ok = ok || f == was
	}
	switch {
	case !ok || m.busy:
		s.mu.Unlock()
		return refuse(http.StatusConflict, "conflict", "Workspace is %s", was)
	case m.namespace != "" && s.namespaces[m.namespace] != nil && s.namespaces[m.namespace].suspended && during != "stopping":
		s.mu.Unlock()
		return refuse(http.StatusForbidden, "namespace_suspended", "The namespace is suspended")
	}
	m.busy, m.state = true, during
	s.mu.Unlock()

	to, err := was, error(nil)
	if sleep(s.ctx, s.cfg.Power) {
		to, err = do()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	m.busy = false
	if m.state != during { // deleted, or ruined, meanwhile
		return refuse(http.StatusConflict, "conflict", "Workspace is %s", m.state)
	}
	if err != nil {
		m.state = was
		return err
	}
	m.state, m.updated = to, time.Now()
	return nil
}

func done(err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return object{"success": true}, nil
}

func (s *Server) stateOf(m *machine) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.state
}

// start boots what is stopped; what runs already is fine.
func (s *Server) start(_ *call, m *machine) (any, error) {
	if s.stateOf(m) == "running" {
		return done(nil)
	}
	return done(s.change(m, []string{"stopped"}, "starting", func() (string, error) {
		s.mu.Lock()
		err := s.runningRoomLocked(m)
		kept := m.snapshot
		s.mu.Unlock()
		if err == nil {
			err = s.power(m, kept)
		}
		if err == nil {
			s.mu.Lock()
			s.upLocked(m)
			m.state = "starting"
			s.mu.Unlock()
		}
		return "running", err
	}))
}

// stop keeps the disk. It may be repeated.
func (s *Server) stop(_ *call, m *machine) (any, error) {
	if s.stateOf(m) == "stopped" {
		return done(nil)
	}
	return done(s.change(m, []string{"running", "paused", "suspended"}, "stopping", func() (string, error) {
		err := s.halt(m)
		s.mu.Lock()
		defer s.mu.Unlock()
		m.userStop = err == nil
		return "stopped", err
	}))
}

// halt ends all processes of a machine; its files are kept as a snapshot of the host.
func (s *Server) halt(m *machine) error {
	s.mu.Lock()
	m.cutLocked()
	frozen, old := m.frozen, m.snapshot
	m.frozen = false
	s.mu.Unlock()
	if frozen || s.paused(m) {
		if _, err := s.host.Resume(s.ctx, m.token); err != nil {
			return err
		}
	}
	kept, err := s.host.Snapshot(s.ctx, m.token)
	if err == nil {
		err = s.host.Delete(s.ctx, m.token)
	}
	if err == nil {
		err = s.awaitGone(s.ctx, m.token)
	}
	if err != nil {
		return err
	}
	if old != "" {
		_ = s.host.DeleteSnapshot(s.ctx, old)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.snapshot = kept
	return nil
}

func (s *Server) paused(m *machine) bool {
	w, err := s.host.Get(s.ctx, m.token)
	return err == nil && w.State == provider.Paused
}

func (s *Server) restart(c *call, m *machine) (any, error) {
	if _, err := s.stop(c, m); err != nil {
		return nil, err
	}
	return s.start(c, m)
}

// pause freezes a machine; its memory stays where it is.
func (s *Server) pause(_ *call, m *machine) (any, error) {
	return done(s.change(m, []string{"running"}, "pausing", func() (string, error) {
		s.mu.Lock()
		m.cutLocked()
		s.mu.Unlock()
		return "paused", s.host.Pause(s.ctx, m.token, provider.Frozen)
	}))
}

func (s *Server) resume(_ *call, m *machine) (any, error) {
	return done(s.change(m, []string{"paused"}, "resuming", func() (string, error) {
		s.mu.Lock()
		err := s.runningRoomLocked(m)
		s.mu.Unlock()
		if err == nil {
			_, err = s.host.Resume(s.ctx, m.token)
		}
		return "running", err
	}))
}

// snapshot keeps files, and with after:"stop" the frozen processes too, which stand for a memory on disk.
func (s *Server) snapshot(c *call, m *machine) (any, error) {
	var body struct{ After string }
	if err := c.into(&body); err != nil {
		return nil, err
	}
	to := map[string]string{"": "running", "resume": "running", "paused": "paused", "stop": "suspended"}[body.After]
	if to == "" {
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "after is resume, paused or stop")
	}
	return done(s.change(m, []string{"running"}, "snapshotting", func() (string, error) {
		kept, err := s.host.Snapshot(s.ctx, m.token)
		if err != nil {
			return "", err
		}
		s.mu.Lock()
		old := m.snapshot
		m.snapshot, m.frozen = kept, to == "suspended"
		if to != "running" {
			m.cutLocked()
		}
		s.mu.Unlock()
		if old != "" {
			_ = s.host.DeleteSnapshot(s.ctx, old)
		}
		if to != "running" {
			err = s.host.Pause(s.ctx, m.token, provider.Frozen)
		}
		return to, err
	}))
}

// restore goes back to the latest snapshot: with its processes if it is suspended, else with the files alone.
func (s *Server) restore(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	kept, frozen := m.snapshot, m.frozen
	s.mu.Unlock()
	if kept == "" {
		return nil, refuse(http.StatusConflict, "conflict", "There is no snapshot")
	}
	return done(s.change(m, []string{"running", "paused", "stopped", "suspended"}, "restoring", func() (string, error) {
		s.mu.Lock()
		err := s.runningRoomLocked(m)
		m.cutLocked()
		s.mu.Unlock()
		if err == nil && frozen {
			_, err = s.host.Resume(s.ctx, m.token)
		} else if err == nil {
			if err = s.host.Delete(s.ctx, m.token); err == nil {
				err = s.awaitGone(s.ctx, m.token)
			}
			if err == nil {
				err = s.power(m, kept)
			}
		}
		if err == nil {
			s.mu.Lock()
			s.upLocked(m)
			m.state = "restoring"
			s.mu.Unlock()
		}
		return "running", err
	}))
}

// seconds reads a ttl: seconds, or a duration such as "1h".
func seconds(v any) (int, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case float64:
		return int(v), nil
	case string:
		if n, err := strconv.Atoi(v); err == nil {
			return n, nil
		}
		if d, err := time.ParseDuration(v); err == nil {
			return int(d.Seconds()), nil
		}
	}
	return 0, refuse(http.StatusUnprocessableEntity, "validation_error", "Invalid ttl")
}

// armLocked sets the time-out of a machine.
func (s *Server) armLocked(m *machine, ttl int, action string) {
	m.disarmLocked()
	if action != "" {
		m.ttlAction = action
	}
	if ttl > 0 {
		m.ttl = ttl
	}
	if m.ttl <= 0 {
		return
	}
	d := time.Duration(m.ttl) * time.Second
	end := time.Now().Add(d)
	m.expires = end
	m.timer = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !m.expires.Equal(end) {
			return
		}
		switch m.ttlAction {
		case "remove":
			s.removeLocked(m)
		case "pause":
			s.goLocked(func() { _, _ = s.pause(nil, m) })
		default:
			s.goLocked(func() { _, _ = s.stop(nil, m) })
		}
	})
}

func (s *Server) ping(c *call, m *machine) (any, error) {
	var body struct {
		TTL int `json:"ttl_seconds"`
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.mode == "temporary" && m.state != "deleting" {
		s.armLocked(m, body.TTL, "")
	}
	return object{"success": true, "ttl_expires_at": stamp(m.expires)}, nil
}

func (s *Server) lifecycle(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := m.lifecycleLocked()
	o["success"], o["mode"], o["status"] = true, m.mode, m.state
	o["expires_at"], o["snapshot_supported"], o["pause_supported"] = o["ttl_expires_at"], true, true
	return o, nil
}

func (s *Server) permanent(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.mode, m.ttl = "permanent", 0
	m.disarmLocked()
	return object{"success": true, "mode": m.mode}, nil
}

// temporary is POST …/lifecycle/temporary, and PUT …/lifecycle/ttl.
func (s *Server) temporary(c *call, m *machine) (any, error) {
	var body struct {
		TTL    any    `json:"ttl"`
		Action string `json:"ttl_action"`
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	ttl, err := seconds(body.TTL)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.mode = "temporary"
	if m.state != "deleting" {
		s.armLocked(m, ttl, body.Action)
	}
	return object{"success": true, "mode": m.mode}, nil
}

func (s *Server) resources(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"success": true, "cpus": m.cpus, "memory_mb": m.memoryMB, "disk_size_mb": m.diskMB}, nil
}

// resize records new resources; with apply a machine that runs is booted anew.
func (s *Server) resize(c *call, m *machine) (any, error) {
	var body struct {
		CPUs     float64 `json:"cpus"`
		MemoryMB int     `json:"memory_mb"`
		DiskMB   int     `json:"disk_size_mb"`
		Apply    bool
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	s.mu.Lock()
	l := s.cfg.Limits
	switch {
	case body.DiskMB != 0 && body.DiskMB < m.diskMB, body.CPUs < 0, body.MemoryMB < 0:
		s.mu.Unlock()
		return nil, refuse(http.StatusUnprocessableEntity, "invalid_resource", "A disk cannot shrink")
	case l.MaxCPUs > 0 && body.CPUs > l.MaxCPUs, l.MaxMemoryMB > 0 && body.MemoryMB > l.MaxMemoryMB:
		s.mu.Unlock()
		return nil, refuse(http.StatusForbidden, "quota_exceeded", "One workspace may not be so large")
	}
	updated := object{}
	if body.CPUs > 0 {
		m.cpus, updated["cpus"] = body.CPUs, body.CPUs
	}
	if body.MemoryMB > 0 {
		m.memoryMB, updated["memory_mb"] = body.MemoryMB, body.MemoryMB
	}
	if body.DiskMB > 0 {
		m.diskMB, updated["disk_size_mb"] = body.DiskMB, body.DiskMB
	}
	relaunch := body.Apply && m.state == "running"
	s.mu.Unlock()
	if relaunch {
		if _, err := s.restart(c, m); err != nil {
			return nil, err
		}
	}
	return object{"success": true, "updated": updated, "relaunched": relaunch}, nil
}

func (s *Server) stats(c *call, m *machine) (any, error) {
	if state := s.stateOf(m); state != "running" {
		return nil, refuse(http.StatusConflict, "conflict", "Workspace is %s", state)
	}
	ctx, cancel := context.WithTimeout(c.Context(), 10*time.Second)
	defer cancel()
	u, err := s.host.Usage(ctx, m.token)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"success": true, "cpuUsage": 0, "memoryUsage": 100 * float64(u.MemoryMB) / float64(m.memoryMB), "memoryUsedMB": u.MemoryMB,
		"memoryTotalMB": m.memoryMB, "guestDiskUsedMB": u.DiskMB, "guestDiskTotalMB": m.diskMB, "uptime": time.Since(m.created).Seconds()}, nil
}
