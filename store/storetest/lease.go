package storetest

import (
	"time"

	"github.com/freshet-dev/freshet/store"
)

func leaseRules() []rule {
	return []rule{
		{"Renew", "Renew extends from now, answers in order, and does nothing for what is not held", func(f *fixture) {
			a, b := f.start(), f.start()
			f.succeed(b.Lease)
			stale := a.Lease
			stale.Fence--
			states, err := f.s.Renew(f.Context(), []store.Lease{b.Lease, a.Lease, stale, {Task: "unknown", Fence: 1}, {}}, 2*time.Hour)
			f.must("Renew", err)
			same(f, "states", []any{states}, []any{[]store.LeaseState{{}, {Held: true}, {}, {}, {}}})
			task := f.get(a.Task.ID)
			if task.LeaseEnd.Sub(a.Task.LeaseEnd) < 30*time.Minute {
				f.Errorf("the lease ended %v and ends %v", a.Task.LeaseEnd, task.LeaseEnd)
			}
			equal(f, "version", task.Version, a.Task.Version)
		}},
		{"RenewShorter", "Renew counts ttl from now, also where that is sooner", func(f *fixture) {
			begun := f.start()
			_, err := f.s.Renew(f.Context(), []store.Lease{begun.Lease}, f.h.Unit)
			f.must("Renew", err)
			f.ended()
			f.adopt(f.offer(), 1)
		}},
		{"RenewLate", "a lease that has ended but was not adopted is renewed", func(f *fixture) {
			begun := f.abandon()
			states, err := f.s.Renew(f.Context(), []store.Lease{begun.Lease}, time.Hour)
			f.must("Renew", err)
			equal(f, "state", states[0], store.LeaseState{Held: true})
			f.adopt(f.offer(), 0)
			f.succeed(begun.Lease)
		}},
		{"Late", "a lease that has ended but was not adopted still writes: only a newer fence ends that right", func(f *fixture) {
			begun := f.abandon()
			f.running(begun.Lease)
			w := begun.Workspace
			w.State, w.Intent = store.WorkspaceReady, store.IntentNone
			f.put(begun.Lease, w)
			f.succeed(begun.Lease)
			equal(f, "state", f.get(begun.Task.ID).State, store.StateSucceeded)
		}},
		{"Adopt", "a run whose lease has ended passes to the adopter with fence, lease and workspace, and counts a crash", func(f *fixture) {
			held := f.start()
			begun := f.abandon()
			f.running(begun.Lease)
			f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{
				Entries: []store.Entry{{Kind: store.EntryStep, Name: "s", Data: []byte("d")}},
			}))
			a := f.offer()
			a.Runner = "other"
			adopted := f.adopt(a, 1)[0]
			t := adopted.Task
			same(f, "task", []any{adopted.Verdict, t.ID, t.State, t.Crashes, t.Interruptions, t.Attempt, t.Spent, t.Runner, t.Generation},
				[]any{store.Admitted, begun.Task.ID, store.StateRunning, 1, 0, 1, 0, "other", int64(1)})
			equal(f, "payload", string(t.Payload), "payload of "+t.ID)
			equal(f, "lease", adopted.Lease, store.Lease{Task: t.ID, Fence: t.Fence})
			row, _ := f.row(begun.Workspace.Token)
			f.sameRow(adopted.Workspace, row)
			same(f, "row", []any{row.Task, row.Fence, row.Intent}, []any{t.ID, t.Fence, begun.Workspace.Intent})
			equal(f, "entries", len(f.entries(t.ID)), 1)
			f.history(t.ID)
			f.adopt(f.offer(), 0)
			f.succeed(adopted.Lease)
			f.succeed(held.Lease)
		}},
		{"AdoptDetached", "a detached run can be adopted at once, by anybody, and counts an interruption", func(f *fixture) {
			begun, kept := f.start(), f.start()
			f.must("Detach", f.s.Detach(f.Context(), []store.Lease{{Task: "unknown"}, begun.Lease, {Task: kept.Task.ID, Fence: kept.Lease.Fence - 1}}))
			a := f.offer()
			a.Lease = f.h.Unit
			t := f.adopt(a, 1)[0].Task
			same(f, "task", []any{t.ID, t.Crashes, t.Interruptions, t.Runner}, []any{begun.Task.ID, 0, 1, a.Runner})
			f.ended()
			t = f.adopt(f.offer(), 1)[0].Task
			same(f, "task", []any{t.Crashes, t.Interruptions}, []any{1, 1})
		}},
		{"DetachRenewed", "a run that was renewed after it was detached counts as any other", func(f *fixture) {
			begun := f.start()
			f.must("Detach", f.s.Detach(f.Context(), []store.Lease{begun.Lease}))
			_, err := f.s.Renew(f.Context(), []store.Lease{begun.Lease}, f.h.Unit)
			f.must("Renew", err)
			f.ended()
			t := f.adopt(f.offer(), 1)[0].Task
			same(f, "task", []any{t.Crashes, t.Interruptions}, []any{1, 0})
		}},
		{"AdoptOnlyOwn", "Adopt gives at most n runs, of agents with a Plan and workspaces in the Scope", func(f *fixture) {
			for range 3 {
				f.must("Detach", f.s.Detach(f.Context(), []store.Lease{f.start().Lease}))
			}
			f.adopt(f.offer(f.plan("another")), 0)
			a := f.offer()
			a.Scope = "elsewhere"
			f.adopt(a, 0)
			f.adopt(store.Admission{Runner: "r", Lease: time.Hour, Scope: scope}, 0)
			for _, want := range []int{0, 2, 1, 0} {
				begun, err := f.s.Adopt(f.Context(), f.offer(), min(want*2, 2))
				f.must("Adopt", err)
				equal(f, "adopted", len(begun), want)
			}
		}},
		{"AdoptSlot", "the end of a lease frees no slot, and adopting takes none", func(f *fixture) {
			limits := store.Limits{Workspaces: 1, Tenant: store.TenantLimits{Concurrent: 1}}
			a := f.limited(limits)
			a.Lease = f.h.Unit
			begun := f.begin(a, f.queued())
			f.ended()
			waiting := f.queued()
			f.verdict(store.Limited, f.limited(limits), waiting)
			adopted := f.adopt(f.limited(limits), 1)[0]
			f.verdict(store.Limited, f.limited(limits), waiting)
			equal(f, "task", adopted.Task.ID, begun.Task.ID)
			f.succeed(adopted.Lease)
			f.begin(f.limited(limits), waiting)
		}},
		{"AdoptWithoutWorkspace", "a run whose workspace is gone is adopted without one", func(f *fixture) {
			begun := f.start()
			f.gone(begun.Lease, begun.Workspace.Token)
			f.must("Detach", f.s.Detach(f.Context(), []store.Lease{begun.Lease}))
			a := f.offer()
			a.Scope = "elsewhere" // nobody's scope any more
			adopted := f.adopt(a, 1)[0]
			equal(f, "workspace", adopted.Workspace, store.Workspace{})
			f.requeue(adopted.Lease)
		}},
		{"StaleFence", "whatever is written under an older fence is refused with ErrLeaseLost and changes nothing", func(f *fixture) {
			adopted := f.abandon()
			finished := f.start()
			f.finish(store.Outcome{Lease: finished.Lease, State: store.StateFailed, Workspace: store.DisposeDelete})
			requeued := f.start()
			f.finish(store.Outcome{Lease: requeued.Lease, State: store.StateQueued, Workspace: store.DisposeDelete})
			again := f.start()
			f.requeue(again.Lease)
			_, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: again.Task.ID, Generation: 2}})
			f.must("Begin", err)
			f.adopt(f.offer(), 1)
			for what, begun := range map[string]store.Begun{"adopted": adopted, "finished": finished, "requeued": requeued, "begun again": again} {
				f.unchanged("a lease whose task was "+what, func() { f.refused(begun) })
			}
			f.unchanged("a lease that never was", func() {
				begun := again
				begun.Lease = store.Lease{Task: "unknown", Fence: 1}
				f.refused(begun)
				begun.Lease = store.Lease{Task: again.Task.ID, Fence: 1 << 40}
				f.refused(begun)
			})
		}},
	}
}

