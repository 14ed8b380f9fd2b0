package promise

import (
	"context"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// join gives a wrapper around inner the abilities that inner has. An ability to claim or to keep blobs is there or not,
// and a dispatcher does otherwise without; a hint that never comes is the same as none.
func join(wrapper, inner store.Store, liner store.Liner, blobs store.Blobs) store.Store {
	type base = struct {
		store.Store
		hints
	}
	b := base{wrapper, hints{inner}}
	switch {
	case liner != nil && blobs != nil:
		return struct {
			base
			store.Liner
			store.Blobs
		}{b, liner, blobs}
	case liner != nil:
		return struct {
			base
			store.Liner
		}{b, liner}
	case blobs != nil:
		return struct {
			base
			store.Blobs
		}{b, blobs}
	}
	return b
}

// hints forwards the abilities whose absence cannot be told from their silence.
type hints struct{ of store.Store }

// WatchTasks implements store.Watcher.
func (h hints) WatchTasks(ctx context.Context, wake func(task string)) error {
	if w, ok := h.of.(store.Watcher); ok {
		return w.WatchTasks(ctx, wake)
	}
	<-ctx.Done()
	return ctx.Err()
}

// Notify implements queue.Notifier.
func (h hints) Notify(ctx context.Context, wake func()) error {
	if n, ok := h.of.(queue.Notifier); ok {
		return n.Notify(ctx, wake)
	}
	<-ctx.Done()
	return ctx.Err()
}

// Place implements queue.Placer.
func (h hints) Place(ctx context.Context, task string) (int, error) {
	if p, ok := h.of.(queue.Placer); ok {
		return p.Place(ctx, task)
	}
	return 0, nil
}
