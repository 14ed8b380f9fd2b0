package sim

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// machine is a workspace of Oblien's. Its fields are protected by Server.mu, but for those that do not change.
type machine struct {
	id, namespace, image, mode string
	token                      string // and id of the host's workspace
	created                    time.Time

	slug, name   string
	config       object
	cpus         float64
	memoryMB     int
	diskMB       int
	state        string // of the machine; while booting "creating"
	userStop     bool
	phase        string    // of provisioning
	fault        *apiError // of provisioning
	busy         bool      // a call is changing its state
	home         string
	access       bool // the runtime API is enabled
	publicAccess bool
	ingress      []int
	address      int // changes when it is booted anew
	runtimeFrom  time.Time
	updated      time.Time
	meta         object
	snapshot     string // the host's, the latest; "": none
	frozen       bool   // suspended with its memory kept
	ttl          int    // seconds; 0: none
	ttlAction    string
	expires      time.Time
	timer        *time.Timer
	cut          chan struct{} // closed when streams to the machine end
	tasks        map[string]*task
	nextTask     int
	workloads    map[string]*workload
	booted       chan struct{} // closed when the boot is over, one way or the other
}

// used is an idempotency key that was used.
type used struct {
	id   string
	body string
}

func (m *machine) disarmLocked() {
	if m.timer != nil {
		m.timer.Stop()
	}
	m.expires = time.Time{}
}

// cutLocked ends the streams to a machine.
func (m *machine) cutLocked() {
	close(m.cut)
	m.cut = make(chan struct{})
}

func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// viewLocked is the workspace object.
func (m *machine) viewLocked() object {
	status := m.state
	if m.state == "creating" && m.phase == "starting" {
		status = "starting"
	}
	ready := m.state == "running"
	o := object{
		"id": m.id, "slug": m.slug, "name": m.name, "mode": m.mode, "image": m.image, "namespace": nil, "ready": ready,
		"status":    "active", // of the record, whatever the machine does
		"info":      object{"status": status, "is_running": ready, "user_requested_stop": m.userStop},
		"lifecycle": m.lifecycleLocked(),
		"resources": object{"cpus": m.cpus, "memory_mb": m.memoryMB, "disk_size_mb": m.diskMB},
		"config":    m.config, "created_at": stamp(m.created), "updated_at": stamp(m.updated),
	}
	if m.namespace != "" {
		o["namespace"] = m.namespace
	}
	p := object{"state": "running", "phase": m.phase, "message": m.phase, "error": nil, "created_at": stamp(m.created), "completed_at": nil}
	switch {
	case m.fault != nil:
		p["state"], p["error"] = "failed", object{"code": m.fault.code, "message": m.fault.message}
	case m.phase == "queued" || m.phase == "ready":
		p["state"] = m.phase
	}
	o["provisioning"] = p
	return o
}

func (m *machine) lifecycleLocked() object {
	o := object{"ttl": nil, "ttl_action": m.ttlAction, "remove_on_exit": false, "restart_policy": nil, "ttl_expires_at": stamp(m.expires)}
	if m.ttl > 0 {
		o["ttl"] = m.ttl
	}
	return o
}

var slugForm = regexp.MustCompile(`^[a-z0-9-]{3,128}$`)

