package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/store"
)

// counter counts what happens, by name.
type counter struct {
	mu sync.Mutex // protects n
	n  map[string]int
}

func (c *counter) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[name]++
}

func (c *counter) get(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = nil
}

// TestTakeOver: a dispatcher is cut off at some moment of a run; the other one goes on with the same process, nothing is
// started or delivered twice, and the old owner, back on the network, does no harm.
func TestTakeOver(t *testing.T) {
	var seen counter
	cfg := oneAgent(freshet.Agent{Idempotent: true})
	cfg.OnFinish = func(_ context.Context, s freshet.Status) error {
		seen.add("ends")
		return nil
	}
	cloud := oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		seen.add("starts")
		payload, err := p.ReadFile(p.Cmd.Env["FRESHET_DIR"] + "/payload")
		if code := lines(90)(ctx, p); code != 0 {
			return code
		}
		fmt.Fprintf(p.Stdout, "%s %v", payload, err)
		return 0
	})
	cloud.Boot, cloud.Delete = fakeprovider.Fixed(10*time.Second), fakeprovider.Fixed(5*time.Second)
	for _, after := range []time.Duration{0, 5 * time.Second, 10 * time.Second, 11 * time.Second, 50 * time.Second, 99 * time.Second, 101 * time.Second, 103 * time.Second} {
		for name, c := range map[string]struct {
			cut  func(m *member)
			back time.Duration // on the network again after
		}{
			"cut off":      {(*member).cut, 10 * time.Minute},
			"soon back":    {(*member).cut, 27 * time.Second},
			"back in time": {(*member).cut, 15 * time.Second},
			"store alone": {func(m *member) {
				m.link.set(func(context.Context, string, bool) error { return errCut })
			}, 10 * time.Minute},
		} {
			t.Run(fmt.Sprint(name, " after ", after), func(t *testing.T) {
				stage(t, cfg, cloud, func(w *world) {
					seen.reset()
					w.durable = true
					one := w.start()
					id := one.submit(freshet.Task{Payload: []byte("ok")})
					time.Sleep(time.Second)
					two := w.start()
					time.Sleep(after)
					c.cut(one)
					time.AfterFunc(c.back, one.mend)
					out, err := two.wait(id)
					if err != nil || !strings.HasSuffix(string(out), "line 0089\nok <nil>") {
						w.Errorf("Wait: %q, %v", out[max(0, len(out)-30):], err)
					}
					if log := two.logOf(id); log != string(out) {
						w.Errorf("log of %d bytes, output of %d", len(log), len(out))
					}
					time.Sleep(15 * time.Minute)
					if n := seen.get("starts"); n != 1 {
						w.Errorf("the program was started %d times", n)
					}
					if n := seen.get("ends"); n < 1 || n > 2 {
						w.Errorf("OnFinish was called %d times", n)
					}
					if r := w.record(id); r.Spent != 1 || r.Crashes > 1 {
						w.Errorf("%+v", r)
					}
				})
			})
		}
	}
}

// TestOwnerLetsGoBeforeItsLeaseEnds: when another one may adopt, the old handler has been told.
func TestOwnerLetsGoBeforeItsLeaseEnds(t *testing.T) {
	var mu sync.Mutex
	var told time.Time
	var cause error
	play(t, oneAgent(freshet.Agent{Handler: func(ctx context.Context, _ *freshet.Run) ([]byte, error) {
		<-ctx.Done()
		mu.Lock()
		defer mu.Unlock()
		told, cause = time.Now(), context.Cause(ctx)
		return nil, ctx.Err()
	}}), fakeprovider.Config{}, func(w *world, d *member) {
		for _, after := range []time.Duration{time.Second, 9 * time.Second, 95 * time.Second, 103 * time.Second} {
			for name, refuse := range map[string]bool{"refuses": true, "hangs": false} {
				told = time.Time{}
				id := d.submit(freshet.Task{})
				time.Sleep(after)
				d.cut()
				if refuse {
					d.link.set(func(context.Context, string, bool) error { return errCut })
				}
				time.Sleep(40 * time.Second)
				r := w.record(id)
				mu.Lock()
				if early := r.LeaseEnd.Sub(told); told.IsZero() || early < time.Second || early > 15*time.Second || !errors.Is(cause, freshet.ErrLeaseLost) {
					w.Errorf("store %s after %v: told %v before the end of the lease, cause %v", name, after, early, cause)
				}
				mu.Unlock()
				d.mend()
				time.Sleep(10 * time.Second) // it adopts itself
				d.cancel(id)
				d.fails(id, freshet.ErrCanceled)
			}
		}
	})
}

