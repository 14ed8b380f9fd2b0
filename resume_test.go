package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// vanish ends the workspace of a run as if its machine had gone up in smoke.
func (w *world) vanish(id string) {
	w.Helper()
	token := w.record(id).Workspace
	for _, ws := range w.cloud.Workspaces() {
		if ws.Token == token {
			w.cloud.Vanish(ws.ID)
			return
		}
	}
	w.Fatalf("task %s has no workspace (%q)", id, token)
}

func TestStepIsRecordedOnce(t *testing.T) {
	var calls map[string]int
	cfg := oneAgent(freshet.Agent{Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		plan, err := freshet.Step(ctx, run, "plan", func(context.Context) ([]string, error) {
			calls["plan"]++
			return []string{"a", "b"}, nil
		})
		if err != nil {
			return nil, err
		}
		total := 0
		for _, name := range plan {
			n, err := freshet.Step(ctx, run, "do "+name, func(context.Context) (int, error) {
				calls[name]++
				return calls[name], nil
			})
			if err != nil {
				return nil, err
			}
			total += n
			if run.Attempt == 1 && name == "a" {
				return nil, freshet.ErrRetry
			}
		}
		return fmt.Append(nil, total), nil
	}})
	play(t, cfg, fakeprovider.Config{}, func(w *world, d *member) {
		calls = map[string]int{}
		d.succeeds(d.submit(freshet.Task{}), "2")
		if calls["plan"] != 1 || calls["a"] != 1 || calls["b"] != 1 {
			w.Errorf("calls %v", calls)
		}
	})
}

func TestStepTriesAgain(t *testing.T) {
	calls := 0
	var last error
	cfg := oneAgent(freshet.Agent{Retry: freshet.Retry{Attempts: 4}, Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		n, err := freshet.Step(ctx, run, "flaky", func(context.Context) (int, error) {
			if calls++; calls < 4 {
				return 0, fmt.Errorf("busy: %w", freshet.ErrRetry)
			}
			return 42, nil
		})
		if err != nil {
			return nil, err
		}
		_, last = freshet.Step(ctx, run, "broken", func(context.Context) (int, error) { calls++; return 0, errors.New("broken") })
		if _, err := freshet.Step(ctx, run, "", func(context.Context) (int, error) { return 0, nil }); !errors.Is(err, freshet.ErrInvalid) {
			return nil, fmt.Errorf("a step without a name: %v", err)
		}
		if _, err := freshet.Step(ctx, run, "large", func(context.Context) (string, error) { return strings.Repeat("x", 1<<20), nil }); !errors.Is(err, freshet.ErrInvalid) {
			return nil, fmt.Errorf("a large value: %v", err)
		}
		if _, err := freshet.Step(ctx, run, "chan", func(context.Context) (chan int, error) { return nil, nil }); err == nil {
			return nil, errors.New("a channel was recorded")
		}
		return fmt.Append(nil, n), nil
	}})
	play(t, cfg, fakeprovider.Config{}, func(w *world, d *member) {
		calls = 0
		id := d.submit(freshet.Task{})
		d.succeeds(id, "42")
		if calls != 5 || last == nil || last.Error() != "broken" || d.status(id).Attempt != 1 {
			w.Errorf("%d calls, last error %v", calls, last)
		}
	})
}

// counting is a handler that counts to ten in its workspace, and goes on from its last checkpoint.
func counting(seen *[]string) freshet.Handler {
	var mu sync.Mutex
	return func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		state, resumed := run.Resumed()
		mu.Lock()
		*seen = append(*seen, fmt.Sprintf("%s %v", state, resumed))
		mu.Unlock()
		n := 0
		fmt.Sscan(string(state), &n)
		for n < 10 {
			if _, err := run.Exec(ctx, fmt.Sprint("count ", n), freshet.Cmd{Args: []string{"main"}}); err != nil {
				return nil, err
			}
			n++
			if err := run.Checkpoint(ctx, fmt.Append(nil, n)); err != nil {
				return nil, err
			}
		}
		return fmt.Append(nil, n), nil
	}
}

func TestCheckpointSurvivesLostWorkspace(t *testing.T) {
	var seen []string
	play(t, oneAgent(freshet.Agent{Handler: counting(&seen)}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/checkpoint/last", []byte(p.Name))
		p.Sleep(time.Minute)
		return 0
	}), func(w *world, d *member) {
		seen = nil
		id := d.submit(freshet.Task{})
		time.Sleep(4*time.Minute + 30*time.Second)
		w.vanish(id)
		began := time.Now()
		d.succeeds(id, "10")
		if took := time.Since(began); took > 7*time.Minute {
			w.Errorf("took %v more", took)
		}
		if got := strings.Join(seen, ", "); got != " false, 4 true" {
			w.Errorf("resumed: %s", got)
		}
		if s := d.status(id); s.Attempt != 2 {
			w.Errorf("attempt %d", s.Attempt)
		}
	})
}

