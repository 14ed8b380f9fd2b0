package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func TestTaskSucceeds(t *testing.T) {
	cloud := oneProgram(cat)
	cloud.Boot = fakeprovider.Fixed(3 * time.Second)
	cloud.Delete = fakeprovider.Fixed(2 * time.Second)
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		began := time.Now()
		id := d.submit(freshet.Task{Payload: []byte("hello")})
		if s := d.until(id, freshet.StateStarting); s.Attempt != 1 || s.Path != "cold" || !s.Started.IsZero() {
			w.Errorf("starting: %+v", s)
		}
		d.succeeds(id, "hello")
		if took := time.Since(began); took > 4*time.Second {
			w.Errorf("took %v, boot takes 3 s", took)
		}
		s := d.status(id)
		if s.State != freshet.StateSucceeded || s.Reason != "" || s.Code != "" || s.Task.Tenant != "ann" || s.Task.Payload != nil {
			w.Errorf("status: %+v", s)
		}
		if !s.Created.Equal(began) || s.Started.Before(began.Add(3*time.Second)) || s.Finished.Before(s.Started) {
			w.Errorf("times: created %v, started %v, finished %v", s.Created, s.Started, s.Finished)
		}
	})
}

func TestFailureGivesExitStatusAndTail(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		fmt.Fprint(p.Stdout, strings.Repeat("x", 10_000))
		fmt.Fprint(p.Stderr, "no such repository\n")
		return 3
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		var exit *freshet.ExitError
		if err := d.fails(id, nil); !errors.As(err, &exit) {
			w.Fatalf("no ExitError in %v", err)
		}
		if exit.Code != 3 || exit.Signal != "" || exit.OOM || len(exit.Tail) > 4<<10 || !strings.HasSuffix(string(exit.Tail), "no such repository\n") {
			w.Errorf("exit %+v", exit)
		}
		if s := d.status(id); s.State != freshet.StateFailed || s.Code != "exit" || s.Attempt != 1 || strings.Contains(s.Reason, "repository") {
			w.Errorf("status %+v", s)
		}
	})
}

func TestExitOfOOMAndSignal(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		exit := map[string]provider.Exit{"oom": {Signal: "SIGKILL", OOM: true}, "segv": {Signal: "SIGSEGV"}}[string(p.Cmd.Stdin)]
		p.Crash(exit)
		<-ctx.Done()
		return 0
	}), func(w *world, d *member) {
		for payload, want := range map[string]freshet.ExitError{"oom": {Signal: "SIGKILL", OOM: true}, "segv": {Signal: "SIGSEGV"}} {
			id := d.submit(freshet.Task{Payload: []byte(payload)})
			var exit *freshet.ExitError
			if err := d.fails(id, nil); !errors.As(err, &exit) || exit.Signal != want.Signal || exit.OOM != want.OOM {
				w.Errorf("%s: %v", payload, err)
			}
		}
	})
}

// attempts is a program that fails with the statuses given, and succeeds after.
func attempts(statuses ...int) func(context.Context, *fakeprovider.Process) int {
	return func(_ context.Context, p *fakeprovider.Process) int {
		var n int
		fmt.Sscan(p.Cmd.Env["FRESHET_ATTEMPT"], &n)
		fmt.Fprintf(p.Stdout, "attempt %d\n", n)
		if n <= len(statuses) {
			return statuses[n-1]
		}
		return 0
	}
}

func TestExit75IsTriedAgain(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Retry: freshet.Retry{MinDelay: time.Minute, MaxDelay: 90 * time.Second}}), oneProgram(attempts(75, 75)), func(w *world, d *member) {
		began := time.Now()
		id := d.submit(freshet.Task{})
		d.succeeds(id, "attempt 3\n")
		if took := time.Since(began); took > time.Minute+90*time.Second+10*time.Second {
			w.Errorf("two delays took %v, at most 1 m and 90 s", took)
		}
		if s := d.status(id); s.Attempt != 3 {
			w.Errorf("attempt %d", s.Attempt)
		}
		if log := d.logOf(id); log != "attempt 1\nattempt 2\nattempt 3\n" {
			w.Errorf("log %q", log)
		}
	})
}

