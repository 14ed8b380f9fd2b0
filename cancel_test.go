package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func (m *member) cancel(id string) {
	m.w.Helper()
	if err := m.Cancel(m.w.Context(), id); err != nil {
		m.w.Errorf("Cancel: %v", err)
	}
}

func TestCancelWhileQueued(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Concurrent: 1})
	play(t, cfg, oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
		first := d.submit(freshet.Task{})
		d.until(first, freshet.StateRunning)
		second := d.submit(freshet.Task{})
		d.cancel(second)
		began := time.Now()
		d.fails(second, freshet.ErrCanceled)
		if took := time.Since(began); took > 0 {
			w.Errorf("took %v", took)
		}
		if s := d.status(second); s.State != freshet.StateCanceled || s.Code != "canceled" || s.Attempt != 0 {
			w.Errorf("%+v", s)
		}
		d.succeeds(first, "")
	})
}

func TestCancelWhileBooting(t *testing.T) {
	cloud := oneProgram(cat)
	cloud.Boot = fakeprovider.Fixed(time.Minute)
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.until(id, freshet.StateStarting)
		time.Sleep(10 * time.Second)
		d.cancel(id)
		began := time.Now()
		d.fails(id, freshet.ErrCanceled)
		if took := time.Since(began); took > time.Second {
			w.Errorf("took %v", took)
		}
		time.Sleep(5 * time.Second)
		if n := len(w.cloud.Workspaces()); n != 0 {
			w.Errorf("%d workspaces", n)
		}
	})
}

// TestCancelWhileCreateIsUnderWay: the provider goes on with a create whose caller has gone away.
func TestCancelWhileCreateIsUnderWay(t *testing.T) {
	cloud := oneProgram(cat)
	cloud.Fault = func(c fakeprovider.Call) (f fakeprovider.Fault) {
		if c.Op == "create" {
			f.AnswerDelay = 30 * time.Second
		}
		return f
	}
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		time.Sleep(10 * time.Second)
		d.cancel(id)
		d.fails(id, freshet.ErrCanceled)
	})
}

func TestCancelGivesProgramItsGrace(t *testing.T) {
	for name, c := range map[string]struct {
		heeds bool
		took  time.Duration
	}{"it heeds SIGTERM": {true, 3 * time.Second}, "it ignores SIGTERM": {false, 10 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			var ended time.Time
			play(t, oneAgent(freshet.Agent{}), oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
				term := p.Term()
				fmt.Fprintln(p.Stdout, "ready")
				select {
				case <-term:
				case <-ctx.Done():
				}
				if c.heeds {
					p.Sleep(3 * time.Second)
				} else {
					<-ctx.Done()
				}
				ended = time.Now()
				return 0
			}), func(w *world, d *member) {
				id := d.submit(freshet.Task{})
				time.Sleep(time.Minute)
				began := time.Now()
				d.cancel(id)
				d.fails(id, freshet.ErrCanceled)
				if took := ended.Sub(began); took < c.took || took > c.took+time.Second {
					w.Errorf("the program ended after %v, want %v", took, c.took)
				}
				if s := d.status(id); s.State != freshet.StateCanceled || s.Attempt != 1 {
					w.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestHandlerSeesWhyItIsCancelled(t *testing.T) {
	var cause error
	play(t, oneAgent(freshet.Agent{Handler: func(ctx context.Context, _ *freshet.Run) ([]byte, error) {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return nil, ctx.Err()
	}}), fakeprovider.Config{}, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.until(id, freshet.StateRunning)
		d.cancel(id)
		d.fails(id, freshet.ErrCanceled)
		if !errors.Is(cause, freshet.ErrCanceled) {
			w.Errorf("cause %v", cause)
		}
	})
}

func TestCancelOfFinishedAndUnknown(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(cat), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.succeeds(id, "")
		if err := d.Cancel(w.Context(), id); !errors.Is(err, freshet.ErrFinished) {
			w.Errorf("finished: %v", err)
		}
		if err := d.Cancel(w.Context(), "nobody"); !errors.Is(err, freshet.ErrNotFound) {
			w.Errorf("unknown: %v", err)
		}
	})
}

// TestCancelRacesFinish: whichever comes first decides, and both sides agree.
func TestCancelRacesFinish(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(sleeper(time.Minute)), func(w *world, d *member) {
		won := map[freshet.State]int{}
		for range 30 {
			id := d.submit(freshet.Task{})
			time.Sleep(time.Minute)
			err := d.Cancel(w.Context(), id)
			_, failure := d.wait(id)
			s := d.status(id)
			won[s.State]++
			switch s.State {
			case freshet.StateSucceeded:
				if failure != nil {
					w.Errorf("succeeded, but Wait answers %v", failure)
				}
			case freshet.StateCanceled:
				if err != nil || !errors.Is(failure, freshet.ErrCanceled) {
					w.Errorf("canceled, but Cancel answered %v, Wait %v", err, failure)
				}
			default:
				w.Errorf("%+v", s)
			}
			synctest.Wait()
		}
	})
}

// TestSuccessOutlivesCancel: a handler that succeeds after it was told keeps its success.
func TestSuccessOutlivesCancel(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Handler: func(ctx context.Context, _ *freshet.Run) ([]byte, error) {
		<-ctx.Done()
		return []byte("just done"), nil
	}}), fakeprovider.Config{}, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.until(id, freshet.StateRunning)
		d.cancel(id)
		d.succeeds(id, "just done")
		if s := d.status(id); s.Reason != "" || s.Code != "" {
			w.Errorf("%+v", s)
		}
	})
}

// TestCancelWhileWaitingForRetry: the delay of a retry does not hold a cancel up.
func TestCancelWhileWaitingForRetry(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Retry: freshet.Retry{MinDelay: 10 * time.Hour, MaxDelay: 10 * time.Hour}}), oneProgram(attempts(75)), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.until(id, freshet.StateQueued)
		for d.status(id).Attempt == 0 || d.status(id).State != freshet.StateQueued {
			time.Sleep(time.Second)
		}
		d.cancel(id)
		d.fails(id, freshet.ErrCanceled)
	})
}

// TestClientCancelsRun: a process without a provider reaches a run through its next renewal.
func TestClientCancelsRun(t *testing.T) {
	stage(t, oneAgent(freshet.Agent{}), oneProgram(hang), func(w *world) {
		d := w.start()
		client := w.client()
		id := client.submit(freshet.Task{})
		d.until(id, freshet.StateRunning)
		began := time.Now()
		client.cancel(id)
		client.fails(id, freshet.ErrCanceled)
		if took := time.Since(began); took > 25*time.Second {
			w.Errorf("took %v", took)
		}
	})
}
