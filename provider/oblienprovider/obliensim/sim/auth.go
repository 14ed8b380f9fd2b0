package sim

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"
)

// scope is what credentials may see.
type scope struct {
	namespace string // "": all
	workspace string // "": all
	expires   time.Time
}

func (s scope) account() bool { return s.namespace == "" && s.workspace == "" }

// authenticate finds out whose a request to the control plane is.
func (s *Server) authenticate(c *call) error {
	id, secret := c.Header.Get("X-Client-ID"), c.Header.Get("X-Client-Secret")
	bearer, hasBearer := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	switch {
	case hasBearer:
		s.mu.Lock()
		defer s.mu.Unlock()
		scope, ok := s.tokens[bearer]
		if !ok {
			return refuse(http.StatusUnauthorized, "invalid_credentials", "Invalid token %s", bearer) // a server that says too much
		}
		if time.Now().After(scope.expires) {
			return refuse(http.StatusUnauthorized, "token_expired", "Token has expired")
		}
		c.scope = scope
		return nil
	case id == "" || secret == "":
		return refuse(http.StatusUnauthorized, "missing_credentials", "Credentials are missing")
	case subtle.ConstantTimeCompare([]byte(id+"\x00"+secret), []byte(s.cfg.ClientID+"\x00"+s.cfg.ClientSecret)) != 1:
		return refuse(http.StatusUnauthorized, "invalid_credentials", "Invalid client secret %s", secret)
	}
	return nil
}

// createToken is POST /tokens.
func (s *Server) createToken(c *call) (any, error) {
	var body struct {
		Scope       string `json:"scope"`
		Namespace   string `json:"namespace"`
		WorkspaceID string `json:"workspaceId"`
		TTL         int    `json:"ttl"`
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	if !c.scope.account() {
		return nil, refuse(http.StatusForbidden, "forbidden", "An admin key is needed")
	}
	set(&body.TTL, 900)
	if body.TTL < 1 || body.TTL > 3600 {
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "ttl is 1 to 3600")
	}
	granted := scope{expires: time.Now().Add(time.Duration(body.TTL) * time.Second)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case body.Scope == "namespace" && s.namespaces[body.Namespace] != nil:
		granted.namespace = body.Namespace
	case body.Scope == "workspace" && s.machines[body.WorkspaceID] != nil:
		granted.workspace = body.WorkspaceID
	default:
		return nil, refuse(http.StatusNotFound, "not_found", "No such namespace or workspace")
	}
	token := "simtoken." + rand.Text()
	s.tokens[token] = granted
	return object{"success": true, "token": token, "scope": body.Scope, "ttl": body.TTL, "expiresAt": stamp(granted.expires)}, nil
}

// sees says whether these credentials find a machine.
func (s *Server) sees(of scope, m *machine) bool {
	switch {
	case of.workspace != "":
		return m.id == of.workspace
	case of.namespace != "":
		return m.namespace == of.namespace
	}
	return m.namespace == "" || !s.cfg.HideNamespaced
}

// pass is a token for the runtime of a machine. It holds the machine's address, which changes when it is booted anew.
type pass struct {
	id      string
	address int
	expires time.Time
}

func (s *Server) accessStatus(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"success": true, "enabled": m.access}, nil
}

func (s *Server) enableAccess(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.access = true
	return s.passLocked(m)
}

func (s *Server) disableAccess(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.access = false
	s.revokeLocked(m)
	return object{"success": true, "enabled": false}, nil
}

func (s *Server) accessToken(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !m.access {
		return nil, refuse(http.StatusConflict, "conflict", "The runtime API is not enabled")
	}
	return s.passLocked(m)
}

func (s *Server) rotateToken(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revokeLocked(m)
	return s.passLocked(m)
}

func (s *Server) passLocked(m *machine) (any, error) {
	if m.state != "running" {
		return nil, refuse(http.StatusConflict, "conflict", "Workspace is %s", m.state)
	}
	token := "simpass." + rand.Text()
	s.passes[token] = pass{id: m.id, address: m.address, expires: time.Now().Add(s.cfg.TokenLife)}
	return object{"success": true, "enabled": true, "token": token}, nil
}

func (s *Server) revokeLocked(m *machine) {
	for token, p := range s.passes {
		if p.id == m.id {
			delete(s.passes, token)
		}
	}
}

// RevokeTokens makes all tokens of runtimes invalid, as their expiry would.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.passes)
}

// admit is what the gateway does: it finds the machine by the token, and whether it can be reached.
func (s *Server) admit(c *call) error {
	token, _ := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.passes[token]
	m := s.machines[p.id]
	switch {
	case !ok, m != nil && (m.address != p.address || !m.access):
		return refuse(http.StatusUnauthorized, "unauthorized", "Invalid token %s", token)
	case time.Now().After(p.expires):
		return refuse(http.StatusUnauthorized, "token_expired", "Token has expired")
	case m == nil, m.state != "running", !m.publicAccess, time.Now().Before(m.runtimeFrom):
		return refuse(http.StatusServiceUnavailable, "VM_UNAVAILABLE", "The workspace cannot be reached")
	}
	c.m = m
	return nil
}
