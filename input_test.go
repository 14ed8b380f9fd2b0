package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

func TestNewRefusesBadConfig(t *testing.T) {
	fake := fakeprovider.New(fakeprovider.Config{})
	unpausing := fakeprovider.Without[provider.Pauser](fake)
	nan := math.NaN()
	many := strings.Repeat("x", 41)
	agent := func(change func(a *freshet.Agent)) func(c *freshet.Config) {
		return func(c *freshet.Config) { change(&c.Agents[0]) }
	}
	for _, c := range []struct {
		says string // a word of the message
		do   func(c *freshet.Config)
	}{
		{"Name", func(c *freshet.Config) { c.Name = "Fleet" }},
		{"Name", func(c *freshet.Config) { c.Name = "a b" }},
		{"Name", func(c *freshet.Config) { c.Name = strings.Repeat("a", 27) }},
		{"Name", func(c *freshet.Config) { c.Name, c.Provider = "", fakeprovider.Without[provider.Namer](fake) }},
		{"Name", func(c *freshet.Config) {
			c.Name, c.Provider, c.Store = "", fakeprovider.Without[provider.Namer](fake), store.NewMemory()
		}},
		{"Queue", func(c *freshet.Config) { c.Queue = queue.NewMemory() }},
		{"Retention", func(c *freshet.Config) { c.Retention = -1 }},
		{"Retention", func(c *freshet.Config) { c.Retention = time.Minute }},
		{"ShutdownTimeout", func(c *freshet.Config) { c.ShutdownTimeout = -1 }},
		{"Price", func(c *freshet.Config) { c.Price.CPUSecond = -1 }},
		{"Price", func(c *freshet.Config) { c.Price.MemoryGBSecond = nan }},
		{"Price", func(c *freshet.Config) { c.Price.DiskGBSecond = math.Inf(1) }},
		{"Limits", func(c *freshet.Config) { c.Limits.Workspaces = -1 }},
		{"Limits", func(c *freshet.Config) { c.Limits.CPU = -1 }},
		{"Limits", func(c *freshet.Config) { c.Limits.CPU = nan }},
		{"Limits", func(c *freshet.Config) { c.Limits.CPU = math.Inf(1) }},
		{"Limits", func(c *freshet.Config) { c.Limits.MemoryMB = -1 }},
		{"Limits", func(c *freshet.Config) { c.Limits.Queued = -1 }},
		{"Limits", func(c *freshet.Config) { c.Limits.PerSecond = -1 }},
		{"Limits", func(c *freshet.Config) { c.Limits.PerSecond = nan }},
		{"Burst", func(c *freshet.Config) { c.Limits.Burst = 5 }},
		{"Limits", func(c *freshet.Config) { c.Limits.PerSecond, c.Limits.Burst = 1, -1 }},
		{"Tenant", func(c *freshet.Config) { c.Limits.Tenant.Concurrent = -1 }},
		{"Tenant", func(c *freshet.Config) { c.Limits.Tenant.CPU = nan }},
		{"Tenant", func(c *freshet.Config) { c.Limits.Tenant.MemoryMB = -1 }},
		{"Tenant", func(c *freshet.Config) { c.Limits.Tenant.PerHour = -1 }},
		{"Tenant", func(c *freshet.Config) { c.Limits.Tenant.Queued = -1 }},
		{"Weight", func(c *freshet.Config) { c.Limits.Tenant.Weight = -1 }},
		{"Weight", func(c *freshet.Config) { c.Limits.Tenant.Weight = 1001 }},
		{"twice", func(c *freshet.Config) { c.Agents = append(c.Agents, c.Agents[0]) }},
		{"Name", agent(func(a *freshet.Agent) { a.Name = "" })},
		{"Name", agent(func(a *freshet.Agent) { a.Name = many })},
		{"Name", agent(func(a *freshet.Agent) { a.Name = "a/b" })},
		{"Name", agent(func(a *freshet.Agent) { a.Name = "a\n" })},
		{"Handler", agent(func(a *freshet.Agent) { a.Handler = nil })},
		{"CPU", agent(func(a *freshet.Agent) { a.Resources.CPU = -1 })},
		{"CPU", agent(func(a *freshet.Agent) { a.Resources.CPU = nan })},
		{"CPU", agent(func(a *freshet.Agent) { a.Resources.CPU = math.Inf(1) })},
		{"MemoryMB", agent(func(a *freshet.Agent) { a.Resources.MemoryMB = -1 })},
		{"DiskMB", agent(func(a *freshet.Agent) { a.Resources.DiskMB = math.MaxInt })},
		{"Options", agent(func(a *freshet.Agent) { a.Options = func() {} })},
		{"Env", agent(func(a *freshet.Agent) { a.Env = map[string]string{"": "x"} })},
		{"Env", agent(func(a *freshet.Agent) { a.Env = map[string]string{"A=B": "x"} })},
		{"Env", agent(func(a *freshet.Agent) { a.Env = map[string]string{"A\x00": "x"} })},
		{"Env", agent(func(a *freshet.Agent) { a.Env = map[string]string{"A": "x\x00y"} })},
		{"Setup[1]", agent(func(a *freshet.Agent) { a.Setup = []freshet.Cmd{{Args: []string{"true"}}, {}} })},
		{"Setup[0]", agent(func(a *freshet.Agent) { a.Setup = []freshet.Cmd{{Args: []string{""}}} })},
		{"Timeout", agent(func(a *freshet.Agent) { a.Timeout = -1 })},
		{"Grace", agent(func(a *freshet.Agent) { a.Grace = -1 })},
		{"Expected", agent(func(a *freshet.Agent) { a.Expected = -1 })},
		{"Checkpoint", agent(func(a *freshet.Agent) { a.Checkpoint = -1 })},
		{"KeepFor", agent(func(a *freshet.Agent) { a.KeepFor = -1 })},
		{"Concurrent", agent(func(a *freshet.Agent) { a.Concurrent = -1 })},
		{"Attempts", agent(func(a *freshet.Agent) { a.Retry.Attempts = -1 })},
		{"MinDelay", agent(func(a *freshet.Agent) { a.Retry.MinDelay = -1 })},
		{"MaxDelay", agent(func(a *freshet.Agent) { a.Retry.MaxDelay = -1 })},
		{"MinDelay", agent(func(a *freshet.Agent) { a.Retry.MinDelay, a.Retry.MaxDelay = time.Hour, time.Minute })},
		{"Warm", agent(func(a *freshet.Agent) { a.Pool.Warm = -1 })},
		{"Paused", agent(func(a *freshet.Agent) { a.Pool.Paused = -1 })},
		{"Kind", agent(func(a *freshet.Agent) { a.Pool = freshet.Pool{Paused: 1, Kind: "asleep"} })},
		{"pause", func(c *freshet.Config) { c.Provider, c.Agents[0].Pool.Paused = unpausing, 1 }},
	} {
		cfg := freshet.Config{Name: "fleet", Provider: fake, Agents: []freshet.Agent{{Name: "agent", Handler: freshet.Command("x")}}}
		c.do(&cfg)
		d, err := freshet.New(cfg)
		if d != nil || !errors.Is(err, freshet.ErrInvalid) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q: %v", c.says, err)
		}
	}
	_, err := freshet.New(freshet.Config{Name: "A", Retention: -1, Agents: []freshet.Agent{{Name: "b"}, {Handler: freshet.Command("x")}}})
	for _, word := range []string{"lower-case", "Retention", "Handler", "bytes"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("several faults at once: %v says nothing of %s", err, word)
		}
	}
	if n := fake.Calls(); len(n) > 0 {
		t.Errorf("New has called the provider: %v", n)
	}
}

