package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/internal/promise"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// TestZeroIsZero: after a busy hour nothing is left, nothing is asked, nothing runs but a fixed number of goroutines.
func TestZeroIsZero(t *testing.T) {
	cloud := oneProgram(sleeper(time.Minute))
	cloud.Boot, cloud.Delete = fakeprovider.Fixed(10*time.Second), fakeprovider.Fixed(5*time.Second)
	play(t, oneAgent(freshet.Agent{KeepFor: time.Minute}), cloud, func(w *world, d *member) {
		time.Sleep(time.Minute)
		idle := runtime.NumGoroutine()
		var ids []string
		for i := range 100 {
			ids = append(ids, d.submit(freshet.Task{Tenant: fmt.Sprint(i % 10)}))
		}
		d.until(ids[99], freshet.StateRunning)
		if n := runtime.NumGoroutine(); n < idle+100 {
			w.Errorf("%d goroutines while a hundred agents run: they are not counted", n)
		}
		for _, id := range ids {
			d.succeeds(id, "")
		}
		time.Sleep(10 * time.Minute)
		if n := runtime.NumGoroutine(); n > idle {
			w.Errorf("%d goroutines, %d before", n, idle)
		}
		before := w.calls()
		time.Sleep(24 * time.Hour)
		if n := w.calls() - before; n > 0 || len(w.cloud.Workspaces()) > 0 {
			w.Errorf("%d calls of the provider in a day without work, %d workspaces", n, len(w.cloud.Workspaces()))
		}
	})
}

// fuse counts the calls of a dispatcher to its store and its provider, and cuts it off for good at one of them: before
// the call has its effect, or after it.
type fuse struct {
	m     *member
	at    int // counted from 1; 0: never
	after bool

	mu    sync.Mutex // protects calls and ops
	calls int
	ops   []string
}

// burn counts a call, and says whether it is the last.
func (f *fuse) burn(op string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.ops = append(f.ops, op)
	return f.calls == f.at
}

var errDead = errors.New("the process is dead")

func (f *fuse) gate(ctx context.Context, op string, after bool) error {
	if after {
		f.mu.Lock()
		dead := f.after && f.calls == f.at && f.ops[f.calls-1] == op
		f.mu.Unlock()
		if dead {
			f.m.cut()
			return errDead
		}
		return nil
	}
	if f.burn(op) && !f.after {
		f.m.cut()
		return errDead
	}
	return nil
}

func (f *fuse) fault(c fakeprovider.Call) fakeprovider.Fault {
	if !f.burn("provider " + c.Op) {
		return fakeprovider.Fault{}
	}
	defer f.m.cut()
	if f.after {
		return fakeprovider.Fault{After: errDead}
	}
	return fakeprovider.Fault{Before: errDead}
}

// TestDeathBetweenAnyTwoCalls: a dispatcher dies at each of its calls in turn, and another one goes on. The task succeeds,
// its program is started once, in one workspace, and nothing is left.
func TestDeathBetweenAnyTwoCalls(t *testing.T) {
	step := 12
	if os.Getenv("FRESHET_SOAK") != "" {
		step = 1
	}
	for i, mode := range []provider.CreateMode{provider.Idempotent, provider.Search} {
		calls := die(t, mode, 0, false)
		for at := 1 + i; at <= calls; at += step {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("mode=%d call=%d after=%v", mode, at, after), func(t *testing.T) { die(t, mode, at, after) })
			}
		}
	}
}

// die plays one death, and says how many calls there were until the task had ended.
func die(t *testing.T, mode provider.CreateMode, at int, after bool) (calls int) {
	var starts counter
	cfg := oneAgent(freshet.Agent{Idempotent: true, Setup: []freshet.Cmd{{Args: []string{"set up"}}}})
	cloud := oneProgram(programs{
		"set up": func(context.Context, *fakeprovider.Process) int { starts.add("set-ups"); return 0 },
		"main": func(ctx context.Context, p *fakeprovider.Process) int {
			starts.add("starts")
			p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/artifacts/a", []byte("a"))
			p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/checkpoint/c", []byte("c"))
			return lines(20)(ctx, p)
		},
	}.main)
	cloud.Boot, cloud.Delete = fakeprovider.Fixed(2*time.Second), fakeprovider.Fixed(2*time.Second)
	cloud.Capabilities = func(c *provider.Capabilities) { c.Create = mode }
	stage(t, cfg, cloud, func(w *world) {
		starts.reset()
		w.durable = true
		one := w.member()
		two := w.member()
		id := two.submit(freshet.Task{})
		f := &fuse{m: one, at: at, after: after}
		one.link.set(f.gate)
		one.cloud.SetFault(f.fault)
		_ = one.Start(w.Context()) // may die of it
		time.Sleep(5 * time.Second)
		if err := two.Start(w.Context()); err != nil {
			w.Fatal(err)
		}
		out, err := two.wait(id)
		if err != nil || len(out) != 200 || two.logOf(id) != string(out) {
			w.Errorf("Wait: %d bytes, %v; log of %d bytes", len(out), err, len(two.logOf(id)))
		}
		if s, u := starts.get("starts"), starts.get("set-ups"); s != 1 || u != 1 || w.cloud.Peak() != 1 {
			w.Errorf("%d starts, %d set-ups, %d workspaces at once; the last call was %s", s, u, w.cloud.Peak(), f.last())
		}
		time.Sleep(5 * time.Second)
		calls = max(calls, f.count())
		time.Sleep(2 * time.Minute)
		one.over = true
		w.verify(two)
		one.mend()
		time.Sleep(time.Minute)
		one.bye(time.Minute)
	})
	return calls
}

func (f *fuse) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fuse) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == 0 || f.at > len(f.ops) {
		return "none"
	}
	return fmt.Sprintf("%s (after: %v)", f.ops[f.at-1], f.after)
}

// TestCheckerSeesTheFleet: the checker of the promises is not blind to this fleet. A test that breaks each of them in turn
// is beside it.
func TestCheckerSeesTheFleet(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		time.Sleep(10 * time.Second)
		leave := w.check.Enter(w.Context(), promise.Run{Task: id, Fence: 99})
		leave()
		if _, err := w.cloud.Sibling().Create(w.Context(), provider.CreateRequest{Token: "stray", Owner: w.cfg.Name, Agent: "agent"}); err != nil {
			w.Fatal(err)
		}
		found := map[promise.Promise]bool{}
		for _, v := range w.check.Check(w.Context(), promise.Final{Store: w.mem, Provider: w.cloud.Sibling(), Owner: w.cfg.Name, Drained: true}) {
			found[v.Promise] = true
		}
		for _, p := range []promise.Promise{promise.Lost, promise.Owner, promise.Leak} {
			if !found[p] {
				w.Errorf("%q was broken and not seen", p)
			}
		}
		d.succeeds(id, "")
		w.check = promise.New(promise.Config{}) // what was broken is not the fleet's fault
	})
}
