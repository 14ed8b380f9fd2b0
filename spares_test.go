package freshet_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// untilSpares waits for the pools to hold so many.
func (m *member) untilSpares(warm, paused int) {
	m.w.Helper()
	var s freshet.Stats
	for range 10_000 {
		var err error
		if s, err = m.Stats(m.w.Context()); err != nil {
			m.w.Fatal(err)
		}
		if s.Total.Warm == warm && s.Total.Paused == paused && s.Total.Deleting == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.w.Fatalf("want %d warm, %d paused spares: %+v\nlog:\n%s", warm, paused, s.Total, m.w.log)
}

// slowBoot is a cloud in which a warm start can be told from a cold one.
func slowBoot(main func(context.Context, *fakeprovider.Process) int) fakeprovider.Config {
	return fakeprovider.Config{
		Main: main, Boot: fakeprovider.Fixed(time.Minute), Pause: fakeprovider.Fixed(5 * time.Second), Resume: fakeprovider.Fixed(2 * time.Second),
		Delete: fakeprovider.Fixed(3 * time.Second),
	}
}

func TestWarmSpareIsHandedOutAtOnceAndReplaced(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Pool: freshet.Pool{Warm: 2}}), slowBoot(cat), func(w *world, d *member) {
		d.untilSpares(2, 0)
		for range 2 {
			began := time.Now()
			id := d.submit(freshet.Task{Payload: []byte("ok")})
			d.succeeds(id, "ok")
			if took := time.Since(began); took > 0 {
				w.Errorf("a warm start took %v", took)
			}
			if s := d.status(id); s.Path != "warm" {
				w.Errorf("path %q", s.Path)
			}
		}
		began := time.Now()
		d.untilSpares(2, 0)
		if took := time.Since(began); took > 70*time.Second {
			w.Errorf("refilled after %v; boot takes a minute", took)
		}
		cold := make([]string, 3)
		for i := range cold {
			cold[i] = d.submit(freshet.Task{Payload: []byte("ok")})
		}
		paths := map[string]int{}
		for _, id := range cold {
			d.succeeds(id, "ok")
			paths[d.status(id).Path]++
		}
		if paths["warm"] != 2 || paths["cold"] != 1 {
			w.Errorf("paths %v", paths)
		}
	})
}

func TestPausedSpares(t *testing.T) {
	for _, kind := range []provider.PauseKind{"", provider.Hibernated, provider.DiskOnly} {
		t.Run(string("kind "+kind), func(t *testing.T) {
			play(t, oneAgent(freshet.Agent{Pool: freshet.Pool{Warm: 1, Paused: 2, Kind: kind}}), slowBoot(cat), func(w *world, d *member) {
				d.untilSpares(1, 2)
				paths := map[string]int{}
				var ids []string
				for range 3 {
					ids = append(ids, d.submit(freshet.Task{Payload: []byte("ok")}))
				}
				began := time.Now()
				for _, id := range ids {
					d.succeeds(id, "ok")
					paths[d.status(id).Path]++
				}
				if took := time.Since(began); paths["warm"] != 1 || paths["paused"] != 2 || took > 5*time.Second {
					w.Errorf("paths %v after %v", paths, took)
				}
				d.untilSpares(1, 2)
			})
		})
	}
}

// TestDeadSpareIsReplacedSilently: no attempt is counted, no reason is shown, whatever has become of the spare.
func TestDeadSpareIsReplacedSilently(t *testing.T) {
	for name, pool := range map[string]freshet.Pool{"warm": {Warm: 2}, "paused": {Paused: 2}} {
		for how, end := range map[string]func(p *fakeprovider.Provider, id string){
			"vanished": (*fakeprovider.Provider).Vanish, "failed": (*fakeprovider.Provider).Fail,
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				play(t, oneAgent(freshet.Agent{Pool: pool}), slowBoot(cat), func(w *world, d *member) {
					d.untilSpares(pool.Warm, pool.Paused)
					for _, ws := range w.cloud.Workspaces() {
						end(w.cloud, ws.ID)
					}
					id := d.submit(freshet.Task{Payload: []byte("ok")})
					d.succeeds(id, "ok")
					if s := d.status(id); s.Attempt != 1 || s.Path != "cold" {
						w.Errorf("%+v", s)
					}
					d.untilSpares(pool.Warm, pool.Paused)
				})
			})
		}
	}
}

// TestDeadSpareIsFound though nobody asks for it.
func TestDeadSpareIsFound(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Pool: freshet.Pool{Warm: 2}}), slowBoot(cat), func(w *world, d *member) {
		d.untilSpares(2, 0)
		w.cloud.Vanish(w.cloud.Workspaces()[0].ID)
		time.Sleep(3 * time.Minute)
		if n := len(w.cloud.Workspaces()); n != 2 {
			w.Errorf("%d spares at the cloud three minutes after one of two has vanished", n)
		}
	})
}

