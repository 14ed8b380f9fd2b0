package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// fixture is one case's Store, with what most cases do. Its methods end the case when a call fails that must not.
type fixture struct {
	*testing.T
	h      Harness
	s      store.Store
	second store.Store // another connection to the same data
	ids    int
}

const (
	agent  = "agent"
	tenant = "tenant"
	owner  = "owner"
	scope  = "scope"
	spec   = "spec"
)

// ended lets a lease, or a delay, of one Unit run out.
func (f *fixture) ended() { f.h.Wait(2 * f.h.Unit) }

// id makes an id that sorts after all that it made before.
func (f *fixture) id(prefix string) string {
	f.ids++
	return fmt.Sprintf("%s%06d", prefix, f.ids)
}

// task is a new task that nobody has submitted.
func (f *fixture) task() store.Task {
	id := f.id("t")
	return store.Task{ID: id, Agent: agent, Tenant: tenant, Digest: "digest of " + id, Payload: []byte("payload of " + id)}
}

// tasksOf is n new tasks of a tenant.
func (f *fixture) tasksOf(tenant string, n int) []store.Task {
	tasks := make([]store.Task, n)
	for i := range tasks {
		tasks[i] = f.task()
		tasks[i].Tenant = tenant
	}
	return tasks
}

// submit submits tasks that must be taken, and returns the ids.
func (f *fixture) submit(tasks ...store.Task) []string {
	f.Helper()
	ids, err := f.s.Submit(f.Context(), store.SubmitRequest{Tasks: tasks})
	f.must("Submit", err)
	if len(ids) != len(tasks) {
		f.Fatalf("Submit of %d tasks returned %d ids", len(tasks), len(ids))
	}
	return ids
}

// queued submits a new task and returns its id.
func (f *fixture) queued() string {
	f.Helper()
	return f.submit(f.task())[0]
}

// plan is how runs of an agent begin: anything that there is, else a new workspace of one core and 100 MB.
func (f *fixture) plan(agent string) store.Plan {
	return store.Plan{
		Agent: agent, Spec: spec, Resources: provider.Resources{CPU: 1, MemoryMB: 100},
		Paths: []store.Path{store.PathKept, store.PathWarm, store.PathPaused, store.PathCold},
	}
}

// offer is an Admission with a lease of an hour and the given plans; none: that of agent.
func (f *fixture) offer(plans ...store.Plan) store.Admission {
	if len(plans) == 0 {
		plans = []store.Plan{f.plan(agent)}
	}
	return store.Admission{
		Runner: "runner", Lease: time.Hour, Owner: owner, Scope: scope, Plans: plans, Tokens: f.tokens(20),
	}
}

// limited is an offer that comes with limits.
func (f *fixture) limited(l store.Limits, plans ...store.Plan) store.Admission {
	a := f.offer(plans...)
	a.Limits = &l
	return a
}

func (f *fixture) tokens(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = f.id("w")
	}
	return tokens
}

// try asks to begin tasks in their first generation.
func (f *fixture) try(a store.Admission, ids ...string) []store.Begun {
	f.Helper()
	reqs := make([]store.BeginRequest, len(ids))
	for i, id := range ids {
		reqs[i] = store.BeginRequest{Task: id, Generation: 1}
	}
	begun, err := f.s.Begin(f.Context(), a, reqs)
	f.must("Begin", err)
	if len(begun) != len(reqs) {
		f.Fatalf("%d answers to %d requests of Begin", len(begun), len(reqs))
	}
	return begun
}

// verdict asks to begin one task, and checks the verdict.
func (f *fixture) verdict(want store.Verdict, a store.Admission, id string) store.Begun {
	f.Helper()
	begun := f.try(a, id)[0]
	if begun.Verdict != want {
		f.Fatalf("Begin of %s: %q (limit %v, hold %v), want %q", id, begun.Verdict, begun.Limit, begun.Hold, want)
	}
	return begun
}

// begin begins a task that must be admitted.
func (f *fixture) begin(a store.Admission, id string) store.Begun {
	f.Helper()
	return f.verdict(store.Admitted, a, id)
}

// start submits a task and begins it.
func (f *fixture) start() store.Begun {
	f.Helper()
	return f.begin(f.offer(), f.queued())
}

// startFor submits a task of a tenant and begins it.
func (f *fixture) startFor(tenant string) store.Begun {
	f.Helper()
	return f.begin(f.offer(), f.submit(f.tasksOf(tenant, 1)...)[0])
}

