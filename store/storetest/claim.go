package storetest

import (
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// claim claims at most n tasks; ok is false when the Store has no line of its own.
func (f *fixture) claim(a store.Admission, n int) (claimed store.Claimed) {
	f.Helper()
	claimed, err := f.second.(store.Liner).ClaimBegin(f.Context(), a, n)
	f.must("ClaimBegin", err)
	if len(claimed.Begun) > n {
		f.Fatalf("%d tasks claimed, asked for %d", len(claimed.Begun), n)
	}
	for _, begun := range claimed.Begun {
		equal(f, "verdict", begun.Verdict, store.Admitted)
	}
	return claimed
}

// begunIDs are the tasks that were claimed.
func begunIDs(claimed store.Claimed) []string {
	ids := make([]string, len(claimed.Begun))
	for i, begun := range claimed.Begun {
		ids[i] = begun.Task.ID
	}
	return ids
}

// claimRules are for Stores with a line of their own.
func claimRules() []rule {
	rules := []rule{
		{"Order", "tasks are claimed by priority, then first come, first served; each is begun as Begin would", func(f *fixture) {
			low, high, next := f.task(), f.task(), f.task()
			low.Priority, high.Priority, next.Priority = 1, 5, 1
			f.submit(low, high)
			f.submit(next)
			list(f, "none asked for", begunIDs(f.claim(f.offer(), 0)))
			first := f.claim(f.offer(), 1)
			list(f, "first", begunIDs(first), high.ID)
			list(f, "rest", begunIDs(f.claim(f.offer(), 5)), low.ID, next.ID)
			list(f, "nothing left", begunIDs(f.claim(f.offer(), 5)))
			begun := first.Begun[0]
			equal(f, "payload", string(begun.Task.Payload), "payload of "+high.ID)
			same(f, "task", []any{begun.Task.State, begun.Task.Attempt, begun.Lease.Fence, begun.Task.Path},
				[]any{store.StateStarting, 1, begun.Task.Fence, store.PathCold})
			row, _ := f.row(begun.Workspace.Token)
			f.sameRow(begun.Workspace, row)
			f.sameTask(f.get(high.ID), begun.Task)
			f.history(high.ID)
			f.succeed(begun.Lease)
		}},
		{"Agents", "only tasks of agents with a Plan are claimed", func(f *fixture) {
			f.queued()
			other := f.task()
			other.Agent = "other"
			f.submit(other)
			list(f, "claimed", begunIDs(f.claim(f.offer(f.plan("other"), f.plan("third")), 5)), other.ID)
		}},
		{"NotInLine", "what ended, or was begun by name, is not claimed; what goes back in line is", func(f *fixture) {
			ended, named, again := f.queued(), f.queued(), f.queued()
			f.must("End", f.s.End(f.Context(), ended, canceled))
			run := f.begin(f.offer(), named)
			first := f.claim(f.offer(), 5)
			list(f, "claimed", begunIDs(first), again)
			f.requeue(first.Begun[0].Lease)
			f.requeue(run.Lease)
			list(f, "claimed again", begunIDs(f.claim(f.offer(), 5)), again, named)
		}},
		{"Due", "what is not due is passed over; Next says when the first of it is", func(f *fixture) {
			late, later, now := f.task(), f.task(), f.task()
			late.NotBefore, later.NotBefore = time.Now().Add(f.h.Unit), time.Now().Add(time.Hour)
			f.submit(later, late, now)
			list(f, "claimed", begunIDs(f.claim(f.offer(), 1)), now.ID)
			if next := f.claim(f.offer(), 1).Next; !next.IsZero() && next.Sub(late.NotBefore).Abs() > time.Millisecond {
				f.Errorf("next %v, want %v", next, late.NotBefore)
			}
			f.ended()
			claimed := f.claim(f.offer(), 5)
			list(f, "claimed", begunIDs(claimed), late.ID)
			if next := claimed.Next; !next.IsZero() && next.Sub(later.NotBefore).Abs() > time.Millisecond {
				f.Errorf("next %v, want %v", next, later.NotBefore)
			}
		}},
		{"RetryDue", "a task that goes back in line is claimed when its Due has come", func(f *fixture) {
			f.queued()
			run := f.claim(f.offer(), 1).Begun[0]
			f.finish(store.Outcome{
				Lease: run.Lease, State: store.StateQueued, Due: time.Now().Add(f.h.Unit), Workspace: store.DisposeGone,
			})
			f.ended()
			again := f.claim(f.offer(), 1)
			list(f, "claimed", begunIDs(again), run.Task.ID)
			equal(f, "generation", again.Begun[0].Task.Generation, 2)
		}},
		{"Held", "what is held is passed over; Next is not after the end of the hold", func(f *fixture) {
			f.queued()
			other := f.submit(f.tasksOf("another", 1)...)[0]
			until := time.Now().Add(time.Hour)
			f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Tenant: tenant, Reason: "r", Until: until}))
			list(f, "claimed", begunIDs(f.claim(f.offer(), 1)), other)
			claimed := f.claim(f.offer(), 5)
			list(f, "claimed", begunIDs(claimed))
			if next := claimed.Next; !next.IsZero() && next.Sub(until).Abs() > time.Millisecond {
				f.Errorf("next %v, want %v", next, until)
			}
			f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Tenant: tenant}))
			equal(f, "claimed", len(f.claim(f.offer(), 5).Begun), 1)
		}},
		{"Expired", "what is too late is finished as expired, and not claimed", func(f *fixture) {
			late := f.task()
			late.NotAfter = time.Now().Add(-time.Hour)
			f.submit(late)
			id := f.queued()
			list(f, "claimed", begunIDs(f.claim(f.offer(), 1)), id)
			equal(f, "state", f.get(late.ID).State, store.StateExpired)
			f.history(late.ID)
		}},
		{"Full", "a tenant at any of its limits never blocks another, and is served again as soon as it holds less", func(f *fixture) {
			for _, l := range []store.TenantLimits{{Concurrent: 2}, {CPU: 2}, {MemoryMB: 200}} {
				a := func() store.Admission { return f.limited(store.Limits{Tenant: l}) }
				full := f.submit(f.tasksOf("full", 20)...)
				runs := f.claim(a(), 10).Begun
				equal(f, "runs of the full tenant", len(runs), 2)
				others := f.submit(f.tasksOf(f.id("another"), 2)...)
				claimed := f.claim(a(), 10)
				list(f, "claimed", begunIDs(claimed), others...)
				f.succeed(runs[0].Lease)
				again := f.claim(a(), 10)
				list(f, "claimed", begunIDs(again), full[2])
				f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), "full", &store.TenantLimits{Concurrent: 3}))
				more := f.claim(a(), 10)
				list(f, "claimed with more", begunIDs(more), full[3])
				f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), "full", nil))
				equal(f, "claimed without limits", len(f.claim(f.offer(), 3).Begun), 3)
				equal(f, "claimed with limits", len(f.claim(a(), 3).Begun), 0)
				f.drain()
			}
		}},
		{"FullAgent", "an agent at its limit never blocks another", func(f *fixture) {
			f.submit(f.tasksOf(tenant, 5)...)
			other := f.task()
			other.Agent = "other"
			f.submit(other)
			p := f.plan(agent)
			p.Concurrent = 1
			first := f.claim(f.offer(p, f.plan("other")), 1).Begun[0]
			list(f, "claimed", begunIDs(f.claim(f.offer(p, f.plan("other")), 5)), other.ID)
			f.succeed(first.Lease)
			equal(f, "claimed", len(f.claim(f.offer(p), 5).Begun), 1)
		}},
		{"SizeOfAgent", "a tenant whose big agent does not fit any more still gets its small one", func(f *fixture) {
			big := f.task()
			big.Agent = "big"
			f.submit(big)
			small := f.queued()
			p, limits := f.plan("big"), store.Limits{Tenant: store.TenantLimits{CPU: 3}}
			p.Resources.CPU = 4
			for range 2 {
				list(f, "claimed", begunIDs(f.claim(f.limited(limits, p), 5)))
				list(f, "claimed", begunIDs(f.claim(f.limited(limits, p, f.plan(agent)), 5)), small)
				small = f.queued()
			}
			list(f, "claimed", begunIDs(f.claim(f.limited(limits, f.plan(agent)), 5)), small)
		}},
		{"Weights", "tenants are served in the ratio of their weights, whatever each has in line", func(f *fixture) {
			weights := map[string]int{"one": 1, "two": 2, "five": 5}
			for name, weight := range weights {
				f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), name, &store.TenantLimits{Weight: weight}))
			}
			f.submit(f.tasksOf("one", 80)...)
			f.submit(f.tasksOf("two", 40)...)
			f.submit(f.tasksOf("five", 60)...)
			served := map[string]int{}
			for i := range 80 {
				begun := f.claim(f.offer(), 1).Begun
				if len(begun) != 1 {
					f.Fatal("nothing to claim")
				}
				served[begun[0].Task.Tenant]++
				for name, weight := range weights {
					if want := float64(i+1) * float64(weight) / 8; served[name] < int(want)-2 || served[name] > int(want)+2 {
						f.Errorf("after %d claims %s was served %d times, want about %.1f", i+1, name, served[name], want)
					}
				}
			}
		}},
		{"Crowd", "a tenant's long line does not delay one who comes later", func(f *fixture) {
			f.submit(f.tasksOf("crowd", 100)...)
			equal(f, "claimed", len(f.claim(f.offer(), 5).Begun), 5)
			id := f.queued()
			ids := begunIDs(f.claim(f.offer(), 2))
			if ids[0] != id && ids[1] != id {
				f.Errorf("claimed %q; %s has to wait for the crowd", ids, id)
			}
		}},
		{"AccountFull", "nothing passes a task that the account keeps waiting if it needs the same scarce thing", func(f *fixture) {
			limits := store.Limits{CPU: 4}
			early := []store.Begun{f.startFor("early"), f.startFor("early")}
			big := f.task()
			big.Agent = "big"
			f.submit(big)
			small := f.submit(f.tasksOf("another", 1)...)[0]
			p := f.plan("big")
			p.Resources = provider.Resources{CPU: 3}
			list(f, "claimed", begunIDs(f.claim(f.limited(limits, p, f.plan(agent)), 5)))
			for _, run := range early {
				f.succeed(run.Lease)
			}
			list(f, "claimed", begunIDs(f.claim(f.limited(limits, p, f.plan(agent)), 5)), big.ID, small)
		}},
		{"Evict", "at the account's cap spares are evicted for what could run, longest idle first, and no more", func(f *fixture) {
			limits := store.Limits{Workspaces: 5, Tenant: store.TenantLimits{Concurrent: 2}}
			var spares []string
			for range 4 {
				w := f.spare()
				w.Agent = "other"
				spares = append(spares, f.put(store.Lease{}, w).Token)
				f.h.Wait(f.h.Unit)
			}
			f.submit(f.tasksOf(tenant, 6)...) // one fits, a second may run too, the others may not
			claimed := f.claim(f.limited(limits), 6)
			equal(f, "claimed", len(claimed.Begun), 1)
			var evicted []string
			for _, w := range claimed.Evicted {
				equal(f, "intent", w.Intent, store.IntentDelete)
				evicted = append(evicted, w.Token)
			}
			list(f, "evicted", evicted, spares[0])
			f.unchanged("another claim", func() {
				claimed := f.claim(f.limited(limits), 6)
				same(f, "claimed", []any{len(claimed.Begun), len(claimed.Evicted)}, []any{0, 0})
			})
			f.gone(store.Lease{}, spares[0])
			claimed = f.claim(f.limited(limits), 6)
			same(f, "claimed", []any{len(claimed.Begun), len(claimed.Evicted)}, []any{1, 0})
		}},
		{"TakeOwnSpare", "a task that finds a spare of its own needs no room of the account", func(f *fixture) {
			limits := store.Limits{Workspaces: 1}
			w := f.put(store.Lease{}, f.spare())
			f.queued()
			claimed := f.claim(f.limited(limits), 5)
			same(f, "claimed", []any{len(claimed.Begun), len(claimed.Evicted)}, []any{1, 0})
			equal(f, "member", claimed.Begun[0].Workspace.Token, w.Token)
		}},
		{"ManyFull", "many tenants at their cap are passed over", func(f *fixture) {
			limits := store.Limits{Tenant: store.TenantLimits{Concurrent: 1}}
			const n = 40
			for i := range n {
				f.submit(f.tasksOf(fmt.Sprint("tenant", i), 2)...)
			}
			for got := 0; got < n; {
				begun := f.claim(f.limited(limits), 7).Begun
				if len(begun) == 0 {
					f.Fatalf("only %d tenants were served", got)
				}
				got += len(begun)
			}
			same(f, "claimed", []any{len(f.claim(f.limited(limits), 7).Begun)}, []any{0})
			id := f.queued()
			list(f, "claimed", begunIDs(f.claim(f.limited(limits), 7)), id)
		}},
	}
	for i, r := range rules {
		rules[i].test = func(f *fixture) {
			if _, ok := f.s.(store.Liner); ok {
				r.test(f)
			}
		}
	}
	return rules
}

// drain finishes all runs and ends all that waits.
func (f *fixture) drain() {
	f.Helper()
	for {
		left := f.query(store.TaskQuery{States: []store.State{store.StateQueued, store.StateStarting, store.StateRunning}})
		if len(left) == 0 {
			return
		}
		for _, t := range left {
			if t.State.Live() {
				f.succeed(store.Lease{Task: t.ID, Fence: t.Fence})
			} else {
				f.must("End", f.s.End(f.Context(), t.ID, canceled))
			}
		}
	}
}
