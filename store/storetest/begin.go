package storetest

import (
	"time"

	"github.com/freshet-dev/freshet/store"
)

func beginRules() []rule {
	return []rule{
		{"Admit", "an admitted task has a fence, a lease, an attempt, and a workspace that names it", func(f *fixture) {
			id := f.queued()
			a := f.offer()
			begun := f.begin(a, id)
			task := begun.Task
			same(f, "task", []any{task.ID, task.State, task.Attempt, task.Path, task.Runner, task.Workspace, task.Spent, task.Generation},
				[]any{id, store.StateStarting, 1, store.PathCold, a.Runner, a.Tokens[0], 0, int64(1)})
			equal(f, "payload", string(task.Payload), "payload of "+id)
			equal(f, "lease", begun.Lease, store.Lease{Task: id, Fence: task.Fence})
			if task.Fence <= 0 {
				f.Errorf("fence %d", task.Fence)
			}
			if left := task.LeaseEnd.Sub(task.Changed); left < a.Lease-time.Second || left > a.Lease+time.Second {
				f.Errorf("the lease of %v ends after %v", a.Lease, left)
			}
			w, ok := f.row(a.Tokens[0])
			same(f, "row", []any{ok, w.State, w.Intent, w.Task, w.Fence, w.Tenant, w.Agent, w.Spec, w.Owner, w.Scope, w.Resources, w.ID},
				[]any{true, store.WorkspaceNew, store.IntentCreate, id, task.Fence, tenant, agent, spec, owner, scope, a.Plans[0].Resources, ""})
			f.sameRow(begun.Workspace, w)
			f.sameTask(f.get(id), task)
			f.history(id)
		}},
		{"Ready", "with a workspace that is ready the task is running at once, with one Event", func(f *fixture) {
			f.put(store.Lease{}, f.spare())
			begun := f.start()
			t := begun.Task
			same(f, "task", []any{t.State, t.Version, t.Path, t.Started.IsZero(), t.Started.Equal(t.Changed)},
				[]any{store.StateRunning, int64(2), store.PathWarm, false, true})
			f.sameTask(f.get(t.ID), t)
			f.history(t.ID)
			f.paused(false)
			t = f.start().Task
			same(f, "task", []any{t.State, t.Path, t.Started.IsZero()}, []any{store.StateStarting, store.PathPaused, true})
		}},
		{"NotYours", "NotYours: unknown, finished, cancelled, begun before, or of another generation", func(f *fixture) {
			finished, ended, live, again := f.start(), f.queued(), f.start(), f.start()
			f.succeed(finished.Lease)
			f.must("End", f.s.End(f.Context(), ended, canceled))
			f.requeue(again.Lease)
			waiting := f.queued()
			f.unchanged("a Begin of what is not ours", func() {
				for _, id := range []string{"unknown", finished.Task.ID, ended, live.Task.ID, again.Task.ID} {
					answer := f.verdict(store.NotYours, f.offer(), id)
					equal(f, "payload", len(answer.Task.Payload), 0)
				}
				begun, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{
					{Task: waiting}, {Task: waiting, Generation: 2}, {Task: again.Task.ID, Generation: 3},
				})
				f.must("Begin", err)
				for _, answer := range begun {
					equal(f, "verdict", answer.Verdict, store.NotYours)
				}
			})
			begun, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: again.Task.ID, Generation: 2}})
			f.must("Begin", err)
			equal(f, "verdict of the next generation", begun[0].Verdict, store.Admitted)
		}},
		{"NotDue", "NotDue: before NotBefore, or before the end of a retry's delay", func(f *fixture) {
			task := f.task()
			task.NotBefore = time.Now().Add(time.Hour)
			f.submit(task)
			answer := f.verdict(store.NotDue, f.offer(), task.ID)
			if d := answer.Task.Due.Sub(task.NotBefore).Abs(); d > time.Millisecond {
				f.Errorf("due %v, want %v", answer.Task.Due, task.NotBefore)
			}
			task = f.task()
			task.NotBefore = time.Now().Add(-time.Hour)
			f.submit(task)
			begun := f.begin(f.offer(), task.ID)
			f.finish(store.Outcome{
				Lease: begun.Lease, State: store.StateQueued, Due: time.Now().Add(time.Hour), Workspace: store.DisposeGone,
			})
			again, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: task.ID, Generation: 2}})
			f.must("Begin", err)
			equal(f, "verdict", again[0].Verdict, store.NotDue)
		}},
		{"BecomesDue", "what was not due is admitted when its time has come", func(f *fixture) {
			task := f.task()
			task.NotBefore = time.Now().Add(f.h.Unit)
			f.submit(task)
			f.ended()
			f.begin(f.offer(), task.ID)
		}},
		{"EachOnItsOwn", "requests are answered in their order, each on its own", func(f *fixture) {
			ids := f.submit(f.tasksOf(tenant, 3)...)
			ids = append(ids, f.submit(f.tasksOf("full", 2)...)...)
			f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), "full", &store.TenantLimits{Concurrent: 1}))
			begun := f.try(f.offer(), "unknown", ids[0], ids[3], ids[0], ids[4], ids[1], ids[2])
			want := []store.Verdict{
				store.NotYours, store.Admitted, store.Admitted, store.NotYours, store.Limited, store.Admitted, store.Admitted,
			}
			for i, answer := range begun {
				equal(f, "verdict", answer.Verdict, want[i])
			}
		}},
		{"Fence", "fences only grow, over all tasks and connections", func(f *fixture) {
			last := int64(0)
			grows := func(l store.Lease) {
				f.Helper()
				if l.Fence <= last {
					f.Errorf("fence %d after %d", l.Fence, last)
				}
				last = l.Fence
			}
			for i := range 4 {
				f.s, f.second = f.second, f.s
				begun := f.start()
				grows(begun.Lease)
				if i%2 == 0 {
					f.requeue(begun.Lease)
					again, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: begun.Task.ID, Generation: 2}})
					f.must("Begin", err)
					grows(again[0].Lease)
				}
			}
			abandoned := f.abandon()
			grows(abandoned.Lease)
			grows(f.adopt(f.offer(), 1)[0].Lease)
			grows(f.start().Lease)
		}},
		{"Tokens", "each new workspace takes a token that no row has", func(f *fixture) {
			a := f.offer()
			first := f.begin(a, f.queued())
			second := f.begin(a, f.queued()) // the same tokens again
			list(f, "tokens", []string{first.Workspace.Token, second.Workspace.Token}, a.Tokens[0], a.Tokens[1])
		}},
		{"NoPlan", "a task of an agent without a Plan is left alone", func(f *fixture) {
			id := f.queued()
			f.unchanged("a Begin without a plan", func() {
				f.verdict(store.NotYours, f.offer(f.plan("another")), id)
			})
		}},
		{"NothingToTake", "where no path has a member and none makes one, the task is limited and stays in line", func(f *fixture) {
			id := f.queued()
			p := f.plan(agent)
			p.Paths = []store.Path{store.PathWarm}
			f.unchanged("a Begin without a workspace", func() {
				answer := f.verdict(store.Limited, f.offer(p), id)
				if answer.Limit == nil {
					f.Error("no limit is named")
				}
			})
			f.put(store.Lease{}, f.spare())
			f.begin(f.offer(p), id)
		}},
		{"AfterCrashes", "Attempt counts runs; a run that counts as nothing gives its number back", func(f *fixture) {
			begun := f.start()
			for i, step := range []struct {
				count         store.Count
				attempt       int // of the next run
				spent         int
				interruptions int
				crashes       int
			}{
				{store.CountAttempt, 2, 1, 0, 0},
				{store.CountNothing, 2, 1, 0, 0},
				{store.CountInterruption, 3, 1, 1, 0},
				{store.CountCrash, 4, 1, 1, 1},
				{store.CountAttempt, 5, 2, 1, 1},
			} {
				f.finish(store.Outcome{Lease: begun.Lease, State: store.StateQueued, Count: step.count, Workspace: store.DisposeGone})
				again, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: begun.Task.ID, Generation: int64(i) + 2}})
				f.must("Begin", err)
				begun = again[0]
				equal(f, "verdict", begun.Verdict, store.Admitted)
				t := begun.Task
				same(f, "counts", []any{t.Attempt, t.Spent, t.Interruptions, t.Crashes, t.Generation},
					[]any{step.attempt, step.spent, step.interruptions, step.crashes, int64(i) + 2})
			}
		}},
	}
}
