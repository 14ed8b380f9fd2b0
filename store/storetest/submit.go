package storetest

import (
	"bytes"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/store"
)

func openRules() []rule {
	return []rule{
		{"Info", "Open tells the same owner and epoch on every connection; the owner is [a-z0-9], 1 to 26 bytes", func(f *fixture) {
			first, err := f.s.Open(f.Context())
			f.must("Open", err)
			again, err := f.second.Open(f.Context())
			f.must("Open", err)
			equal(f, "second Open", again, first)
			if n := len(first.Owner); n == 0 || n > 26 {
				f.Errorf("owner %q has %d bytes", first.Owner, n)
			}
			for _, c := range first.Owner {
				if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
					f.Errorf("owner %q has a %q", first.Owner, c)
				}
			}
		}},
		{"Acquire", "a named lease has one holder until it ends or is given back", func(f *fixture) {
			acquire := func(s store.Store, name, holder string, ttl time.Duration, want bool) {
				f.Helper()
				got, err := s.Acquire(f.Context(), name, holder, ttl)
				f.must("Acquire", err)
				equal(f, "Acquire of "+name+" by "+holder, got, want)
			}
			acquire(f.s, "sweep", "a", time.Hour, true)
			acquire(f.second, "sweep", "b", time.Hour, false)
			acquire(f.second, "pool", "b", time.Hour, true)
			acquire(f.s, "sweep", "a", time.Hour, true)
			acquire(f.second, "sweep", "b", 0, false)
			acquire(f.second, "sweep", "b", time.Hour, false)
			acquire(f.s, "sweep", "a", 0, false)
			acquire(f.second, "sweep", "b", f.h.Unit, true)
			f.ended()
			acquire(f.s, "sweep", "a", time.Hour, true)
		}},
		{"AcquireRace", "of many who ask for a named lease at once one gets it", func(f *fixture) {
			var mu sync.Mutex
			held := 0
			f.together(8, func(i int, s store.Store) {
				ok, err := s.Acquire(f.Context(), "sweep", string(rune('a'+i)), time.Hour)
				f.check("Acquire", err)
				mu.Lock()
				defer mu.Unlock()
				if ok {
					held++
				}
			})
			equal(f, "holders", held, 1)
		}},
	}
}

