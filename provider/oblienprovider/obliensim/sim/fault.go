package sim

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault is what happens to a request instead of, or beside, its being served.
type Fault struct {
	// Which requests: an empty field fits all. Path fits a path that begins with it, or is it, if it ends in "$".
	Method string `json:"method"`
	Path   string `json:"path"`
	Times  int    `json:"times"` // how many requests; 0: all

	Status     int           `json:"status"` // refuse with it; 0: serve
	Code       string        `json:"code"`
	Message    string        `json:"message"`
	RetryAfter time.Duration `json:"retry_after"` // in nanoseconds
	Delay      time.Duration `json:"delay"`       // in nanoseconds
	Drop       string        `json:"drop"`        // "before": the connection ends and nothing happens; "after": it has happened
}

func (f *Fault) fits(r *http.Request) bool {
	if f.Method != "" && f.Method != r.Method {
		return false
	}
	if exact, ok := strings.CutSuffix(f.Path, "$"); ok {
		return r.URL.Path == exact
	}
	return strings.HasPrefix(r.URL.Path, f.Path)
}

// AddFault makes requests fail from now on.
func (s *Server) AddFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults ends what AddFault began.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// SetOutage makes the control plane refuse everything with status 503, or serve again. The runtime goes on.
func (s *Server) SetOutage(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = on
}

func (s *Server) fault(r *http.Request) *Fault {
	if strings.HasPrefix(r.URL.Path, "/_sim/") {
		return nil
	}
	if s.cfg.Fault != nil {
		if f := s.cfg.Fault(r); f != nil {
			return f
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outage && controlPath(r.URL.Path) {
		return &Fault{Status: http.StatusServiceUnavailable, Code: "service_unavailable", Message: "The control plane is away"}
	}
	for i, f := range s.faults {
		if !f.fits(r) {
			continue
		}
		if f.Times > 0 {
			f.Times--
			if f.Times == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		return f
	}
	return nil
}

func controlPath(path string) bool {
	for _, prefix := range []string{"/workspace", "/namespaces", "/tokens"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// adminFaults is AddFault and ClearFaults over HTTP.
func (s *Server) adminFaults(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		s.ClearFaults()
		answer(w, object{"success": true}, nil)
		return
	}
	var f Fault
	if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
		answer(w, nil, refuse(http.StatusBadRequest, "bad_request", "%v", err))
		return
	}
	s.AddFault(f)
	answer(w, object{"success": true}, nil)
}

// adminMachine is Fail and Vanish over HTTP.
func (s *Server) adminMachine(w http.ResponseWriter, r *http.Request) {
	switch r.PathValue("what") {
	case "fail":
		s.Fail(r.PathValue("id"))
	case "vanish":
		s.Vanish(r.PathValue("id"))
	default:
		answer(w, nil, refuse(http.StatusNotFound, "not_found", "fail or vanish"))
		return
	}
	answer(w, object{"success": true}, nil)
}

// Fail ends a machine as its node's fault would: its record stays, and says so.
func (s *Server) Fail(id string) { s.ruin(id, false) }

// Vanish makes a machine and its record disappear.
func (s *Server) Vanish(id string) { s.ruin(id, true) }

func (s *Server) ruin(id string, all bool) {
	s.mu.Lock()
	m := s.machines[id]
	if m == nil {
		s.mu.Unlock()
		return
	}
	m.state, m.userStop = "failed", false
	m.disarmLocked()
	m.cutLocked()
	if all {
		s.dropLocked(m)
	}
	s.mu.Unlock()
	if s.host.Delete(s.ctx, m.token) == nil {
		_ = s.awaitGone(s.ctx, m.token)
	}
}

// Workspaces is how many there are, in whatever state.
func (s *Server) Workspaces() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.machines)
}
