package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestIDIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var x idIndex
	var want []string
	rows := map[string]*taskRow{}
	for step := range 20_000 {
		id := fmt.Sprintf("%05d", rnd.IntN(10_000))
		if step < 3000 {
			id = fmt.Sprintf("%05d", step) // in order, as ids come
		}
		i, found := slices.BinarySearch(want, id)
		if found {
			x.remove(rows[id])
			want = slices.Delete(want, i, i+1)
		} else {
			rows[id] = &taskRow{Task: Task{ID: id}}
			x.insert(rows[id])
			want = slices.Insert(want, i, id)
		}
		if step%500 != 0 {
			continue
		}
		var up, down []string
		x.ascend(func(t *taskRow) bool { up = append(up, t.ID); return true })
		if !slices.Equal(up, want) {
			t.Fatalf("step %d: ascending %d ids, want %d", step, len(up), len(want))
		}
		x.descend(id, func(t *taskRow) bool { down = append(down, t.ID); return len(down) < 300 })
		slices.Reverse(down)
		if i, _ := slices.BinarySearch(want, id); !slices.Equal(down, want[max(i-300, 0):i]) {
			t.Fatalf("step %d: descending from %s is wrong", step, id)
		}
	}
	for _, id := range want {
		x.remove(rows[id])
	}
	if !x.empty() {
		t.Error("not empty at the end")
	}
}

// A tenant that has nothing in the Store any more costs nothing, an hour after its last submission.
func TestMemoryForgetsTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		submit := func(tenant string) {
			t.Helper()
			task := Task{ID: "task of " + tenant, Agent: "agent", Tenant: tenant}
			if _, err := m.Submit(t.Context(), SubmitRequest{Tasks: []Task{task}}); err != nil {
				t.Fatal(err)
			}
			if err := m.End(t.Context(), task.ID, Ending{State: StateCanceled}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			submit(fmt.Sprint("tenant", i))
		}
		if n := len(m.books.tally.tenants); n != 100 {
			t.Errorf("%d tenants are counted, want 100", n)
		}
		time.Sleep(time.Hour)
		submit("last")
		if n := len(m.books.tally.tenants); n != 1 {
			t.Errorf("%d tenants are counted, want 1", n)
		}
		if n := len(m.books.tally.agents); n != 0 {
			t.Errorf("%d agents are counted, want 0", n)
		}
	})
}

// A line full of tasks that are too late does not hold up everybody else for long: a claim ends some, and asks to be
// called again.
func TestMemoryExpiresInPortions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		for i := range 2*expiriesPerClaim + 1 {
			task := Task{ID: fmt.Sprintf("%06d", i), Agent: "agent", Tenant: "tenant", NotAfter: time.Now().Add(time.Second)}
			if _, err := m.Submit(t.Context(), SubmitRequest{Tasks: []Task{task}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		for _, left := range []int{expiriesPerClaim + 1, 1, 0} {
			claimed, err := m.ClaimBegin(t.Context(), Admission{Plans: []Plan{{Agent: "agent", Paths: []Path{PathCold}}}, Tokens: []string{"w"}}, 1)
			if err != nil {
				t.Fatal(err)
			}
			if n := m.books.tally.queued; n != left {
				t.Errorf("%d tasks are left, want %d", n, left)
			}
			if again := claimed.Next.Equal(time.Now()); again != (left > 0) {
				t.Errorf("%d left, next claim %v", left, claimed.Next)
			}
		}
	})
}

// Tenants at a cap are parked, so that a claim does not have to look at them, until they hold less.
func TestMemoryParks(t *testing.T) {
	m := NewMemory()
	const tenants = 100
	a := Admission{
		Lease: time.Hour, Limits: &Limits{Tenant: TenantLimits{Concurrent: 1}}, Plans: []Plan{{Agent: "agent", Paths: []Path{PathCold}}},
	}
	for i := range 2 * tenants {
		task := Task{ID: fmt.Sprint(i), Agent: "agent", Tenant: fmt.Sprint("tenant", i%tenants)}
		if _, err := m.Submit(t.Context(), SubmitRequest{Tasks: []Task{task}}); err != nil {
			t.Fatal(err)
		}
		a.Tokens = append(a.Tokens, fmt.Sprint("w", i))
	}
	claimed, err := m.ClaimBegin(t.Context(), a, 2*tenants)
	if err != nil || len(claimed.Begun) != tenants || len(m.books.parked) != tenants {
		t.Fatalf("%d claimed, %d parked, error %v", len(claimed.Begun), len(m.books.parked), err)
	}
	if _, err := m.Finish(t.Context(), []Outcome{{Lease: claimed.Begun[7].Lease, State: StateFailed, Workspace: DisposeDelete}}); err != nil {
		t.Fatal(err)
	}
	if n := len(m.books.parked); n != tenants {
		t.Errorf("%d parked while a workspace is being deleted", n)
	}
	if _, err := m.Finish(t.Context(), []Outcome{{Lease: claimed.Begun[8].Lease, State: StateFailed, Workspace: DisposeGone}}); err != nil {
		t.Fatal(err)
	}
	if n := len(m.books.parked); n != tenants-1 {
		t.Errorf("%d parked after one slot became free", n)
	}
	if claimed, err = m.ClaimBegin(t.Context(), a, 2*tenants); err != nil || len(claimed.Begun) != 1 {
		t.Fatalf("%d claimed, error %v", len(claimed.Begun), err)
	}
}