// refused tries all that can be written for a run whose lease is lost.
func (f *fixture) refused(begun store.Begun) {
	f.Helper()
	row, ok := f.row(begun.Workspace.Token)
	if !ok {
		row = begun.Workspace
	}
	ready := row
	ready.State, ready.Intent, ready.Task = store.WorkspaceReady, store.IntentNone, begun.Lease.Task
	gone := row
	gone.State = store.WorkspaceGone
	fresh := f.spare()
	fresh.Task = begun.Lease.Task
	for _, save := range []store.Save{
		{},
		{LogSize: 10},
		{Status: &store.Change{State: store.StateRunning, Note: "note"}},
		{Entries: []store.Entry{{Kind: store.EntryStep, Name: "stale"}}},
		{Drop: []store.EntryKey{{Kind: store.EntryStep, Name: "s"}}},
		{Workspace: &ready},
	} {
		f.fails("Save", f.s.Save(f.Context(), begun.Lease, save), store.ErrLeaseLost)
	}
	for _, w := range []store.Workspace{ready, gone, fresh} {
		_, err := f.s.PutWorkspace(f.Context(), begun.Lease, nil, w)
		f.fails("PutWorkspace", err, store.ErrLeaseLost)
	}
	states, err := f.s.Renew(f.Context(), []store.Lease{begun.Lease}, time.Hour)
	f.must("Renew", err)
	equal(f, "lease", states[0], store.LeaseState{})
	f.must("Detach", f.s.Detach(f.Context(), []store.Lease{begun.Lease}))
	for _, d := range []store.Disposition{store.DisposeDelete, store.DisposeGone, store.DisposePool, store.DisposeKeep} {
		for _, state := range []store.State{store.StateSucceeded, store.StateQueued} {
			done, err := f.s.Finish(f.Context(), []store.Outcome{{Lease: begun.Lease, State: state, Workspace: d}})
			f.must("Finish", err)
			f.fails("Finish", done[0].Err, store.ErrLeaseLost)
		}
	}
}
