package store

import "context"

// watchers are those who want to be woken. A step only marks what they wait for; they call their wake themselves, in
// their own goroutine and without the mutex.
type watchers struct {
	tasks map[*taskWatcher]struct{}
	line  map[chan struct{}]struct{}
}

// taskWatcher is one call of WatchTasks.
type taskWatcher struct {
	changed map[string]struct{} // since it was last woken
	signal  chan struct{}       // of one place
}

func newWatchers() watchers {
	return watchers{tasks: make(map[*taskWatcher]struct{}), line: make(map[chan struct{}]struct{})}
}

// task marks a task as changed.
func (w *watchers) task(id string) {
	for t := range w.tasks {
		t.changed[id] = struct{}{}
		mark(t.signal)
	}
}

// claimable marks that a claim may find more than before.
func (w *watchers) claimable() {
	for signal := range w.line {
		mark(signal)
	}
}

// mark fills a channel of one place.
func mark(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

// WatchTasks implements Watcher. It misses no change, and calls wake from one goroutine: the caller's.
func (m *Memory) WatchTasks(ctx context.Context, wake func(task string)) error {
	w := &taskWatcher{changed: make(map[string]struct{}), signal: make(chan struct{}, 1)}
	m.mu.Lock()
	m.books.watchers.tasks[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.books.watchers.tasks, w)
		m.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.signal:
		}
		m.mu.Lock()
		changed := w.changed
		w.changed = make(map[string]struct{})
		m.mu.Unlock()
		for id := range changed {
			wake(id)
		}
	}
}

// Notify implements queue.Notifier: it wakes also when a slot becomes free or a limit or a hold is changed. What becomes
// due by the passing of time it does not tell; Claimed.Next does.
func (m *Memory) Notify(ctx context.Context, wake func()) error {
	signal := make(chan struct{}, 1)
	m.mu.Lock()
	m.books.watchers.line[signal] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.books.watchers.line, signal)
		m.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-signal:
			wake()
		}
	}
}