// TestTimeoutCountsFromTheFirstOwner: a run has its time once, however many owners.
func TestTimeoutCountsFromTheFirstOwner(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{Timeout: 10 * time.Minute}), oneProgram(lines(10_000)), func(w *world) {
		w.durable = true
		one := w.start()
		began := time.Now()
		id := one.submit(freshet.Task{})
		time.Sleep(6 * time.Minute)
		two := w.start()
		if _, err := one.bye(time.Minute); err != nil {
			w.Error(err)
		}
		two.fails(id, freshet.ErrTimeout)
		if took := time.Since(began); took < 10*time.Minute || took > 10*time.Minute+30*time.Second {
			w.Errorf("ended after %v", took)
		}
	})
}

// TestStepsAndCheckpointsSurviveATakeOver: the next owner's handler is given what the first one has recorded.
func TestStepsAndCheckpointsSurviveATakeOver(t *testing.T) {
	var seen counter
	cfg := oneAgent(freshet.Agent{Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		n, err := freshet.Step(ctx, run, "once", func(context.Context) (int, error) { seen.add("step"); return 7, nil })
		if err != nil {
			return nil, err
		}
		state, resumed := run.Resumed()
		if !resumed {
			if err := run.Checkpoint(ctx, []byte("here")); err != nil {
				return nil, err
			}
		}
		if _, err := run.Exec(ctx, "first", freshet.Cmd{Args: []string{"main"}}); err != nil {
			return nil, err
		}
		_, err = run.Exec(ctx, "second part of it", freshet.Cmd{Args: []string{"main"}})
		return fmt.Append(nil, n, " ", string(state), " ", resumed, " ", run.Attempt), err
	}})
	cloud := oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		seen.add("start")
		return sleeper(time.Minute)(ctx, p)
	})
	for name, leave := range map[string]func(m *member){
		"shut down": func(m *member) { m.bye(time.Minute) },
		"cut off":   func(m *member) { m.cut(); time.AfterFunc(5*time.Minute, m.mend) },
	} {
		t.Run(name, func(t *testing.T) {
			stage(t, cfg, cloud, func(w *world) {
				seen.reset()
				w.durable = true
				one := w.start()
				id := one.submit(freshet.Task{})
				time.Sleep(90 * time.Second)
				two := w.start()
				leave(one)
				two.succeeds(id, "7 here true 1")
				time.Sleep(10 * time.Minute)
				if a, b := seen.get("step"), seen.get("start"); a != 1 || b != 2 {
					w.Errorf("the step ran %d times, %d processes were started for 2", a, b)
				}
			})
		})
	}
}

// TestTakeOverWithoutAttach: the process is lost with its host, so the run begins again in another workspace.
func TestTakeOverWithoutAttach(t *testing.T) {
	cloud := oneProgram(sleeper(2 * time.Minute))
	cloud.Capabilities = func(c *provider.Capabilities) { c.Attach = false }
	stage(t, oneAgent(freshet.Agent{Idempotent: true}), cloud, func(w *world) {
		w.durable = true
		one, two := w.start(), w.start()
		id := one.submit(freshet.Task{Payload: []byte("ok")})
		one.until(id, freshet.StateRunning)
		time.Sleep(time.Minute)
		owner, other := one, two
		for range 2 { // we do not know who has it
			if owner.cloud.Calls()["start"] > 0 {
				break
			}
			owner, other = other, owner
		}
		owner.cut()
		owner.cloud.Crash()
		owner.over = true
		other.succeeds(id, "ok")
		owner.link.set(nil)
		owner.bye(time.Minute)
	})
}

// TestCrashesAreCounted: a task that brings down each of its owners is ended as poison.
func TestPoisonIsEnded(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{Idempotent: true, IdleTimeout: -1}), oneProgram(hang), func(w *world) {
		w.durable = true
		client := w.client()
		id := client.submit(freshet.Task{})
		for range 5 {
			m := w.start()
			time.Sleep(10 * time.Second)
			m.cut()
			m.over = true
			time.Sleep(time.Minute)
		}
		last := w.start()
		last.fails(id, freshet.ErrCrashed)
		if r := w.record(id); r.Crashes != 5 || r.State != store.StateFailed {
			w.Errorf("%+v", r)
		}
		for _, m := range w.members[1 : len(w.members)-1] {
			m.mend()
			m.bye(time.Minute)
		}
	})
}

