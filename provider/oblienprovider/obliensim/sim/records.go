package sim

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// quota is GET /workspace/quota. It has both spellings, as the real one.
func (s *Server) quota(*call) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	running, memory, cpus := 0, 0, 0.0
	for _, m := range s.machines {
		memory += m.memoryMB
		cpus += m.cpus
		if m.state == "running" {
			running++
		}
	}
	l := s.cfg.Limits
	o := object{
		"success": true, "plan": "sim", "planLabel": "Test server", "currentWorkspaces": len(s.machines), "current_sandboxes": len(s.machines),
		"canCreate":  l.Workspaces == 0 || len(s.machines) < l.Workspaces,
		"limits":     object{"cpus": l.MaxCPUs, "memory_mb": l.MaxMemoryMB},
		"pool":       object{"count": l.Workspaces, "memory_mb": l.PoolMemoryMB},
		"pool_usage": object{"count": len(s.machines), "cpus": cpus, "memory_mb": memory}, "running_pool": object{"count": l.Running},
		"running_pool_usage": object{"count": running},
	}
	if l.Workspaces > 0 {
		o["maxWorkspaces"], o["max_sandboxes"] = l.Workspaces, l.Workspaces
	}
	return o, nil
}

func (s *Server) info(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"success": true, "info": m.viewLocked()["info"]}, nil
}

func (s *Server) metadata(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := object{}
	for k, v := range m.meta {
		o[k] = v
	}
	return o, nil
}

// putMetadata adds to what is there.
func (s *Server) putMetadata(c *call, m *machine) (any, error) {
	var body struct{ Metadata object }
	if err := c.into(&body); err != nil {
		return nil, err
	}
	if body.Metadata == nil {
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "metadata is missing")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range body.Metadata {
		m.meta[k] = v
	}
	return object{"success": true}, nil
}

func (s *Server) network(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"success": true, "ip": "10.0.0.1", "public_access": m.publicAccess, "ingress_ports": append([]int{}, m.ingress...), "allow_internet": true}, nil
}

// patchNetwork opens a machine to the gateway: the runtime is behind port 9990.
func (s *Server) patchNetwork(c *call, m *machine) (any, error) {
	var body struct {
		PublicAccess *bool `json:"public_access"`
		IngressPorts []int `json:"ingress_ports"`
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if body.IngressPorts != nil {
		m.ingress = body.IngressPorts
	}
	if body.PublicAccess != nil {
		m.publicAccess = *body.PublicAccess && slices.Contains(m.ingress, 9990)
	}
	s.mu.Unlock()
	return s.network(c, m)
}

// namespace is a part of the account with limits of its own.
type namespace struct {
	name      string
	max       int
	suspended bool
	created   time.Time
}

func (n *namespace) view() object {
	status := "active"
	if n.suspended {
		status = "suspended"
	}
	return object{"id": "ns_" + n.name, "client_id": "sim", "name": n.name, "slug": n.name, "status": status, "type": "default", "is_default": false,
		"resource_limits": object{"max_workspaces": n.max}, "created_at": stamp(n.created), "updated_at": stamp(n.created)}
}

func (s *Server) createNamespace(c *call) (any, error) { return s.makeNamespace(c, false) }
func (s *Server) ensureNamespace(c *call) (any, error) { return s.makeNamespace(c, true) }

func (s *Server) makeNamespace(c *call, ensure bool) (any, error) {
	var body struct {
		Name, Slug string
		Limits     struct {
			Max int `json:"max_workspaces"`
		} `json:"resource_limits"`
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	name := body.Slug
	set(&name, strings.ToLower(body.Name))
	if name == "" {
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "name is missing")
	}
	if !c.scope.account() {
		return nil, refuse(http.StatusForbidden, "forbidden", "An admin key is needed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[name]
	if n != nil && !ensure {
		return nil, refuse(http.StatusConflict, "conflict", "The namespace is there already")
	}
	made := n == nil
	if made {
		n = &namespace{name: name, max: body.Limits.Max, created: time.Now()}
		s.namespaces[name] = n
	}
	return object{"success": true, "created": made, "data": n.view()}, nil
}

func (s *Server) listNamespaces(*call) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []object{}
	for _, n := range s.namespaces {
		all = append(all, n.view())
	}
	return object{"success": true, "data": all, "pagination": object{"total": len(all), "limit": len(all), "offset": 0}}, nil
}

func (s *Server) getNamespace(c *call) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[strings.TrimPrefix(c.PathValue("ns"), "ns_")]
	if n == nil {
		return nil, refuse(http.StatusNotFound, "not_found", "No such namespace")
	}
	return object{"success": true, "data": n.view()}, nil
}

func (s *Server) suspendNamespace(c *call) (any, error)  { return s.setSuspended(c, true) }
func (s *Server) activateNamespace(c *call) (any, error) { return s.setSuspended(c, false) }

func (s *Server) setSuspended(c *call, suspended bool) (any, error) {
	if n := strings.TrimPrefix(c.PathValue("ns"), "ns_"); !s.suspend(n, suspended) {
		return nil, refuse(http.StatusNotFound, "not_found", "No such namespace")
	}
	return s.getNamespace(c)
}

func (s *Server) suspend(name string, suspended bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[name]
	if n != nil {
		n.suspended = suspended
	}
	return n != nil
}
