package freshet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
)

// pacer keeps creates at the pace that the provider states and answers with, and holds them back while it does not answer
// at all or has no more to give.
type pacer struct {
	*core
	turn   chan struct{} // holds a token while one create waits for its time; the others wait for their turn
	flight chan struct{} // holds a token for each create under way

	mu      sync.Mutex // protects the fields below
	pace    policy.Pace
	breaker policy.Breaker
	full    policy.Breaker // the account's quota is in use
}

// createsInFlight bounds the calls that are under way at once.
const createsInFlight = 256

func newPacer(c *core) *pacer {
	return &pacer{
		core: c, turn: make(chan struct{}, 1), flight: make(chan struct{}, createsInFlight),
		pace: policy.NewPace(c.caps.CreatesPerSecond, c.caps.CreateBurst),
	}
}

// room is how many of n runs may be admitted now, and whether they may need a new workspace. While the provider makes
// none, what there is is handed out, and now and then one run goes as a probe.
func (p *pacer) room(n int) (most int, creates bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	b := &p.breaker
	if !b.Tripped() {
		b = &p.full
	}
	switch {
	case !b.Tripped():
		return n, true
	case b.Open(now):
		p.admit.wakeAt(b.Until)
		return n, false
	}
	return 1, true
}

// probed is told that a create is on its way: while the provider makes none, the next one waits for its answer.
func (p *pacer) probed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.breaker, p.full = p.breaker.Probed(now), p.full.Probed(now)
}

// acquire waits for the right to one create. answered is to be told how it ended.
func (p *pacer) acquire(ctx context.Context) (answered func(error), err error) {
	refuse := func() error { return fmt.Errorf("%w: %w", errNothingMade, context.Cause(ctx)) }
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, refuse()
	}
	defer func() { <-p.turn }()
	for {
		p.mu.Lock()
		now := time.Now()
		pause := p.pace.Wait(now)
		if pause <= 0 {
			p.pace = p.pace.Sent(now)
		}
		p.mu.Unlock()
		if pause <= 0 {
			break
		}
		if !wait(ctx, pause) {
			return nil, refuse()
		}
	}
	select {
	case p.flight <- struct{}{}:
	case <-ctx.Done():
		return nil, refuse()
	}
	sent := time.Now()
	return func(err error) { p.answered(err, sent) }, nil
}

// answered learns from the outcome of a create.
func (p *pacer) answered(err error, sent time.Time) {
	<-p.flight
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil, errors.Is(err, provider.ErrInvalid), errors.Is(err, provider.ErrExists):
		if p.breaker.Tripped() || p.full.Tripped() {
			p.log.Info("provider makes workspaces again")
			p.admit.wake()
		}
		p.pace, p.breaker, p.full = p.pace.Answered(now), p.breaker.Succeeded(), p.full.Succeeded()
	case errors.Is(err, provider.ErrRateLimited):
		p.pace = p.pace.Limited(now, sent)
	case errors.Is(err, provider.ErrQuota):
		p.breaker = p.breaker.Succeeded()
		p.full = p.full.Tripping(now, reasonOf(err))
	case errors.Is(err, context.Canceled):
	default:
		was := p.breaker.Tripped()
		p.breaker = p.breaker.Failed(now, sent, reasonOf(err), provider.RetryAfter(err))
		if p.breaker.Tripped() && !was {
			p.log.Warn("provider does not make workspaces", "since", p.breaker.Since, "reason", p.breaker.Reason)
		}
	}
}

// freed says that something was deleted: where the quota was in use, there is room now.
func (p *pacer) freed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full = p.full.Succeeded()
}

// outage says since when the provider has been away, and why; "" when it is not.
func (p *pacer) outage() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.breaker
	if !b.Tripped() {
		b = p.full
	}
	if !b.Tripped() {
		return ""
	}
	return fmt.Sprintf("%s since %s", b.Reason, b.Since.UTC().Format("15:04:05 UTC"))
}

// excuse is what a task is told whose workspace could not be had.
func (p *pacer) excuse(err error) string {
	if text := p.outage(); text != "" {
		return text
	}
	return reasonOf(err)
}

func (p *pacer) failures() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.breaker.Failures
}

// reasonOf says in words that a product can show its user why no workspace could be had.
func reasonOf(err error) string {
	for _, r := range []struct {
		class error
		words string
	}{
		{provider.ErrQuota, "provider's quota in use"},
		{provider.ErrNoCapacity, "provider has no capacity"},
		{provider.ErrRateLimited, "provider limits the rate of requests"},
		{provider.ErrSuspended, "provider account suspended"},
		{provider.ErrUnauthorized, "provider refuses the credentials"},
		{ErrWorkspaceLost, "workspace was lost before it could start"},
		{ErrShutdown, "its dispatcher is shutting down"},
	} {
		if errors.Is(err, r.class) {
			return r.words
		}
	}
	return "provider unavailable"
}
