package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/internal/promise"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/store"
)

// bye shuts down within d, and says how long it took.
func (m *member) bye(d time.Duration) (time.Duration, error) {
	m.over = true
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	began := time.Now()
	err := m.Shutdown(ctx)
	return time.Since(began), err
}

// TestShutdownInMemory: handlers are told, have half of the time, and then nothing is left at the provider.
func TestShutdownInMemory(t *testing.T) {
	var mu sync.Mutex
	var causes []error
	told := 0
	cfg := oneAgent(freshet.Agent{Idempotent: true, KeepFor: time.Hour, Pool: freshet.Pool{Warm: 1}, Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		if string(run.Task.Payload) == "quick" {
			return nil, nil
		}
		<-run.Stopping()
		mu.Lock()
		told++
		mu.Unlock()
		if string(run.Task.Payload) == "heeds" {
			return []byte("last words"), nil
		}
		<-ctx.Done()
		mu.Lock()
		defer mu.Unlock()
		causes = append(causes, context.Cause(ctx))
		return nil, ctx.Err()
	}})
	cfg.Limits.Workspaces = 5
	cloud := fakeprovider.Config{Boot: fakeprovider.Fixed(time.Second), Delete: fakeprovider.Fixed(time.Second)}
	play(t, cfg, cloud, func(w *world, d *member) {
		causes, told = nil, 0
		d.succeeds(d.submit(freshet.Task{Payload: []byte("quick")}), "")
		heeds := d.submit(freshet.Task{Payload: []byte("heeds")})
		goesOn := d.submit(freshet.Task{Payload: []byte("goes on")})
		d.until(heeds, freshet.StateRunning)
		d.until(goesOn, freshet.StateRunning)
		var waits []error
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				_, err := d.Wait(w.Context(), goesOn)
				mu.Lock()
				defer mu.Unlock()
				waits = append(waits, err)
			})
		}
		time.Sleep(10 * time.Second)
		took, err := d.bye(20 * time.Second)
		all.Wait()
		if err != nil || took < 10*time.Second || took > 15*time.Second {
			w.Errorf("Shutdown took %v: %v", took, err)
		}
		for _, err := range waits {
			if !errors.Is(err, freshet.ErrClosed) {
				w.Errorf("a Wait ended with %v", err)
			}
		}
		if told != 2 || len(causes) != 1 || !errors.Is(causes[0], freshet.ErrShutdown) || errors.Is(causes[0], freshet.ErrCanceled) {
			w.Errorf("%d handlers were told; causes %v", told, causes)
		}
		if r := w.record(heeds); r.State != store.StateSucceeded {
			w.Errorf("%+v", r)
		}
		if r := w.record(goesOn); r.State != store.StateQueued || r.Interruptions != 1 || r.Spent != 0 {
			w.Errorf("%+v", r)
		}
	})
}

func TestShutdownGivesBackWhatHasNotBegun(t *testing.T) {
	cloud := oneProgram(cat)
	cloud.Boot = fakeprovider.Fixed(time.Hour)
	play(t, oneAgent(freshet.Agent{Concurrent: 3}), cloud, func(w *world, d *member) {
		var ids []string
		for range 5 {
			ids = append(ids, d.submit(freshet.Task{}))
		}
		time.Sleep(time.Minute)
		if took, err := d.bye(time.Minute); err != nil || took > time.Second {
			w.Errorf("took %v: %v", took, err)
		}
		for _, id := range ids {
			if r := w.record(id); r.State != store.StateQueued || r.Spent != 0 {
				w.Errorf("%+v", r)
			}
		}
	})
}

// TestShutdownOfWedgedHandler returns when ctx ends, and names the task.
func TestShutdownOfWedgedHandler(t *testing.T) {
	for _, patience := range []time.Duration{5 * time.Second, time.Minute} {
		t.Run(patience.String(), func(t *testing.T) {
			var release chan struct{}
			play(t, oneAgent(freshet.Agent{Handler: func(context.Context, *freshet.Run) ([]byte, error) {
				<-release
				return nil, nil
			}}), fakeprovider.Config{}, func(w *world, d *member) {
				release = make(chan struct{})
				id := d.submit(freshet.Task{})
				d.until(id, freshet.StateRunning)
				took, err := d.bye(patience)
				var left *freshet.ShutdownError
				if !errors.As(err, &left) || !slices.Equal(left.Abandoned, []string{id}) || !errors.Is(err, context.DeadlineExceeded) {
					w.Errorf("%#v", err)
				}
				if took > patience+time.Second {
					w.Errorf("took %v", took)
				}
				close(release)
				time.Sleep(time.Minute)
				w.cloud.Close() // the workspace of what was given up is left to the next Start
			})
		})
	}
}

