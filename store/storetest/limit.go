package storetest

import (
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

func limitRules() []rule {
	concurrency := []struct {
		name, limit   string
		limits        store.Limits
		agents        int // Plan.Concurrent
		fit           int // runs of one core and 100 MB
		max, inUse    float64
		tenant, agent string // whose the error says that it is
	}{
		{"Workspaces", store.LimitWorkspaces, store.Limits{Workspaces: 2}, 0, 2, 2, 2, "", ""},
		{"CPU", store.LimitCPU, store.Limits{CPU: 2.5}, 0, 2, 2.5, 2, "", ""},
		{"Memory", store.LimitMemory, store.Limits{MemoryMB: 399}, 0, 3, 399, 300, "", ""},
		{"TenantConcurrent", store.LimitTenantConcurrent, store.Limits{Tenant: store.TenantLimits{Concurrent: 2}}, 0, 2, 2, 2, tenant, ""},
		{"TenantCPU", store.LimitTenantCPU, store.Limits{Tenant: store.TenantLimits{CPU: 3}}, 0, 3, 3, 3, tenant, ""},
		{"TenantMemory", store.LimitTenantMemory, store.Limits{Tenant: store.TenantLimits{MemoryMB: 250}}, 0, 2, 250, 200, tenant, ""},
		{"AgentConcurrent", store.LimitAgentConcurrent, store.Limits{}, 2, 2, 2, 2, "", agent},
	}
	var rules []rule
	for _, c := range concurrency {
		rules = append(rules, rule{c.name, "so many runs are admitted as the limit allows; the next is Limited, by its name", func(f *fixture) {
			p := f.plan(agent)
			p.Concurrent = c.agents
			offer := func() store.Admission { return f.limited(c.limits, p) }
			ids := f.submit(f.tasksOf(tenant, c.fit+2)...)
			begun := f.try(offer(), ids...)
			for i, answer := range begun {
				want := store.Admitted
				if i >= c.fit {
					want = store.Limited
				}
				equal(f, "verdict", answer.Verdict, want)
			}
			f.unchanged("a Begin at the limit", func() {
				limit := f.limit(f.verdict(store.Limited, offer(), ids[c.fit]).Limit, c.limit)
				same(f, "error", []any{limit.Tenant, limit.Agent, limit.Max, limit.InUse}, []any{c.tenant, c.agent, c.max, c.inUse})
			})

			// Others have room unless the limit is all's.
			other := f.submit(f.tasksOf("another", 1)...)[0]
			if c.tenant != "" {
				f.begin(offer(), other)
			} else {
				f.verdict(store.Limited, offer(), other)
			}

			// The slot is free when the workspace is gone, and no sooner.
			f.finish(store.Outcome{Lease: begun[0].Lease, State: store.StateSucceeded, Workspace: store.DisposeDelete})
			f.verdict(store.Limited, offer(), ids[c.fit])
			f.gone(store.Lease{}, begun[0].Workspace.Token)
			f.begin(offer(), ids[c.fit])
			f.verdict(store.Limited, offer(), ids[c.fit+1])
		}})
	}
	return append(rules,
		rule{"Thousandths", "cores are counted in thousandths: 0.1 three times is 0.3", func(f *fixture) {
			p := f.plan(agent)
			p.Resources.CPU = 0.1
			limits := store.Limits{CPU: 0.3, Tenant: store.TenantLimits{CPU: 0.3}}
			ids := f.submit(f.tasksOf(tenant, 4)...)
			begun := f.try(f.limited(limits, p), ids...)
			for i, answer := range begun {
				equal(f, "admitted", answer.Verdict == store.Admitted, i < 3)
			}
			equal(f, "cores held", f.usage(tenant, agent).Account.CPU, 0.3)
			for _, answer := range begun[:3] {
				f.succeed(answer.Lease)
			}
			equal(f, "cores held", f.usage(tenant, agent).Account.CPU, 0)
		}},
		rule{"NothingOfIt", "who needs nothing of a thing is not kept waiting by its limit", func(f *fixture) {
			f.start()
			p := f.plan(agent)
			p.Resources = provider.Resources{}
			f.begin(f.limited(store.Limits{CPU: 0.5, MemoryMB: 50, Tenant: store.TenantLimits{CPU: 0.5, MemoryMB: 50}}, p), f.queued())
		}},
		rule{"Spares", "spares hold the account's limits, not a tenant's or an agent's; an insert beyond them is refused", func(f *fixture) {
			limits := store.Limits{Workspaces: 3, CPU: 3, MemoryMB: 250, Tenant: store.TenantLimits{Concurrent: 1}}
			f.put(store.Lease{}, f.spare())
			f.put(store.Lease{}, f.spare())
			u := f.usage(tenant, agent)
			same(f, "held", []any{u.Account, u.Tenant, u.Agent},
				[]any{store.Amount{Workspaces: 2, CPU: 2, MemoryMB: 200}, store.Amount{}, store.Amount{}})
			insert := func(r provider.Resources) error {
				w := f.spare()
				w.Resources = r
				_, err := f.s.PutWorkspace(f.Context(), store.Lease{}, &limits, w)
				return err
			}
			f.unchanged("a refused PutWorkspace", func() {
				f.limit(insert(provider.Resources{MemoryMB: 51}), store.LimitMemory)
				f.limit(insert(provider.Resources{CPU: 1.1}), store.LimitCPU)
			})
			f.must("PutWorkspace", insert(provider.Resources{}))
			f.unchanged("a refused PutWorkspace", func() {
				refused := f.limit(insert(provider.Resources{}), store.LimitWorkspaces)
				same(f, "error", []any{refused.Max, refused.InUse, refused.Tenant, refused.Agent}, []any{3.0, 3.0, "", ""})
			})
			f.begin(f.limited(limits), f.queued()) // takes a spare: nothing more is held
		}},
		rule{"RunInserts", "a run that inserts a workspace needs room for it too", func(f *fixture) {
			limits := store.Limits{Workspaces: 1}
			begun := f.begin(f.limited(limits), f.queued())
			w := f.spare()
			w.Task = begun.Task.ID
			f.unchanged("a refused PutWorkspace", func() {
				_, err := f.s.PutWorkspace(f.Context(), begun.Lease, &limits, w)
				f.limit(err, store.LimitWorkspaces)
			})
		}},
		rule{"SetWins", "limits set at run time win over every caller's; nil goes back to the caller's", func(f *fixture) {
			id := f.queued()
			f.start()
			one, two := store.Limits{Workspaces: 1}, store.Limits{Workspaces: 2}
			f.must("SetLimits", f.s.SetLimits(f.Context(), &one))
			two.Workspaces, one.Workspaces = 2, 7 // the Store has its own copy
			f.verdict(store.Limited, f.limited(two), id)
			u, err := f.second.Usage(f.Context(), &two, tenant, agent)
			f.must("Usage", err)
			equal(f, "limits in force", u.Limits, store.Limits{Workspaces: 1})
			_, err = f.s.PutWorkspace(f.Context(), store.Lease{}, &two, f.spare())
			f.limit(err, store.LimitWorkspaces)
			f.must("SetLimits", f.s.SetLimits(f.Context(), &store.Limits{}))
			f.begin(f.limited(store.Limits{Workspaces: 1}), id)
			f.must("SetLimits", f.s.SetLimits(f.Context(), nil))
			f.verdict(store.Limited, f.limited(store.Limits{Workspaces: 1}), f.queued())
		}},
		rule{"TenantSet", "a tenant's own limits win over all others'; nil goes back to those of the account", func(f *fixture) {
			a := f.limited(store.Limits{Tenant: store.TenantLimits{Concurrent: 1}})
			ids := f.submit(f.tasksOf(tenant, 4)...)
			f.begin(a, ids[0])
			f.verdict(store.Limited, a, ids[1])
			own := store.TenantLimits{Concurrent: 2}
			f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), tenant, &own))
			own.Concurrent = 9
			a.Tokens = f.tokens(10)
			f.begin(a, ids[1])
			f.verdict(store.Limited, a, ids[2])
			equal(f, "limits in force", f.usage(tenant, agent).TenantLimits, store.TenantLimits{Concurrent: 2})
			f.must("SetLimits", f.s.SetLimits(f.Context(), &store.Limits{Tenant: store.TenantLimits{Concurrent: 3}}))
			f.verdict(store.Limited, a, ids[2])
			f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), tenant, nil))
			a.Tokens = f.tokens(10)
			f.begin(a, ids[2])
			f.verdict(store.Limited, a, ids[3])
			equal(f, "limits in force", f.usage(tenant, agent).TenantLimits, store.TenantLimits{Concurrent: 3})
		}},
		rule{"Lowered", "a lowered limit ends nothing; nothing begins until less is held than it allows", func(f *fixture) {
			runs := []store.Begun{f.start(), f.start(), f.start()}
			id := f.queued()
			f.must("SetLimits", f.s.SetLimits(f.Context(), &store.Limits{Workspaces: 1}))
			for _, run := range runs {
				equal(f, "limited", f.verdict(store.Limited, f.offer(), id).Verdict, store.Limited)
				states, err := f.s.Renew(f.Context(), []store.Lease{run.Lease}, time.Hour)
				f.must("Renew", err)
				equal(f, "state", states[0], store.LeaseState{Held: true})
				f.succeed(run.Lease)
			}
			f.begin(f.offer(), id)
		}},
		rule{"Resized", "a row counts for what its Resources say", func(f *fixture) {
			begun := f.start()
			w := begun.Workspace
			w.Resources = provider.Resources{CPU: 3, MemoryMB: 1000}
			f.put(begun.Lease, w)
			want := store.Amount{Workspaces: 1, CPU: 3, MemoryMB: 1000}
			u := f.usage(tenant, agent)
			same(f, "held", []any{u.Account, u.Tenant, u.Agent}, []any{want, want, want})
		}},
	)
}
