package promise_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet/internal/promise"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

const (
	owner = "fleet"
	agent = "agent"
	idle  = 5 * time.Minute
)

// fixture is a fleet that a test plays by hand: what a dispatcher does to its store and provider, call by call.
type fixture struct {
	*testing.T
	c     *promise.Checker
	mem   *store.Memory // the truth
	s     store.Store   // as the fleet sees it
	cloud *fakeprovider.Provider
	final promise.Final
	ids   int
}

func newFixture(t *testing.T, cfg promise.Config, spoil func(store.Store) store.Store) *fixture {
	mem := store.NewMemory()
	cloud := fakeprovider.New(fakeprovider.Config{})
	cfg.Agents = map[string]promise.Agent{agent: {Concurrent: 3, IdleTimeout: idle}}
	f := &fixture{T: t, c: promise.New(cfg), mem: mem, cloud: cloud}
	var inner store.Store = mem
	if spoil != nil {
		inner = spoil(mem)
	}
	f.s = f.c.Wrap(inner)
	f.final = promise.Final{
		Store: inner, Provider: cloud.Sibling(), Owner: owner, Drained: true, Grace: time.Minute, Idle: time.Hour,
		Calls:      func() int { return total(cloud.Calls()) },
		Goroutines: 20,
		Ask: func(ctx context.Context, id string) (promise.Answer, error) {
			tasks, err := inner.QueryTasks(ctx, store.TaskQuery{IDs: []string{id}})
			if err != nil || len(tasks) == 0 {
				return promise.Answer{}, fmt.Errorf("%d tasks, %w", len(tasks), err)
			}
			a := promise.Answer{State: tasks[0].State, Reason: tasks[0].Reason}
			if a.State == store.StateFailed {
				a.Result = fmt.Errorf("%w: %s", errStuck, tasks[0].Reason)
			}
			return a, nil
		},
		Causes: map[string]error{"idle": errStuck},
	}
	return f
}

var errStuck = errors.New("stuck")

func total(calls map[string]int) (n int) {
	for _, c := range calls {
		n += c
	}
	return n
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) submit(tenant string) string {
	f.Helper()
	f.ids++
	ids, err := f.s.Submit(f.Context(), store.SubmitRequest{Tasks: []store.Task{{
		ID: fmt.Sprintf("t%03d", f.ids), Agent: agent, Tenant: tenant, Digest: fmt.Sprint(f.ids),
	}}})
	f.must(err)
	return ids[0]
}

func (f *fixture) offer() store.Admission {
	f.ids++
	return store.Admission{
		Runner: "r", Lease: 30 * time.Second, Owner: owner, Scope: "scope", Tokens: []string{fmt.Sprintf("w%03d", f.ids)},
		Plans: []store.Plan{{Agent: agent, Spec: "s", Resources: provider.Resources{CPU: 1}, Paths: []store.Path{store.PathKept, store.PathWarm, store.PathCold}}},
	}
}

// begin admits a task in its first generation.
func (f *fixture) begin(id string) store.Begun {
	f.Helper()
	begun, err := f.s.Begin(f.Context(), f.offer(), []store.BeginRequest{{Task: id, Generation: 1}})
	f.must(err)
	if begun[0].Verdict != store.Admitted {
		f.Fatalf("%s: %+v", id, begun[0])
	}
	return begun[0]
}

// boot makes the workspace of a run.
func (f *fixture) boot(b *store.Begun) {
	f.Helper()
	w, err := f.cloud.Create(f.Context(), provider.CreateRequest{Owner: owner, Token: b.Workspace.Token, Agent: agent})
	f.must(err)
	row := b.Workspace
	row.ID, row.State, row.Intent = w.ID, store.WorkspaceReady, store.IntentNone
	f.must(f.s.Save(f.Context(), b.Lease, store.Save{Status: &store.Change{State: store.StateRunning}, Workspace: &row}))
	row.Version++
	b.Workspace = row
}

func (f *fixture) enter(ctx context.Context, b store.Begun) (leave func()) {
	return f.c.Enter(ctx, promise.Run{Task: b.Task.ID, Agent: agent, Tenant: b.Task.Tenant, Fence: b.Lease.Fence})
}

func (f *fixture) finish(o store.Outcome) store.Finished {
	f.Helper()
	done, err := f.s.Finish(f.Context(), []store.Outcome{o})
	f.must(err)
	return done[0]
}

// end finishes a run and deletes its workspace.
func (f *fixture) end(b store.Begun) {
	f.Helper()
	f.must(f.cloud.Delete(f.Context(), b.Workspace.ID))
	f.finish(store.Outcome{Lease: b.Lease, State: store.StateSucceeded, Count: store.CountAttempt, Workspace: store.DisposeGone})
}

