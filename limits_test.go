package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/internal/promise"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// gauge counts what runs at once, and the most that ever did.
type gauge struct {
	mu   sync.Mutex // protects now and most
	now  map[string]int
	most map[string]int
}

func (g *gauge) enter(keys ...string) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now == nil {
		g.now, g.most = map[string]int{}, map[string]int{}
	}
	for _, k := range keys {
		g.now[k]++
		g.most[k] = max(g.most[k], g.now[k])
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, k := range keys {
			g.now[k]--
		}
	}
}

// at is how many run now.
func (g *gauge) at(key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now[key]
}

// reset gives the most that there was, and begins anew.
func (g *gauge) reset() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := g.most
	g.now, g.most = nil, nil
	return most
}

// measured is a handler that works for a while.
func (g *gauge) handler(d time.Duration) freshet.Handler {
	return func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		defer g.enter("all", "tenant "+run.Task.Tenant, "agent "+run.Task.Agent)()
		select {
		case <-time.After(d):
			return run.Task.Payload, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// TestLimitsAreExactAndUsedToTheFull over three dispatchers.
func TestLimitsAreExactAndUsedToTheFull(t *testing.T) {
	var g gauge
	cfg := freshet.Config{
		Agents: []freshet.Agent{
			{Name: "a", Concurrent: 4, Resources: freshet.Resources{CPU: 1, MemoryMB: 512}, Handler: g.handler(time.Minute)},
			{Name: "b", Resources: freshet.Resources{CPU: 0.5, MemoryMB: 1024}, Handler: g.handler(30 * time.Second)},
		},
		Limits: freshet.Limits{Workspaces: 9, CPU: 7.5, MemoryMB: 9000, Tenant: freshet.TenantLimits{Concurrent: 3, CPU: 2.5}},
	}
	cloud := fakeprovider.Config{Boot: fakeprovider.Uniform(time.Second, 10*time.Second, 1), Delete: fakeprovider.Fixed(2 * time.Second)}
	stage(t, cfg, cloud, func(w *world) {
		g.reset()
		w.durable = true
		fleet := []*member{w.start(), w.start(), w.start()}
		var ids []string
		for i := range 200 {
			ids = append(ids, fleet[i%3].submit(freshet.Task{Agent: []string{"a", "b"}[i%2], Tenant: fmt.Sprint("t", i%7)}))
		}
		for _, id := range ids {
			fleet[0].succeeds(id, "")
		}
		most := g.reset()
		if most["all"] > 9 || most["agent a"] > 4 || most["all"] < 7 || most["agent a"] < 4 {
			w.Errorf("at once: %v", most)
		}
		for key, n := range most {
			if strings.HasPrefix(key, "tenant") && n > 3 {
				w.Errorf("%s had %d at once", key, n)
			}
		}
		if w.cloud.Peak() > 9 {
			w.Errorf("%d workspaces at once", w.cloud.Peak())
		}
	})
}

func TestLimitsChangeAtRunTime(t *testing.T) {
	var g gauge
	cfg := oneAgent(freshet.Agent{Handler: g.handler(10 * time.Minute), IdleTimeout: -1})
	cfg.Limits = freshet.Limits{Workspaces: 4}
	play(t, cfg, fakeprovider.Config{}, func(w *world, d *member) {
		g.reset()
		var ids []string
		for range 40 {
			ids = append(ids, d.submit(freshet.Task{}))
		}
		set := func(l *freshet.Limits) {
			if err := d.SetLimits(w.Context(), l); err != nil {
				w.Error(err)
			}
		}
		expect := func(n int) {
			w.Helper()
			time.Sleep(2 * time.Second)
			if now := g.at("all"); now != n {
				w.Errorf("%d at once, want %d", now, n)
			}
		}
		expect(4)
		set(&freshet.Limits{Workspaces: 8})
		expect(8)
		set(&freshet.Limits{Workspaces: 2}) // drains, kills nobody
		expect(8)
		time.Sleep(11 * time.Minute)
		expect(2)
		if err := d.SetTenantLimits(w.Context(), "ann", &freshet.TenantLimits{Concurrent: 1}); err != nil {
			w.Error(err)
		}
		set(nil)
		time.Sleep(11 * time.Minute)
		expect(1)
		if err := d.SetTenantLimits(w.Context(), "ann", nil); err != nil {
			w.Error(err)
		}
		expect(4)
		for _, id := range ids {
			d.succeeds(id, "")
		}
	})
}

func TestSubmissionsAreLimited(t *testing.T) {
	for name, c := range map[string]struct {
		limits freshet.Limits
		taken  int
		limit  string
		tenant string
		after  time.Duration
	}{
		"queued":        {freshet.Limits{Workspaces: 1, Queued: 3}, 4, "queued", "", 0},
		"tenant queued": {freshet.Limits{Workspaces: 1, Tenant: freshet.TenantLimits{Queued: 3}}, 4, "tenant queued", "ann", 0},
		"rate":          {freshet.Limits{PerSecond: 0.1, Burst: 2}, 2, "rate", "", 9 * time.Second},
		"per hour":      {freshet.Limits{Tenant: freshet.TenantLimits{PerHour: 2}}, 2, "tenant per hour", "ann", time.Hour - time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := oneAgent(freshet.Agent{})
			cfg.Limits = c.limits
			play(t, cfg, oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
				first := d.submit(freshet.Task{Key: "first"})
				time.Sleep(time.Second) // it runs
				for range c.taken - 1 {
					d.submit(freshet.Task{})
				}
				_, err := d.Submit(w.Context(), freshet.Task{Agent: "agent", Tenant: "ann"})
				var limit *freshet.LimitError
				if !errors.As(err, &limit) || limit.Limit != c.limit || limit.Tenant != c.tenant || limit.RetryAfter != c.after {
					w.Errorf("%v (%+v)", err, limit)
				}
				if _, err := d.SubmitMany(w.Context(), []freshet.Task{{Agent: "agent", Tenant: "ann"}, {Agent: "agent", Tenant: "bob"}}); !errors.As(err, &limit) {
					w.Errorf("many: %v", err)
				}
				if id := d.submit(freshet.Task{Key: "first"}); id != first {
					w.Errorf("a repetition is refused or recorded: %s", id)
				}
				n := 0
				for range d.List(w.Context(), freshet.Filter{}) {
					n++
				}
				if n != c.taken {
					w.Errorf("%d tasks recorded, want %d", n, c.taken)
				}
				if c.after > 0 {
					time.Sleep(c.after)
					d.submit(freshet.Task{})
				}
				for s := range d.List(w.Context(), freshet.Filter{}) {
					d.succeeds(s.ID, "")
				}
			})
		})
	}
}

