package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// first makes the first n calls of an op go wrong.
func first(n int, op string, f fakeprovider.Fault) func(fakeprovider.Call) fakeprovider.Fault {
	return func(c fakeprovider.Call) fakeprovider.Fault {
		if c.Op == op && c.N <= n {
			return f
		}
		return fakeprovider.Fault{}
	}
}

func TestRefusedCreatesAreTriedAgain(t *testing.T) {
	for name, f := range map[string]fakeprovider.Fault{
		"quota":               {Before: provider.ErrQuota},
		"no capacity":         {Before: provider.ErrNoCapacity},
		"rate limited":        {Before: &provider.Error{Op: "create", Class: provider.ErrRateLimited, RetryAfter: 10 * time.Second}},
		"unavailable":         {Before: provider.ErrUnavailable},
		"an error of no kind": {Before: errors.New("connection reset by peer")},
		"ambiguous, not made": {Before: provider.ErrAmbiguous},
		"ambiguous, made":     {After: provider.ErrAmbiguous},
		"made, answer lost":   {After: errors.New("connection reset by peer")},
		"slow":                {Delay: 3 * time.Minute},
		"made, answer slow":   {AnswerDelay: 3 * time.Minute},
		"boot fails":          {Fail: true},
	} {
		for _, mode := range []provider.CreateMode{provider.Idempotent, provider.Search} {
			t.Run(fmt.Sprint(name, " mode=", mode), func(t *testing.T) {
				cloud := oneProgram(cat)
				cloud.Boot = fakeprovider.Fixed(5 * time.Second)
				cloud.Fault = first(2, "create", f)
				cloud.Capabilities = func(c *provider.Capabilities) { c.Create = mode }
				play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
					began := time.Now()
					id := d.submit(freshet.Task{Payload: []byte("ok")})
					d.succeeds(id, "ok")
					if took := time.Since(began); took > 7*time.Minute {
						w.Errorf("took %v", took)
					}
					if s := d.status(id); s.Attempt != 1 && !f.Fail {
						w.Errorf("a refused create counts as attempt: %+v", s)
					}
					if n := w.cloud.Peak(); n > 1 && f.Before == nil && f.Delay == 0 && !f.Fail {
						w.Errorf("%d workspaces at once for one task", n)
					}
				})
			})
		}
	}
}

// TestRetryAfterIsHeeded: no create before the provider's time.
func TestRetryAfterIsHeeded(t *testing.T) {
	cloud := oneProgram(cat)
	cloud.Fault = first(1, "create", fakeprovider.Fault{Before: &provider.Error{Op: "create", Class: provider.ErrRateLimited, RetryAfter: 90 * time.Second}})
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		began := time.Now()
		one := d.submit(freshet.Task{})
		time.Sleep(time.Second)
		two := d.submit(freshet.Task{})
		d.succeeds(one, "")
		d.succeeds(two, "")
		if took := time.Since(began); took < 90*time.Second || took > 100*time.Second {
			w.Errorf("took %v", took)
		}
	})
}

// TestRateOfCreates: a provider that states its pace is not asked faster.
func TestRateOfCreates(t *testing.T) {
	for name, stated := range map[string]bool{"stated": true, "learnt": false} {
		t.Run(name, func(t *testing.T) {
			cloud := oneProgram(sleeper(time.Minute))
			cloud.CreatesPerSecond, cloud.CreateBurst = 2, 5
			if !stated {
				cloud.Capabilities = func(c *provider.Capabilities) { c.CreatesPerSecond, c.CreateBurst = 0, 0 }
			}
			play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
				began := time.Now()
				var ids []string
				for range 60 {
					ids = append(ids, d.submit(freshet.Task{}))
				}
				for _, id := range ids {
					d.succeeds(id, "")
				}
				if took := time.Since(began) - time.Minute; took < 27*time.Second || took > 90*time.Second {
					w.Errorf("60 creates at 2 a second took %v", took)
				}
				if calls := w.cloud.Calls()["create"]; stated && calls > 60 {
					w.Errorf("%d calls", calls)
				} else if calls > 600 {
					w.Errorf("%d calls for 60 workspaces", calls)
				}
			})
		})
	}
}

func TestImpossibleSpecFailsAtOnce(t *testing.T) {
	cloud := oneProgram(cat)
	cloud.Fault = first(1000, "create", fakeprovider.Fault{Before: provider.ErrInvalid})
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		if err := d.fails(id, nil); !strings.Contains(err.Error(), "invalid request") {
			w.Error(err)
		}
		if s := d.status(id); s.Attempt != 1 {
			w.Errorf("%+v", s)
		}
	})
}

