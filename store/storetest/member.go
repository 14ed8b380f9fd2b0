package storetest

import (
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

func memberRules() []rule {
	return []rule{
		{"Paths", "the first of the Plan's Paths that has a member is taken", func(f *fixture) {
			warm, paused := f.put(store.Lease{}, f.spare()), f.paused(false)
			kept := f.spare()
			kept.Tenant, kept.KeepUntil = tenant, time.Now().Add(time.Hour)
			kept = f.put(store.Lease{}, kept)
			take := func(path store.Path, token string, paths ...store.Path) store.Begun {
				f.Helper()
				p := f.plan(agent)
				p.Paths = paths
				begun := f.begin(f.offer(p), f.queued())
				same(f, "member", []any{begun.Task.Path, begun.Workspace.Token}, []any{path, token})
				return begun
			}
			begun := take(store.PathPaused, paused.Token, store.PathPaused, store.PathWarm, store.PathKept, store.PathCold)
			same(f, "paused member", []any{begun.Workspace.State, begun.Workspace.Intent},
				[]any{store.WorkspacePaused, store.IntentResume})
			begun = take(store.PathWarm, warm.Token, store.PathPaused, store.PathWarm, store.PathKept, store.PathCold)
			w := begun.Workspace
			same(f, "warm member", []any{w.State, w.Intent, w.Task, w.Fence, w.Tenant, w.Version},
				[]any{store.WorkspaceReady, store.IntentNone, begun.Task.ID, begun.Lease.Fence, tenant, int64(2)})
			take(store.PathKept, kept.Token, store.PathPaused, store.PathWarm, store.PathKept, store.PathCold)
			p := f.plan(agent)
			p.Paths = []store.Path{store.PathCold, store.PathWarm}
			f.put(store.Lease{}, f.spare())
			equal(f, "path", f.begin(f.offer(p), f.queued()).Task.Path, store.PathCold)
		}},
		{"KeptPaused", "a kept workspace that is paused is its tenant's too", func(f *fixture) {
			kept := f.spare()
			kept.State, kept.Tenant, kept.KeepUntil = store.WorkspacePaused, tenant, time.Now().Add(time.Hour)
			f.put(store.Lease{}, kept)
			equal(f, "path of another tenant", f.startFor("another").Task.Path, store.PathCold)
			begun := f.start()
			same(f, "member", []any{begun.Task.Path, begun.Workspace.Token, begun.Workspace.Intent},
				[]any{store.PathKept, kept.Token, store.IntentResume})
		}},
		{"NoMember", "no member: another scope, owner, agent, spec or tenant, an Intent, not ready, or not a spare", func(f *fixture) {
			change := func(to func(*store.Workspace)) {
				w := f.spare()
				to(&w)
				f.put(store.Lease{}, w)
			}
			change(func(w *store.Workspace) { w.Scope = "another" })
			change(func(w *store.Workspace) { w.Owner = "another" })
			change(func(w *store.Workspace) { w.Agent = "another" })
			change(func(w *store.Workspace) { w.Spec = "another" })
			change(func(w *store.Workspace) { w.Tenant, w.KeepUntil = "another", time.Now().Add(time.Hour) })
			change(func(w *store.Workspace) { w.Tenant, w.KeepUntil = tenant, time.Now().Add(-time.Hour) })
			for _, intent := range []store.Intent{store.IntentCreate, store.IntentPause, store.IntentResume, store.IntentResize, store.IntentDelete} {
				change(func(w *store.Workspace) { w.Intent = intent })
			}
			change(func(w *store.Workspace) { w.State = store.WorkspaceNew })
			change(func(w *store.Workspace) { w.State, w.Intent = store.WorkspaceNew, store.IntentCreate })
			for range 3 {
				equal(f, "path", f.start().Task.Path, store.PathCold)
			}
		}},
		{"Nobody", "a workspace that nobody's task has used is not kept for anybody", func(f *fixture) {
			begun := f.startFor("")
			w := begun.Workspace
			w.State, w.Intent = store.WorkspaceReady, store.IntentNone
			f.put(begun.Lease, w)
			f.finish(store.Outcome{
				Lease: begun.Lease, State: store.StateSucceeded, Workspace: store.DisposeKeep, KeepUntil: time.Now().Add(time.Hour),
			})
			equal(f, "path of another tenant", f.start().Task.Path, store.PathCold)
			f.put(store.Lease{}, f.spare())
			equal(f, "path to what nobody has used", f.startFor("").Task.Path, store.PathWarm)
		}},
		{"Size", "a member counts for what it holds: one that is too big for the tenant's limits is passed over", func(f *fixture) {
			w := f.spare()
			w.Resources.CPU = 2
			f.put(store.Lease{}, w)
			limits := store.Limits{Tenant: store.TenantLimits{CPU: 1.5}}
			equal(f, "path", f.begin(f.limited(limits), f.queued()).Task.Path, store.PathCold)
			equal(f, "held", f.usage(tenant, agent).Tenant.CPU, 1)
			equal(f, "path of another tenant", f.startFor("another").Task.Path, store.PathWarm)
			equal(f, "held", f.usage("another", agent).Tenant.CPU, 2)
		}},
		{"TakenOnce", "of many runs that begin at once each takes another member", func(f *fixture) {
			const n = 8
			for range n / 2 {
				f.put(store.Lease{}, f.spare())
			}
			ids, offers := f.submit(f.tasksOf(tenant, n)...), make([]store.Admission, n)
			for i := range offers {
				offers[i] = f.offer()
			}
			begun := make([]store.Begun, n)
			f.together(n, func(i int, s store.Store) {
				answers, err := s.Begin(f.Context(), offers[i], []store.BeginRequest{{Task: ids[i], Generation: 1}})
				if f.check("Begin", err); err == nil {
					begun[i] = answers[0]
				}
			})
			taken, warm := map[string]bool{}, 0
			for _, b := range begun {
				equal(f, "verdict", b.Verdict, store.Admitted)
				if taken[b.Workspace.Token] {
					f.Errorf("workspace %s was taken twice", b.Workspace.Token)
				}
				taken[b.Workspace.Token] = true
				if b.Task.Path == store.PathWarm {
					warm++
				}
			}
			equal(f, "warm", warm, n/2)
		}},
		{"Uncounted", "a paused row that is Uncounted holds nothing of the account until it is to be resumed", func(f *fixture) {
			limits := store.Limits{Workspaces: 1}
			f.paused(true)
			equal(f, "held", f.usage(tenant, agent).Account, store.Amount{})
			first := f.begin(f.limited(limits), f.queued())
			same(f, "member", []any{first.Task.Path, first.Workspace.Uncounted}, []any{store.PathPaused, false})
			equal(f, "held", f.usage(tenant, agent).Account.Workspaces, 1)
			second := f.paused(true)
			id := f.queued()
			answer := f.verdict(store.Limited, f.limited(limits), id)
			f.limit(answer.Limit, store.LimitWorkspaces)
			if answer.Evicted != nil {
				f.Error("evicted what holds nothing")
			}
			second.Uncounted, second.Intent = false, store.IntentResume
			f.unchanged("a refused PutWorkspace", func() {
				_, err := f.s.PutWorkspace(f.Context(), store.Lease{}, &limits, second)
				f.limit(err, store.LimitWorkspaces)
			})
			f.succeed(first.Lease)
			_, err := f.s.PutWorkspace(f.Context(), store.Lease{}, &limits, second)
			f.must("PutWorkspace", err)
			equal(f, "held", f.usage(tenant, agent).Account.Workspaces, 1)
		}},
	}
}

// paused is a paused spare in the Store.
func (f *fixture) paused(uncounted bool) store.Workspace {
	f.Helper()
	w := f.spare()
	w.State, w.Uncounted = store.WorkspacePaused, uncounted
	return f.put(store.Lease{}, w)
}

func evictRules() []rule {
	limits := store.Limits{Workspaces: 2}
	return []rule{
		{"LongestIdle", "at the account's cap the longest idle spare of any agent makes room, and holds it until it is gone", func(f *fixture) {
			first := f.spare()
			first.Agent = "other"
			first = f.put(store.Lease{}, first)
			f.h.Wait(f.h.Unit)
			second := f.spare()
			second.Agent = "other"
			f.put(store.Lease{}, second)
			id := f.queued()
			answer := f.verdict(store.Limited, f.limited(limits), id)
			refused := f.limit(answer.Limit, store.LimitWorkspaces)
			same(f, "limit", []any{refused.Max, refused.InUse}, []any{2.0, 2.0})
			if answer.Evicted == nil {
				f.Fatal("nothing was evicted")
			}
			row, _ := f.row(first.Token)
			f.sameRow(*answer.Evicted, row)
			same(f, "row", []any{row.Intent, row.Task, row.Version}, []any{store.IntentDelete, "", int64(2)})
			f.unchanged("a second try", func() { // what is on its way out is enough
				again := f.verdict(store.Limited, f.limited(limits), id)
				equal(f, "evicted again", again.Evicted == nil, true)
			})
			f.gone(store.Lease{}, first.Token)
			f.begin(f.limited(limits), id)
		}},
		{"TakeFirst", "a spare that the run can use itself is taken, not evicted", func(f *fixture) {
			f.put(store.Lease{}, f.spare())
			f.put(store.Lease{}, f.spare())
			p := f.plan(agent)
			p.Paths = []store.Path{store.PathCold, store.PathWarm} // also where it would rather have another
			begun := f.begin(f.limited(limits, p), f.queued())
			equal(f, "path", begun.Task.Path, store.PathWarm)
		}},
		{"OnePerRun", "each run that waits for the account evicts as much as it lacks, and no more", func(f *fixture) {
			for range 2 {
				w := f.spare()
				w.Agent = "other"
				f.put(store.Lease{}, w)
			}
			ids := f.submit(f.tasksOf(tenant, 3)...)
			for i, answer := range f.try(f.limited(limits), ids...) {
				same(f, "answer", []any{answer.Verdict, answer.Evicted != nil}, []any{store.Limited, i < 2})
			}
		}},
		{"NotThese", "not evicted: used, with an Intent, or out of the caller's reach", func(f *fixture) {
			f.start()
			for _, change := range []func(*store.Workspace){
				func(w *store.Workspace) { w.Owner = "another" },
				func(w *store.Workspace) { w.Scope = "another" },
				func(w *store.Workspace) { w.Intent = store.IntentPause },
				func(w *store.Workspace) { w.State, w.Intent = store.WorkspaceNew, store.IntentCreate },
			} {
				w := f.spare()
				w.Agent = "other"
				change(&w)
				f.put(store.Lease{}, w)
			}
			id := f.queued()
			f.unchanged("a Begin that can make no room", func() {
				answer := f.verdict(store.Limited, f.limited(store.Limits{Workspaces: 5}), id)
				equal(f, "evicted", answer.Evicted == nil, true)
			})
		}},
		{"NotForOthers", "a run that a tenant's or an agent's limit keeps waiting evicts nothing", func(f *fixture) {
			f.start()
			w := f.spare()
			w.Agent = "other"
			f.put(store.Lease{}, w)
			l := limits
			l.Tenant.Concurrent = 1
			p := f.plan(agent)
			p.Concurrent = 1
			id := f.queued()
			f.unchanged("a Begin", func() {
				f.limit(f.verdict(store.Limited, f.limited(l), id).Limit, store.LimitTenantConcurrent)
				f.limit(f.verdict(store.Limited, f.limited(limits, p), id).Limit, store.LimitAgentConcurrent)
			})
		}},
		{"ByResources", "for cores or memory, spares are evicted that hold some of them", func(f *fixture) {
			small := f.spare()
			small.Agent, small.Resources = "other", provider.Resources{MemoryMB: 10}
			f.put(store.Lease{}, small)
			f.h.Wait(f.h.Unit)
			big := f.spare()
			big.Agent, big.Resources = "other", provider.Resources{CPU: 4}
			f.put(store.Lease{}, big)
			answer := f.verdict(store.Limited, f.limited(store.Limits{CPU: 4}), f.queued())
			f.limit(answer.Limit, store.LimitCPU)
			if answer.Evicted == nil || answer.Evicted.Token != big.Token {
				f.Errorf("evicted %+v, want %s", answer.Evicted, big.Token)
			}
		}},
	}
}