// create is POST /workspace.
func (s *Server) create(c *call) (any, error) {
	var body struct {
		Name, Slug, Image, Namespace, Mode string
		IdempotencyKey                     string `json:"idempotency_key"`
		Config                             struct {
			CPUs     float64 `json:"cpus"`
			MemoryMB int     `json:"memory_mb"`
			DiskMB   int     `json:"disk_size_mb"`
			TTL      any     `json:"ttl"`
			Action   string  `json:"ttl_action"`
			Network  struct {
				Public bool `json:"public_ingress"`
			} `json:"network_config"`
		}
	}
	var raw object
	if err := c.into(&raw); err != nil {
		return nil, err
	}
	text, _ := json.Marshal(raw)
	if err := json.Unmarshal(text, &body); err != nil {
		return nil, refuse(http.StatusBadRequest, "bad_request", "Invalid body: %v", err)
	}
	ttl, err := seconds(body.Config.TTL)
	switch {
	case err != nil:
		return nil, err
	case c.scope.workspace != "":
		return nil, refuse(http.StatusForbidden, "forbidden", "A workspace token cannot create")
	case body.Slug != "" && !slugForm.MatchString(body.Slug), len(body.Name) > 255:
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "Invalid slug or name")
	case strings.Contains(body.Image, "missing"):
		return nil, refuse(http.StatusBadRequest, "invalid_image", "No such image")
	case body.Mode != "" && body.Mode != "permanent" && body.Mode != "temporary":
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "Invalid mode")
	}
	if c.scope.namespace != "" {
		if body.Namespace != "" && body.Namespace != c.scope.namespace {
			return nil, refuse(http.StatusForbidden, "forbidden", "The token is of another namespace")
		}
		body.Namespace = c.scope.namespace
	}
	set(&body.Mode, "permanent")
	set(&body.Config.CPUs, 1)
	set(&body.Config.MemoryMB, 512)
	set(&body.Config.DiskMB, 2048)
	set(&body.Config.Action, "stop")

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, refuse(http.StatusServiceUnavailable, "service_unavailable", "Shutting down")
	}
	key := body.Namespace + "\x00" + body.IdempotencyKey
	if before := s.keys[key]; before != nil && body.IdempotencyKey != "" {
		if before.body != string(text) {
			return nil, refuse(http.StatusConflict, "conflict", "The idempotency key was used for another request")
		}
		return object{"success": true, "workspace": s.machines[before.id].viewLocked()}, nil
	}
	if wait := s.cfg.CreateGap - time.Since(s.lastCreate); s.cfg.CreateGap > 0 && wait > 0 {
		e := refuse(http.StatusTooManyRequests, "rate_limited", "Too many requests")
		e.after = wait
		return nil, e
	}
	for _, m := range s.machines {
		if body.Slug != "" && m.slug == body.Slug {
			return nil, refuse(http.StatusConflict, "conflict", "The slug is taken")
		}
	}
	if err := s.roomLocked(body.Namespace, body.Config.CPUs, body.Config.MemoryMB); err != nil {
		return nil, err
	}
	s.lastCreate = time.Now()
	id := "ws_" + strings.ToLower(rand.Text()[:16])
	m := &machine{
		id: id, namespace: body.Namespace, image: body.Image, mode: body.Mode, token: strings.ToLower(rand.Text()[:24]),
		created: time.Now(), updated: time.Now(), slug: body.Slug, name: body.Name, cpus: body.Config.CPUs,
		memoryMB: body.Config.MemoryMB, diskMB: body.Config.DiskMB, state: "creating", phase: "queued", meta: object{},
		publicAccess: body.Config.Network.Public, cut: make(chan struct{}), tasks: map[string]*task{},
		workloads: map[string]*workload{}, booted: make(chan struct{}),
	}
	m.config, _ = raw["config"].(object)
	set(&m.slug, strings.ReplaceAll(id, "_", "-"))
	set(&m.name, m.slug)
	s.machines[id] = m
	s.order = append(s.order, m)
	if body.IdempotencyKey != "" {
		s.keys[key] = &used{id, string(text)}
	}
	if body.Mode == "temporary" {
		s.armLocked(m, ttl, body.Config.Action)
	}
	booted := m.booted
	s.goLocked(func() { s.boot(m, booted) })
	return object{"success": true, "workspace": m.viewLocked()}, nil
}

// roomLocked says whether one more of this size may be owned, and run.
func (s *Server) roomLocked(ns string, cpus float64, memoryMB int) error {
	l := s.cfg.Limits
	memory, mine := memoryMB, 0
	for _, m := range s.machines {
		memory += m.memoryMB
		if m.namespace == ns {
			mine++
		}
	}
	over := func(code, message string, current, max int) error {
		e := &apiError{status: http.StatusConflict, code: code, message: message, current: current, max: max}
		if l.LegacyStatus {
			e.status = http.StatusOK
		}
		return e
	}
	n := s.namespaces[ns]
	switch {
	case ns != "" && n == nil:
		return refuse(http.StatusNotFound, "not_found", "No such namespace")
	case n != nil && n.suspended:
		return refuse(http.StatusForbidden, "namespace_suspended", "The namespace is suspended")
	case l.MaxCPUs > 0 && cpus > l.MaxCPUs, l.MaxMemoryMB > 0 && memoryMB > l.MaxMemoryMB:
		return refuse(http.StatusForbidden, "quota_exceeded", "One workspace may not be so large")
	case n != nil && n.max > 0 && mine >= n.max:
		return over("NAMESPACE_LIMIT_REACHED", "Namespace limit reached.", mine, n.max)
	case l.Workspaces > 0 && len(s.machines) >= l.Workspaces:
		return over("SANDBOX_LIMIT_REACHED", "Workspace count limit reached.", len(s.machines), l.Workspaces)
	case l.PoolMemoryMB > 0 && memory > l.PoolMemoryMB:
		return over("POOL_LIMIT_REACHED", "Pool limit reached.", memory, l.PoolMemoryMB)
	}
	return s.runningRoomLocked(nil)
}

// runningRoomLocked says whether one more may run.
func (s *Server) runningRoomLocked(but *machine) error {
	running := 0
	for _, m := range s.machines {
		if m != but && (m.state == "running" || m.state == "creating" || m.state == "starting") {
			running++
		}
	}
	if max := s.cfg.Limits.Running; max > 0 && running >= max {
		return &apiError{status: s.cfg.Limits.RunningStatus, code: "RUNNING_POOL_REACHED", message: "Running pool limit reached.", current: running, max: max}
	}
	return nil
}

