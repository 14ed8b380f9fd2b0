package storetest

import (
	"time"

	"github.com/freshet-dev/freshet/store"
)

func operatorRules() []rule {
	return []rule{
		{"Hold", "a hold stops an agent, a tenant, one agent for one tenant, or all, until it is lifted; runs go on", func(f *fixture) {
			running := f.start()
			for _, h := range []store.Hold{{}, {Agent: agent}, {Tenant: tenant}, {Agent: agent, Tenant: tenant}} {
				h.Reason = "maintenance"
				id := f.queued()
				f.must("SetHold", f.s.SetHold(f.Context(), h))
				answer := f.verdict(store.Held, f.offer(), id)
				if answer.Hold == nil {
					f.Fatal("no hold is named")
				}
				same(f, "hold", []any{answer.Hold.Agent, answer.Hold.Tenant, answer.Hold.Reason, answer.Hold.Since.IsZero(), answer.Hold.Until.IsZero()},
					[]any{h.Agent, h.Tenant, h.Reason, false, true})
				u := f.usage(tenant, agent)
				if u.Hold == nil || u.Hold.Reason != h.Reason {
					f.Errorf("usage shows hold %+v", u.Hold)
				}
				equal(f, "state", f.get(id).State, store.StateQueued)

				// Others are held by it only if it says so.
				other := f.task()
				other.Agent, other.Tenant = "other", "another"
				f.submit(other)
				want := store.Admitted
				if h.Agent == "" && h.Tenant == "" {
					want = store.Held
				}
				f.verdict(want, f.offer(f.plan("other")), other.ID)
				equal(f, "hold of others", f.usage("another", "other").Hold != nil, want == store.Held)
				f.running(running.Lease)

				h.Reason = ""
				for range 2 {
					f.must("SetHold", f.s.SetHold(f.Context(), h))
				}
				equal(f, "lifted", f.usage(tenant, agent).Hold == nil, true)
				f.begin(f.offer(), id)
			}
		}},
		{"HoldPair", "a hold of one agent for one tenant leaves that agent's other tenants and that tenant's other agents alone", func(f *fixture) {
			f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Agent: agent, Tenant: tenant, Reason: "r"}))
			f.startFor("another")
			other := f.task()
			other.Agent = "other"
			f.submit(other)
			f.begin(f.offer(f.plan("other")), other.ID)
		}},
		{"HoldUntil", "a hold ends by itself when its Until has passed", func(f *fixture) {
			id := f.queued()
			f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Reason: "r", Until: time.Now().Add(time.Hour)}))
			f.verdict(store.Held, f.offer(), id)
			f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Reason: "r", Until: time.Now().Add(f.h.Unit)}))
			f.ended()
			equal(f, "hold", f.usage(tenant, agent).Hold == nil, true)
			f.begin(f.offer(), id)
		}},
		{"HoldSince", "Since is when the hold began, whatever is changed of it later", func(f *fixture) {
			f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Reason: "one", Since: time.Unix(1, 0)}))
			first := f.usage(tenant, agent).Hold
			f.h.Wait(f.h.Unit)
			f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Reason: "two"}))
			second := f.usage(tenant, agent).Hold
			same(f, "hold", []any{second.Reason, second.Since.Equal(first.Since), first.Since.Year() > 1999}, []any{"two", true, true})
		}},
		{"Usage", "Usage counts what is held and waits, for the tenant, the agent and the account", func(f *fixture) {
			a := f.start()
			f.startFor("another")
			f.put(store.Lease{}, f.spare())
			f.submit(f.tasksOf(tenant, 2)...)
			f.submit(f.tasksOf("third", 3)...)
			limits := store.Limits{Workspaces: 9, Tenant: store.TenantLimits{Concurrent: 4}}
			u, err := f.second.Usage(f.Context(), &limits, tenant, agent)
			f.must("Usage", err)
			of := func(n int) store.Amount { return store.Amount{Workspaces: n, CPU: float64(n), MemoryMB: 100 * n} }
			same(f, "usage", []any{u}, []any{store.Usage{
				Limits: limits, TenantLimits: limits.Tenant, Account: of(3), Tenant: of(1), Agent: of(2), Queued: 5, TenantQueued: 2,
			}})
			f.succeed(a.Lease)
			u = f.usage(tenant, agent)
			same(f, "usage", []any{u.Account, u.Tenant, u.Agent}, []any{of(2), of(0), of(1)})
			u = f.usage("unknown", "unknown")
			same(f, "usage of nobody", []any{u.Account, u.Tenant, u.Agent, u.TenantQueued}, []any{of(2), of(0), of(0), 0})
		}},
		{"Counts", "Counts counts tasks and workspaces of each agent", func(f *fixture) {
			counts := func() map[string]store.Counts {
				f.Helper()
				counts, err := f.second.Counts(f.Context())
				f.must("Counts", err)
				return counts
			}
			equal(f, "agents", len(counts()), 0)
			oldest := f.queued()
			f.h.Wait(f.h.Unit)
			f.queued()
			f.start()
			running := f.start()
			f.running(running.Lease)
			ended := f.start()
			f.finish(store.Outcome{Lease: ended.Lease, State: store.StateFailed, Workspace: store.DisposeDelete})
			f.paused(false)
			f.paused(true)
			for _, change := range []func(*store.Workspace){
				func(*store.Workspace) {},
				func(w *store.Workspace) { w.Intent = store.IntentDelete },
				func(w *store.Workspace) { w.State, w.Intent = store.WorkspaceNew, store.IntentCreate },
				func(w *store.Workspace) { w.Agent = "other" },
			} {
				w := f.spare()
				change(&w)
				f.put(store.Lease{}, w)
			}
			got := counts()
			c := got[agent]
			equal(f, "oldest", c.OldestQueued.Equal(f.get(oldest).Created), true)
			c.OldestQueued = time.Time{}
			equal(f, "counts", c, store.Counts{Queued: 2, Starting: 1, Running: 1, Warm: 1, Paused: 2, Deleting: 2, New: 1})
			equal(f, "counts of the other agent", got["other"], store.Counts{Warm: 1})
			f.must("End", f.s.End(f.Context(), oldest, canceled))
			equal(f, "oldest", counts()[agent].OldestQueued.After(f.get(oldest).Created), true)
		}},
	}
}