func submitRules() []rule {
	return []rule{
		{"Record", "Submit records the request as queued, with its first Event, and ignores the rest of the Task", func(f *fixture) {
			due := time.Now().Add(time.Hour)
			in := store.Task{
				ID: f.id("t"), Agent: agent, Tenant: tenant, Key: "key", Digest: "digest", Parent: "parent", Payload: []byte("payload"),
				Priority: 3, NotBefore: due, NotAfter: due.Add(time.Hour),
			}
			lie := in
			lie.State, lie.Version, lie.Generation, lie.Fence, lie.Attempt, lie.Spent, lie.Crashes = store.StateFailed, 7, 7, 7, 7, 7, 7
			lie.Interruptions, lie.Cancel, lie.Runner, lie.Workspace, lie.Reason, lie.Code = 7, true, "r", "w", "r", "c"
			lie.Result, lie.Acknowledged, lie.Cost, lie.LogSize, lie.Finished = []byte("r"), true, 7, 7, due
			list(f, "ids", f.submit(lie), in.ID)

			got := f.get(in.ID)
			if got.Created.IsZero() || !got.Created.Equal(got.Changed) {
				f.Errorf("created %v, changed %v", got.Created, got.Changed)
			}
			if !got.Due.Equal(due.Truncate(time.Microsecond)) && !got.Due.Equal(due) {
				f.Errorf("due %v, want %v", got.Due, due)
			}
			equal(f, "payload", string(got.Payload), "payload")
			same(f, "request", []any{got.ID, got.Agent, got.Tenant, got.Key, got.Digest, got.Parent, got.Priority},
				[]any{in.ID, in.Agent, in.Tenant, in.Key, in.Digest, in.Parent, in.Priority})
			same(f, "state", []any{got.State, got.Version, got.Generation, got.Fence, got.Attempt, got.Spent, got.Crashes},
				[]any{store.StateQueued, int64(1), int64(1), int64(0), 0, 0, 0})
			same(f, "more", []any{got.Interruptions, got.Cancel, got.Runner, got.Workspace, got.Reason, got.Code, len(got.Result)},
				[]any{0, false, "", "", "", "", 0})
			same(f, "the rest", []any{got.Acknowledged, got.Cost, got.LogSize, got.Finished.IsZero()},
				[]any{false, 0.0, int64(0), true})

			events := f.events(in.ID)
			if len(events) != 1 {
				f.Fatalf("%d events, want 1", len(events))
			}
			e := events[0]
			same(f, "event", []any{e.Task, e.Version, e.State, e.At.Equal(got.Created)},
				[]any{in.ID, int64(1), store.StateQueued, true})
		}},
		{"Copy", "payloads and results are not shared with callers", func(f *fixture) {
			in := f.task()
			payload := bytes.Clone(in.Payload)
			f.submit(in)
			clear(in.Payload)
			clear(f.get(in.ID).Payload)
			begun := f.begin(f.offer(), in.ID)
			equal(f, "payload", string(begun.Task.Payload), string(payload))
			clear(begun.Task.Payload)
			result := []byte("result")
			done := f.finish(store.Outcome{
				Lease: begun.Lease, State: store.StateSucceeded, Result: result, Workspace: store.DisposeGone,
			})
			clear(result)
			clear(done.Task.Result)
			clear(f.get(in.ID).Result)
			got := f.get(in.ID)
			equal(f, "payload", string(got.Payload), string(payload))
			equal(f, "result", string(got.Result), "result")
		}},
		{"Repeat", "the same ID and Digest again have no effect, in every state of the task", func(f *fixture) {
			task := f.task()
			f.submit(task)
			again := func(when string) {
				f.Helper()
				f.unchanged("a repetition "+when, func() { list(f, "ids", f.submit(task), task.ID) })
			}
			again("while queued")
			begun := f.begin(f.offer(), task.ID)
			again("while starting")
			f.succeed(begun.Lease)
			again("after the end")
		}},
		{"Exists", "the same ID with another Digest is ErrExists and records nothing", func(f *fixture) {
			task := f.task()
			f.submit(task)
			other := task
			other.Digest = "another"
			f.unchanged("a refused Submit", func() {
				_, err := f.s.Submit(f.Context(), store.SubmitRequest{Tasks: []store.Task{f.task(), other}})
				f.fails("Submit", err, store.ErrExists)
			})
		}},
		{"Key", "a known Key of the same tenant yields the id recorded first, as long as that record is kept", func(f *fixture) {
			first, second, other := f.task(), f.task(), f.task()
			first.Key, second.Key, other.Key = "key", "key", "key"
			second.Digest, other.Tenant = first.Digest, "another"
			f.submit(first)
			f.unchanged("a repeated key", func() { list(f, "ids", f.submit(second), first.ID) })
			list(f, "ids of another tenant", f.submit(other), other.ID)
			f.succeed(f.begin(f.offer(), first.ID).Lease)
			list(f, "ids after the end", f.submit(second), first.ID)
			f.must("Remove", f.s.Remove(f.Context(), []string{first.ID}))
			list(f, "ids after Remove", f.submit(second), second.ID)
		}},
		{"KeyConflict", "a known Key with another Digest is ErrKeyConflict and records nothing", func(f *fixture) {
			first, second := f.task(), f.task()
			first.Key, second.Key = "key", "key"
			f.submit(first)
			f.unchanged("a refused Submit", func() {
				_, err := f.s.Submit(f.Context(), store.SubmitRequest{Tasks: []store.Task{f.task(), second}})
				f.fails("Submit", err, store.ErrKeyConflict)
			})
		}},
		{"WithinOneRequest", "keys and ids are compared within one Submit as between two", func(f *fixture) {
			one, two, three := f.task(), f.task(), f.task()
			one.Key, two.Key, two.Digest = "key", "key", one.Digest
			list(f, "ids", f.submit(one, two, three, three), one.ID, one.ID, three.ID, three.ID)
			equal(f, "queued", f.usage(tenant, agent).Queued, 2)
			four, five := f.task(), f.task()
			four.Key, five.Key = "other", "other"
			six := f.task()
			seven := six
			seven.Digest = "another"
			f.unchanged("a refused Submit", func() {
				_, err := f.s.Submit(f.Context(), store.SubmitRequest{Tasks: []store.Task{four, five}})
				f.fails("Submit of one key", err, store.ErrKeyConflict)
				_, err = f.s.Submit(f.Context(), store.SubmitRequest{Tasks: []store.Task{six, seven}})
				f.fails("Submit of one id", err, store.ErrExists)
			})
		}},
		{"KeyRace", "of many submitters of one key one records its task, and all get its id", func(f *fixture) {
			for range 5 {
				tasks := f.tasksOf(tenant, 8)
				key := f.id("k")
				ids := make([]string, len(tasks))
				f.together(len(tasks), func(i int, s store.Store) {
					task := tasks[i]
					task.Key, task.Digest = key, key
					got, err := s.Submit(f.Context(), store.SubmitRequest{Tasks: []store.Task{task}})
					if f.check("Submit", err); len(got) == 1 {
						ids[i] = got[0]
					}
				})
				for _, id := range ids {
					equal(f, "id", id, ids[0])
				}
				equal(f, "recorded", len(f.query(store.TaskQuery{IDs: idsOf(tasks)})), 1)
			}
			equal(f, "queued", f.usage(tenant, agent).Queued, 5)
		}},
		{"IDRace", "of many submitters of one id with different requests one records it; the others get ErrExists", func(f *fixture) {
			base := f.task()
			errs := make([]error, 8)
			f.together(len(errs), func(i int, s store.Store) {
				task := base
				task.Digest = string(rune('a' + i))
				_, errs[i] = s.Submit(f.Context(), store.SubmitRequest{Tasks: []store.Task{task}})
			})
			taken := 0
			for _, err := range errs {
				if err == nil {
					taken++
				} else {
					f.fails("Submit", err, store.ErrExists)
				}
			}
			equal(f, "taken", taken, 1)
		}},
	}
}