// WatchTasks misses nothing, and calls nobody after it has returned.
func TestMemoryWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		seen, wakes := map[string]int{}, 0
		var watching sync.WaitGroup
		watching.Go(func() {
			if err := m.WatchTasks(ctx, func(task string) { seen[task]++ }); !errors.Is(err, context.Canceled) {
				t.Errorf("WatchTasks: %v", err)
			}
		})
		watching.Go(func() {
			if err := m.Notify(ctx, func() { wakes++ }); !errors.Is(err, context.Canceled) {
				t.Errorf("Notify: %v", err)
			}
		})
		synctest.Wait()
		submit := func(i int) {
			task := Task{ID: fmt.Sprint(i), Agent: "agent", Tenant: "tenant"}
			if _, err := m.Submit(t.Context(), SubmitRequest{Tasks: []Task{task}}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			submit(i)
		}
		synctest.Wait()
		if len(seen) != 100 || wakes == 0 {
			t.Errorf("%d tasks seen, %d wakes", len(seen), wakes)
		}
		a := Admission{Lease: time.Hour, Plans: []Plan{{Agent: "agent", Paths: []Path{PathCold}}}, Tokens: []string{"w"}}
		claimed, err := m.ClaimBegin(t.Context(), a, 1)
		if err != nil || len(claimed.Begun) != 1 {
			t.Fatalf("claimed %d, error %v", len(claimed.Begun), err)
		}
		synctest.Wait()
		wakes = 0
		out := Outcome{Lease: claimed.Begun[0].Lease, State: StateSucceeded, Workspace: DisposeGone}
		if _, err := m.Finish(t.Context(), []Outcome{out}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if wakes == 0 || seen[out.Lease.Task] < 3 {
			t.Errorf("a freed slot: %d wakes, the task was seen %d times", wakes, seen[out.Lease.Task])
		}
		cancel()
		watching.Wait()
		n := len(seen)
		submit(1000)
		synctest.Wait()
		if len(seen) != n || len(m.books.watchers.tasks) != 0 || len(m.books.watchers.line) != 0 {
			t.Error("somebody watches after the end")
		}
	})
}

// With a context that has ended nothing is done.
func TestMemoryContext(t *testing.T) {
	m := NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Open":            func() error { _, err := m.Open(ctx); return err },
		"Acquire":         func() error { _, err := m.Acquire(ctx, "n", "h", time.Hour); return err },
		"Submit":          func() error { _, err := m.Submit(ctx, SubmitRequest{Tasks: []Task{{ID: "a"}}}); return err },
		"QueryTasks":      func() error { _, err := m.QueryTasks(ctx, TaskQuery{}); return err },
		"Events":          func() error { _, err := m.Events(ctx, "a", 0, 1); return err },
		"End":             func() error { return m.End(ctx, "a", Ending{State: StateCanceled}) },
		"Acknowledge":     func() error { return m.Acknowledge(ctx, nil) },
		"Remove":          func() error { return m.Remove(ctx, nil) },
		"Begin":           func() error { _, err := m.Begin(ctx, Admission{}, nil); return err },
		"Adopt":           func() error { _, err := m.Adopt(ctx, Admission{}, 1); return err },
		"Renew":           func() error { _, err := m.Renew(ctx, nil, 0); return err },
		"Detach":          func() error { return m.Detach(ctx, nil) },
		"Save":            func() error { return m.Save(ctx, Lease{}, Save{}) },
		"Entries":         func() error { _, err := m.Entries(ctx, "a", ""); return err },
		"Finish":          func() error { _, err := m.Finish(ctx, nil); return err },
		"PutWorkspace":    func() error { _, err := m.PutWorkspace(ctx, Lease{}, nil, Workspace{State: WorkspaceNew}); return err },
		"QueryWorkspaces": func() error { _, err := m.QueryWorkspaces(ctx, WorkspaceQuery{}); return err },
		"SetLimits":       func() error { return m.SetLimits(ctx, &Limits{Queued: 1}) },
		"SetTenantLimits": func() error { return m.SetTenantLimits(ctx, "t", &TenantLimits{Queued: 1}) },
		"SetHold":         func() error { return m.SetHold(ctx, Hold{Reason: "r"}) },
		"Usage":           func() error { _, err := m.Usage(ctx, nil, "", ""); return err },
		"Counts":          func() error { _, err := m.Counts(ctx); return err },
		"ClaimBegin":      func() error { _, err := m.ClaimBegin(ctx, Admission{}, 1); return err },
		"WatchTasks":      func() error { return m.WatchTasks(ctx, nil) },
		"Notify":          func() error { return m.Notify(ctx, nil) },
		"Place":           func() error { _, err := m.Place(ctx, "a"); return err },
		"Get":             func() error { _, err := m.Get(ctx, "key"); return err },
		"Delete":          func() error { return m.Delete(ctx, "key") },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	b := &m.books
	if len(b.tasks.byID)+len(b.ledger.rows)+len(b.named)+len(b.rules.tenants)+len(b.rules.holds) > 0 || b.rules.account != nil {
		t.Error("something was done")
	}
}

func TestLimitError(t *testing.T) {
	for _, c := range []struct {
		err  LimitError
		want string
	}{
		{LimitError{Limit: LimitWorkspaces, Max: 500, InUse: 500}, `limit "workspaces" reached: 500 of 500 in use`},
		{LimitError{Limit: LimitTenantCPU, Tenant: "ann", Max: 2.5, InUse: 2}, `limit "tenant cpu" of tenant "ann" reached: 2 of 2.5 in use`},
		{LimitError{Limit: LimitAgentConcurrent, Agent: "a", Max: 1, InUse: 1}, `limit "agent concurrent" of agent "a" reached: 1 of 1 in use`},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
