package freshet

import (
	"context"
	"runtime"
	"slices"
	"time"

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
	tokens []string   // made, not used yet
	line   *queueLine // nil: the Store keeps the line
}

func newAdmitter(c *core) *admitter {
	a := &admitter{core: c, woken: make(chan struct{}, 1)}
	a.timer = newAlarm(a.wake)
	if c.queue != nil {
		a.line = newQueueLine(a)
	}
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

// hinted is told by the line that there may be work.
func (a *admitter) hinted() {
	if a.line != nil {
		if vain := a.line.vain.Load(); vain > 0 {
			a.wakeAt(time.Now().Add(min(hintPause<<min(vain-1, 5), pollInterval)))
			return
		}
	}
	a.wake()
}

// freed is told that a run of this tenant and agent gave up its slot.
func (a *admitter) freed(tenant, agent string) {
	if a.line != nil {
		a.line.unskip(tenant, agent)
	}
	a.wake()
}

// changed is told that limits or holds have changed.
func (a *admitter) changed() {
	if a.line != nil {
		a.line.unskipAll()
	}
	a.wake()
}

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
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	n, creates := a.pace.room(claimBatch)
	plans := a.plans
	if !creates {
		plans = a.spares
	}
	var got store.Claimed
	if a.line != nil {
		got, err = a.line.claim(ctx, plans, n, creates)
	} else {
		got, err = a.store.(store.Liner).ClaimBegin(ctx, a.admission(plans, n), n)
	}
	if err != nil {
		a.tokens = nil // some may have been used
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
		if creates {
			a.pace.probed()
		}
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

// decided records a decision with its inputs. The keys are documented in docs/operating.md.
func (c *core) decided(what string, t *store.Task, args ...any) {
	if !c.log.Enabled(context.Background(), debugLevel) {
		return
	}
	c.log.Debug("decision", append([]any{"decision", what, "task", t.ID, "agent", t.Agent, "tenant", t.Tenant, "attempt", t.Attempt}, args...)...)
}
