package storetest

import (
	"time"

	"github.com/freshet-dev/freshet/store"
)

func finishRules() []rule {
	return []rule{
		{"End", "Finish records how a run ended; the lease ends with it", func(f *fixture) {
			for _, state := range []store.State{store.StateSucceeded, store.StateFailed, store.StateCanceled, store.StateExpired} {
				begun := f.start()
				done := f.finish(store.Outcome{
					Lease: begun.Lease, State: state, Count: store.CountAttempt, Reason: "reason", Code: "code", Result: []byte("result"),
					Cost: 1.5, LogSize: 10, Workspace: store.DisposeGone,
				})
				t := f.get(begun.Task.ID)
				same(f, "task", []any{t.State, t.Reason, t.Code, t.Cost, t.LogSize, t.Spent, t.Finished.IsZero(), t.Generation, t.Path, t.Attempt},
					[]any{state, "reason", "code", 1.5, int64(10), 1, false, int64(1), store.PathCold, 1})
				equal(f, "result", string(t.Result), "result")
				same(f, "answer", []any{done.Task.State, done.Task.Version, done.Workspace},
					[]any{state, t.Version, store.Workspace{}})
				f.history(t.ID)
			}
			f.adopt(f.offer(), 0)
		}},
		{"Requeue", "a run that goes back in line makes the next generation, due when the Outcome says", func(f *fixture) {
			begun := f.start()
			f.running(begun.Lease)
			due := time.Now().Add(time.Hour)
			f.finish(store.Outcome{
				Lease: begun.Lease, State: store.StateQueued, Due: due, Count: store.CountAttempt, Reason: "again in an hour", Code: "retry",
				Cost: 0.5, Result: []byte("none"), Workspace: store.DisposeGone,
			})
			t := f.get(begun.Task.ID)
			same(f, "task", []any{t.State, t.Generation, t.Reason, t.Code, t.Cost, len(t.Result), t.Finished.IsZero(), t.Runner, t.Workspace, t.Spent},
				[]any{store.StateQueued, int64(2), "again in an hour", "retry", 0.5, 0, true, "", "", 1})
			if d := t.Due.Sub(due).Abs(); d > time.Millisecond {
				f.Errorf("due %v, want %v", t.Due, due)
			}
			f.history(t.ID)
			equal(f, "queued", f.usage(tenant, agent).Queued, 1)
		}},
		{"Repeat", "a repetition is ErrLeaseLost and changes nothing", func(f *fixture) {
			for _, state := range []store.State{store.StateSucceeded, store.StateQueued} {
				begun := f.start()
				out := store.Outcome{Lease: begun.Lease, State: state, Cost: 1, Count: store.CountAttempt, Workspace: store.DisposeDelete}
				f.finish(out)
				f.unchanged("a repeated Finish", func() {
					done, err := f.s.Finish(f.Context(), []store.Outcome{out})
					f.must("Finish", err)
					f.fails("Finish", done[0].Err, store.ErrLeaseLost)
				})
			}
		}},
		{"EachOnItsOwn", "outcomes are answered in their order, each on its own", func(f *fixture) {
			a, b := f.start(), f.start()
			out := func(l store.Lease) store.Outcome {
				return store.Outcome{Lease: l, State: store.StateSucceeded, Workspace: store.DisposeGone}
			}
			done, err := f.s.Finish(f.Context(), []store.Outcome{
				out(store.Lease{Task: "unknown", Fence: 1}), out(b.Lease), out(b.Lease), out(a.Lease),
			})
			f.must("Finish", err)
			for i, want := range []error{store.ErrLeaseLost, nil, store.ErrLeaseLost, nil} {
				f.fails("Finish", done[i].Err, want)
			}
			list(f, "tasks", []string{done[1].Task.ID, done[3].Task.ID}, b.Task.ID, a.Task.ID)
		}},
		{"Nonsense", "an outcome that says nothing possible is an error, and none of the call is done", func(f *fixture) {
			begun := f.start()
			good := store.Outcome{Lease: begun.Lease, State: store.StateSucceeded, Workspace: store.DisposeGone}
			f.unchanged("a refused Finish", func() {
				for _, change := range []func(*store.Outcome){
					func(o *store.Outcome) { o.State = store.StateRunning },
					func(o *store.Outcome) { o.State = "" },
					func(o *store.Outcome) { o.Workspace = "" },
					func(o *store.Outcome) { o.Workspace = "nonsense" },
					func(o *store.Outcome) { o.Count = "nonsense" },
				} {
					bad := good
					change(&bad)
					if _, err := f.s.Finish(f.Context(), []store.Outcome{good, bad}); err == nil {
						f.Errorf("taken: %+v", bad)
					}
				}
			})
		}},
		{"Delete", "a workspace to be deleted keeps its slot, all of it, until it is gone", func(f *fixture) {
			for _, state := range []store.State{store.StateFailed, store.StateQueued} {
				begun := f.start()
				done := f.finish(store.Outcome{Lease: begun.Lease, State: state, Workspace: store.DisposeDelete})
				row, _ := f.row(begun.Workspace.Token)
				same(f, "row", []any{row.Intent, row.Task, row.Tenant}, []any{store.IntentDelete, begun.Task.ID, tenant})
				f.sameRow(done.Workspace, row)
				u := f.usage(tenant, agent)
				one := store.Amount{Workspaces: 1, CPU: 1, MemoryMB: 100}
				same(f, "held", []any{u.Account, u.Tenant, u.Agent}, []any{one, one, one})
				f.gone(store.Lease{}, row.Token)
				u = f.usage(tenant, agent)
				same(f, "held", []any{u.Account, u.Tenant, u.Agent}, []any{store.Amount{}, store.Amount{}, store.Amount{}})
			}
		}},
		{"Keep", "a kept workspace holds the account alone, and is for its tenant alone", func(f *fixture) {
			w := f.idle(store.DisposeKeep, time.Now().Add(time.Hour))
			same(f, "row", []any{w.Task, w.Fence, w.Tenant, w.Intent, w.KeepUntil.IsZero()},
				[]any{"", int64(0), tenant, store.IntentNone, false})
			u := f.usage(tenant, agent)
			same(f, "held", []any{u.Account.Workspaces, u.Tenant, u.Agent}, []any{1, store.Amount{}, store.Amount{}})
			equal(f, "workspace of another tenant", f.startFor("another").Task.Path, store.PathCold)
			begun := f.start()
			same(f, "workspace of its tenant", []any{begun.Task.Path, begun.Workspace.Token}, []any{store.PathKept, w.Token})
			same(f, "row", []any{begun.Workspace.KeepUntil.IsZero(), begun.Workspace.Tenant}, []any{true, tenant})
		}},
		{"KeepUntil", "a kept workspace is not handed out after KeepUntil", func(f *fixture) {
			w := f.idle(store.DisposeKeep, time.Now().Add(f.h.Unit))
			f.ended()
			begun := f.start()
			if begun.Workspace.Token == w.Token {
				f.Error("handed out too late")
			}
		}},
		{"Pool", "a pooled workspace is for anybody", func(f *fixture) {
			w := f.idle(store.DisposePool, time.Time{})
			same(f, "row", []any{w.Task, w.Fence, w.Tenant, w.Intent}, []any{"", int64(0), "", store.IntentNone})
			begun := f.startFor("another")
			same(f, "member", []any{begun.Task.Path, begun.Workspace.Token, begun.Workspace.Tenant},
				[]any{store.PathWarm, w.Token, "another"})
		}},
		{"Gone", "a workspace that is gone frees all it held", func(f *fixture) {
			begun := f.start()
			f.succeed(begun.Lease)
			if _, ok := f.row(begun.Workspace.Token); ok {
				f.Error("the row is still there")
			}
			equal(f, "held", f.usage(tenant, agent).Account, store.Amount{})
		}},
		{"WithoutWorkspace", "a run whose workspace is gone ends like any other", func(f *fixture) {
			begun := f.start()
			f.gone(begun.Lease, begun.Workspace.Token)
			done := f.finish(store.Outcome{Lease: begun.Lease, State: store.StateFailed, Workspace: store.DisposeDelete})
			equal(f, "workspace", done.Workspace, store.Workspace{})
		}},
	}
}

// idle runs a task in a workspace that becomes ready, and gives that back.
func (f *fixture) idle(d store.Disposition, until time.Time) store.Workspace {
	f.Helper()
	begun := f.start()
	w := begun.Workspace
	w.State, w.Intent = store.WorkspaceReady, store.IntentNone
	f.put(begun.Lease, w)
	done := f.finish(store.Outcome{Lease: begun.Lease, State: store.StateSucceeded, Workspace: d, KeepUntil: until})
	row, ok := f.row(w.Token)
	if !ok {
		f.Fatalf("no row of workspace %q", w.Token)
	}
	f.sameRow(done.Workspace, row)
	return row
}
