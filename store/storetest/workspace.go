package storetest

import (
	"errors"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

func workspaceRules() []rule {
	return []rule{
		{"Version", "a row is inserted with Version 0 and replaced with its own; any other is ErrConflict", func(f *fixture) {
			in := f.spare()
			in.ID, in.Home, in.Failures, in.Tenant = "id", "/home", 2, "somebody"
			in.Resources = provider.Resources{CPU: 0.5, MemoryMB: 64, DiskMB: 128}
			in.KeepUntil, in.Ready, in.Checked = time.Now().Add(time.Hour), time.Now(), time.Now()
			w := f.put(store.Lease{}, in)
			want := in
			want.Version, want.Created, want.Since = 1, w.Created, w.Since
			if w.Created.IsZero() || !w.Since.Equal(w.Created) {
				f.Errorf("created %v, since %v", w.Created, w.Since)
			}
			f.sameRow(w, want)
			f.unchanged("a refused PutWorkspace", func() {
				for _, version := range []int64{0, 2} {
					for _, state := range []store.WorkspaceState{store.WorkspacePaused, store.WorkspaceGone} {
						other := w
						other.Version, other.State = version, state
						_, err := f.s.PutWorkspace(f.Context(), store.Lease{}, nil, other)
						f.fails("PutWorkspace", err, store.ErrConflict)
					}
				}
				other := f.spare()
				other.Version = 1
				_, err := f.s.PutWorkspace(f.Context(), store.Lease{}, nil, other)
				f.fails("PutWorkspace of no row", err, store.ErrConflict)
			})
			w.Failures, w.Created, w.Since = 0, time.Time{}, time.Time{}
			again := f.put(store.Lease{}, w)
			same(f, "row", []any{again.Version, again.Failures, again.Created.Equal(want.Created), again.Since.Equal(want.Since)},
				[]any{int64(2), 0, true, true})
		}},
		{"Since", "Since is when State, Intent or Task last changed", func(f *fixture) {
			w := f.put(store.Lease{}, f.spare())
			change := func(what string, moves bool, do func()) {
				f.Helper()
				before := w.Since
				f.h.Wait(f.h.Unit)
				do()
				equal(f, "Since moved with "+what, w.Since.After(before), moves)
			}
			change("Failures", false, func() { w.Failures = 1; w = f.put(store.Lease{}, w) })
			change("Intent", true, func() { w.Intent = store.IntentPause; w = f.put(store.Lease{}, w) })
			change("State", true, func() { w.State, w.Intent = store.WorkspacePaused, store.IntentNone; w = f.put(store.Lease{}, w) })
			var begun store.Begun
			change("Task", true, func() { begun = f.start(); w = begun.Workspace })
			change("the run's end", true, func() {
				w = f.finish(store.Outcome{Lease: begun.Lease, State: store.StateFailed, Workspace: store.DisposeDelete}).Workspace
			})
		}},
		{"Gone", "State Gone removes the row and frees its slot; again it has no effect", func(f *fixture) {
			w := f.put(store.Lease{}, f.spare())
			w.State = store.WorkspaceGone
			for range 2 {
				f.put(store.Lease{}, w)
				equal(f, "rows", len(f.rows(store.WorkspaceQuery{})), 0)
				equal(f, "held", f.usage(tenant, agent).Account, store.Amount{})
			}
			w = f.spare()
			f.put(store.Lease{}, w)
		}},
		{"Nonsense", "a state that no workspace has is refused", func(f *fixture) {
			w := f.spare()
			w.State = "nonsense"
			if _, err := f.s.PutWorkspace(f.Context(), store.Lease{}, nil, w); err == nil {
				f.Error("it was taken")
			}
			equal(f, "rows", len(f.rows(store.WorkspaceQuery{})), 0)
		}},
		{"Lease", "a row that names a Task is written under that task's current lease alone", func(f *fixture) {
			a, b := f.start(), f.start()
			f.unchanged("a refused PutWorkspace", func() {
				row, _ := f.row(a.Workspace.Token)
				deleted, freed, gone, fresh, taken := row, row, row, f.spare(), row
				deleted.Intent = store.IntentDelete
				freed.Task = ""
				gone.State = store.WorkspaceGone
				fresh.Task = a.Task.ID
				taken.Task = b.Task.ID
				for _, l := range []store.Lease{{}, b.Lease, {Task: a.Task.ID}, {Task: a.Task.ID, Fence: a.Lease.Fence - 1}} {
					for _, w := range []store.Workspace{row, deleted, freed, gone, fresh, taken} {
						_, err := f.s.PutWorkspace(f.Context(), l, nil, w)
						f.fails("PutWorkspace", err, store.ErrLeaseLost)
					}
				}
			})
		}},
		{"EndedSlot", "the row of an ended run is written with the zero lease, and holds its slot until it is gone", func(f *fixture) {
			begun := f.start()
			w := f.finish(store.Outcome{Lease: begun.Lease, State: store.StateFailed, Workspace: store.DisposeDelete}).Workspace
			freed, revived, moved := w, w, w
			freed.Task = ""
			revived.Intent = store.IntentNone
			moved.Task = f.start().Task.ID
			f.unchanged("a refused PutWorkspace", func() {
				for _, other := range []store.Workspace{freed, revived} {
					_, err := f.s.PutWorkspace(f.Context(), store.Lease{}, nil, other)
					f.fails("PutWorkspace", err, store.ErrConflict)
				}
				if _, err := f.s.PutWorkspace(f.Context(), store.Lease{}, nil, moved); err == nil {
					f.Error("the slot went to another task")
				}
			})
			w.Failures = 3
			w = f.put(store.Lease{}, w)
			same(f, "row", []any{w.Failures, w.Task, w.Tenant, w.Intent}, []any{3, begun.Task.ID, tenant, store.IntentDelete})
			f.gone(store.Lease{}, w.Token)
			equal(f, "held by the tenant", f.usage(tenant, agent).Tenant.Workspaces, 1)
		}},
		{"Replace", "a run may replace its workspace: both hold slots until the old one is gone", func(f *fixture) {
			begun := f.start()
			old := begun.Workspace
			old.Intent = store.IntentDelete
			old = f.put(begun.Lease, old)
			fresh := f.spare()
			fresh.Task, fresh.State, fresh.Intent = begun.Task.ID, store.WorkspaceNew, store.IntentCreate
			row := f.put(begun.Lease, fresh)
			same(f, "row", []any{row.Tenant, row.Fence}, []any{tenant, begun.Lease.Fence})
			equal(f, "workspace of the task", f.get(begun.Task.ID).Workspace, fresh.Token)
			equal(f, "held", f.usage(tenant, agent).Tenant.Workspaces, 2)
			f.gone(store.Lease{}, old.Token)
			equal(f, "held", f.usage(tenant, agent).Tenant.Workspaces, 1)
			f.must("Detach", f.s.Detach(f.Context(), []store.Lease{begun.Lease}))
			adopted := f.adopt(f.offer(), 1)[0]
			equal(f, "adopted workspace", adopted.Workspace.Token, fresh.Token)
			done := f.finish(store.Outcome{Lease: adopted.Lease, State: store.StateSucceeded, Workspace: store.DisposeDelete})
			equal(f, "workspace to delete", done.Workspace.Token, fresh.Token)
		}},
		{"Query", "every field of a WorkspaceQuery restricts; rows come oldest first", func(f *fixture) {
			a := f.put(store.Lease{}, f.spare())
			b := f.spare()
			b.Owner, b.Scope, b.Intent = "owner2", "scope2", store.IntentPause
			b = f.put(store.Lease{}, b)
			c := f.spare()
			c.Agent, c.Spec, c.State, c.Intent = "other", "spec2", store.WorkspaceNew, store.IntentCreate
			c = f.put(store.Lease{}, c)
			d := f.startFor("user").Workspace // takes a
			f.h.Wait(f.h.Unit)
			e := f.put(store.Lease{}, f.spare())
			equal(f, "member", d.Token, a.Token)
			want := func(what string, q store.WorkspaceQuery, want ...store.Workspace) {
				f.Helper()
				var got, tokens []string
				for _, w := range f.rows(q) {
					got = append(got, w.Token)
				}
				for _, w := range want {
					tokens = append(tokens, w.Token)
				}
				list(f, what, got, tokens...)
			}
			want("all", store.WorkspaceQuery{}, a, b, c, e)
			want("two", store.WorkspaceQuery{N: 2}, a, b)
			want("tokens", store.WorkspaceQuery{Tokens: []string{c.Token, "unknown", a.Token, c.Token}}, a, c)
			want("owner", store.WorkspaceQuery{Owner: "owner2"}, b)
			want("scope", store.WorkspaceQuery{Scope: "scope2"}, b)
			want("agent", store.WorkspaceQuery{Agent: "other"}, c)
			want("spec", store.WorkspaceQuery{Spec: "spec2"}, c)
			want("intents", store.WorkspaceQuery{Intents: []store.Intent{store.IntentPause, store.IntentCreate}}, b, c)
			want("no intent", store.WorkspaceQuery{Intents: []store.Intent{store.IntentNone}}, a, e)
			want("spares", store.WorkspaceQuery{Spare: true}, b, c, e)
			want("since before", store.WorkspaceQuery{SinceBefore: e.Since}, a, b, c)
			want("all at once", store.WorkspaceQuery{Spare: true, Agent: agent, Scope: scope, Owner: owner, N: 1}, e)
		}},
		{"Race", "of many who write the same version of a row one does, and no write is lost", func(f *fixture) {
			w := f.put(store.Lease{}, f.spare())
			const writers, rounds = 4, 10
			f.together(writers, func(_ int, s store.Store) {
				for done := 0; done < rounds; {
					rows, err := s.QueryWorkspaces(f.Context(), store.WorkspaceQuery{Tokens: []string{w.Token}})
					if f.check("QueryWorkspaces", err); len(rows) != 1 {
						return
					}
					rows[0].Failures++
					switch _, err := s.PutWorkspace(f.Context(), store.Lease{}, nil, rows[0]); {
					case err == nil:
						done++
					case !errors.Is(err, store.ErrConflict):
						f.Errorf("PutWorkspace: %v", err)
						return
					}
				}
			})
			row, _ := f.row(w.Token)
			same(f, "row", []any{row.Failures, row.Version}, []any{writers * rounds, int64(writers*rounds) + 1})
		}},
	}
}