// TestOperatorMustAct: tasks wait, are told why, and go on when an operator has acted.
func TestOperatorMustAct(t *testing.T) {
	for name, c := range map[string]struct {
		class error
		words string
	}{"unauthorized": {provider.ErrUnauthorized, "credentials"}, "suspended": {provider.ErrSuspended, "suspended"}} {
		t.Run(name, func(t *testing.T) {
			cloud := oneProgram(cat)
			play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
				d.cloud.SetFault(first(1<<30, "create", fakeprovider.Fault{Before: c.class}))
				id := d.submit(freshet.Task{Payload: []byte("ok")})
				time.Sleep(10 * time.Minute)
				if s := d.status(id); s.State.Finished() || s.State == freshet.StateQueued && !strings.Contains(s.Reason, c.words) {
					w.Errorf("%+v", s)
				}
				if n := w.cloud.Calls()["create"]; n > 100 {
					w.Errorf("%d creates in ten minutes", n)
				}
				d.cloud.SetFault(nil)
				d.succeeds(id, "ok")
			})
		})
	}
}

// TestOutageOfProvider: no task is lost or failed, everybody is told, and the fleet is at work again soon after.
func TestOutageOfProvider(t *testing.T) {
	cloud := oneProgram(sleeper(30 * time.Second))
	cloud.Boot = fakeprovider.Fixed(3 * time.Second)
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		d.cloud.SetDown(provider.ErrUnavailable)
		var ids []string
		for range 50 {
			ids = append(ids, d.submit(freshet.Task{Payload: []byte("ok")}))
		}
		time.Sleep(time.Hour)
		queued, calls := 0, d.cloud.Calls()["create"]
		for _, id := range ids {
			s := d.status(id)
			if s.State == freshet.StateQueued && strings.Contains(s.Reason, "provider unavailable since 00:00") {
				queued++
			} else if s.State != freshet.StateStarting {
				w.Errorf("%s: %s", s.State, s.Reason)
			}
		}
		if queued < 48 {
			w.Errorf("%d tasks are told that the provider is away since the hour", queued)
		}
		if calls > 600 {
			w.Errorf("%d creates in an hour of outage", calls)
		}
		d.cloud.SetDown(nil)
		began := time.Now()
		for _, id := range ids {
			d.succeeds(id, "ok")
		}
		if took := time.Since(began); took > 2*time.Minute+33*time.Second {
			w.Errorf("it took %v after the outage", took)
		}
	})
}

// TestControlPlaneOutageKillsNobody: runs go on through an outage of everything but their workspaces.
func TestControlPlaneOutageKillsNobody(t *testing.T) {
	for name, c := range map[string]struct {
		down error
		long time.Duration
	}{
		"unavailable":         {provider.ErrUnavailable, 8 * time.Minute},
		"an error of no kind": {errors.New("no route to host"), 4 * time.Minute}, // what is of no kind is given up some day
	} {
		t.Run(name, func(t *testing.T) {
			play(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(4*time.Minute)), func(w *world, d *member) {
				var ids []string
				for range 10 {
					ids = append(ids, d.submit(freshet.Task{Payload: []byte("ok")}))
				}
				time.Sleep(30 * time.Second)
				d.cloud.SetDown(c.down)
				time.Sleep(c.long)
				for _, id := range ids {
					if s := d.status(id); s.State != freshet.StateRunning {
						w.Errorf("%+v", s)
					}
				}
				d.cloud.SetDown(nil)
				for _, id := range ids {
					d.succeeds(id, "ok")
					if s := d.status(id); s.Attempt != 1 {
						w.Errorf("%+v", s)
					}
				}
			})
		})
	}
}

// TestFullProviderIsUsedToTheFull: what the account may have is learnt from refusals, and kept busy.
func TestFullProviderIsUsedToTheFull(t *testing.T) {
	cloud := oneProgram(sleeper(time.Minute))
	cloud.Capacity = 5
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		began := time.Now()
		var ids []string
		for range 50 {
			ids = append(ids, d.submit(freshet.Task{}))
		}
		for _, id := range ids {
			d.succeeds(id, "")
		}
		if took := time.Since(began); took > 20*time.Minute {
			w.Errorf("50 tasks of a minute, 5 at a time, took %v", took)
		}
		if n := w.cloud.Calls()["create"]; n > 1500 {
			w.Errorf("%d creates for 50 tasks", n)
		}
	})
}

// TestBootThatNeverEnds is given up after ten minutes, and made anew.
func TestBootThatNeverEnds(t *testing.T) {
	var boots atomic.Int32
	cloud := oneProgram(cat)
	cloud.Boot = func() time.Duration {
		if boots.Add(1) == 1 {
			return 100 * time.Hour
		}
		return time.Second
	}
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		boots.Store(0)
		began := time.Now()
		d.succeeds(d.submit(freshet.Task{Payload: []byte("ok")}), "ok")
		if took := time.Since(began); took > 12*time.Minute {
			w.Errorf("took %v", took)
		}
	})
}