// run takes a task from submission to its end.
func (f *fixture) run(tenant string) {
	f.Helper()
	b := f.begin(f.submit(tenant))
	f.boot(&b)
	leave := f.enter(f.Context(), b)
	time.Sleep(idle / 2)
	f.c.Sign(b.Task.ID)
	time.Sleep(idle / 2)
	leave()
	f.end(b)
}

// plays are lives of a fleet, each of which breaks one promise; "" breaks none.
var plays = []struct {
	name   string
	breaks promise.Promise
	config promise.Config
	spoil  func(store.Store) store.Store
	play   func(f *fixture)
}{
	{name: "all is well", play: func(f *fixture) { f.run("ann"); f.run("bob") }},
	{name: "a retry", play: func(f *fixture) {
		id := f.submit("ann")
		b := f.begin(id)
		f.finish(store.Outcome{Lease: b.Lease, State: store.StateQueued, Count: store.CountAttempt, Reason: "again", Code: "retry", Workspace: store.DisposeGone})
		begun, err := f.s.(store.Liner).ClaimBegin(f.Context(), f.offer(), 1)
		f.must(err)
		f.boot(&begun.Begun[0])
		f.end(begun.Begun[0])
	}},
	{name: "a take-over", play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		f.boot(&b)
		ctx, cancel := context.WithCancel(f.Context())
		leave := f.enter(ctx, b)
		defer leave()
		cancel()
		time.Sleep(time.Minute)
		begun, err := f.s.Adopt(f.Context(), f.offer(), 1)
		f.must(err)
		defer f.enter(f.Context(), begun[0])()
		f.end(begun[0])
	}},
	{name: "lowered limits drain", config: promise.Config{Limits: store.Limits{Workspaces: 3}}, play: func(f *fixture) {
		a, b := f.begin(f.submit("ann")), f.begin(f.submit("bob"))
		f.must(f.s.SetLimits(f.Context(), &store.Limits{Workspaces: 1}))
		leave := f.enter(f.Context(), a)
		leave()
		f.end(a)
		f.end(b)
		f.run("ann")
	}},

	{name: "a record is forgotten", breaks: promise.Lost, play: func(f *fixture) {
		f.run("ann")
		f.must(f.mem.Remove(f.Context(), []string{"t001"}))
	}},
	{name: "a task never ends", breaks: promise.Lost, play: func(f *fixture) { f.submit("ann") }},
	{name: "a task ends twice", breaks: promise.Lost, spoil: func(s store.Store) store.Store { return twice{s} }, play: func(f *fixture) { f.run("ann") }},
	{name: "a task lives after its end", breaks: promise.Lost, spoil: func(s store.Store) store.Store { return undead{s} }, play: func(f *fixture) { f.run("ann") }},

	{name: "fences do not grow", breaks: promise.Owner, spoil: func(s store.Store) store.Store { return sameFence{s} }, play: func(f *fixture) {
		f.end(f.begin(f.submit("ann")))
		f.begin(f.submit("ann"))
	}},
	{name: "an old owner writes", breaks: promise.Owner, spoil: func(s store.Store) store.Store { return anyFence{s} }, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		time.Sleep(time.Minute)
		_, err := f.s.Adopt(f.Context(), f.offer(), 1)
		f.must(err)
		f.must(f.s.Save(f.Context(), b.Lease, store.Save{}))
	}},
	{name: "a run ends twice", breaks: promise.Owner, spoil: func(s store.Store) store.Store { return anyFence{s} }, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		f.end(b)
		f.finish(store.Outcome{Lease: b.Lease, State: store.StateSucceeded, Workspace: store.DisposeGone})
	}},
	{name: "two handlers at once", breaks: promise.Owner, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		defer f.enter(f.Context(), b)()
		defer f.enter(f.Context(), b)()
		f.end(b)
	}},
	{name: "another tenant's workspace", breaks: promise.Owner, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		f.boot(&b)
		f.finish(store.Outcome{Lease: b.Lease, State: store.StateSucceeded, Workspace: store.DisposePool})
		b = f.begin(f.submit("bob"))
		f.end(b)
	}},

	{name: "a workspace in no record", breaks: promise.Leak, play: func(f *fixture) {
		_, err := f.cloud.Create(f.Context(), provider.CreateRequest{Owner: owner, Token: "x", Agent: agent})
		f.must(err)
		f.final.Spares = 1
	}},
	{name: "a workspace outlives its run", breaks: promise.Leak, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		f.boot(&b)
		f.finish(store.Outcome{Lease: b.Lease, State: store.StateSucceeded, Workspace: store.DisposeDelete})
	}},

	{name: "more rows than workspaces allowed", breaks: promise.Limits, config: promise.Config{Limits: store.Limits{Workspaces: 1}}, play: func(f *fixture) {
		a, b := f.begin(f.submit("ann")), f.begin(f.submit("bob"))
		f.end(a)
		f.end(b)
	}},
	{name: "more rows than cores allowed", breaks: promise.Limits, config: promise.Config{Limits: store.Limits{Tenant: store.TenantLimits{CPU: 1.5}}}, play: func(f *fixture) {
		a, b := f.begin(f.submit("ann")), f.begin(f.submit("ann"))
		f.end(a)
		f.end(b)
	}},
	{name: "more handlers than the agent may have", breaks: promise.Limits, play: func(f *fixture) {
		for i := range 4 {
			b := f.begin(f.submit(fmt.Sprint(i % 2)))
			defer f.enter(f.Context(), b)()
			defer f.end(b)
		}
	}},
	{name: "more than the limit that was set", breaks: promise.Limits, spoil: func(s store.Store) store.Store { return unlimited{s} }, play: func(f *fixture) {
		f.must(f.s.SetTenantLimits(f.Context(), "ann", &store.TenantLimits{Concurrent: 1}))
		a, b := f.begin(f.submit("ann")), f.begin(f.submit("ann"))
		f.end(a)
		f.end(b)
	}},

	{name: "spares that nobody asked for", breaks: promise.Zero, play: func(f *fixture) {
		_, err := f.s.PutWorkspace(f.Context(), store.Lease{}, nil, store.Workspace{Token: "x", Owner: owner, Agent: agent, State: store.WorkspaceReady})
		f.must(err)
	}},
	{name: "the provider is polled", breaks: promise.Zero, play: func(f *fixture) {
		f.run("ann")
		time.AfterFunc(30*time.Minute, func() { f.cloud.Get(context.Background(), "x") })
	}},
	{name: "goroutines are left", breaks: promise.Zero, play: func(f *fixture) {
		for range 20 {
			go func() { <-f.Context().Done() }()
		}
	}},

	{name: "one tenant is served first", breaks: promise.Starved, play: func(f *fixture) { f.serve("aaabbb") }},
	{name: "weights do not count", breaks: promise.Starved, play: func(f *fixture) {
		f.serve("abababababab")
		f.final.Fair["a"] = 3
	}},
	{name: "tenants take turns", play: func(f *fixture) { f.serve("ababba") }},

	{name: "a working agent is ended", breaks: promise.Silence, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		leave := f.enter(f.Context(), b)
		time.Sleep(idle)
		f.c.Sign(b.Task.ID)
		time.Sleep(idle / 3)
		leave()
		f.finish(store.Outcome{Lease: b.Lease, State: store.StateFailed, Code: "idle", Reason: "no progress", Workspace: store.DisposeGone})
	}},
	{name: "a stuck agent is left", breaks: promise.Silence, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		defer f.enter(f.Context(), b)()
		time.Sleep(3 * idle)
		f.end(b)
	}},

	{name: "a failure without a reason", breaks: promise.Explained, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		f.finish(store.Outcome{Lease: b.Lease, State: store.StateFailed, Code: "error", Workspace: store.DisposeGone})
	}},
	{name: "a wait without the cause", breaks: promise.Explained, play: func(f *fixture) {
		b := f.begin(f.submit("ann"))
		f.finish(store.Outcome{Lease: b.Lease, State: store.StateFailed, Code: "timeout", Reason: "out of time", Workspace: store.DisposeGone})
		f.final.Causes = map[string]error{"timeout": context.DeadlineExceeded}
	}},
	{name: "a queued task that is not told why", breaks: promise.Explained, play: func(f *fixture) {
		f.submit("ann")
		f.final.Drained = false
		f.final.Ask = func(context.Context, string) (promise.Answer, error) {
			return promise.Answer{State: store.StateQueued, Reason: "queued"}, nil
		}
	}},
}

