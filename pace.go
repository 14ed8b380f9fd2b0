package freshet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
	"golang.org/x/time/rate"
)

// pacer keeps creates at the pace that the provider states or answers with, and holds admissions back while the provider
// does not answer at all.
type pacer struct {
	*core
	stated rate.Limit

	mu      sync.Mutex // protects the fields below
	bucket  *rate.Limiter
	breaker policy.Breaker
	until   time.Time // no create before then: the provider asked for a pause
}

func newPacer(c *core) *pacer {
	p := &pacer{core: c, stated: rate.Inf}
	burst := 1
	if c.caps.CreatesPerSecond > 0 {
		p.stated = rate.Limit(c.caps.CreatesPerSecond)
		burst = max(c.caps.CreateBurst, 1)
	}
	p.bucket = rate.NewLimiter(p.stated, burst)
	return p
}

// room is how many of n may be admitted now: all, or one as a probe, or none.
func (p *pacer) room(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case !p.breaker.Tripped():
		return n
	case p.breaker.Open(now):
		p.admit.wakeAt(p.breaker.Until)
		return 0
	}
	p.breaker = p.breaker.Probed(now)
	return 1
}

// acquire waits for the right to one create. release is told how it ended.
func (p *pacer) acquire(ctx context.Context) (release func(error), err error) {
	for {
		p.mu.Lock()
		pause := time.Until(p.until)
		p.mu.Unlock()
		if pause <= 0 {
			break
		}
		if !wait(ctx, pause) {
			return nil, fmt.Errorf("%w: %w", errNothingMade, context.Cause(ctx))
		}
	}
	if p.stated != rate.Inf {
		if err := p.bucket.Wait(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", errNothingMade, orCause(ctx, err))
		}
	}
	return p.answered, nil
}

// answered learns from the outcome of a create.
func (p *pacer) answered(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil, errors.Is(err, provider.ErrInvalid), errors.Is(err, provider.ErrExists):
		if p.breaker.Tripped() {
			p.log.Info("provider answers again", "down_since", p.breaker.Since)
			p.admit.wake()
		}
		p.breaker = p.breaker.Succeeded()
	case errors.Is(err, provider.ErrRateLimited):
		if until := now.Add(provider.RetryAfter(err)); until.After(p.until) {
			p.until = until
		}
	case errors.Is(err, context.Canceled):
	default:
		was := p.breaker.Tripped()
		p.breaker = p.breaker.Failed(now, reasonOf(err), provider.RetryAfter(err))
		if p.breaker.Tripped() && !was {
			p.log.Warn("provider does not make workspaces", "since", p.breaker.Since, "reason", p.breaker.Reason)
		}
	}
}

// outage says since when the provider has been away, and why; "" when it is not.
func (p *pacer) outage() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.breaker.Tripped() {
		return ""
	}
	return fmt.Sprintf("%s since %s", p.breaker.Reason, p.breaker.Since.UTC().Format("15:04:05 UTC"))
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