func TestHoldStopsAdmissions(t *testing.T) {
	for name, f := range map[string]freshet.Filter{"all": {}, "tenant": {Tenant: "ann"}, "agent": {Agent: "agent"}, "both": {Agent: "agent", Tenant: "ann"}} {
		t.Run(name, func(t *testing.T) {
			play(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
				running := d.submit(freshet.Task{})
				d.until(running, freshet.StateRunning)
				if err := d.Hold(w.Context(), f, "invoice 17 is open"); err != nil {
					w.Fatal(err)
				}
				held := d.submit(freshet.Task{})
				other := d.submit(freshet.Task{Tenant: "bob"})
				d.succeeds(running, "")
				time.Sleep(10 * time.Minute)
				if s := d.status(held); s.State != freshet.StateQueued || !strings.Contains(s.Reason, "invoice 17 is open") {
					w.Errorf("%+v", s)
				}
				if s := d.status(other); s.State.Finished() != (f.Tenant == "ann") {
					w.Errorf("bob: %+v", s)
				}
				if err := d.Hold(w.Context(), f, ""); err != nil {
					w.Fatal(err)
				}
				began := time.Now()
				d.succeeds(held, "")
				d.succeeds(other, "")
				if took := time.Since(began); took > time.Minute+2*time.Second {
					w.Errorf("took %v after the hold", took)
				}
			})
		})
	}
}

