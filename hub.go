package freshet

import (
	"context"
	"sync"
	"time"
)

// hub wakes those who wait for a task to change. What wakes is a hint: whoever is woken asks the Store.
type hub struct {
	mu      sync.Mutex // protects waiters
	waiters map[string]map[chan struct{}]struct{}
}

func newHub() *hub { return &hub{waiters: map[string]map[chan struct{}]struct{}{}} }

// listen returns a channel that gets a value soon after each change of the task, and what ends that.
func (h *hub) listen(task string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	set := h.waiters[task]
	if set == nil {
		set = map[chan struct{}]struct{}{}
		h.waiters[task] = set
	}
	set[ch] = struct{}{}
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(set, ch)
		if len(set) == 0 {
			delete(h.waiters, task)
		}
	}
}

func (h *hub) wake(task string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.waiters[task] {
		poke(ch)
	}
}

// poke fills a channel of capacity one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

const (
	followFirst = 50 * time.Millisecond
	followMost  = 2 * time.Second
)

// follow calls look now, whenever the task may have changed, and at intervals that grow while nothing is seen, until
// look is done or fails, ctx ends or the dispatcher shuts down.
func (c *core) follow(ctx context.Context, task string, look func() (done, moved bool, err error)) error {
	changed, stop := c.hub.listen(task)
	defer stop()
	pause := followFirst
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		if err := c.ready(ctx); err != nil {
			return err
		}
		done, moved, err := look()
		if done || err != nil {
			return err
		}
		if moved {
			pause = followFirst
		}
		timer.Reset(pause)
		select {
		case <-changed:
		case <-timer.C:
			pause = min(2*pause, followMost)
		case <-c.closed:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