func TestNewTakesWhatIsGood(t *testing.T) {
	fake := fakeprovider.New(fakeprovider.Config{})
	handler := freshet.Command("x")
	for name, cfg := range map[string]freshet.Config{
		"nothing":            {},
		"a client":           {Store: store.NewMemory(), Queue: queue.NewMemory()},
		"name of 26":         {Name: strings.Repeat("a", 26)},
		"the provider names": {Provider: fake},
		"an agent at bounds": {Name: "f", Provider: fake, Agents: []freshet.Agent{{
			Name: strings.Repeat("x", 40), Handler: handler, Resources: freshet.Resources{CPU: 4096, MemoryMB: 1 << 30, DiskMB: 1 << 30},
			IdleTimeout: -time.Second, Options: map[string]int{"a": 1}, Env: map[string]string{"A": ""}, Pool: freshet.Pool{Warm: 1, Paused: 1, Kind: provider.Frozen},
			Retry: freshet.Retry{MinDelay: time.Hour},
		}}},
		"paused pool of a client": {Agents: []freshet.Agent{{Name: "a", Handler: handler, Pool: freshet.Pool{Paused: 3}}}},
		"limits":                  {Limits: freshet.Limits{Workspaces: 1, CPU: 0.1, PerSecond: 0.001, Burst: 1, Tenant: freshet.TenantLimits{Weight: 1000}}},
		"retention of an hour":    {Retention: time.Hour},
	} {
		if _, err := freshet.New(cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSubmitRefusesBadTasks(t *testing.T) {
	cfg := oneAgent(freshet.Agent{})
	stage(t, cfg, fakeprovider.Config{}, func(w *world) {
		d, client := w.member(), w.client()
		now := time.Now()
		for name, change := range map[string]func(*freshet.Task){
			"no agent":           func(t *freshet.Task) { t.Agent = "" },
			"unknown agent":      func(t *freshet.Task) { t.Agent = "nobody" },
			"agent with slash":   func(t *freshet.Task) { t.Agent = "a/b" },
			"no tenant":          func(t *freshet.Task) { t.Tenant = "" },
			"long tenant":        func(t *freshet.Task) { t.Tenant = strings.Repeat("t", 257) },
			"tenant not UTF-8":   func(t *freshet.Task) { t.Tenant = "a\xff" },
			"tenant with NUL":    func(t *freshet.Task) { t.Tenant = "a\x00b" },
			"tenant with line":   func(t *freshet.Task) { t.Tenant = "a\nb" },
			"tenant with U+2028": func(t *freshet.Task) { t.Tenant = "a\u2028b" },
			"tenant with C1":     func(t *freshet.Task) { t.Tenant = "a\u0085b" },
			"large payload":      func(t *freshet.Task) { t.Payload = make([]byte, 256<<10+1) },
			"long key":           func(t *freshet.Task) { t.Key = strings.Repeat("k", 257) },
			"key with tab":       func(t *freshet.Task) { t.Key = "a\tb" },
			"high priority":      func(t *freshet.Task) { t.Priority = 1001 },
			"low priority":       func(t *freshet.Task) { t.Priority = -1001 },
			"too late":           func(t *freshet.Task) { t.NotAfter = now.Add(-time.Second) },
			"just too late":      func(t *freshet.Task) { t.NotAfter = now },
			"empty window":       func(t *freshet.Task) { t.NotBefore, t.NotAfter = now.Add(time.Hour), now.Add(time.Hour) },
		} {
			task := freshet.Task{Agent: "agent", Tenant: "ann"}
			change(&task)
			if _, err := d.Submit(w.Context(), task); !errors.Is(err, freshet.ErrInvalid) {
				w.Errorf("Submit, %s: %v", name, err)
			} else if task.Payload != nil && len(err.Error()) > 1000 {
				w.Errorf("%s: an error of %d bytes", name, len(err.Error()))
			}
			if _, err := d.SubmitMany(w.Context(), []freshet.Task{{Agent: "agent", Tenant: "ann"}, task}); !errors.Is(err, freshet.ErrInvalid) {
				w.Errorf("SubmitMany, %s: %v", name, err)
			}
			if _, _, err := d.Prepare(task); !errors.Is(err, freshet.ErrInvalid) {
				w.Errorf("Prepare, %s: %v", name, err)
			}
			if _, err := client.Submit(w.Context(), task); name != "unknown agent" && !errors.Is(err, freshet.ErrInvalid) {
				w.Errorf("client, %s: %v", name, err)
			} else if name == "unknown agent" && err != nil {
				w.Errorf("a client knows no agents, and takes all: %v", err)
			}
		}
		n := 0
		for s := range d.List(w.Context(), freshet.Filter{}) {
			n++
			client.cancel(s.ID)
		}
		if n != 1 {
			w.Errorf("%d tasks were recorded; the client's one is good", n)
		}
	})
}

func TestTaskAtItsBounds(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world, d *member) {
		task := freshet.Task{
			Agent: "agent", Tenant: strings.Repeat("é", 128), Key: strings.Repeat("k", 256), Payload: make([]byte, 256<<10), Priority: 1000,
		}
		id := d.submit(task)
		d.succeeds(id, string(task.Payload))
		if s := d.status(id); s.Task.Tenant != task.Tenant || s.Task.Key != task.Key {
			w.Errorf("%+v", s)
		}
	})
}

func TestOperatorsInputIsChecked(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world, d *member) {
		ctx := w.Context()
		long := strings.Repeat("x", 5000)
		for name, err := range map[string]error{
			"negative limits":        d.SetLimits(ctx, &freshet.Limits{Workspaces: -1}),
			"NaN limits":             d.SetLimits(ctx, &freshet.Limits{CPU: math.NaN()}),
			"tenant in limits":       d.SetLimits(ctx, &freshet.Limits{Tenant: freshet.TenantLimits{Weight: -1}}),
			"no tenant":              d.SetTenantLimits(ctx, "", &freshet.TenantLimits{}),
			"tenant with NUL":        d.SetTenantLimits(ctx, "\x00", &freshet.TenantLimits{}),
			"negative tenant limits": d.SetTenantLimits(ctx, "ann", &freshet.TenantLimits{Concurrent: -1}),
			"hold of states":         d.Hold(ctx, freshet.Filter{States: []freshet.State{"queued"}}, "x"),
			"hold with a long word":  d.Hold(ctx, freshet.Filter{}, long),
			"hold of a bad tenant":   d.Hold(ctx, freshet.Filter{Tenant: "a\nb"}, "x"),
			"hold of a bad agent":    d.Hold(ctx, freshet.Filter{Agent: long}, "x"),
		} {
			if !errors.Is(err, freshet.ErrInvalid) {
				w.Errorf("%s: %v", name, err)
			}
		}
		d.succeeds(d.submit(freshet.Task{Payload: []byte("as before")}), "as before")
		for name, call := range map[string]func(id string) error{
			"Status":    func(id string) error { _, err := d.Status(ctx, id); return err },
			"Wait":      func(id string) error { _, err := d.Wait(ctx, id); return err },
			"Cancel":    func(id string) error { return d.Cancel(ctx, id) },
			"Resubmit":  func(id string) error { _, err := d.Resubmit(ctx, id); return err },
			"Artifacts": func(id string) error { _, err := d.Artifacts(ctx, id); return err },
		} {
			for _, id := range []string{"", "nobody", long, "a\x00b"} {
				if err := call(id); !errors.Is(err, freshet.ErrNotFound) {
					w.Errorf("%s(%.10q): %v", name, id, err)
				}
			}
		}
	})
}