// TestShutdownWhileProviderIsAway returns when ctx ends.
func TestShutdownWhileProviderIsAway(t *testing.T) {
	for name, down := range map[string]func(p *fakeprovider.Provider){
		"refuses": func(p *fakeprovider.Provider) { p.SetDown(provider.ErrUnavailable) },
		"hangs": func(p *fakeprovider.Provider) {
			p.SetFault(func(fakeprovider.Call) fakeprovider.Fault { return fakeprovider.Fault{Delay: time.Hour} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, oneAgent(freshet.Agent{Pool: freshet.Pool{Warm: 3}}), oneProgram(sleeper(time.Hour)), func(w *world, d *member) {
				d.untilSpares(3, 0)
				d.until(d.submit(freshet.Task{}), freshet.StateRunning)
				down(d.cloud)
				took, err := d.bye(10 * time.Second)
				var left *freshet.ShutdownError
				if !errors.As(err, &left) || took > 12*time.Second {
					w.Errorf("took %v: %v", took, err)
				}
				time.Sleep(2 * time.Hour) // what was given up ends some day
				w.cloud.Close()
			})
		})
	}
}

func TestShutdownAgainAndAtOnce(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
		d.submit(freshet.Task{})
		time.Sleep(time.Second)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if err := d.Shutdown(w.Context()); err != nil {
					w.Error(err)
				}
			})
		}
		all.Wait()
		if took, err := d.bye(time.Minute); err != nil || took > 0 {
			w.Errorf("again: %v, %v", took, err)
		}
	})
}

func TestShutdownWithoutStart(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{}), fakeprovider.Config{}, func(w *world) {
		d := w.member()
		id := d.submit(freshet.Task{})
		for range 2 {
			if took, err := d.bye(time.Minute); err != nil || took > 0 {
				w.Errorf("%v, %v", took, err)
			}
		}
		if err := d.Start(w.Context()); !errors.Is(err, freshet.ErrClosed) {
			w.Errorf("Start: %v", err)
		}
		if r := w.record(id); r.State != store.StateQueued {
			w.Errorf("%+v", r)
		}
	})
}

func TestUseAfterShutdown(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.succeeds(id, "")
		d.stop()
		ctx := w.Context()
		calls := map[string]func() error{
			"Start":      func() error { return d.Start(ctx) },
			"Run":        func() error { return d.Run(ctx) },
			"Submit":     func() error { _, err := d.Submit(ctx, freshet.Task{Agent: "agent", Tenant: "ann"}); return err },
			"SubmitMany": func() error { _, err := d.SubmitMany(ctx, []freshet.Task{{Agent: "agent", Tenant: "ann"}}); return err },
			"Resubmit":   func() error { _, err := d.Resubmit(ctx, id); return err },
			"Cancel":     func() error { return d.Cancel(ctx, id) },
			"Wait":       func() error { _, err := d.Wait(ctx, id); return err },
			"Status":     func() error { _, err := d.Status(ctx, id); return err },
			"Stats":      func() error { _, err := d.Stats(ctx); return err },
			"Logs":       func() error { _, err := d.Logs(ctx, id, 0, io.Discard); return err },
			"FollowLogs": func() error { _, err := d.FollowLogs(ctx, id, 0, io.Discard); return err },
			"Artifacts":  func() error { _, err := d.Artifacts(ctx, id); return err },
			"SetLimits":  func() error { return d.SetLimits(ctx, nil) },
			"Tenant":     func() error { return d.SetTenantLimits(ctx, "ann", nil) },
			"Hold":       func() error { return d.Hold(ctx, freshet.Filter{}, "x") },
			"Orphans":    func() error { _, err := d.Orphans(ctx); return err },
			"Delete":     func() error { return d.DeleteOrphans(ctx, "x") },
			"Watch": func() (last error) {
				for _, err := range d.Watch(ctx, id, 0) {
					last = err
				}
				return last
			},
			"List": func() (last error) {
				for _, err := range d.List(ctx, freshet.Filter{}) {
					last = err
				}
				return last
			},
		}
		for name, call := range calls {
			if err := call(); !errors.Is(err, freshet.ErrClosed) {
				w.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestStartTwice(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world, d *member) {
		if err := d.Start(w.Context()); !errors.Is(err, freshet.ErrClosed) {
			w.Errorf("%v", err)
		}
		d.succeeds(d.submit(freshet.Task{Payload: []byte("x")}), "x")
	})
}

// TestStartThatFailsMayBeRepeated, whatever has failed.
func TestStartThatFailsMayBeRepeated(t *testing.T) {
	for _, op := range []string{"scope", "list"} {
		t.Run(op, func(t *testing.T) {
			stage(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world) {
				d := w.member()
				d.cloud.SetFault(first(1, op, fakeprovider.Fault{Before: provider.ErrUnavailable}))
				if err := d.Start(w.Context()); !errors.Is(err, provider.ErrUnavailable) {
					w.Errorf("first: %v", err)
				}
				if err := d.Start(w.Context()); err != nil {
					w.Errorf("second: %v", err)
				}
				d.succeeds(d.submit(freshet.Task{Payload: []byte("x")}), "x")
			})
		})
	}
}