// boot carries out a creation.
func (s *Server) boot(m *machine, booted chan struct{}) {
	defer close(booted)
	step := func(phase string) bool {
		s.mu.Lock()
		on := m.state == "creating"
		if on {
			m.phase = phase
		}
		s.mu.Unlock()
		return on && sleep(s.ctx, s.cfg.Boot/3)
	}
	if !step("preparing") || !step("starting") {
		return
	}
	var err error
	if strings.Contains(m.image, "broken") {
		err = errors.New("the image does not boot")
	} else {
		err = s.power(m, "")
	}
	if err == nil && !step("initializing") {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.state != "creating" {
		return
	}
	if err != nil {
		m.state, m.phase = "failed", "failed"
		m.fault = refuse(http.StatusUnprocessableEntity, "CREATE_FAILED", "%v", err)
		return
	}
	m.phase = "ready"
	s.upLocked(m)
}

// power makes the host's workspace of a machine; snapshot: of the host, "": none.
func (s *Server) power(m *machine, snapshot string) error {
	w, err := s.host.Create(s.ctx, provider.CreateRequest{Token: m.token, Owner: "obliensim", Agent: "machine", Spec: provider.Spec{Snapshot: snapshot}})
	for err == nil && !w.Ready {
		if !sleep(s.ctx, time.Millisecond) {
			return s.ctx.Err()
		}
		w, err = s.host.Get(s.ctx, w.ID)
	}
	if err != nil {
		return fmt.Errorf("the host: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.home = w.Home
	return nil
}

// upLocked is called when a machine was booted.
func (s *Server) upLocked(m *machine) {
	m.state, m.userStop, m.frozen = "running", false, false
	m.address++
	m.runtimeFrom = time.Now().Add(s.cfg.RuntimeLag)
	m.updated = time.Now()
}

// retry is POST …/provisioning/retry: the second try of a broken image succeeds.
func (s *Server) retry(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.fault == nil {
		return nil, refuse(http.StatusConflict, "conflict", "Nothing has failed")
	}
	m.image = strings.ReplaceAll(m.image, "broken", "mended")
	m.fault, m.state, m.phase = nil, "creating", "queued"
	booted := make(chan struct{})
	m.booted = booted
	s.goLocked(func() { s.boot(m, booted) })
	return object{"success": true, "workspace": m.viewLocked()}, nil
}

// find returns the machine of an id or slug that the caller may see.
func (s *Server) find(c *call, idOrSlug string) (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.machines[idOrSlug]
	for i := 0; m == nil && i < len(s.order); i++ {
		if s.order[i].slug == idOrSlug {
			m = s.order[i]
		}
	}
	if m == nil || !s.sees(c.scope, m) {
		return nil, notFound()
	}
	return m, nil
}

func (s *Server) get(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return object{"success": true, "workspace": m.viewLocked()}, nil
}

// list is GET /workspace: the newest first, page by page.
func (s *Server) list(c *call) (any, error) {
	query := c.URL.Query()
	page, _ := strconv.Atoi(query.Get("page"))
	limit, _ := strconv.Atoi(query.Get("limit"))
	set(&page, 1)
	set(&limit, 20)
	limit = min(max(limit, 1), s.cfg.PageMax)
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []object
	for _, m := range slices.Backward(s.order) {
		ns := query.Get("namespace")
		if (s.sees(c.scope, m) || ns != "" && ns == m.namespace) && (ns == "" || ns == m.namespace) &&
			(query.Get("mode") == "" || query.Get("mode") == m.mode) && (query.Get("status") == "" || query.Get("status") == m.state) {
			all = append(all, m.viewLocked())
		}
	}
	from := min((page-1)*limit, len(all))
	part := all[from:min(from+limit, len(all))]
	return object{"success": true, "workspaces": append([]object{}, part...), "total": len(all), "page": page, "limit": limit}, nil
}

func (s *Server) update(c *call, m *machine) (any, error) {
	var body struct {
		Name   string
		Config object
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if body.Name != "" {
		m.name = body.Name
	}
	for k, v := range body.Config {
		if m.config == nil {
			m.config = object{}
		}
		m.config[k] = v
	}
	return object{"success": true, "workspace": m.viewLocked()}, nil
}

// remove is DELETE /workspace/:id: it is accepted, and done in the background.
func (s *Server) remove(_ *call, m *machine) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(m)
	return object{"success": true, "accepted": true}, nil
}

func (s *Server) removeLocked(m *machine) {
	if m.state == "deleting" {
		return
	}
	m.state, m.phase, m.fault = "deleting", "deleting", nil
	m.disarmLocked()
	m.cutLocked()
	booted := m.booted
	s.goLocked(func() {
		<-booted
		err := context.Canceled
		for err != nil && sleep(s.ctx, s.cfg.Power) {
			if err = s.host.Delete(s.ctx, m.token); err == nil {
				err = s.awaitGone(s.ctx, m.token)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.dropLocked(m)
		}
	})
}

// dropLocked forgets a machine.
func (s *Server) dropLocked(m *machine) {
	if m.snapshot != "" {
		snapshot := m.snapshot
		s.goLocked(func() { _ = s.host.DeleteSnapshot(s.ctx, snapshot) })
	}
	delete(s.machines, m.id)
	s.order = slices.DeleteFunc(s.order, func(o *machine) bool { return o == m })
	for key, u := range s.keys {
		if u.id == m.id {
			delete(s.keys, key)
		}
	}
	s.revokeLocked(m)
}
