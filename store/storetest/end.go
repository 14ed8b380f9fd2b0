package storetest

import (
	"errors"
	"time"

	"github.com/freshet-dev/freshet/store"
)

var canceled = store.Ending{State: store.StateCanceled, Reason: "by the user", Code: "canceled"}

func endRules() []rule {
	return []rule{
		{"Queued", "End finishes a queued task at once as the Ending says, and no run begins any more", func(f *fixture) {
			for _, state := range []store.State{store.StateCanceled, store.StateExpired, store.StateFailed} {
				id := f.queued()
				f.must("End", f.s.End(f.Context(), id, store.Ending{State: state, Reason: "reason", Code: "code"}))
				task := f.get(id)
				same(f, "task", []any{task.State, task.Reason, task.Code, task.Version, task.Finished.IsZero()},
					[]any{state, "reason", "code", int64(2), false})
				f.verdict(store.NotYours, f.offer(), id)
				f.unchanged("a repetition", func() {
					f.fails("End", f.s.End(f.Context(), id, store.Ending{State: state}), store.ErrFinished)
				})
			}
			equal(f, "queued", f.usage(tenant, agent).Queued, 0)
		}},
		{"Live", "a cancel of a live run sets a flag that its next Renew sees; a repetition has no effect", func(f *fixture) {
			for _, running := range []bool{false, true} {
				begun := f.start()
				if running {
					f.running(begun.Lease)
				}
				before := f.get(begun.Task.ID)
				f.must("End", f.s.End(f.Context(), begun.Task.ID, canceled))
				task := f.get(begun.Task.ID)
				same(f, "task", []any{task.State, task.Cancel, task.Version}, []any{before.State, true, before.Version + 1})
				f.unchanged("a repetition", func() {
					f.must("End", f.s.End(f.Context(), begun.Task.ID, store.Ending{State: store.StateCanceled, Reason: "again"}))
				})
				renewed, err := f.s.Renew(f.Context(), []store.Lease{begun.Lease}, time.Hour)
				f.must("Renew", err)
				equal(f, "renewed", renewed[0], store.LeaseState{Held: true, Cancel: true})
			}
		}},
		{"LiveOtherwise", "an Ending that is no cancel is ErrConflict while a run lives, and leaves it alone", func(f *fixture) {
			begun := f.start()
			f.unchanged("a refused End", func() {
				for _, state := range []store.State{store.StateExpired, store.StateFailed} {
					f.fails("End", f.s.End(f.Context(), begun.Task.ID, store.Ending{State: state}), store.ErrConflict)
				}
			})
		}},
		{"NoEnding", "a state that no Ending may have is refused", func(f *fixture) {
			id := f.queued()
			f.unchanged("a refused End", func() {
				for _, state := range []store.State{"", store.StateQueued, store.StateRunning, store.StateSucceeded} {
					if f.s.End(f.Context(), id, store.Ending{State: state}) == nil {
						f.Errorf("End with state %q was taken", state)
					}
				}
			})
		}},
		{"Unknown", "End of a task that is not there is ErrNotFound", func(f *fixture) {
			f.fails("End", f.s.End(f.Context(), "unknown", canceled), store.ErrNotFound)
		}},
		{"FinishDecides", "with the flag set, a run's Finish decides: what was reached stays", func(f *fixture) {
			for _, state := range []store.State{store.StateSucceeded, store.StateFailed, store.StateCanceled, store.StateExpired} {
				begun := f.start()
				f.must("End", f.s.End(f.Context(), begun.Task.ID, canceled))
				f.finish(store.Outcome{Lease: begun.Lease, State: state, Reason: "own", Workspace: store.DisposeGone})
				task := f.get(begun.Task.ID)
				same(f, "task", []any{task.State, task.Reason}, []any{state, "own"})
				f.fails("End", f.s.End(f.Context(), begun.Task.ID, canceled), store.ErrFinished)
			}
		}},
		{"NoWayBack", "with the flag set, a run that would go back in line finishes as canceled, for the Ending's reason", func(f *fixture) {
			begun := f.start()
			f.must("End", f.s.End(f.Context(), begun.Task.ID, canceled))
			done := f.finish(store.Outcome{
				Lease: begun.Lease, State: store.StateQueued, Reason: "next try", Count: store.CountAttempt, Workspace: store.DisposeDelete,
			})
			task := f.get(begun.Task.ID)
			same(f, "task", []any{task.State, task.Reason, task.Code, task.Generation, task.Spent},
				[]any{store.StateCanceled, canceled.Reason, canceled.Code, int64(1), 1})
			equal(f, "answer", done.Task.State, store.StateCanceled)
			for generation := range int64(3) {
				begun, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: task.ID, Generation: generation}})
				f.must("Begin", err)
				equal(f, "verdict", begun[0].Verdict, store.NotYours)
			}
		}},
		{"Requeued", "a task that is back in line has no live run: a cancel finishes it at once", func(f *fixture) {
			begun := f.start()
			f.requeue(begun.Lease)
			f.must("End", f.s.End(f.Context(), begun.Task.ID, canceled))
			equal(f, "state", f.get(begun.Task.ID).State, store.StateCanceled)
			answer, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: begun.Task.ID, Generation: 2}})
			f.must("Begin", err)
			equal(f, "verdict", answer[0].Verdict, store.NotYours)
		}},
		{"Adopted", "a run whose lease has ended is live: a cancel sets the flag, and the adopter is told", func(f *fixture) {
			begun := f.abandon()
			f.must("End", f.s.End(f.Context(), begun.Task.ID, canceled))
			equal(f, "state", f.get(begun.Task.ID).State, store.StateStarting)
			adopted := f.adopt(f.offer(), 1)[0]
			equal(f, "flag", adopted.Task.Cancel, true)
		}},
		{"Race", "of a cancel and a Finish at the same time, either the cancel finds it finished or the flag decides", func(f *fixture) {
			for i := range 20 {
				begun := f.start()
				state := store.StateSucceeded
				if i%2 == 1 {
					state = store.StateQueued
				}
				var ended error
				f.together(2, func(i int, s store.Store) {
					if i == 0 {
						ended = s.End(f.Context(), begun.Task.ID, canceled)
						return
					}
					done, err := s.Finish(f.Context(), []store.Outcome{
						{Lease: begun.Lease, State: state, Workspace: store.DisposeGone},
					})
					if f.check("Finish", err); err == nil {
						f.check("Finish", done[0].Err)
					}
				})
				task := f.get(begun.Task.ID)
				switch {
				case ended != nil && !errors.Is(ended, store.ErrFinished):
					f.Errorf("End: %v", ended)
				case ended != nil && task.State != store.StateSucceeded:
					f.Errorf("End says that the task had finished; it is %s", task.State)
				case ended == nil && state == store.StateQueued && task.State != store.StateCanceled:
					f.Errorf("End was taken; the task is %s", task.State)
				}
				f.history(task.ID)
			}
		}},
		{"Acknowledge", "Acknowledge counts for finished tasks; unknown and other ids are passed over", func(f *fixture) {
			queued, begun := f.queued(), f.start()
			f.must("Acknowledge", f.s.Acknowledge(f.Context(), []string{queued, begun.Task.ID, "unknown"}))
			f.succeed(begun.Lease)
			version := f.get(begun.Task.ID).Version
			list(f, "to be delivered", idsOf(f.query(store.TaskQuery{Unacknowledged: true})), begun.Task.ID)
			for range 2 {
				f.must("Acknowledge", f.s.Acknowledge(f.Context(), []string{begun.Task.ID}))
				list(f, "to be delivered", idsOf(f.query(store.TaskQuery{Unacknowledged: true})))
			}
			task := f.get(begun.Task.ID)
			same(f, "task", []any{task.Acknowledged, task.Version}, []any{true, version})
		}},
		{"Remove", "Remove forgets finished tasks with events and entries; others are passed over", func(f *fixture) {
			queued, live, ended := f.queued(), f.start(), f.start()
			f.must("Save", f.s.Save(f.Context(), ended.Lease, store.Save{Entries: []store.Entry{{Kind: store.EntryStep, Name: "s"}}}))
			f.finish(store.Outcome{Lease: ended.Lease, State: store.StateFailed, Workspace: store.DisposeDelete})
			for range 2 {
				f.must("Remove", f.s.Remove(f.Context(), []string{"unknown", queued, live.Task.ID, ended.Task.ID}))
				list(f, "left", idsOf(f.query(store.TaskQuery{})), live.Task.ID, queued)
			}
			_, err := f.s.Events(f.Context(), ended.Task.ID, 0, 10)
			f.fails("Events", err, store.ErrNotFound)
			equal(f, "entries", len(f.entries(ended.Task.ID)), 0)
			f.fails("End", f.s.End(f.Context(), ended.Task.ID, canceled), store.ErrNotFound)

			// Its slot does not go with the record.
			equal(f, "slots", f.usage(tenant, agent).Tenant.Workspaces, 2)
			f.gone(store.Lease{}, ended.Workspace.Token)
			equal(f, "slots", f.usage(tenant, agent).Tenant.Workspaces, 1)
		}},
		{"Expired", "a queued task whose NotAfter has passed is finished as expired by the Begin that meets it", func(f *fixture) {
			late, early := f.task(), f.task()
			late.NotAfter, early.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
			f.submit(late, early)
			equal(f, "state", f.get(late.ID).State, store.StateQueued)
			equal(f, "answer", f.verdict(store.NotYours, f.offer(), late.ID).Task.State, store.StateExpired)
			equal(f, "state", f.get(late.ID).State, store.StateExpired)
			f.begin(f.offer(), early.ID)
		}},
	}
}

// history checks that a task's events are complete and agree with it: versions from 1, and nothing after the end.
func (f *fixture) history(id string) {
	f.Helper()
	task, events := f.get(id), f.events(id)
	for i, e := range events {
		equal(f, "version", e.Version, int64(i+1))
		if e.State.Finished() && i != len(events)-1 {
			f.Errorf("task %s goes on after it was %s", id, e.State)
		}
	}
	last := events[len(events)-1]
	same(f, "last event", []any{last.State, last.Version, last.Reason}, []any{task.State, task.Version, task.Reason})
}
