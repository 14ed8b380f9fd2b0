package storetest

import (
	"strings"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// hostileStrings are valid UTF-8 of up to 256 bytes that a careless Store may trip over.
func hostileStrings() []string {
	return []string{
		"'; DROP TABLE tasks; --", `"quoted" \ back\\slash`, "line\nbreak\r\ttab", " leading and trailing ", "%_*?[a-z]{x}",
		"$1 ${x} :name @p ?", "../../etc/passwd", "a:b|c,d;e", "ünïcode 日本語 🌊", "İıſK", "\u202ertl\u200bzero", "e\u0301 \u00e9",
		"null", "{\"json\": true}", "<b>&amp;</b>", strings.Repeat("x", 256), strings.Repeat("🌊", 64), "\x01\x02\x7f", "UPPER", "upper",
	}
}

func hostileRules() []rule {
	return []rule{
		{"Strings", "tenants, agents, keys, ids, tokens, reasons and names are data: any UTF-8 up to 256 bytes comes back unchanged", func(f *fixture) {
			names := hostileStrings()
			for _, name := range names {
				task := store.Task{ID: "id " + name, Agent: name, Tenant: name, Key: name, Digest: name, Payload: []byte(name)}
				if len(task.ID) > 256 {
					task.ID = name
				}
				list(f, "ids", f.submit(task), task.ID)
				list(f, "ids again", f.submit(task), task.ID)
				a := f.offer(f.plan(name))
				a.Plans[0].Spec, a.Runner, a.Owner, a.Scope = name, name, name, name
				begun := f.begin(a, task.ID)
				w := begun.Workspace
				w.State, w.Intent, w.ID, w.Home = store.WorkspaceReady, store.IntentNone, name, name
				f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{
					Status:    &store.Change{State: store.StateRunning, Reason: name, Code: name, Note: name},
					Workspace: &w,
					Entries:   []store.Entry{{Kind: store.EntryStep, Name: name, Data: []byte(name), Blob: name}},
				}))
				t := f.get(task.ID)
				same(f, "task", []any{t.ID, t.Agent, t.Tenant, t.Key, t.Digest, t.Reason, t.Code, t.Note, t.Runner, string(t.Payload)},
					[]any{task.ID, name, name, name, name, name, name, name, name, name})
				row, _ := f.row(w.Token)
				same(f, "row", []any{row.Agent, row.Tenant, row.Spec, row.Owner, row.Scope, row.ID, row.Home, row.Task},
					[]any{name, name, name, name, name, name, name, task.ID})
				e := f.entries(task.ID)[0]
				same(f, "entry", []any{e.Name, string(e.Data), e.Blob}, []any{name, name, name})
				f.history(task.ID)
				list(f, "tasks of the tenant", idsOf(f.query(store.TaskQuery{Tenant: name})), task.ID)
				list(f, "tasks of the agent", idsOf(f.query(store.TaskQuery{Agent: name})), task.ID)
				equal(f, "rows of the agent", len(f.rows(store.WorkspaceQuery{Agent: name, Spec: name, Owner: name, Scope: name})), 1)
				u := f.usage(name, name)
				same(f, "held", []any{u.Tenant.Workspaces, u.Agent.Workspaces}, []any{1, 1})
			}
			counts, err := f.s.Counts(f.Context())
			f.must("Counts", err)
			for _, name := range names {
				equal(f, "running", counts[name].Running, 1)
			}
			equal(f, "agents", len(counts), len(names))
		}},
		{"Operators", "limits, holds and named leases are kept under any name", func(f *fixture) {
			names := hostileStrings()
			for i, name := range names {
				f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), name, &store.TenantLimits{Concurrent: i + 1}))
				f.must("SetHold", f.s.SetHold(f.Context(), store.Hold{Agent: name, Tenant: name, Reason: name}))
				held, err := f.s.Acquire(f.Context(), name, name, time.Hour)
				f.must("Acquire", err)
				equal(f, "acquired", held, true)
			}
			for i, name := range names {
				u := f.usage(name, name)
				equal(f, "limit", u.TenantLimits.Concurrent, i+1)
				if u.Hold == nil || u.Hold.Agent != name || u.Hold.Tenant != name || u.Hold.Reason != name {
					f.Errorf("hold of %q: %+v", name, u.Hold)
				}
				held, err := f.second.Acquire(f.Context(), name, "another", time.Hour)
				f.must("Acquire", err)
				equal(f, "acquired by another", held, false)
			}
		}},
		{"NearKeys", "a tenant and a key never run together: (a, bc) is not (ab, c)", func(f *fixture) {
			for i, pair := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"a:b", "c"}, {"a", "b:c"}, {"", "abc"}, {"A", "bc"}, {"a ", "bc"}, {"a", "bc "}} {
				task := f.task()
				task.Tenant, task.Key = pair[0], pair[1]
				list(f, "ids", f.submit(task), task.ID)
				equal(f, "queued", f.usage(pair[0], agent).Queued, i+1)
			}
		}},
		{"Bytes", "payloads, results and entries are any bytes, none at all included", func(f *fixture) {
			for _, data := range [][]byte{nil, {}, {0}, {0xff, 0xfe, 0, '\'', '"', '\\'}, []byte("{}")} {
				task := f.task()
				task.Payload = data
				f.submit(task)
				begun := f.begin(f.offer(), task.ID)
				equal(f, "payload of the run", string(begun.Task.Payload), string(data))
				f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{
					Entries: []store.Entry{{Kind: store.EntryCheckpoint, Data: data}},
				}))
				equal(f, "entry", string(f.entries(task.ID)[0].Data), string(data))
				f.finish(store.Outcome{Lease: begun.Lease, State: store.StateSucceeded, Result: data, Workspace: store.DisposeGone})
				t := f.get(task.ID)
				same(f, "task", []any{string(t.Payload), string(t.Result)}, []any{string(data), string(data)})
			}
		}},
	}
}