func TestStatusSaysWhyATaskWaits(t *testing.T) {
	for name, c := range map[string]struct {
		limits freshet.Limits
		agent  freshet.Agent
		want   string
	}{
		"account":       {freshet.Limits{Workspaces: 1}, freshet.Agent{}, "queued: 2nd, all 1 workspace"},
		"tenant":        {freshet.Limits{Tenant: freshet.TenantLimits{Concurrent: 1}}, freshet.Agent{}, "queued: 2nd, your limit of 1 agent is in use"},
		"agent":         {freshet.Limits{}, freshet.Agent{Concurrent: 1}, "queued: 2nd, all 1 place"},
		"tenant cores":  {freshet.Limits{Tenant: freshet.TenantLimits{CPU: 2}}, freshet.Agent{Resources: freshet.Resources{CPU: 2}}, "queued: 2nd, your limit of 2 CPU cores is in use"},
		"account cores": {freshet.Limits{CPU: 3}, freshet.Agent{Resources: freshet.Resources{CPU: 2}}, "queued: 2nd, all 3 CPU cores are in use"},
		"memory":        {freshet.Limits{MemoryMB: 100}, freshet.Agent{Resources: freshet.Resources{MemoryMB: 60}}, "queued: 2nd, all 100 MB of memory are in use"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := oneAgent(c.agent)
			cfg.Limits = c.limits
			play(t, cfg, oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
				var ids []string
				for range 3 {
					ids = append(ids, d.submit(freshet.Task{}))
					time.Sleep(time.Second)
				}
				if s := d.status(ids[2]); !strings.HasPrefix(s.Reason, c.want) || s.Position != 2 {
					w.Errorf("%q, position %d; want %q", s.Reason, s.Position, c.want)
				}
				for _, id := range ids {
					d.succeeds(id, "")
				}
			})
		})
	}
}

// TestTaskThatCanNeverFit: it asks for more than the limit allows altogether; its user must be told.
func TestTaskThatCanNeverFit(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Resources: freshet.Resources{CPU: 8}})
	cfg.Agents = append(cfg.Agents, freshet.Agent{Name: "small", Handler: freshet.Command("main"), Resources: freshet.Resources{CPU: 1}})
	cfg.Limits.Tenant.CPU = 4
	play(t, cfg, oneProgram(cat), func(w *world, d *member) {
		large := d.submit(freshet.Task{})
		d.succeeds(d.submit(freshet.Task{Agent: "small"}), "")
		if s := d.status(large); s.State != freshet.StateQueued || !strings.Contains(s.Reason, "4 CPU cores") {
			w.Errorf("%+v", s)
		}
		d.cancel(large)
	})
}

func TestNotBeforeAndNotAfter(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Concurrent: 1, IdleTimeout: -1})
	play(t, cfg, oneProgram(sleeper(10*time.Minute)), func(w *world, d *member) {
		now := time.Now()
		later := d.submit(freshet.Task{NotBefore: now.Add(time.Hour)})
		first := d.submit(freshet.Task{})
		late := d.submit(freshet.Task{NotAfter: now.Add(5 * time.Minute)})
		window := d.submit(freshet.Task{Tenant: "bob", NotBefore: now.Add(20 * time.Minute), NotAfter: now.Add(21 * time.Minute)})
		if s := d.status(later); !strings.Contains(s.Reason, "not before 01:00:00 UTC") {
			w.Errorf("%q", s.Reason)
		}
		began := time.Now()
		d.fails(late, freshet.ErrExpired)
		if took := time.Since(began); took < 5*time.Minute || took > 5*time.Minute+6*time.Second {
			w.Errorf("expired after %v", took)
		}
		if s := d.status(late); s.State != freshet.StateExpired || s.Code != "expired" {
			w.Errorf("%+v", s)
		}
		d.succeeds(first, "")
		d.succeeds(window, "")
		d.succeeds(later, "")
		for id, after := range map[string]time.Duration{window: 20 * time.Minute, later: time.Hour} {
			if started := d.status(id).Started.Sub(now); started < after || started > after+2*time.Second {
				w.Errorf("started after %v, want %v", started, after)
			}
		}
	})
}

