package storetest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/store"
)

func queryRules() []rule {
	return []rule{
		{"Select", "every field of a TaskQuery restricts; what is zero does not", func(f *fixture) {
			a, b, c, d := f.task(), f.task(), f.task(), f.task()
			b.Tenant, c.Agent = "another", "other"
			d.NotAfter = time.Now().Add(time.Hour)
			f.submit(a, b, c, d)
			begun := f.begin(f.offer(), b.ID)
			f.running(begun.Lease)
			f.succeed(f.begin(f.offer(f.plan("other")), c.ID).Lease)

			want := func(what string, q store.TaskQuery, want ...string) {
				f.Helper()
				list(f, what, idsOf(f.query(q)), want...)
			}
			want("all", store.TaskQuery{}, d.ID, c.ID, b.ID, a.ID)
			want("oldest first", store.TaskQuery{OldestFirst: true}, a.ID, b.ID, c.ID, d.ID)
			want("ids", store.TaskQuery{IDs: []string{c.ID, "unknown", a.ID, a.ID}}, c.ID, a.ID)
			want("ids, oldest first", store.TaskQuery{IDs: []string{c.ID, a.ID}, OldestFirst: true}, a.ID, c.ID)
			want("agent", store.TaskQuery{Agent: "other"}, c.ID)
			want("tenant", store.TaskQuery{Tenant: tenant}, d.ID, c.ID, a.ID)
			want("tenant, oldest first", store.TaskQuery{Tenant: tenant, OldestFirst: true, N: 2}, a.ID, c.ID)
			want("unknown tenant", store.TaskQuery{Tenant: "unknown"})
			want("queued", store.TaskQuery{States: []store.State{store.StateQueued}}, d.ID, a.ID)
			want("live", store.TaskQuery{States: []store.State{store.StateStarting, store.StateRunning}}, b.ID)
			want("two states", store.TaskQuery{States: []store.State{store.StateSucceeded, store.StateQueued}}, d.ID, c.ID, a.ID)
			want("not acknowledged", store.TaskQuery{Unacknowledged: true}, c.ID)
			want("expired in two hours", store.TaskQuery{ExpiredBefore: time.Now().Add(2 * time.Hour)}, d.ID)
			want("expired now", store.TaskQuery{ExpiredBefore: time.Now()})
			want("queued and expired", store.TaskQuery{States: []store.State{store.StateQueued}, ExpiredBefore: time.Now().Add(2 * time.Hour)}, d.ID)
			want("all at once", store.TaskQuery{IDs: []string{a.ID, b.ID}, Tenant: tenant, Agent: agent, States: []store.State{store.StateQueued}}, a.ID)
			want("nothing at all", store.TaskQuery{IDs: []string{a.ID}, Tenant: "another"})
			equal(f, "tasks whose last event was long ago", len(f.query(store.TaskQuery{ChangedBefore: time.Now().Add(-time.Hour)})), 0)
			equal(f, "tasks whose last event is past", len(f.query(store.TaskQuery{ChangedBefore: time.Now().Add(time.Hour)})), 4)
		}},
		{"ChangedBefore", "ChangedBefore compares with the last Event of a task", func(f *fixture) {
			old, ended := f.queued(), f.start()
			f.succeed(ended.Lease)
			f.ended()
			fresh := f.start()
			f.succeed(fresh.Lease)
			cut := f.get(fresh.Task.ID).Changed
			list(f, "older tasks", idsOf(f.query(store.TaskQuery{ChangedBefore: cut})), ended.Task.ID, old)
			finished := []store.State{store.StateSucceeded, store.StateFailed, store.StateCanceled, store.StateExpired}
			list(f, "older finished tasks", idsOf(f.query(store.TaskQuery{ChangedBefore: cut, States: finished})), ended.Task.ID)
			f.must("End", f.s.End(f.Context(), old, store.Ending{State: store.StateCanceled}))
			list(f, "older tasks", idsOf(f.query(store.TaskQuery{ChangedBefore: cut})), ended.Task.ID)
		}},
		{"Page", "N tasks at most, 100 if it is 0; Before goes on where a page ended, whatever was submitted since", func(f *fixture) {
			ids := f.submit(f.tasksOf(tenant, 130)...)
			slices.Reverse(ids)
			equal(f, "default page", len(f.query(store.TaskQuery{})), 100)
			equal(f, "tasks by id", len(f.query(store.TaskQuery{IDs: ids})), 100)
			for _, q := range []store.TaskQuery{{N: 7}, {N: 7, Tenant: tenant}, {N: 7, States: []store.State{store.StateQueued}}} {
				var got []string
				for {
					page := idsOf(f.query(q))
					if got = append(got, page...); len(page) < q.N {
						break
					}
					q.Before = page[len(page)-1]
					f.submit(f.tasksOf("newcomer", 1)...)
				}
				got = slices.DeleteFunc(got, func(id string) bool { return id > ids[0] }) // came before the walk
				list(f, "all pages", got, ids...)
			}
		}},
		{"Order", "tasks are sorted by id, whatever order they came in", func(f *fixture) {
			var ids []string
			for i := range 60 {
				task := f.task()
				task.ID = fmt.Sprintf("t%03d", i*37%60)
				ids = append(ids, task.ID)
				f.submit(task)
			}
			slices.Sort(ids)
			list(f, "oldest first", idsOf(f.query(store.TaskQuery{OldestFirst: true})), ids...)
			for _, id := range ids[20:40] {
				f.must("End", f.s.End(f.Context(), id, store.Ending{State: store.StateCanceled}))
			}
			f.must("Remove", f.s.Remove(f.Context(), ids[20:40]))
			ids = slices.Delete(ids, 20, 40)
			slices.Reverse(ids)
			list(f, "newest first", idsOf(f.query(store.TaskQuery{})), ids...)
		}},
		{"Bytes", "Payload and Result come when they are asked for", func(f *fixture) {
			begun := f.start()
			f.finish(store.Outcome{
				Lease: begun.Lease, State: store.StateSucceeded, Result: []byte("result"), Workspace: store.DisposeGone,
			})
			for _, q := range []store.TaskQuery{{}, {Payload: true}, {Result: true}, {Payload: true, Result: true}} {
				task := f.query(q)[0]
				equal(f, "has payload", len(task.Payload) > 0, q.Payload)
				equal(f, "has result", len(task.Result) > 0, q.Result)
			}
		}},
		{"Events", "Events gives what is above the cursor, in order, at most n, each as the task was", func(f *fixture) {
			id := f.queued()
			begun := f.begin(f.offer(), id)
			f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{
				Status: &store.Change{State: store.StateRunning, Reason: "reason", Code: "code", Note: "note"},
			}))
			f.finish(store.Outcome{
				Lease: begun.Lease, State: store.StateFailed, Count: store.CountAttempt, Reason: "bad", Code: "worse", Workspace: store.DisposeGone,
			})
			var seen []any
			for after := int64(0); ; {
				page, err := f.s.Events(f.Context(), id, after, 2)
				f.must("Events", err)
				if len(page) == 0 {
					break
				}
				for _, e := range page {
					equal(f, "version", e.Version, after+1)
					after = e.Version
					equal(f, "task", e.Task, id)
					seen = append(seen, e.State, e.Reason, e.Code, e.Note, e.Attempt, e.Path)
				}
			}
			same(f, "events", seen, []any{
				store.StateQueued, "", "", "", 0, store.Path(""),
				store.StateStarting, "", "", "", 1, store.PathCold,
				store.StateRunning, "reason", "code", "note", 1, store.PathCold,
				store.StateFailed, "bad", "worse", "note", 1, store.PathCold,
			})
			task := f.get(id)
			last := f.events(id)[3]
			same(f, "task", []any{task.Version, task.Changed.Equal(last.At)}, []any{last.Version, true})
			_, err := f.s.Events(f.Context(), "unknown", 0, 10)
			f.fails("Events", err, store.ErrNotFound)
		}},
		{"EventsKept", "the last MaxEvents events of a task are kept at least, without a gap", func(f *fixture) {
			begun := f.start()
			for range store.MaxEvents + 50 {
				f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{Status: &store.Change{Note: "on"}}))
			}
			task, events := f.get(begun.Task.ID), f.events(begun.Task.ID)
			if len(events) < store.MaxEvents {
				f.Fatalf("%d events are left", len(events))
			}
			for i, e := range events {
				if want := task.Version - int64(len(events)-1-i); e.Version != want {
					f.Fatalf("event %d has version %d, want %d", i, e.Version, want)
				}
			}
			late, err := f.s.Events(f.Context(), task.ID, task.Version-3, 2)
			f.must("Events", err)
			same(f, "late events", []any{late[0].Version, late[1].Version, len(late)}, []any{task.Version - 2, task.Version - 1, 2})
		}},
		{"EventsFollowed", "a reader with a cursor sees every version once and in order while others write", func(f *fixture) {
			a := f.offer()
			a.Lease = time.Hour
			begun := f.begin(a, f.queued())
			var writers sync.WaitGroup
			done := make(chan struct{})
			for range 4 {
				writers.Go(func() {
					for range 25 {
						f.check("Save", f.s.Save(f.Context(), begun.Lease, store.Save{Status: &store.Change{Note: "on"}}))
					}
				})
			}
			var closer sync.WaitGroup
			closer.Go(func() { writers.Wait(); close(done) })
			cursor := int64(0)
			for last := false; !last; {
				select {
				case <-done:
					last = true // one more look at what was written before
				default:
				}
				for {
					page, err := f.second.Events(f.Context(), begun.Task.ID, cursor, 10)
					f.check("Events", err)
					for _, e := range page {
						equal(f, "version", e.Version, cursor+1)
						cursor = e.Version
					}
					if len(page) == 0 {
						break
					}
				}
			}
			closer.Wait()
			equal(f, "last version", cursor, f.get(begun.Task.ID).Version)
		}},
	}
}