// serve admits and ends tasks of these tenants, in this order, all of which were in line from the start.
func (f *fixture) serve(tenants string) {
	var ids []string
	f.final.Fair = map[string]int{}
	for _, tenant := range tenants {
		ids = append(ids, f.submit(string(tenant)))
		f.final.Fair[string(tenant)] = 1
	}
	for _, id := range ids {
		f.end(f.begin(id))
	}
}

func TestCheckerFindsEachBrokenPromise(t *testing.T) {
	for _, p := range plays {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, p.config, p.spoil)
				p.play(f)
				broken := f.c.Check(t.Context(), f.final)
				others := slices.DeleteFunc(slices.Clone(broken), func(v promise.Violation) bool { return v.Promise == p.breaks })
				if p.breaks != "" && len(broken) == len(others) {
					t.Errorf("no violation of %q was found", p.breaks)
				}
				if p.breaks == "" && len(others) > 0 {
					t.Errorf("found what is not there:\n%s", promise.String(others))
				}
			})
		})
	}
}

// The stores below are those of an implementer who has made one mistake.

// twice ends each task twice.
type twice struct{ store.Store }

func (s twice) Events(ctx context.Context, task string, after int64, n int) ([]store.Event, error) {
	events, err := s.Store.Events(ctx, task, after, n)
	if len(events) > 1 && events[len(events)-1].State.Finished() {
		events[len(events)-2].State = store.StateCanceled
	}
	return events, err
}