func TestPriorities(t *testing.T) {
	var mu sync.Mutex
	var order []string
	cfg := oneAgent(freshet.Agent{Concurrent: 1, Handler: func(_ context.Context, run *freshet.Run) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, string(run.Task.Payload))
		return nil, nil
	}})
	stage(t, cfg, fakeprovider.Config{}, func(w *world) {
		order = nil
		d := w.member()
		var ids []string
		for _, p := range []int{0, -1000, 5, 0, 1000, 5} {
			ids = append(ids, d.submit(freshet.Task{Priority: p, Payload: fmt.Append(nil, len(ids), "@", p)}))
		}
		if err := d.Start(w.Context()); err != nil {
			w.Fatal(err)
		}
		for _, id := range ids {
			d.succeeds(id, "")
		}
		if want := []string{"4@1000", "2@5", "5@5", "0@0", "3@0", "1@-1000"}; !slices.Equal(order, want) {
			w.Errorf("order %v, want %v", order, want)
		}
	})
}

// TestTenantsShareByWeight, whatever one of them submits.
func TestTenantsShareByWeight(t *testing.T) {
	cfg := oneAgent(freshet.Agent{})
	cfg.Limits = freshet.Limits{Workspaces: 3, Tenant: freshet.TenantLimits{Weight: 1}}
	stage(t, cfg, oneProgram(sleeper(10*time.Second)), func(w *world) {
		d := w.member()
		if err := d.SetTenantLimits(w.Context(), "gold", &freshet.TenantLimits{Weight: 3}); err != nil {
			w.Fatal(err)
		}
		bound := 2.0 // one item of each of two tenants
		if !w.line {
			bound = 4 // tickets that were claimed in vain and given back blur a Queue's order
		}
		var ids []string
		for tenant, n := range map[string]int{"greedy": 100, "gold": 60, "small": 20} {
			for range n {
				ids = append(ids, d.submit(freshet.Task{Tenant: tenant}))
			}
		}
		if err := d.Start(w.Context()); err != nil {
			w.Fatal(err)
		}
		for _, id := range ids {
			if _, err := d.wait(id); err != nil {
				w.Error(err)
			}
		}
		if broken := w.check.Check(w.Context(), promise.Final{Store: w.mem, Fair: map[string]int{"greedy": 1, "gold": 3, "small": 1}, Bound: bound}); len(broken) > 0 {
			w.Errorf("%s", promise.String(broken))
		}
	})
}

// TestFullTenantBlocksNobody: tasks of one that is at its limit are passed over, at a bounded cost.
func TestFullTenantBlocksNobody(t *testing.T) {
	cfg := oneAgent(freshet.Agent{IdleTimeout: -1})
	cfg.Limits.Tenant.Concurrent = 1
	play(t, cfg, oneProgram(sleeper(time.Hour)), func(w *world, d *member) {
		for range 50 {
			for i := range 5 {
				d.submit(freshet.Task{Tenant: fmt.Sprint("greedy-", i)})
			}
		}
		time.Sleep(time.Minute)
		began := time.Now()
		id := d.submit(freshet.Task{Tenant: "patient"})
		if s := d.until(id, freshet.StateRunning); s.Started.Sub(began) > 2*time.Second {
			w.Errorf("started after %v", s.Started.Sub(began))
		}
		w.unfinished = true
	})
}