// TestRefusedResume: a paused spare that cannot be woken costs no attempt.
func TestRefusedResume(t *testing.T) {
	for name, f := range map[string]fakeprovider.Fault{
		"quota": {Before: provider.ErrQuota}, "no capacity": {Before: provider.ErrNoCapacity}, "unavailable": {Before: provider.ErrUnavailable},
		"ambiguous": {After: provider.ErrAmbiguous}, "cold": {Cold: true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, oneAgent(freshet.Agent{Pool: freshet.Pool{Paused: 1}}), slowBoot(cat), func(w *world, d *member) {
				d.untilSpares(0, 1)
				d.cloud.SetFault(func(c fakeprovider.Call) fakeprovider.Fault {
					if c.Op == "resume" && c.N == 1 {
						return f
					}
					return fakeprovider.Fault{}
				})
				id := d.submit(freshet.Task{Payload: []byte("ok")})
				d.succeeds(id, "ok")
				if s := d.status(id); s.Attempt != 1 {
					w.Errorf("%+v", s)
				}
				d.cloud.SetFault(nil)
				d.untilSpares(0, 1)
			})
		})
	}
}

// TestKeptWorkspace: the same tenant's next task finds its files, nobody else does, and in the end it goes.
func TestKeptWorkspace(t *testing.T) {
	cloud := slowBoot(func(_ context.Context, p *fakeprovider.Process) int {
		b, _ := p.ReadFile("/home/agent/notes")
		fmt.Fprintf(p.Stdout, "%s|%s", b, p.Cmd.Stdin)
		p.WriteFile("/home/agent/notes", p.Cmd.Stdin)
		return 0
	})
	play(t, oneAgent(freshet.Agent{KeepFor: 10 * time.Minute}), cloud, func(w *world, d *member) {
		for _, c := range []struct{ tenant, payload, want, path string }{
			{"ann", "a1", "|a1", "cold"}, {"ann", "a2", "a1|a2", "kept"}, {"bob", "b1", "|b1", "cold"}, {"ann", "a3", "a2|a3", "kept"}, {"bob", "b2", "b1|b2", "kept"},
		} {
			id := d.submit(freshet.Task{Tenant: c.tenant, Payload: []byte(c.payload)})
			d.succeeds(id, c.want)
			if s := d.status(id); s.Path != c.path {
				w.Errorf("%s: path %s, want %s", c.payload, s.Path, c.path)
			}
		}
		time.Sleep(11 * time.Minute)
		if n := len(w.cloud.Workspaces()); n != 0 {
			w.Errorf("%d workspaces after their time", n)
		}
		id := d.submit(freshet.Task{Payload: []byte("a4")})
		d.succeeds(id, "|a4")
		time.Sleep(11 * time.Minute)
	})
}

