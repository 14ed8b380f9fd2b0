package freshet

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// admitter claims tasks and begins their runs. It is the only one that does.
type admitter struct {
	*core
	woken  chan struct{}
	timer  *alarm
	plans  []store.Plan
	spares []store.Plan // the same without PathCold
	names  []string
	tokens []string // made, not used yet

	limited atomic.Bool // the last pass gave tickets back because of a limit or a hold
}

func newAdmitter(c *core) *admitter {
	a := &admitter{core: c, woken: make(chan struct{}, 1)}
	a.timer = newAlarm(a.wake)
	for name, ag := range c.agents {
		a.names = append(a.names, name)
		a.plans = append(a.plans, ag.plan)
		spare := ag.plan
		spare.Paths = slices.DeleteFunc(slices.Clone(spare.Paths), func(p store.Path) bool { return p == store.PathCold })
		a.spares = append(a.spares, spare)
	}
	return a
}

// wake says that there may be work or room.
func (a *admitter) wake() { poke(a.woken) }

// hinted is told by the line that there may be work. While tickets go back into the line because a limit is in use, the
// line's hints are of our own making, and are not followed at once.
func (a *admitter) hinted() {
	if a.limited.Load() {
		a.wakeAt(time.Now().Add(hintPause))
		return
	}
	a.wake()
}

const hintPause = 100 * time.Millisecond

// wakeAt wakes at a time to come.
func (a *admitter) wakeAt(t time.Time) { a.timer.at(t) }