func TestLostWorkspaceWithoutCheckpoint(t *testing.T) {
	for _, idempotent := range []bool{false, true} {
		t.Run(fmt.Sprint("idempotent=", idempotent), func(t *testing.T) {
			play(t, oneAgent(freshet.Agent{Idempotent: idempotent}), oneProgram(sleeper(270*time.Second)), func(w *world, d *member) {
				id := d.submit(freshet.Task{Payload: []byte("made it")})
				time.Sleep(4 * time.Minute)
				w.vanish(id)
				if idempotent {
					d.succeeds(id, "made it")
					return
				}
				d.fails(id, freshet.ErrWorkspaceLost)
				if s := d.status(id); s.Attempt != 1 || !strings.Contains(s.Reason, "checkpoint") {
					w.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestWorkspaceVanishesAtAnyTime, and at any step of a run.
func TestWorkspaceVanishesAtAnyTime(t *testing.T) {
	cloud := oneProgram(sleeper(20 * time.Second))
	cloud.Boot = fakeprovider.Fixed(10 * time.Second)
	cloud.Delete = fakeprovider.Fixed(5 * time.Second)
	for after := time.Duration(0); after <= 36*time.Second; after += 4 * time.Second {
		for _, fail := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v fail=%v", after, fail), func(t *testing.T) {
				play(t, oneAgent(freshet.Agent{Idempotent: true}), cloud, func(w *world, d *member) {
					id := d.submit(freshet.Task{Payload: []byte("ok")})
					time.Sleep(after + time.Second)
					for _, ws := range w.cloud.Workspaces() {
						if fail {
							w.cloud.Fail(ws.ID)
						} else {
							w.cloud.Vanish(ws.ID)
						}
					}
					d.succeeds(id, "ok")
				})
			})
		}
	}
}

// TestQuietHandlerLearnsOfALostWorkspace although it makes no call that would tell.
func TestQuietHandlerLearnsOfALostWorkspace(t *testing.T) {
	var cause error
	play(t, oneAgent(freshet.Agent{Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return nil, ctx.Err()
	}}), fakeprovider.Config{}, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.until(id, freshet.StateRunning)
		time.Sleep(time.Minute)
		w.vanish(id)
		began := time.Now()
		d.fails(id, freshet.ErrWorkspaceLost)
		if took := time.Since(began); took > time.Minute || !errors.Is(cause, freshet.ErrWorkspaceLost) {
			w.Errorf("after %v, cause %v", took, cause)
		}
	})
}

// TestIntervalCheckpoint saves the folder without the program's doing.
func TestIntervalCheckpoint(t *testing.T) {
	a := freshet.Agent{Checkpoint: time.Minute}
	play(t, oneAgent(a), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		at := p.Cmd.Env["FRESHET_DIR"] + "/checkpoint/n"
		b, _ := p.ReadFile(at)
		n := 0
		fmt.Sscan(string(b), &n)
		for ; n < 20; n++ {
			p.WriteFile(at, fmt.Append(nil, n))
			if p.Sleep(30*time.Second) != nil {
				return 1
			}
			fmt.Fprintf(p.Stdout, "%d ", n)
		}
		return 0
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		time.Sleep(5*time.Minute + 10*time.Second)
		w.vanish(id)
		if out, err := d.wait(id); err != nil || !(strings.HasPrefix(string(out), "9 10") || strings.HasPrefix(string(out), "10 11")) {
			w.Errorf("went on with %q, %v", out, err)
		}
	})
}

func TestResubmitGoesOnFromCheckpoint(t *testing.T) {
	var seen []string
	fails := true
	count := counting(&seen)
	cfg := oneAgent(freshet.Agent{Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		if !fails {
			return count(ctx, run)
		}
		return nil, errors.Join(run.Checkpoint(ctx, []byte("8")), errors.New("out of credit"))
	}})
	play(t, cfg, oneProgram(cat), func(w *world, d *member) {
		fails, seen = true, nil
		old := d.submit(freshet.Task{Payload: []byte("p"), Key: "key", Priority: 5})
		if _, err := d.Resubmit(w.Context(), "nobody"); !errors.Is(err, freshet.ErrNotFound) {
			w.Errorf("nobody: %v", err)
		}
		d.fails(old, nil)
		fails = false
		again, err := d.Resubmit(w.Context(), old)
		if err != nil || again == old {
			w.Fatalf("Resubmit: %s, %v", again, err)
		}
		d.succeeds(again, "10")
		if s := d.status(again); s.Parent != old || s.Task.Priority != 5 || s.Attempt != 1 {
			w.Errorf("%+v", s)
		}
		if s := d.status(old); s.State != freshet.StateFailed || s.Parent != "" {
			w.Errorf("%+v", s)
		}
		if got := strings.Join(seen, ", "); !strings.HasPrefix(got, "8 ") {
			w.Errorf("resumed: %s", got)
		}
		third, err := d.Resubmit(w.Context(), again)
		if err != nil {
			w.Fatal(err)
		}
		d.succeeds(third, "10")
		if got := seen[len(seen)-1]; !strings.HasPrefix(got, "10 ") {
			w.Errorf("the third went on from %s", got)
		}
	})
}