// TestDeadKeptWorkspaceIsReplaced as a dead spare is.
func TestDeadKeptWorkspaceIsReplaced(t *testing.T) {
	play(t, oneAgent(freshet.Agent{KeepFor: time.Hour}), slowBoot(cat), func(w *world, d *member) {
		d.succeeds(d.submit(freshet.Task{}), "")
		w.cloud.Vanish(w.cloud.Workspaces()[0].ID)
		id := d.submit(freshet.Task{Payload: []byte("ok")})
		d.succeeds(id, "ok")
		if s := d.status(id); s.Attempt != 1 || s.Path != "cold" {
			w.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestKeptWorkspaceMakesRoom when another tenant needs the place.
func TestKeptWorkspaceMakesRoom(t *testing.T) {
	cfg := oneAgent(freshet.Agent{KeepFor: time.Hour})
	cfg.Limits.Workspaces = 1
	play(t, cfg, slowBoot(cat), func(w *world, d *member) {
		d.succeeds(d.submit(freshet.Task{Payload: []byte("a")}), "a")
		began := time.Now()
		d.succeeds(d.submit(freshet.Task{Tenant: "bob", Payload: []byte("b")}), "b")
		if took := time.Since(began); took > 70*time.Second {
			w.Errorf("took %v", took)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestRunsOutrankSpares: at the account's cap a spare makes room, and the pool is refilled when there is room again.
func TestRunsOutrankSpares(t *testing.T) {
	cfg := freshet.Config{
		Agents: []freshet.Agent{
			{Name: "pooled", Handler: freshet.Command("main"), Pool: freshet.Pool{Warm: 2}}, {Name: "other", Handler: freshet.Command("main")},
		},
		Limits: freshet.Limits{Workspaces: 3},
	}
	play(t, cfg, slowBoot(sleeper(2*time.Minute)), func(w *world, d *member) {
		d.untilSpares(2, 0)
		var ids []string
		for range 3 {
			ids = append(ids, d.submit(freshet.Task{Agent: "other", Payload: []byte("ok")}))
		}
		began := time.Now()
		for _, id := range ids {
			d.succeeds(id, "ok")
		}
		if took := time.Since(began); took > 3*time.Minute+15*time.Second {
			w.Errorf("took %v: spares were in the way", took)
		}
		if w.cloud.Peak() > 3 {
			w.Errorf("%d workspaces at once", w.cloud.Peak())
		}
		d.untilSpares(2, 0)
	})
}

// TestPoolWhoseCreatesFail does not hammer the provider, and is full soon after.
func TestPoolWhoseCreatesFail(t *testing.T) {
	for name, f := range map[string]fakeprovider.Fault{"refused": {Before: provider.ErrNoCapacity}, "boot fails": {Fail: true}, "invalid": {Before: provider.ErrInvalid}} {
		t.Run(name, func(t *testing.T) {
			stage(t, oneAgent(freshet.Agent{Pool: freshet.Pool{Warm: 2}}), slowBoot(cat), func(w *world) {
				m := w.member()
				m.cloud.SetFault(first(1<<30, "create", f))
				if err := m.Start(w.Context()); err != nil {
					w.Fatal(err)
				}
				time.Sleep(time.Hour)
				if n := m.cloud.Calls()["create"]; n < 5 || n > 400 {
					w.Errorf("%d creates in an hour", n)
				}
				m.cloud.SetFault(nil)
				began := time.Now()
				m.untilSpares(2, 0)
				if took := time.Since(began); took > 5*time.Minute {
					w.Errorf("full only after %v", took)
				}
			})
		})
	}
}

// TestPoolOfADeadProcessIsAdopted: spares that another dispatcher was making are no capacity, and are not forgotten.
func TestPoolOfADeadProcessIsAdopted(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{Pool: freshet.Pool{Warm: 3}}), slowBoot(cat), func(w *world) {
		w.durable = true
		one := w.start()
		time.Sleep(30 * time.Second) // they are booting
		one.cut()
		one.over = true
		two := w.start()
		began := time.Now()
		two.untilSpares(3, 0)
		if took := time.Since(began); took > 5*time.Minute {
			w.Errorf("full only after %v", took)
		}
		one.mend()
		one.stop()
	})
}

// TestColdPathDuringPoolOutageOfOneAgent: a pool that cannot be filled does not stop another agent.
func TestSpareOfAnOldSpecIsReplaced(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{Image: "v1", Pool: freshet.Pool{Warm: 2}}), slowBoot(cat), func(w *world) {
		w.durable = true
		one := w.start()
		one.untilSpares(2, 0)
		one.stop()
		old := w.cloud.Workspaces()
		if len(old) != 2 {
			w.Errorf("%d spares outlive a shutdown of a durable fleet", len(old))
		}
		w.cfg.Agents[0].Image = "v2"
		two := w.start()
		id := two.submit(freshet.Task{})
		two.succeeds(id, "")
		if s := two.status(id); s.Path != "cold" {
			w.Errorf("path %s: an old spare was used", s.Path)
		}
		time.Sleep(5 * time.Minute)
		two.untilSpares(2, 0)
		for _, now := range w.cloud.Workspaces() {
			for _, then := range old {
				if now.ID == then.ID {
					w.Errorf("%s is still there", now.ID)
				}
			}
		}
	})
}

// TestIdleCostOfSparesIsCounted, and that of runs.
func TestCosts(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Resources: freshet.Resources{CPU: 2}, Pool: freshet.Pool{Warm: 1}})
	cfg.Price = freshet.Price{CPUSecond: 1}
	var starts atomic.Int32
	play(t, cfg, fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
		starts.Add(1)
		return sleeper(time.Minute)(ctx, p)
	}}, func(w *world, d *member) {
		d.untilSpares(1, 0)
		time.Sleep(100 * time.Second)
		id := d.submit(freshet.Task{})
		d.succeeds(id, "")
		if s := d.status(id); s.Cost < 119 || s.Cost > 122 {
			w.Errorf("a minute of two cores costs %g", s.Cost)
		}
		s, err := d.Stats(w.Context())
		if err != nil || s.Total.IdleCost < 199 || s.Total.IdleCost > 340 || s.Total.Cost != d.status(id).Cost || s.Total.Succeeded != 1 {
			w.Errorf("%+v, %v", s.Total, err)
		}
	})
}