// TestSetupRunsOnceInEachWorkspace, and one that fails fails the workspace.
func TestSetupRunsOnceInEachWorkspace(t *testing.T) {
	var mu sync.Mutex
	setups := map[string]int{}
	all := programs{
		"main": cat,
		"install": func(_ context.Context, p *fakeprovider.Process) int {
			mu.Lock()
			defer mu.Unlock()
			if p.Cmd.Env["API_KEY"] != "" || p.Cmd.Env["FRESHET_TASK_ID"] != "" {
				return 9
			}
			setups[p.Workspace]++
			return 0
		},
		"fail once": func(_ context.Context, p *fakeprovider.Process) int {
			mu.Lock()
			defer mu.Unlock()
			if len(setups) == 1 {
				fmt.Fprintln(p.Stderr, "disk full")
				return 1
			}
			return 0
		},
	}
	cfg := oneAgent(freshet.Agent{
		Setup: []freshet.Cmd{{Args: []string{"install"}}, {Args: []string{"fail once"}}},
		Secrets: func(context.Context, freshet.Task) (map[string]string, error) {
			return map[string]string{"API_KEY": "k"}, nil
		},
	})
	play(t, cfg, oneProgram(all.main), func(w *world, d *member) {
		clear(setups)
		id := d.submit(freshet.Task{Payload: []byte("ok")})
		d.succeeds(id, "ok")
		if len(setups) != 2 {
			w.Errorf("setups %v", setups)
		}
		for ws, n := range setups {
			if n != 1 {
				w.Errorf("%s was set up %d times", ws, n)
			}
		}
	})
}

func TestSetupThatAlwaysFailsFailsTheTask(t *testing.T) {
	all := programs{"main": cat, "fail": func(_ context.Context, p *fakeprovider.Process) int {
		fmt.Fprint(p.Stderr, "no such package")
		return 3
	}}
	play(t, oneAgent(freshet.Agent{Setup: []freshet.Cmd{{Args: []string{"fail"}}}}), oneProgram(all.main), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		var exit *freshet.ExitError
		if err := d.fails(id, freshet.ErrWorkspaceLost); !errors.As(err, &exit) || exit.Code != 3 || !strings.Contains(string(exit.Tail), "no such package") {
			w.Errorf("%v", err)
		}
		if s := d.status(id); s.Attempt != 3 {
			w.Errorf("%+v", s)
		}
	})
}

// TestAmbiguousStart: a process whose start was not answered is not started twice.
func TestAmbiguousStart(t *testing.T) {
	var starts atomic.Int32
	for name, f := range map[string]fakeprovider.Fault{
		"started": {After: provider.ErrAmbiguous}, "not started": {Before: provider.ErrAmbiguous},
		"unavailable": {Before: provider.ErrUnavailable}, "no kind": {After: errors.New("EOF")},
	} {
		t.Run(name, func(t *testing.T) {
			cloud := oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
				starts.Add(1)
				return cat(ctx, p)
			})
			cloud.Fault = first(1, "start", f)
			play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
				starts.Store(0)
				d.succeeds(d.submit(freshet.Task{Payload: []byte("ok")}), "ok")
				if n := starts.Load(); n != 1 {
					w.Errorf("started %d times", n)
				}
			})
		})
	}
}

// TestWithoutAbilities: each ability has a fall-back where it is missing.
func TestWithoutAbilities(t *testing.T) {
	for name, without := range map[string]func(*fakeprovider.Provider) provider.Provider{
		"Attacher":   fakeprovider.Without[provider.Attacher],
		"Lister":     fakeprovider.Without[provider.Lister],
		"Finder":     fakeprovider.Without[provider.Finder],
		"Pauser":     fakeprovider.Without[provider.Pauser],
		"Filer":      fakeprovider.Without[provider.Filer],
		"Checker":    fakeprovider.Without[provider.Checker],
		"Watcher":    fakeprovider.Without[provider.Watcher],
		"KeepAliver": fakeprovider.Without[provider.KeepAliver],
		"Meter":      fakeprovider.Without[provider.Meter],
		"Namer":      fakeprovider.Without[provider.Namer],
		"all":        func(p *fakeprovider.Provider) provider.Provider { return struct{ provider.Provider }{p} },
		"all but Lister": func(p *fakeprovider.Provider) provider.Provider {
			return struct {
				provider.Provider
				provider.Lister
			}{p, p}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cloud := oneProgram(sleeper(time.Minute))
			cloud.Boot, cloud.Delete = fakeprovider.Fixed(3*time.Second), fakeprovider.Fixed(3*time.Second)
			stage(t, oneAgent(freshet.Agent{}), cloud, func(w *world) {
				w.cfg.Provider = without(w.cloud)
				d := w.start()
				var ids []string
				for range 10 {
					ids = append(ids, d.submit(freshet.Task{Payload: []byte("ok")}))
				}
				for _, id := range ids {
					d.succeeds(id, "ok")
				}
			})
		})
	}
}