// TestCancelOfAnOrphanedRun: whoever adopts it ends it.
func TestCancelOfAnOrphanedRun(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(time.Hour)), func(w *world) {
		w.durable = true
		one := w.start()
		id := one.submit(freshet.Task{})
		time.Sleep(time.Second)
		one.cut()
		one.over = true
		client := w.client()
		client.cancel(id)
		two := w.start()
		two.fails(id, freshet.ErrCanceled)
		one.mend()
		one.bye(time.Minute)
	})
}

// TestAnotherScopeIsLeftAlone: only who sees a workspace may go on with its run.
func TestAnotherScopeIsLeftAlone(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(3*time.Minute)), func(w *world) {
		w.durable = true
		one := w.start()
		id := one.submit(freshet.Task{Payload: []byte("ok")})
		time.Sleep(time.Second)
		elsewhere := fakeprovider.New(fakeprovider.Config{})
		defer elsewhere.Close()
		w.cfg.Provider = elsewhere
		two := w.start()
		one.cut()
		time.Sleep(10 * time.Minute)
		if r := w.record(id); !r.State.Live() || r.Crashes != 0 {
			w.Errorf("%+v", r)
		}
		one.mend()
		two.succeeds(id, "ok")
	})
}

// TestFleetWithClockSkewedSweeps: many dispatchers, each of which is cut off and comes back in turn.
func TestRollingCuts(t *testing.T) {
	var seen counter
	cloud := oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		seen.add(p.Cmd.Env["FRESHET_TASK_ID"])
		return sleeper(100*time.Second)(ctx, p)
	})
	cloud.Boot = fakeprovider.Uniform(time.Second, 20*time.Second, 7)
	cfg := oneAgent(freshet.Agent{Idempotent: true, Pool: freshet.Pool{Warm: 2}})
	cfg.Limits = freshet.Limits{Workspaces: 12, Tenant: freshet.TenantLimits{Concurrent: 4}}
	stage(t, cfg, cloud, func(w *world) {
		seen.reset()
		w.durable = true
		fleet := []*member{w.start(), w.start(), w.start()}
		var ids []string
		for i := range 60 {
			ids = append(ids, fleet[i%3].submit(freshet.Task{Tenant: fmt.Sprint("t", i%5), Payload: []byte("ok")}))
			time.Sleep(700 * time.Millisecond)
		}
		for round := range 9 {
			m := fleet[round%3]
			time.Sleep(17 * time.Second)
			m.cut()
			time.Sleep([]time.Duration{5, 29, 45}[round%3] * time.Second)
			m.mend()
		}
		for _, id := range ids {
			fleet[0].succeeds(id, "ok")
			if n := seen.get(id); n != 1 {
				w.Errorf("task %s was started %d times", id, n)
			}
		}
	})
}

// TestHangingStoreCallIsGivenUp: a call that nobody ever answers (a connection that has died without a word) is given up
// after a while, though every other call is answered and all leases are kept.
func TestHangingStoreCallIsGivenUp(t *testing.T) {
	for _, op := range []string{"ClaimBegin", "Begin", "Save", "Finish", "Renew", "Entries", "PutWorkspace", "Put", "Adopt", "QueryWorkspaces"} {
		for _, when := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s after=%v", op, when), func(t *testing.T) {
				play(t, oneAgent(freshet.Agent{Idempotent: true, Checkpoint: 10 * time.Second}), oneProgram(lines(60)), func(w *world, d *member) {
					var seen counter
					d.link.set(func(ctx context.Context, o string, after bool) error {
						if o != op || after != when {
							return nil
						}
						if seen.add(op); seen.get(op) != 3 && seen.get(op) != 1 {
							return nil
						}
						<-ctx.Done()
						return errCut
					})
					began := time.Now()
					id := d.submit(freshet.Task{})
					time.Sleep(time.Second)
					next := d.submit(freshet.Task{})
					for _, id := range []string{id, next} {
						if _, err := d.wait(id); err != nil {
							w.Error(err)
						}
					}
					if took := time.Since(began); took > 10*time.Minute {
						w.Errorf("took %v", took)
					}
				})
			})
		}
	}
}
