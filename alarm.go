package freshet

import (
	"log/slog"
	"sync"
	"time"
)

const debugLevel = slog.LevelDebug

// alarm calls fn at the earliest of the times it was given, without a goroutine while it waits.
type alarm struct {
	fn func()

	mu    sync.Mutex // protects the fields below
	timer *time.Timer
	next  time.Time // zero: not set
	over  bool
}

func newAlarm(fn func()) *alarm { return &alarm{fn: fn} }

// at sets the alarm for t, unless it is set for an earlier time; the zero time sets nothing.
func (a *alarm) at(t time.Time) {
	if t.IsZero() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || (!a.next.IsZero() && !t.Before(a.next)) {
		return
	}
	a.next = t
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Until(t), a.ring)
		return
	}
	a.timer.Reset(time.Until(t))
}

func (a *alarm) ring() {
	a.mu.Lock()
	if a.next.After(time.Now()) { // a Reset that came too late for the timer that fired
		a.mu.Unlock()
		return
	}
	a.next = time.Time{}
	over := a.over
	a.mu.Unlock()
	if !over {
		a.fn()
	}
}

func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
