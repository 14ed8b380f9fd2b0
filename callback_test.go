package freshet_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
)

// ends records the calls of OnFinish.
type ends struct {
	mu    sync.Mutex // protects the fields below
	calls map[string]int
	now   map[string]int
	most  int // calls for one task at once
	last  map[string]freshet.Status
}

func (e *ends) reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls, e.now, e.most, e.last = map[string]int{}, map[string]int{}, 0, map[string]freshet.Status{}
}

func (e *ends) enter(s freshet.Status) (n int, leave func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls[s.ID]++
	e.now[s.ID]++
	e.most = max(e.most, e.now[s.ID])
	e.last[s.ID] = s
	return e.calls[s.ID], func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.now[s.ID]--
	}
}

func (e *ends) count(id string) (int, freshet.Status) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[id], e.last[id]
}

func TestOnFinishIsCalledForEachEnd(t *testing.T) {
	var e ends
	cfg := oneAgent(freshet.Agent{Concurrent: 1})
	cfg.OnFinish = func(_ context.Context, s freshet.Status) error {
		_, leave := e.enter(s)
		defer leave()
		return nil
	}
	play(t, cfg, oneProgram(sleeper(10*time.Second)), func(w *world, d *member) {
		e.reset()
		ok := d.submit(freshet.Task{})
		canceled := d.submit(freshet.Task{})
		expired := d.submit(freshet.Task{NotAfter: time.Now().Add(5 * time.Second)})
		d.cancel(canceled)
		for id, want := range map[string]freshet.State{ok: freshet.StateSucceeded, canceled: freshet.StateCanceled, expired: freshet.StateExpired} {
			d.wait(id)
			time.Sleep(time.Minute)
			n, s := e.count(id)
			if n != 1 || s.State != want || s.ID != id {
				w.Errorf("%s: %d calls, %+v", want, n, s)
			}
		}
	})
}

// TestOnFinishIsRepeatedUntilItSucceeds, also after a panic.
func TestOnFinishIsRepeatedUntilItSucceeds(t *testing.T) {
	var e ends
	cfg := oneAgent(freshet.Agent{})
	cfg.OnFinish = func(_ context.Context, s freshet.Status) error {
		n, leave := e.enter(s)
		defer leave()
		switch n {
		case 1:
			return errors.New("mail server is away")
		case 2:
			panic("nil map")
		}
		return nil
	}
	play(t, cfg, oneProgram(cat), func(w *world, d *member) {
		e.reset()
		id := d.submit(freshet.Task{})
		d.succeeds(id, "")
		time.Sleep(10 * time.Minute)
		if n, _ := e.count(id); n != 3 {
			w.Errorf("%d calls, want 3", n)
		}
	})
}

// TestSlowOnFinishIsNotOverlapped: one call at a time for one task.
func TestSlowOnFinishIsNotOverlapped(t *testing.T) {
	var e ends
	cfg := oneAgent(freshet.Agent{})
	cfg.OnFinish = func(_ context.Context, s freshet.Status) error {
		_, leave := e.enter(s)
		defer leave()
		time.Sleep(3 * time.Minute)
		return nil
	}
	play(t, cfg, oneProgram(cat), func(w *world, d *member) {
		e.reset()
		id := d.submit(freshet.Task{})
		d.succeeds(id, "")
		time.Sleep(10 * time.Minute)
		if n, _ := e.count(id); n != 1 || e.most != 1 {
			w.Errorf("%d calls, %d at once", n, e.most)
		}
	})
}

// TestFailingCallbacksHideNobody: those that always fail do not keep others from being delivered.
func TestFailingCallbacksHideNobody(t *testing.T) {
	var e ends
	var mended atomic.Bool
	cfg := oneAgent(freshet.Agent{})
	cfg.OnFinish = func(_ context.Context, s freshet.Status) error {
		_, leave := e.enter(s)
		defer leave()
		if s.Task.Tenant == "bad" && !mended.Load() {
			return errors.New("no address")
		}
		return nil
	}
	play(t, cfg, oneProgram(cat), func(w *world, d *member) {
		e.reset()
		mended.Store(false)
		for range 150 {
			d.succeeds(d.submit(freshet.Task{Tenant: "bad"}), "")
		}
		id := d.submit(freshet.Task{NotBefore: time.Now().Add(time.Hour)})
		d.cancel(id)
		time.Sleep(10 * time.Minute)
		if n, _ := e.count(id); n == 0 {
			w.Error("never delivered")
		}
		mended.Store(true)
		time.Sleep(time.Hour)
	})
}

// TestOnFinishSurvivesTheDeathOfItsProcess: another one delivers.
func TestOnFinishSurvivesTheDeathOfItsProcess(t *testing.T) {
	var e ends
	cfg := oneAgent(freshet.Agent{})
	cfg.OnFinish = func(ctx context.Context, s freshet.Status) error {
		n, leave := e.enter(s)
		defer leave()
		if n == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	stage(t, cfg, oneProgram(cat), func(w *world) {
		e.reset()
		w.durable = true
		one := w.start()
		id := one.submit(freshet.Task{})
		one.succeeds(id, "")
		time.Sleep(time.Second) // the call has begun
		one.cut()
		two := w.start()
		time.Sleep(2 * time.Minute)
		if n, _ := e.count(id); n != 2 {
			w.Errorf("%d calls, want 2", n)
		}
		two.succeeds(id, "")
		one.mend()
		var left *freshet.ShutdownError
		if took, err := one.bye(10 * time.Second); !errors.As(err, &left) || took > 12*time.Second {
			w.Errorf("Shutdown with a callback that hangs took %v: %v", took, err)
		}
	})
}

// TestRecordsAreRemovedAfterRetention with all that they name.
func TestRecordsAreRemovedAfterRetention(t *testing.T) {
	cfg := oneAgent(freshet.Agent{})
	cfg.Retention = 2 * time.Hour
	play(t, cfg, oneProgram(lines(5)), func(w *world, d *member) {
		id := d.submit(freshet.Task{Key: "k"})
		if _, err := d.wait(id); err != nil {
			w.Error(err)
		}
		time.Sleep(time.Hour)
		if log := d.logOf(id); len(log) != 50 {
			w.Errorf("log %q", log)
		}
		time.Sleep(2 * time.Hour)
		if _, err := d.Status(w.Context(), id); !errors.Is(err, freshet.ErrNotFound) {
			w.Errorf("after the retention: %v", err)
		}
		if again := d.submit(freshet.Task{Key: "k"}); again == id {
			w.Error("the key outlives its task")
		} else if _, err := d.wait(again); err != nil {
			w.Error(err)
		}
	})
}
