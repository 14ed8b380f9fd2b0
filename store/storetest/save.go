package storetest

import (
	"bytes"

	"github.com/freshet-dev/freshet/store"
)

func saveRules() []rule {
	return []rule{
		{"Status", "Save changes what is not empty, each time with an Event; the first running sets Started", func(f *fixture) {
			begun := f.start()
			save := func(c store.Change) store.Task {
				f.Helper()
				before := f.get(begun.Task.ID)
				f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{Status: &c}))
				after := f.get(begun.Task.ID)
				equal(f, "version", after.Version, before.Version+1)
				f.history(after.ID)
				return after
			}
			t := save(store.Change{Reason: "creating", Code: "create"})
			same(f, "task", []any{t.State, t.Reason, t.Code, t.Started.IsZero()},
				[]any{store.StateStarting, "creating", "create", true})
			t = save(store.Change{State: store.StateRunning, Reason: "running"})
			same(f, "task", []any{t.State, t.Reason, t.Code, t.Started.IsZero()},
				[]any{store.StateRunning, "running", "create", false})
			started := t.Started
			f.h.Wait(f.h.Unit)
			t = save(store.Change{State: store.StateRunning, Note: "half"})
			same(f, "task", []any{t.State, t.Reason, t.Note, t.Started.Equal(started)},
				[]any{store.StateRunning, "running", "half", true})
			t = save(store.Change{})
			same(f, "task", []any{t.State, t.Reason, t.Note}, []any{store.StateRunning, "running", "half"})
		}},
		{"Started", "Started is of the present or last run", func(f *fixture) {
			begun := f.start()
			f.running(begun.Lease)
			f.requeue(begun.Lease)
			again, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: begun.Task.ID, Generation: 2}})
			f.must("Begin", err)
			equal(f, "started", again[0].Task.Started.IsZero(), true)
		}},
		{"NoStatus", "without a Status there is no Event", func(f *fixture) {
			begun := f.start()
			f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{LogSize: 10}))
			f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{Entries: []store.Entry{{Kind: store.EntryStep, Name: "a"}}}))
			t := f.get(begun.Task.ID)
			same(f, "task", []any{t.Version, t.LogSize}, []any{begun.Task.Version, int64(10)})
		}},
		{"NoState", "a status can be set to running, and to nothing else", func(f *fixture) {
			begun := f.start()
			f.unchanged("a refused Save", func() {
				for _, state := range []store.State{store.StateQueued, store.StateStarting, store.StateSucceeded, "nonsense"} {
					if f.s.Save(f.Context(), begun.Lease, store.Save{LogSize: 5, Status: &store.Change{State: state}}) == nil {
						f.Errorf("state %q was saved", state)
					}
				}
			})
		}},
		{"Entries", "entries replace those of the same kind and name, are ordered, and stay over all runs of a task", func(f *fixture) {
			begun := f.start()
			save := func(l store.Lease, s store.Save) {
				f.Helper()
				f.must("Save", f.s.Save(f.Context(), l, s))
			}
			data := []byte("one")
			save(begun.Lease, store.Save{Entries: []store.Entry{
				{Kind: store.EntryStep, Name: "b", Data: data, Blob: "blob", Size: 7},
				{Kind: store.EntryStep, Name: "a", Data: []byte("two")},
				{Kind: store.EntryCheckpoint, Name: "b", Data: []byte("three")},
			}})
			clear(data)
			for _, e := range f.entries(begun.Task.ID) {
				clear(e.Data)
			}
			f.requeue(begun.Lease)
			again, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: begun.Task.ID, Generation: 2}})
			f.must("Begin", err)
			second := again[0].Lease
			save(second, store.Save{
				Drop:    []store.EntryKey{{Kind: store.EntryStep, Name: "a"}, {Kind: store.EntryLog, Name: "unknown"}},
				Entries: []store.Entry{{Kind: store.EntryCheckpoint, Name: "b", Data: []byte("four")}, {Kind: store.EntryCheckpoint, Name: ""}},
			})
			entries := f.entries(begun.Task.ID)
			if len(entries) != 3 {
				f.Fatalf("%d entries: %+v", len(entries), entries)
			}
			e := entries[0]
			same(f, "first", []any{e.Kind, e.Name, len(e.Data), e.Fence, e.At.IsZero()},
				[]any{store.EntryCheckpoint, "", 0, second.Fence, false})
			e = entries[1]
			same(f, "second", []any{e.Kind, e.Name, string(e.Data), e.Fence}, []any{store.EntryCheckpoint, "b", "four", second.Fence})
			e = entries[2]
			same(f, "third", []any{e.Kind, e.Name, string(e.Data), e.Blob, e.Size, e.Fence},
				[]any{store.EntryStep, "b", "one", "blob", int64(7), begun.Lease.Fence})
			of, err := f.s.Entries(f.Context(), begun.Task.ID, store.EntryStep)
			f.must("Entries", err)
			equal(f, "steps", len(of), 1)
			f.succeed(second)
			equal(f, "entries after the end", len(f.entries(begun.Task.ID)), 3)
			of, err = f.s.Entries(f.Context(), "unknown", "")
			same(f, "entries of no task", []any{len(of), err}, []any{0, nil})
		}},
		{"BigEntry", "an entry holds a mebibyte of any bytes", func(f *fixture) {
			begun := f.start()
			data := bytes.Repeat([]byte{0, 1, 0xff, '\'', '\\', 0xc3, 0x28, '\n'}, 1<<17)
			f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{
				Entries: []store.Entry{{Kind: store.EntryStep, Name: "big", Data: data}},
			}))
			if got := f.entries(begun.Task.ID); len(got) != 1 || !bytes.Equal(got[0].Data, data) {
				f.Error("the entry came back changed")
			}
		}},
		{"Workspace", "Save writes the run's workspace as PutWorkspace does", func(f *fixture) {
			begun := f.start()
			w := begun.Workspace
			w.State, w.Intent, w.ID, w.Home = store.WorkspaceReady, store.IntentNone, "id", "/home"
			f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{
				Workspace: &w, Status: &store.Change{State: store.StateRunning},
			}))
			row, _ := f.row(w.Token)
			same(f, "row", []any{row.State, row.Intent, row.ID, row.Home, row.Version, row.Task, row.Fence},
				[]any{store.WorkspaceReady, store.IntentNone, "id", "/home", w.Version + 1, begun.Task.ID, begun.Lease.Fence})
		}},
		{"AllOrNothing", "a Save whose workspace has another Version is ErrConflict and changes nothing", func(f *fixture) {
			begun := f.start()
			w := begun.Workspace
			w.Version += 3
			f.unchanged("a refused Save", func() {
				err := f.s.Save(f.Context(), begun.Lease, store.Save{
					Workspace: &w, LogSize: 99, Status: &store.Change{State: store.StateRunning, Note: "n"},
					Entries: []store.Entry{{Kind: store.EntryStep, Name: "s"}},
				})
				f.fails("Save", err, store.ErrConflict)
			})
		}},
	}
}