// TestEndedContext: a call whose context has ended changes nothing, and says so.
func TestEndedContext(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Concurrent: 1}), oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		for name, err := range map[string]error{
			"Submit":    func() error { _, err := d.Submit(ctx, freshet.Task{Agent: "agent", Tenant: "ann"}); return err }(),
			"Status":    func() error { _, err := d.Status(ctx, id); return err }(),
			"Wait":      func() error { _, err := d.Wait(ctx, id); return err }(),
			"Cancel":    d.Cancel(ctx, id),
			"SetLimits": d.SetLimits(ctx, &freshet.Limits{}),
			"Hold":      d.Hold(ctx, freshet.Filter{}, "x"),
		} {
			if !errors.Is(err, context.Canceled) {
				w.Errorf("%s: %v", name, err)
			}
		}
		n := 0
		for range d.List(w.Context(), freshet.Filter{}) {
			n++
		}
		if n != 1 {
			w.Errorf("%d tasks", n)
		}
		d.succeeds(id, "")
	})
}

// TestPreparedTask can be written by a backend, and is the same as a submitted one.
func TestPreparedTask(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world, d *member) {
		id, record, err := d.Prepare(freshet.Task{Agent: "agent", Tenant: "ann", Payload: []byte("p"), Key: "k"})
		if err != nil || id == "" || record.ID != id || record.Tenant != "ann" || string(record.Payload) != "p" || record.Digest == "" {
			w.Fatalf("%s, %+v, %v", id, record, err)
		}
		if _, err := d.Status(w.Context(), id); !errors.Is(err, freshet.ErrNotFound) {
			w.Errorf("Prepare has recorded it: %v", err)
		}
		if _, err := w.mem.Submit(w.Context(), store.SubmitRequest{Tasks: []store.Task{record}}); err != nil {
			w.Fatal(err)
		}
		d.succeeds(id, "p") // without a ticket the sweep finds it
		if again := d.submit(freshet.Task{Payload: []byte("p"), Key: "k"}); again != id {
			w.Errorf("%s is not %s", again, id)
		}
	})
}

// TestErrorsSayWhatHappened in words that hold no payload.
func TestErrorsSayWhatHappened(t *testing.T) {
	exit := &freshet.ExitError{Code: 3, Tail: []byte("password: 1234")}
	limit := &freshet.LimitError{Limit: "tenant concurrent", Tenant: "ann", Max: 5, InUse: 5}
	for want, err := range map[string]error{
		"process exited with 3":                                            exit,
		"process was ended by SIGKILL":                                     &freshet.ExitError{Signal: "SIGKILL"},
		"process ran out of memory":                                        &freshet.ExitError{Signal: "SIGKILL", OOM: true},
		`limit "tenant concurrent" of tenant "ann" reached: 5 of 5 in use`: limit,
		"task t1 failed: process exited with 3":                            &freshet.TaskError{Status: freshet.Status{ID: "t1", State: freshet.StateFailed}, Err: exit},
	} {
		if fmt.Sprint(err) != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	left := &freshet.ShutdownError{Abandoned: []string{"t1"}, Err: context.DeadlineExceeded}
	if !errors.Is(left, context.DeadlineExceeded) || !strings.Contains(left.Error(), "t1") {
		t.Error(left)
	}
}