// undead has one more change after the end of each task.
type undead struct{ store.Store }

func (s undead) Events(ctx context.Context, task string, after int64, n int) ([]store.Event, error) {
	events, err := s.Store.Events(ctx, task, after, n)
	if len(events) > 1 {
		last := events[len(events)-1]
		last.Version++
		last.State = store.StateRunning
		events = append(events, last)
	}
	return events, err
}

// sameFence gives the same fence to all.
type sameFence struct{ store.Store }

func (s sameFence) Begin(ctx context.Context, a store.Admission, reqs []store.BeginRequest) ([]store.Begun, error) {
	out, err := s.Store.Begin(ctx, a, reqs)
	for i := range out {
		out[i].Lease.Fence = 1
	}
	return out, err
}

// anyFence takes the writes of all that ever owned a run.
type anyFence struct{ store.Store }

func (s anyFence) Save(ctx context.Context, l store.Lease, save store.Save) error {
	if err := s.Store.Save(ctx, l, save); !errors.Is(err, store.ErrLeaseLost) {
		return err
	}
	return nil
}

func (s anyFence) Finish(ctx context.Context, outs []store.Outcome) ([]store.Finished, error) {
	done, err := s.Store.Finish(ctx, outs)
	for i := range done {
		done[i].Err = nil
	}
	return done, err
}

// unlimited forgets the limits that it is given.
type unlimited struct{ store.Store }

func (s unlimited) SetTenantLimits(context.Context, string, *store.TenantLimits) error { return nil }

// abilities are those that a store may have beside its contract.
func abilities(s store.Store) (liner, blobs bool) {
	_, liner = s.(store.Liner)
	_, blobs = s.(store.Blobs)
	return liner, blobs
}

func TestWrappersHaveTheAbilitiesOfTheirStore(t *testing.T) {
	mem := store.NewMemory()
	for name, s := range map[string]store.Store{
		"all":  mem,
		"none": struct{ store.Store }{mem},
		"a line": struct {
			store.Store
			store.Liner
		}{mem, mem},
		"blobs": struct {
			store.Store
			store.Blobs
		}{mem, mem},
	} {
		open := func(context.Context, string, bool) error { return nil }
		liner, blobs := abilities(s)
		for _, wrapped := range []store.Store{promise.New(promise.Config{}).Wrap(s), promise.Through(open, s)} {
			if l, b := abilities(wrapped); l != liner || b != blobs {
				t.Errorf("%s: line %v, blobs %v; wrapped: %v, %v", name, liner, blobs, l, b)
			}
			if _, ok := wrapped.(store.Watcher); !ok {
				t.Errorf("%s: no hints of tasks", name)
			}
			if _, ok := wrapped.(queue.Notifier); !ok {
				t.Errorf("%s: no hints of the line", name)
			}
		}
	}
}

func TestHintsPassTheWrapper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, promise.Config{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var tasks, lines int
		ended := make(chan error, 2)
		go func() { ended <- f.s.(store.Watcher).WatchTasks(ctx, func(string) { tasks++ }) }()
		go func() { ended <- f.s.(queue.Notifier).Notify(ctx, func() { lines++ }) }()
		synctest.Wait()
		id := f.submit("ann")
		synctest.Wait()
		if n, err := f.s.(queue.Placer).Place(ctx, id); n != 1 || err != nil {
			t.Errorf("place %d, %v", n, err)
		}
		cancel()
		<-ended
		<-ended
		if tasks == 0 || lines == 0 {
			t.Errorf("%d hints of tasks, %d of the line", tasks, lines)
		}
	})
}

func TestGateStopsCallsBeforeAndAfterTheirEffect(t *testing.T) {
	cut := errors.New("cut")
	var stop bool // after the effect; before it otherwise
	mem := store.NewMemory()
	s := promise.Through(func(_ context.Context, op string, after bool) error {
		if op == "Submit" && after == stop {
			return cut
		}
		return nil
	}, mem)
	for i, want := range []int{0, 1} {
		stop = i == 1
		_, err := s.Submit(t.Context(), store.SubmitRequest{Tasks: []store.Task{{ID: "t", Agent: agent, Tenant: "ann"}}})
		if !errors.Is(err, cut) {
			t.Errorf("Submit: %v", err)
		}
		if tasks, err := s.QueryTasks(t.Context(), store.TaskQuery{}); len(tasks) != want || err != nil {
			t.Errorf("after=%v: %d tasks, %v", stop, len(tasks), err)
		}
	}
}
