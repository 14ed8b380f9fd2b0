package freshet

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// queueLine does with a Queue and a Store what a store.Liner does in one step: claim tickets, begin their runs, and give
// back those that a limit or a hold keeps waiting. Whom it met at a limit it passes over, until a slot of theirs is freed
// or a sweep interval has passed: another process may have freed one.
type queueLine struct {
	*admitter
	batch  int          // tickets to claim at once: as many as lately could be begun
	looked time.Time    // when batch last grew although nothing could
	vain   atomic.Int32 // passes in a row that gave tickets back, which makes the line hint at work that is none

	mu      sync.Mutex // protects the fields below
	tenants map[string]bool
	agents  map[string]bool
	cleared time.Time
}

const (
	hintPause  = 100 * time.Millisecond
	leastBatch = 1
	deepest    = 64 // tickets to look at while the first ones cannot begin
)

func newQueueLine(a *admitter) *queueLine {
	return &queueLine{admitter: a, batch: leastBatch, tenants: map[string]bool{}, agents: map[string]bool{}}
}

func (l *queueLine) unskip(tenant, agent string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tenants, tenant)
	delete(l.agents, agent)
}

func (l *queueLine) unskipAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.tenants)
	clear(l.agents)
}

// skipped are those to pass over now; full: there are more of them than a claim can name.
func (l *queueLine) skipped(now time.Time) (tenants, agents []string, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.cleared) >= sweepInterval {
		clear(l.tenants)
		clear(l.agents)
		l.cleared = now
	}
	full = len(l.tenants) > queue.MaxSkip || len(l.agents) > queue.MaxSkip
	return slices.Collect(maps.Keys(l.tenants)), slices.Collect(maps.Keys(l.agents)), full
}

// skip passes over a tenant or an agent; false: neither, so everybody waits.
func (l *queueLine) skip(tenant, agent string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case tenant != "":
		l.tenants[tenant] = true
	case agent != "":
		l.agents[agent] = true
	default:
		return false
	}
	return true
}

// claim begins at most n runs. Without creates only spares are handed out, and an agent that has none is not at a limit.
func (l *queueLine) claim(ctx context.Context, plans []store.Plan, n int, creates bool) (got store.Claimed, err error) {
	limited := false
	defer func() {
		if !limited {
			l.vain.Store(0)
		}
		if now := time.Now(); len(got.Begun) == 0 && now.Sub(l.looked) >= pollInterval {
			l.looked, l.batch = now, min(2*l.batch, deepest) // perhaps something further back can begin
		}
	}()
	for len(got.Begun) < n {
		tenants, agents, full := l.skipped(time.Now())
		if full {
			return got, nil
		}
		size := min(l.batch, n-len(got.Begun))
		claims, err := l.queue.Claim(ctx, queue.ClaimRequest{
			Agents: l.names, N: size, Lease: ticketLease, SkipTenants: tenants, SkipAgents: agents,
		})
		if err != nil || len(claims) == 0 {
			return got, err
		}
		begins := make([]store.BeginRequest, len(claims))
		for i, c := range claims {
			begins[i] = store.BeginRequest{Task: c.Ticket.Task, Generation: c.Ticket.Generation}
		}
		begun, err := l.store.Begin(ctx, l.admission(plans, len(begins)), begins)
		if err != nil {
			l.release(ctx, claims, 0)
			return got, err
		}
		before := len(got.Begun)
		back, stop := l.sort(ctx, claims, begun, &got)
		if !creates {
			l.unskipAll()
			stop = stop || len(back) > 0
		}
		if len(back) > 0 {
			if !limited { // before the release, which is what the line hints at
				limited = true
				l.vain.Add(1)
			}
			l.release(ctx, back, 0)
			switch begun := len(got.Begun) - before; {
			case begun > 0:
				l.batch = min(2*begun, claimBatch)
			case !stop: // tenants at their limits, one after the other
				l.batch = min(2*l.batch, claimBatch)
			}
		} else {
			l.batch = min(2*l.batch, claimBatch)
		}
		if stop {
			return got, nil
		}
	}
	return got, nil
}

// sort does with each ticket what its verdict says. back are those to give back; stop: the account's limit or a hold
// stands in the way of everything.
func (l *queueLine) sort(ctx context.Context, claims []queue.Claim, begun []store.Begun, got *store.Claimed) (back []queue.Claim, stop bool) {
	var done []queue.Claim
	for i := range begun {
		b := &begun[i]
		switch b.Verdict {
		case store.Admitted:
			done = append(done, claims[i])
			got.Begun = append(got.Begun, *b)
		case store.NotYours:
			done = append(done, claims[i])
		case store.NotDue:
			l.release(ctx, claims[i:i+1], time.Until(b.Task.Due))
		case store.Limited:
			back = append(back, claims[i])
			stop = !l.skip(b.Limit.Tenant, b.Limit.Agent) || stop
			if b.Evicted != nil {
				got.Evicted = append(got.Evicted, *b.Evicted)
			}
		case store.Held:
			back = append(back, claims[i])
			stop = !l.skip(b.Hold.Tenant, b.Hold.Agent) || stop
		}
	}
	if len(done) > 0 {
		if err := l.queue.Done(ctx, done); err != nil {
			l.log.Warn("tickets left to their lease", "tickets", len(done), "err", err)
		}
	}
	return back, stop
}

func (l *queueLine) release(ctx context.Context, claims []queue.Claim, after time.Duration) {
	if len(claims) == 0 {
		return
	}
	if err := l.queue.Release(ctx, claims, max(after, 0)); err != nil {
		l.log.Warn("tickets left to their lease", "tickets", len(claims), "err", err)
	}
}
