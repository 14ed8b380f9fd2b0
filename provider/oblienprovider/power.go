package oblienprovider

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Pause knows three kinds: Frozen is Oblien's pause, Hibernated a snapshot after which the machine stops, DiskOnly a stop.
func (p *Provider) Pause(ctx context.Context, id string, kind provider.PauseKind) error {
	if !slices.Contains(p.Capabilities().PauseKinds, kind) {
		return fail("pause", provider.ErrInvalid, "no pause of kind %q", kind)
	}
	m, err := p.fetch(ctx, "pause", id)
	if err != nil {
		return err
	}
	switch state, _, _ := m.state(); state {
	case provider.Paused:
		return nil
	case provider.Running:
	default:
		return fail("pause", provider.ErrConflict, "workspace is %s", state)
	}
	switch kind {
	case provider.Hibernated:
		err = p.power(ctx, "pause", id, "snapshot", map[string]string{"after": "stop"})
	case provider.DiskOnly:
		err = p.power(ctx, "pause", id, "stop", nil)
	default:
		err = p.power(ctx, "pause", id, "pause", nil)
	}
	p.doorways.shut(id)
	if !errors.Is(err, provider.ErrConflict) {
		return err
	}
	// Somebody else may have been quicker.
	if m, getErr := p.fetch(ctx, "pause", id); getErr == nil {
		if state, _, _ := m.state(); state == provider.Paused {
			return nil
		}
	}
	return err
}

// Resume wakes a machine in the way that fits how it sleeps.
func (p *Provider) Resume(ctx context.Context, id string) (warm bool, err error) {
	m, err := p.fetch(ctx, "resume", id)
	if err != nil {
		return false, err
	}
	state, _, why := m.state()
	cold := false
	switch {
	case state == provider.Running:
		return p.survived(ctx, id)
	case state != provider.Paused:
		return false, fail("resume", provider.ErrConflict, "workspace is %s %s", state, why)
	}
	switch m.live() {
	case "paused":
		err = p.power(ctx, "resume", id, "resume", nil)
	case "suspended", "hibernated":
		err = p.power(ctx, "resume", id, "restore", nil)
	default:
		cold = true
		err = p.power(ctx, "resume", id, "start", nil)
	}
	p.doorways.shut(id) // the machine may have come up elsewhere, and the token holds its address
	if errors.Is(err, provider.ErrConflict) {
		if m, getErr := p.fetch(ctx, "resume", id); getErr == nil {
			if state, _, _ := m.state(); state == provider.Running { // somebody else was quicker
				err = nil
			}
		}
	}
	if err != nil || cold {
		return false, err
	}
	return p.survived(ctx, id)
}

// survived says whether all processes that have not ended still live. Oblien may drop saved memory and boot afresh.
func (p *Provider) survived(ctx context.Context, id string) (bool, error) {
	for tries := 0; ; tries++ {
		err := p.arrive(ctx, id)
		if err == nil {
			_, code, runErr := p.script(ctx, id, "resume", surveyScript)
			if err = runErr; err == nil {
				return code == 0, nil
			}
		}
		// The machine runs, only its runtime is not there yet: that is no failure of the resume.
		if errors.Is(err, provider.ErrNotFound) || tries >= 60 || !pause(ctx, min(time.Second, 50*time.Millisecond<<min(tries, 10))) {
			if ctx.Err() != nil {
				return false, &provider.Error{Op: "resume", Class: provider.ErrAmbiguous, Err: ctx.Err()}
			}
			return false, err
		}
	}
}

func (p *Provider) power(ctx context.Context, op, id, verb string, body any) error {
	return p.do(ctx, request{op: op, method: http.MethodPost, path: at(id, verb), body: body, effect: true, limit: powerTime}, nil)
}

// KeepAlive pings the workspace. The first time it also sets the time-out and reads it back: Oblien has had builds that
// did not take it at the create.
func (p *Provider) KeepAlive(ctx context.Context, id string, ttl time.Duration) error {
	seconds := max(1, int(math.Ceil(ttl.Seconds())))
	p.verified.mu.Lock()
	known := p.verified.switches[id]
	p.verified.mu.Unlock()
	if !known {
		var l struct {
			lifecycle
			Inner *lifecycle `json:"lifecycle"`
		}
		if err := p.do(ctx, request{op: "keepalive", method: http.MethodGet, path: at(id, "lifecycle")}, &l); err != nil {
			return err
		}
		found := l.lifecycle
		if l.Inner != nil {
			found = *l.Inner
		}
		if found.Action != "remove" || found.expires().IsZero() {
			body := map[string]any{"ttl": seconds, "ttl_action": "remove"}
			if err := p.do(ctx, request{op: "keepalive", method: http.MethodPost, path: at(id, "lifecycle", "temporary"), body: body, effect: true}, nil); err != nil {
				return err
			}
		}
	}
	err := p.do(ctx, request{op: "keepalive", method: http.MethodPost, path: at(id, "ping"), body: map[string]int{"ttl_seconds": seconds}, effect: true}, nil)
	if err == nil && !known {
		p.verified.mu.Lock()
		p.verified.switches[id] = true
		p.verified.mu.Unlock()
	}
	return err
}

// Resize changes a workspace that is paused as DiskOnly, which has the new size when it is resumed. One that runs would be
// booted anew by Oblien, and lose its processes: that is ErrInvalid.
func (p *Provider) Resize(ctx context.Context, id string, r provider.Resources) error {
	m, err := p.fetch(ctx, "resize", id)
	if err != nil {
		return err
	}
	switch state, _, _ := m.state(); {
	case state == provider.Running:
		return fail("resize", provider.ErrInvalid, "Oblien boots a workspace anew to resize it; pause it as %s first", provider.DiskOnly)
	case state != provider.Paused || m.live() != "stopped":
		return fail("resize", provider.ErrConflict, "workspace is %s", m.live())
	}
	body := map[string]any{"apply": false}
	if r.CPU > 0 {
		body["cpus"] = r.CPU
	}
	if r.MemoryMB > 0 {
		body["memory_mb"] = r.MemoryMB
	}
	if r.DiskMB > 0 {
		body["disk_size_mb"] = r.DiskMB
	}
	return p.do(ctx, request{op: "resize", method: http.MethodPut, path: at(id, "resources"), body: body, effect: true, limit: powerTime}, nil)
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