// TestClientHasNoGoroutines: it submits, asks and cancels.
func TestClientHasNoGoroutines(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{}), fakeprovider.Config{}, func(w *world) {
		before := runtime.NumGoroutine()
		client := w.client()
		id := client.submit(freshet.Task{})
		if s := client.status(id); s.State != freshet.StateQueued || s.Position != 1 {
			w.Errorf("%+v", s)
		}
		client.cancel(id)
		client.fails(id, freshet.ErrCanceled)
		if n := runtime.NumGoroutine(); n > before {
			w.Errorf("%d goroutines, %d before", n, before)
		}
		if err := client.Start(context.Background()); !errors.Is(err, freshet.ErrInvalid) {
			w.Errorf("Start: %v", err)
		}
	})
}

func TestStartNeedsProvider(t *testing.T) {
	d, err := freshet.New(freshet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); !errors.Is(err, freshet.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if err := d.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSubmitDuringStart is recorded, and served.
func TestSubmitDuringStart(t *testing.T) {
	cloud := oneProgram(cat)
	cloud.Fault = func(c fakeprovider.Call) (f fakeprovider.Fault) {
		if c.Op == "scope" {
			f.Delay = 10 * time.Second
		}
		return f
	}
	stage(t, oneAgent(freshet.Agent{}), cloud, func(w *world) {
		d := w.member()
		started := make(chan error, 1)
		go func() { started <- d.Start(w.Context()) }()
		time.Sleep(5 * time.Second)
		id := d.submit(freshet.Task{Payload: []byte("early")})
		if err := d.Shutdown(w.Context()); !errors.Is(err, freshet.ErrInvalid) {
			w.Errorf("Shutdown while Start is under way: %v", err)
		}
		if err := <-started; err != nil {
			w.Fatal(err)
		}
		d.succeeds(id, "early")
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world) {
		d := w.member()
		ctx, cancel := context.WithCancel(w.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		d.succeeds(d.submit(freshet.Task{Payload: []byte("x")}), "x")
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
		d.over = true
	})
}

// TestLeftoversOfAnEarlierProcess are deleted at Start, with a store in memory.
func TestLeftoversOfAnEarlierProcess(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world) {
		for i := range 30 {
			req := provider.CreateRequest{Token: fmt.Sprint("old", i), Owner: w.cfg.Name, Agent: "agent"}
			if i >= 25 {
				req.Owner = "another"
			}
			if _, err := w.cloud.Create(w.Context(), req); err != nil {
				w.Fatal(err)
			}
		}
		d := w.start()
		if n := len(w.cloud.Workspaces()); n != 5 {
			w.Errorf("%d workspaces after Start, 5 of another owner", n)
		}
		d.succeeds(d.submit(freshet.Task{}), "")
		d.stop()
		if n := len(w.cloud.Workspaces()); n != 5 {
			w.Errorf("%d workspaces after Shutdown, 5 of another owner", n)
		}
		w.cloud.Close()
	})
}

// TestOrphansAreDeletedAfterTheirGrace, a few at a time; many at once are reported.
func TestOrphans(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		keep bool
		left int
	}{"a few": {5, false, 0}, "many": {15, false, 15}, "kept": {5, true, 5}} {
		t.Run(name, func(t *testing.T) {
			cfg := oneAgent(freshet.Agent{})
			cfg.KeepOrphans = c.keep
			play(t, cfg, oneProgram(cat), func(w *world, d *member) {
				var ids []string
				for i := range c.n {
					ws, err := w.cloud.Sibling().Create(w.Context(), provider.CreateRequest{Token: fmt.Sprint("lost", i), Owner: w.cfg.Name, Agent: "agent"})
					if err != nil {
						w.Fatal(err)
					}
					ids = append(ids, ws.ID)
				}
				d.succeeds(d.submit(freshet.Task{}), "")
				if known, err := d.Orphans(w.Context()); err != nil || len(known) != c.n {
					w.Errorf("Orphans: %d, %v", len(known), err)
				}
				time.Sleep(30 * time.Second)
				if n := len(w.cloud.Workspaces()); n != c.n {
					w.Errorf("%d left within the grace", n)
				}
				time.Sleep(3 * time.Minute)
				if n := len(w.cloud.Workspaces()); n != c.left {
					w.Errorf("%d left, want %d", n, c.left)
				}
				if err := d.DeleteOrphans(w.Context(), "nothing"); !errors.Is(err, freshet.ErrInvalid) {
					w.Errorf("DeleteOrphans of nothing: %v", err)
				}
				if c.left > 0 {
					if err := d.DeleteOrphans(w.Context(), ids...); err != nil {
						w.Error(err)
					}
				}
			})
		})
	}
}