// abandon begins a task under a lease that has run out when it returns.
func (f *fixture) abandon() store.Begun {
	f.Helper()
	a := f.offer()
	a.Lease = f.h.Unit
	begun := f.begin(a, f.queued())
	f.ended()
	return begun
}

// adopt adopts all that it can, and checks how many that is.
func (f *fixture) adopt(a store.Admission, want int) []store.Begun {
	f.Helper()
	begun, err := f.s.Adopt(f.Context(), a, 100)
	f.must("Adopt", err)
	if len(begun) != want {
		f.Fatalf("adopted %d runs, want %d", len(begun), want)
	}
	return begun
}

// running makes a run's task running.
func (f *fixture) running(l store.Lease) {
	f.Helper()
	f.must("Save", f.s.Save(f.Context(), l, store.Save{Status: &store.Change{State: store.StateRunning}}))
}

// finish ends one run, which must be held.
func (f *fixture) finish(o store.Outcome) store.Finished {
	f.Helper()
	done, err := f.s.Finish(f.Context(), []store.Outcome{o})
	f.must("Finish", err)
	if len(done) != 1 {
		f.Fatalf("%d answers to one outcome", len(done))
	}
	f.must("Finish", done[0].Err)
	return done[0]
}

// succeed ends a run whose workspace is confirmed gone.
func (f *fixture) succeed(l store.Lease) store.Finished {
	f.Helper()
	return f.finish(store.Outcome{Lease: l, State: store.StateSucceeded, Count: store.CountAttempt, Workspace: store.DisposeGone})
}

// requeue puts a run back in line; its workspace is gone.
func (f *fixture) requeue(l store.Lease) store.Finished {
	f.Helper()
	return f.finish(store.Outcome{Lease: l, State: store.StateQueued, Count: store.CountAttempt, Workspace: store.DisposeGone})
}

// get returns a task that must exist, with payload and result.
func (f *fixture) get(id string) store.Task {
	f.Helper()
	tasks := f.query(store.TaskQuery{IDs: []string{id}, Payload: true, Result: true})
	if len(tasks) != 1 {
		f.Fatalf("task %q: found %d", id, len(tasks))
	}
	return tasks[0]
}

// query asks the second connection.
func (f *fixture) query(q store.TaskQuery) []store.Task {
	f.Helper()
	tasks, err := f.second.QueryTasks(f.Context(), q)
	f.must("QueryTasks", err)
	return tasks
}

// events returns all events of a task that are kept.
func (f *fixture) events(id string) []store.Event {
	f.Helper()
	events, err := f.second.Events(f.Context(), id, 0, 1<<20)
	f.must("Events", err)
	return events
}

// entries returns all entries of a task.
func (f *fixture) entries(id string) []store.Entry {
	f.Helper()
	entries, err := f.second.Entries(f.Context(), id, "")
	f.must("Entries", err)
	return entries
}

// put writes a row, which must be taken, and returns it as it is then.
func (f *fixture) put(l store.Lease, w store.Workspace) store.Workspace {
	f.Helper()
	version, err := f.s.PutWorkspace(f.Context(), l, nil, w)
	f.must("PutWorkspace", err)
	if w.State == store.WorkspaceGone {
		return store.Workspace{}
	}
	row, ok := f.row(w.Token)
	if !ok || row.Version != version {
		f.Fatalf("PutWorkspace says version %d; the row is %+v (there: %v)", version, row, ok)
	}
	return row
}

// spare is a ready spare of agent that is not in the Store yet.
func (f *fixture) spare() store.Workspace {
	return store.Workspace{
		Token: f.id("w"), Scope: scope, Owner: owner, Agent: agent, Spec: spec, State: store.WorkspaceReady,
		Resources: provider.Resources{CPU: 1, MemoryMB: 100},
	}
}

// gone says that a row's workspace is confirmed gone.
func (f *fixture) gone(l store.Lease, token string) {
	f.Helper()
	row, ok := f.row(token)
	if !ok {
		f.Fatalf("no row of workspace %q", token)
	}
	row.State = store.WorkspaceGone
	f.put(l, row)
}

// row returns a row, if it is there.
func (f *fixture) row(token string) (store.Workspace, bool) {
	f.Helper()
	rows := f.rows(store.WorkspaceQuery{Tokens: []string{token}})
	if len(rows) == 0 {
		return store.Workspace{}, false
	}
	return rows[0], true
}

// rows asks the second connection.
func (f *fixture) rows(q store.WorkspaceQuery) []store.Workspace {
	f.Helper()
	rows, err := f.second.QueryWorkspaces(f.Context(), q)
	f.must("QueryWorkspaces", err)
	return rows
}