func TestRetriesAreSpreadByJitter(t *testing.T) {
	const tasks = 60
	play(t, oneAgent(freshet.Agent{Retry: freshet.Retry{MinDelay: time.Hour, MaxDelay: time.Hour}}), oneProgram(attempts(75)), func(w *world, d *member) {
		began := time.Now()
		var ids []string
		for range tasks {
			ids = append(ids, d.submit(freshet.Task{}))
		}
		early, late := 0, 0
		for _, id := range ids {
			d.succeeds(id, "attempt 2\n")
			switch delay := d.status(id).Started.Sub(began); {
			case delay > time.Hour+time.Minute:
				w.Errorf("tried again after %v, more than the delay", delay)
			case delay < 30*time.Minute:
				early++
			default:
				late++
			}
		}
		if early < tasks/5 || late < tasks/5 {
			w.Errorf("%d in the first half of the delay, %d in the second", early, late)
		}
	})
}

func TestAttemptsRunOut(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Retry: freshet.Retry{Attempts: 2}}), oneProgram(attempts(75, 75, 75)), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		var exit *freshet.ExitError
		if err := d.fails(id, nil); !errors.As(err, &exit) || exit.Code != 75 {
			w.Errorf("%v holds no exit status 75", err)
		}
		if s := d.status(id); s.Attempt != 2 {
			w.Errorf("attempt %d, want 2", s.Attempt)
		}
	})
}

func TestHandlersErrorIsFinalUnlessAskedFor(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name     string
		err      error
		retry    freshet.Retry
		attempts int
	}{
		{"error", boom, freshet.Retry{}, 1},
		{"wraps ErrRetry", fmt.Errorf("busy: %w", freshet.ErrRetry), freshet.Retry{}, 3},
		{"If says so", boom, freshet.Retry{If: func(err error) bool { return errors.Is(err, boom) }}, 3},
		{"If says no", boom, freshet.Retry{If: func(error) bool { return false }}, 1},
		{"one attempt", freshet.ErrRetry, freshet.Retry{Attempts: 1}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			play(t, oneAgent(freshet.Agent{Retry: c.retry, Handler: func(_ context.Context, run *freshet.Run) ([]byte, error) {
				calls++
				if run.Attempt != calls {
					t.Errorf("call %d is attempt %d", calls, run.Attempt)
				}
				return []byte("discarded"), c.err
			}}), fakeprovider.Config{}, func(w *world, d *member) {
				calls = 0
				id := d.submit(freshet.Task{})
				if err := d.fails(id, nil); !strings.Contains(err.Error(), c.err.Error()) {
					w.Errorf("%q does not say %q", err, c.err)
				}
				if calls != c.attempts {
					w.Errorf("%d attempts, want %d", calls, c.attempts)
				}
			})
		})
	}
}

func TestPanicIsAnError(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Handler: func(context.Context, *freshet.Run) ([]byte, error) { panic("index out of range") }}), fakeprovider.Config{}, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		if err := d.fails(id, nil); !strings.Contains(err.Error(), "handler panicked: index out of range") {
			w.Error(err)
		}
		if !strings.Contains(w.log.String(), "lifecycle_test.go") {
			w.Error("the log holds no stack")
		}
	})
}

