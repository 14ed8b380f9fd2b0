package store

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/line"
)

// Memory is the Store in memory, with a line and blobs of its own: also a Liner, a Watcher, a Blobs, a queue.Notifier
// and a queue.Placer. Make it with NewMemory. It starts no goroutine, and forgets all when it is dropped. All methods
// may be called from many goroutines.
type Memory struct {
	memoryBlobs
	owner string

	mu    sync.Mutex // protects books
	books books
}

// NewMemory returns an empty Store.
func NewMemory() *Memory {
	m := &Memory{owner: strings.ToLower(rand.Text()), books: books{
		tasks:    newTaskTable(),
		ledger:   newLedger(),
		tally:    newTallies(),
		rules:    rules{tenants: make(map[string]TenantLimits), holds: make(map[holdKey]Hold)},
		line:     line.New(),
		parked:   make(map[string]struct{}),
		watchers: newWatchers(),
		named:    make(map[string]namedLease),
	}}
	m.memoryBlobs.data = make(map[string][]byte)
	return m
}

// books is all that Memory knows of tasks and workspaces. Its methods are parts of one step of Memory, which holds the
// mutex; those that take now are given the time of that step.
type books struct {
	tasks    taskTable
	ledger   ledger
	tally    tallies
	rules    rules
	line     *line.Line
	watchers watchers
	named    map[string]namedLease
	fence    int64 // the last one given

	parked      map[string]struct{} // tenants that line.Park leaves out, being at a cap
	parkedUnder parkKey             // what their caps were judged by
}

// namedLease is a lease that Acquire gave.
type namedLease struct {
	holder string
	until  time.Time
}

// step begins one atomic step: it locks, and tells the time at which all of the step happens. The caller unlocks.
func (m *Memory) step(ctx context.Context) (now time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	m.mu.Lock()
	return time.Now(), nil
}

// Open implements Store. The owner is made by NewMemory.
func (m *Memory) Open(ctx context.Context) (Info, error) {
	return Info{Owner: m.owner, Epoch: 1}, ctx.Err()
}

// Acquire implements Store.
func (m *Memory) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	now, err := m.step(ctx)
	if err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	had, ok := m.books.named[name]
	switch {
	case ok && had.holder != holder && now.Before(had.until):
		return false, nil
	case ttl > 0:
		m.books.named[name] = namedLease{holder: holder, until: now.Add(ttl)}
		return true, nil
	case ok && had.holder == holder:
		delete(m.books.named, name)
	}
	return false, nil
}

// Place implements queue.Placer.
func (m *Memory) Place(ctx context.Context, task string) (int, error) {
	if _, err := m.step(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	return m.books.line.Place(task), nil
}