// usage asks the second connection, without defaults.
func (f *fixture) usage(tenant, agent string) store.Usage {
	f.Helper()
	u, err := f.second.Usage(f.Context(), nil, tenant, agent)
	f.must("Usage", err)
	return u
}

// must ends the case if a call has failed.
func (f *fixture) must(call string, err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", call, err)
	}
}

// fails checks the error of a call that must fail.
func (f *fixture) fails(call string, err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s: error %v, want %v", call, err, want)
	}
}

// limit checks that err is a *LimitError of this limit.
func (f *fixture) limit(err error, limit string) *store.LimitError {
	f.Helper()
	var refused *store.LimitError
	if !errors.As(err, &refused) {
		f.Fatalf("error %v, want a LimitError of %q", err, limit)
	}
	if refused.Limit != limit {
		f.Fatalf("refused by %q (%v), want %q", refused.Limit, refused, limit)
	}
	return refused
}

// equal compares a value with what it should be.
func equal[T comparable](f *fixture, what string, got, want T) {
	f.Helper()
	if got != want {
		f.Errorf("%s: %v, want %v", what, got, want)
	}
}

// same compares several values with what they should be.
func same(f *fixture, what string, got, want []any) {
	f.Helper()
	if !reflect.DeepEqual(got, want) {
		f.Errorf("%s: %v, want %v", what, got, want)
	}
}

// plain is a time as every Store can keep it.
func plain(t time.Time) time.Time { return t.UTC().Round(time.Microsecond) }

// sameRow compares two readings of a row.
func (f *fixture) sameRow(got, want store.Workspace) {
	f.Helper()
	for _, w := range []*store.Workspace{&got, &want} {
		for _, t := range []*time.Time{&w.KeepUntil, &w.Created, &w.Since, &w.Ready, &w.Checked} {
			*t = plain(*t)
		}
	}
	equal(f, "row", got, want)
}

// sameTask compares two readings of a task, without their bytes.
func (f *fixture) sameTask(got, want store.Task) {
	f.Helper()
	for _, x := range []*store.Task{&got, &want} {
		for _, t := range []*time.Time{&x.NotBefore, &x.NotAfter, &x.LeaseEnd, &x.Created, &x.Due, &x.Started, &x.Finished, &x.Changed} {
			*t = plain(*t)
		}
		x.Payload, x.Result = nil, nil
	}
	same(f, "task", []any{got}, []any{want})
}

// list compares a list with what it should be.
func list(f *fixture, what string, got []string, want ...string) {
	f.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		f.Errorf("%s: %q, want %q", what, got, want)
	}
}

// idsOf are the ids of tasks.
func idsOf(tasks []store.Task) []string {
	ids := make([]string, len(tasks))
	for i, t := range tasks {
		ids[i] = t.ID
	}
	return ids
}

// check reports a call that has failed; it may be called from any goroutine.
func (f *fixture) check(call string, err error) {
	f.Helper()
	if err != nil {
		f.Errorf("%s: %v", call, err)
	}
}

// together calls do n times at once, half of them with the second connection, and waits for all.
func (f *fixture) together(n int, do func(i int, s store.Store)) {
	var all sync.WaitGroup
	for i := range n {
		s := f.s
		if i%2 == 1 {
			s = f.second
		}
		all.Go(func() { do(i, s) })
	}
	all.Wait()
}

// picture shows all that can be seen in the Store, to tell whether a call has changed anything.
func (f *fixture) picture() string {
	f.Helper()
	var b strings.Builder
	for _, t := range f.query(store.TaskQuery{N: 1000, Payload: true, Result: true}) {
		fmt.Fprintf(&b, "%+v\n", t)
		for _, e := range f.events(t.ID) {
			fmt.Fprintf(&b, "  %+v\n", e)
		}
		for _, e := range f.entries(t.ID) {
			fmt.Fprintf(&b, "  %+v\n", e)
		}
	}
	for _, w := range f.rows(store.WorkspaceQuery{}) {
		fmt.Fprintf(&b, "%+v\n", w)
	}
	counts, err := f.second.Counts(f.Context())
	f.must("Counts", err)
	fmt.Fprintf(&b, "%+v\n%+v\n", counts, f.usage(tenant, agent))
	return b.String()
}

// unchanged checks that what is done within leaves everything as it was.
func (f *fixture) unchanged(what string, within func()) {
	f.Helper()
	before := f.picture()
	within()
	if after := f.picture(); after != before {
		f.Errorf("%s has changed something.\nbefore:\n%safter:\n%s", what, before, after)
	}
}