// TestDurableFleetOutlivesItsProcesses: a graceful end of one leaves its agents running, another goes on at once.
func TestDurableFleetOutlivesItsProcesses(t *testing.T) {
	var mu sync.Mutex
	starts := 0
	cloud := oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		mu.Lock()
		starts++
		mu.Unlock()
		return lines(120)(ctx, p)
	})
	stage(t, oneAgent(freshet.Agent{}), cloud, func(w *world) {
		starts = 0
		w.durable = true
		one, two := w.start(), w.start()
		if err := two.Hold(w.Context(), freshet.Filter{Tenant: "nobody"}, "x"); err != nil {
			w.Fatal(err)
		}
		id := one.submit(freshet.Task{})
		one.until(id, freshet.StateRunning)
		runner := w.record(id).Runner
		time.Sleep(30 * time.Second)
		goes, stays := one, two
		for range 2 {
			took, err := goes.bye(time.Minute)
			if err != nil || took > 2*time.Second {
				w.Errorf("took %v: %v", took, err)
			}
			time.Sleep(10 * time.Second)
			if stays == two {
				goes, stays = two, w.start()
			}
			time.Sleep(10 * time.Second)
		}
		out, err := stays.wait(id)
		if err != nil || len(out) != 1200 {
			w.Errorf("%d bytes, %v", len(out), err)
		}
		if log := stays.logOf(id); log != string(out) {
			w.Errorf("log of %d bytes differs from output of %d", len(log), len(out))
		}
		r := w.record(id)
		if starts != 1 || r.Spent != 1 || r.Crashes != 0 || r.Interruptions < 1 || r.Attempt != 1 || r.Runner == runner {
			w.Errorf("%d starts, %+v", starts, r)
		}
	})
}

// TestStatusesAreExplainedThroughoutAShutdown of one of two.
func TestShutdownOfOneOfTwoWithoutAttach(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Idempotent: true})
	cloud := oneProgram(sleeper(4 * time.Minute))
	cloud.Capabilities = func(c *provider.Capabilities) { c.Attach = false }
	stage(t, cfg, cloud, func(w *world) {
		w.durable = true
		one := w.start()
		id := one.submit(freshet.Task{Payload: []byte("ok")})
		one.until(id, freshet.StateRunning)
		time.Sleep(time.Minute)
		two := w.start()
		if took, err := one.bye(time.Minute); err != nil || took > 45*time.Second {
			w.Errorf("took %v: %v", took, err)
		}
		two.succeeds(id, "ok")
		if r := w.record(id); r.Interruptions != 1 || r.Spent != 1 {
			w.Errorf("%+v", r)
		}
		if broken := w.check.Check(w.Context(), promise.Final{Store: w.mem, Drained: true}); len(broken) > 0 {
			w.Errorf("%s", promise.String(broken))
		}
	})
}