func (a *admitter) loop(ctx context.Context) {
	defer a.timer.stop()
	failures := 0
	poll := time.NewTimer(pollInterval)
	defer poll.Stop()
	for {
		pause := pollInterval
		full, err := a.pass(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			a.log.Warn("claim failed", "err", err)
			pause = retryPause(failures)
			failures++
		case full && ctx.Err() == nil:
			failures = 0
			continue
		default:
			failures = 0
		}
		poll.Reset(pause)
		if failures > 0 { // hints do not hurry a store that fails
			select {
			case <-poll.C:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case <-a.woken:
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// pass claims once and launches what was begun; full: there may be more.
func (a *admitter) pass(ctx context.Context) (full bool, err error) {
	n, creates := a.pace.room(claimBatch)
	plans := a.plans
	if !creates {
		plans = a.spares
	}
	var got store.Claimed
	if liner, ok := a.store.(store.Liner); ok && a.queue == nil {
		got, err = liner.ClaimBegin(ctx, a.admission(plans, n), n)
	} else {
		got, err = a.claim(ctx, plans, n)
	}
	if err != nil {
		return false, err
	}
	now := time.Now()
	for i := range got.Begun {
		a.launch(&got.Begun[i], now, false)
	}
	for i := range got.Evicted {
		a.reap.delete(got.Evicted[i])
	}
	a.wakeAt(got.Next)
	if len(got.Begun) > 0 {
		runtime.Gosched() // what has begun goes first; another look at the line can wait
	}
	return len(got.Begun) >= n, nil
}

// admission is the offer for n runs. Tokens that a claim did not use serve the next one.
func (a *admitter) admission(plans []store.Plan, n int) store.Admission {
	if len(a.tokens) < n {
		a.tokens = append(a.tokens, newTokens(max(n, claimBatch)-len(a.tokens))...)
	}
	return a.offer(plans, a.tokens)
}

func (c *core) offer(plans []store.Plan, tokens []string) store.Admission {
	return store.Admission{
		Runner: c.runner, Lease: leaseTime, Owner: c.owner, Scope: c.scope, Limits: &c.cfg.Limits,
		Plans: plans, Tokens: tokens,
	}
}

// launch starts a run in a goroutine of its own.
func (a *admitter) launch(b *store.Begun, now time.Time, adopted bool) {
	if !adopted {
		a.spend(b)
	}
	r := newLiveRun(a.core, a.agents[b.Task.Agent], b, now, adopted)
	a.live.add(r)
	a.work.Go(r.main)
	a.hub.wake(b.Task.ID)
	if !adopted && b.Workspace.State != store.WorkspaceNew {
		a.pool.taken(&b.Workspace, now)
	}
	a.decided("admit", &b.Task, "path", b.Task.Path, "workspace", b.Workspace.Token, "fence", b.Lease.Fence)
}

// spend forgets a token that a claim has used.
func (a *admitter) spend(b *store.Begun) {
	for i, t := range a.tokens {
		if t == b.Workspace.Token {
			last := len(a.tokens) - 1
			a.tokens[i] = a.tokens[last]
			a.tokens = a.tokens[:last]
			return
		}
	}
}

// claim does with a Queue what a store.Liner does in one step. Tickets of tenants and agents at a limit go back to their
// place; the pass goes on without them.
func (a *admitter) claim(ctx context.Context, plans []store.Plan, n int) (got store.Claimed, err error) {
	req := queue.ClaimRequest{Agents: a.names, Lease: ticketLease}
	limited := false
	defer func() { a.limited.Store(limited) }()
	for len(got.Begun) < n && len(req.SkipTenants) < queue.MaxSkip && len(req.SkipAgents) < queue.MaxSkip {
		req.N = n - len(got.Begun)
		claims, err := a.queue.Claim(ctx, req)
		if err != nil || len(claims) == 0 {
			return got, err
		}
		begins := make([]store.BeginRequest, len(claims))
		for i, c := range claims {
			begins[i] = store.BeginRequest{Task: c.Ticket.Task, Generation: c.Ticket.Generation}
		}
		begun, err := a.store.Begin(ctx, a.admission(plans, len(begins)), begins)
		if err != nil {
			a.release(ctx, claims, 0)
			return got, err
		}
		back, full := a.sort(ctx, claims, begun, &req, &got)
		limited = limited || len(back) > 0
		a.limited.Store(limited)
		a.release(ctx, back, 0)
		if full {
			return got, nil
		}
	}
	return got, nil
}

// sort does with each ticket what its verdict says. back are those to give back; full: the account's limit stands in the way of everything.
func (a *admitter) sort(ctx context.Context, claims []queue.Claim, begun []store.Begun, req *queue.ClaimRequest, got *store.Claimed) (back []queue.Claim, full bool) {
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
			a.release(ctx, claims[i:i+1], time.Until(b.Task.Due))
		case store.Limited:
			back = append(back, claims[i])
			switch {
			case b.Limit.Tenant != "":
				req.SkipTenants = appendNew(req.SkipTenants, b.Limit.Tenant)
			case b.Limit.Agent != "":
				req.SkipAgents = appendNew(req.SkipAgents, b.Limit.Agent)
			default:
				full = true
			}
			if b.Evicted != nil {
				got.Evicted = append(got.Evicted, *b.Evicted)
			}
		case store.Held:
			back = append(back, claims[i])
			switch {
			case b.Hold.Tenant != "":
				req.SkipTenants = appendNew(req.SkipTenants, b.Hold.Tenant)
			case b.Hold.Agent != "":
				req.SkipAgents = appendNew(req.SkipAgents, b.Hold.Agent)
			default:
				full = true
			}
		}
	}
	if len(done) > 0 {
		if err := a.queue.Done(ctx, done); err != nil {
			a.log.Warn("tickets left to their lease", "tickets", len(done), "err", err)
		}
	}
	return back, full
}

func (a *admitter) release(ctx context.Context, claims []queue.Claim, after time.Duration) {
	if len(claims) == 0 {
		return
	}
	if err := a.queue.Release(ctx, claims, max(after, 0)); err != nil {
		a.log.Warn("tickets left to their lease", "tickets", len(claims), "err", err)
	}
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// decided records a decision with its inputs. The keys are documented in docs/operating.md.
func (c *core) decided(what string, t *store.Task, args ...any) {
	if !c.log.Enabled(context.Background(), debugLevel) {
		return
	}
	c.log.Debug("decision", append([]any{"decision", what, "task", t.ID, "agent", t.Agent, "tenant", t.Tenant, "attempt", t.Attempt}, args...)...)
}