func TestTimeoutKeepsWorkAndSaysSo(t *testing.T) {
	a := freshet.Agent{Timeout: 10 * time.Minute, Retry: freshet.Retry{If: func(err error) bool { return errors.Is(err, freshet.ErrTimeout) }}}
	play(t, oneAgent(a), oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		if b, err := p.ReadFile(p.Cmd.Env["FRESHET_DIR"] + "/checkpoint/n"); err == nil {
			fmt.Fprintf(p.Stdout, "going on from %s", b)
			return 0
		}
		p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/checkpoint/n", []byte("41"))
		for p.Sleep(time.Minute) == nil {
			fmt.Fprintln(p.Stdout, "working")
		}
		return 1
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		var told string
		for s, err := range d.Watch(w.Context(), id, 0) {
			if err != nil {
				w.Fatal(err)
			}
			if s.State == freshet.StateQueued && s.Attempt == 1 {
				told = s.Reason
			}
		}
		d.succeeds(id, "going on from 41")
		if !strings.Contains(told, "out of time") {
			w.Errorf("the user was told %q", told)
		}
	})
}

func TestTimeoutFailsTask(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Timeout: 10 * time.Minute}), oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		for p.Sleep(time.Minute) == nil {
			fmt.Fprintln(p.Stdout, "working")
		}
		return 1
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		began := time.Now()
		d.fails(id, freshet.ErrTimeout)
		if took := time.Since(began); took < 10*time.Minute || took > 11*time.Minute {
			w.Errorf("took %v", took)
		}
		if s := d.status(id); s.Code != "timeout" {
			w.Errorf("%+v", s)
		}
	})
}

// TestWedgedHandlerIsGivenUp: a handler that ignores its cancel is reported, its task ends, its slot is free again, and what
// it writes later has no effect.
func TestWedgedHandlerIsGivenUp(t *testing.T) {
	var release chan struct{}
	var late chan error
	cfg := oneAgent(freshet.Agent{Timeout: time.Minute, Concurrent: 1, Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		if string(run.Task.Payload) == "next" {
			return []byte("done"), nil
		}
		<-release
		run.Progress("still here")
		late <- run.Checkpoint(context.Background(), []byte("late"))
		return []byte("late"), nil
	}})
	play(t, cfg, fakeprovider.Config{}, func(w *world, d *member) {
		release, late = make(chan struct{}), make(chan error)
		id := d.submit(freshet.Task{})
		began := time.Now()
		d.fails(id, freshet.ErrTimeout)
		if took := time.Since(began); took > 2*time.Minute {
			w.Errorf("given up after %v", took)
		}
		d.succeeds(d.submit(freshet.Task{Payload: []byte("next")}), "done")
		version := d.status(id).Version
		close(release)
		time.Sleep(time.Minute)
		if err := <-late; !errors.Is(err, freshet.ErrLeaseLost) {
			w.Errorf("a late checkpoint: %v", err)
		}
		if s := d.status(id); s.Version != version || s.State != freshet.StateFailed || s.Note != "" {
			w.Errorf("changed after its end: %+v", s)
		}
		if !strings.Contains(w.log.String(), "handler ignores its cancel") {
			w.Error("not reported")
		}
	})
}

func TestResultIsBounded(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Handler: func(_ context.Context, run *freshet.Run) ([]byte, error) {
		return make([]byte, 1<<20+len(run.Task.Payload)), nil
	}}), fakeprovider.Config{}, func(w *world, d *member) {
		out, err := d.wait(d.submit(freshet.Task{}))
		if len(out) != 1<<20 || err != nil {
			w.Errorf("%d bytes, %v", len(out), err)
		}
		d.fails(d.submit(freshet.Task{Payload: []byte("x")}), freshet.ErrInvalid)
	})
}

func TestJSONHandler(t *testing.T) {
	type in struct{ N int }
	type out struct{ Square int }
	cfg := oneAgent(freshet.Agent{Retry: freshet.Retry{If: func(error) bool { return true }}, Handler: freshet.JSON(func(_ context.Context, _ *freshet.Run, v in) (out, error) {
		return out{v.N * v.N}, nil
	})})
	play(t, cfg, fakeprovider.Config{}, func(w *world, d *member) {
		d.succeeds(d.submit(freshet.Task{Payload: []byte(`{"N":12}`)}), `{"Square":144}`)
		bad := d.submit(freshet.Task{Payload: []byte(`twelve`)})
		d.fails(bad, freshet.ErrInvalid)
	})
}