// TestThousandsOfFullTenants are more than a claim can name, and still block nobody.
func TestThousandsOfFullTenants(t *testing.T) {
	cfg := oneAgent(freshet.Agent{IdleTimeout: -1})
	cfg.Limits.Tenant.Concurrent = 1
	stage(t, cfg, oneProgram(sleeper(10*time.Hour)), func(w *world) {
		w.unfinished = true
		w.check = nil // it would look at all rows at each claim
		d := w.start()
		for i := range 1200 {
			tasks := make([]freshet.Task, 2)
			for j := range tasks {
				tasks[j] = freshet.Task{Agent: "agent", Tenant: fmt.Sprint("full-", i)}
			}
			if _, err := d.SubmitMany(w.Context(), tasks); err != nil {
				w.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		id := d.submit(freshet.Task{Tenant: "patient"})
		time.Sleep(30 * time.Second)
		if s := d.status(id); s.State != freshet.StateRunning {
			w.Errorf("after half a minute: %s (%s)", s.State, s.Reason)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(time.Second)), func(w *world, d *member) {
		task := freshet.Task{Agent: "agent", Tenant: "ann", Key: "k", Payload: []byte("x")}
		id := d.submit(task)
		for range 3 {
			if again := d.submit(task); again != id {
				w.Errorf("another id: %s", again)
			}
			time.Sleep(time.Second)
		}
		d.succeeds(id, "x")
		other := task
		other.Payload = []byte("y")
		if _, err := d.Submit(w.Context(), other); !errors.Is(err, freshet.ErrKeyConflict) {
			w.Errorf("another request under the key: %v", err)
		}
		if _, err := d.SubmitMany(w.Context(), []freshet.Task{{Agent: "agent", Tenant: "eve"}, other}); !errors.Is(err, freshet.ErrKeyConflict) {
			w.Errorf("many: %v", err)
		}
		other.Tenant = "bob"
		d.succeeds(d.submit(other), "y")
		ids, err := d.SubmitMany(w.Context(), []freshet.Task{task, {Agent: "agent", Tenant: "ann", Key: "k2"}, {Agent: "agent", Tenant: "ann", Key: "k2"}})
		if err != nil || len(ids) != 3 || ids[0] != id || ids[1] != ids[2] {
			w.Errorf("many: %v, %v", ids, err)
		}
		d.succeeds(ids[1], "")
		n := 0
		for range d.List(w.Context(), freshet.Filter{}) {
			n++
		}
		if n != 3 {
			w.Errorf("%d tasks", n)
		}
	})
}

func TestSubmitManyIsAllOrNone(t *testing.T) {
	cfg := oneAgent(freshet.Agent{})
	cfg.Limits.Queued = 10
	stage(t, cfg, oneProgram(cat), func(w *world) {
		d := w.member() // not started: they stay in line
		tasks := make([]freshet.Task, 11)
		for i := range tasks {
			tasks[i] = freshet.Task{Agent: "agent", Tenant: "ann", Payload: fmt.Append(nil, i)}
		}
		var limit *freshet.LimitError
		if _, err := d.SubmitMany(w.Context(), tasks); !errors.As(err, &limit) {
			w.Errorf("eleven: %v", err)
		}
		tasks[5].Tenant = ""
		if _, err := d.SubmitMany(w.Context(), tasks[:10]); !errors.Is(err, freshet.ErrInvalid) || !strings.Contains(err.Error(), "task 5") {
			w.Errorf("one is bad: %v", err)
		}
		for range d.List(w.Context(), freshet.Filter{}) {
			w.Error("something was recorded")
		}
		tasks[5].Tenant = "ann"
		ids, err := d.SubmitMany(w.Context(), tasks[:10])
		if err != nil || len(ids) != 10 {
			w.Fatalf("%v, %v", ids, err)
		}
		if none, err := d.SubmitMany(w.Context(), nil); err != nil || len(none) != 0 {
			w.Errorf("none: %v, %v", none, err)
		}
		if _, err := d.SubmitMany(w.Context(), make([]freshet.Task, 10_001)); !errors.Is(err, freshet.ErrInvalid) {
			w.Errorf("too many: %v", err)
		}
		if err := d.Start(w.Context()); err != nil {
			w.Fatal(err)
		}
		for i, id := range ids {
			d.succeeds(id, fmt.Sprint(i))
		}
	})
}