func TestResubmitOfALiveTaskIsRefused(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		if _, err := d.Resubmit(w.Context(), id); !errors.Is(err, freshet.ErrInvalid) {
			w.Errorf("%v", err)
		}
		d.succeeds(id, "")
	})
}

// TestResumedOnlyAfterAHandlerWasReached: an attempt that died while booting has left nothing.
func TestResumedOnlyAfterAHandlerWasReached(t *testing.T) {
	var got []bool
	cloud := fakeprovider.Config{Boot: fakeprovider.Fixed(time.Second), Fault: func(c fakeprovider.Call) fakeprovider.Fault {
		return fakeprovider.Fault{Fail: c.Op == "create" && c.N == 1}
	}}
	play(t, oneAgent(freshet.Agent{Handler: func(_ context.Context, run *freshet.Run) ([]byte, error) {
		_, resumed := run.Resumed()
		got = append(got, resumed)
		if run.Attempt < 3 {
			return nil, freshet.ErrRetry
		}
		return nil, nil
	}}), cloud, func(w *world, d *member) {
		got = nil
		d.succeeds(d.submit(freshet.Task{}), "")
		if fmt.Sprint(got) != "[false true]" && fmt.Sprint(got) != "[false true true]" {
			w.Errorf("Resumed says %v", got)
		}
	})
}

func TestFilesGoInAndOut(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		for _, dir := range []string{"", "/etc", "../x", "a/../../x", "a\x00b"} {
			if err := run.Upload(ctx, dir, fstest.MapFS{}); !errors.Is(err, freshet.ErrInvalid) {
				return nil, fmt.Errorf("upload to %q: %v", dir, err)
			}
			if _, err := run.Download(ctx, dir); !errors.Is(err, freshet.ErrInvalid) {
				return nil, fmt.Errorf("download of %q: %v", dir, err)
			}
		}
		if _, err := run.Download(ctx, "nothing"); !errors.Is(err, provider.ErrNotFound) {
			return nil, fmt.Errorf("download of nothing: %v", err)
		}
		if err := run.Upload(ctx, "src", fstest.MapFS{"lib/a.txt": {Data: []byte("alpha")}}); err != nil {
			return nil, err
		}
		out, err := run.Exec(ctx, "read", freshet.Cmd{Args: []string{"main"}, Dir: "src"})
		if err != nil {
			return nil, err
		}
		r, err := run.Download(ctx, "src/lib")
		if err != nil {
			return nil, err
		}
		return out, r.Close()
	}})
	play(t, cfg, oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		b, err := p.ReadFile("lib/a.txt")
		fmt.Fprintf(p.Stdout, "%s %v", b, err)
		return 0
	}), func(w *world, d *member) {
		d.succeeds(d.submit(freshet.Task{}), "alpha <nil>")
	})
}

func TestExecRefusesNonsense(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		ok := freshet.Cmd{Args: []string{"main"}}
		for name, c := range map[string]freshet.Cmd{"": ok, strings.Repeat("n", 257): ok, "a\x00": ok, "empty": {}, "blank": {Args: []string{""}}} {
			if _, err := run.Exec(ctx, name, c); !errors.Is(err, freshet.ErrInvalid) {
				return nil, fmt.Errorf("%q: %v", name, err)
			}
		}
		if err := run.Checkpoint(ctx, make([]byte, 1<<20+1)); !errors.Is(err, freshet.ErrInvalid) {
			return nil, fmt.Errorf("large checkpoint: %v", err)
		}
		return run.Exec(ctx, strings.Repeat("n", 256), ok)
	}})
	play(t, cfg, oneProgram(cat), func(w *world, d *member) { d.succeeds(d.submit(freshet.Task{}), "") })
}

// TestStoreHiccupFailsNoTask: whatever write or read of the store fails, half the time, before or after its effect, the task succeeds.
func TestStoreHiccupFailsNoTask(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Checkpoint: 10 * time.Second, Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		if _, err := run.Exec(ctx, "main", freshet.Cmd{Args: []string{"main"}}); err != nil {
			return nil, err
		}
		if run.Attempt == 1 {
			return nil, freshet.ErrRetry
		}
		return []byte("ok"), nil
	}})
	ops := []string{"Begin", "ClaimBegin", "Save", "Finish", "Renew", "Entries", "QueryWorkspaces", "PutWorkspace", "Put", "Get", "Adopt", "Acquire"}
	for _, op := range ops {
		for _, when := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s after=%v", op, when), func(t *testing.T) {
				play(t, cfg, oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
					p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/checkpoint/x", []byte("x"))
					fmt.Fprintln(p.Stdout, "x")
					p.Sleep(35 * time.Second)
					return 0
				}), func(w *world, d *member) {
					var mu sync.Mutex
					random := rand.New(rand.NewPCG(1, uint64(len(op))))
					d.link.set(func(_ context.Context, o string, after bool) error {
						mu.Lock()
						defer mu.Unlock()
						if o == op && after == when && random.IntN(2) == 0 {
							return errCut
						}
						return nil
					})
					id := d.submit(freshet.Task{})
					d.succeeds(id, "ok")
					d.link.set(nil)
				})
			})
		}
	}
}
