package freshet

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// liveRuns are the runs whose lease this process holds.
type liveRuns struct {
	soon chan struct{}
	left chan struct{} // of capacity one: a run was removed

	mu     sync.Mutex // protects the fields below
	runs   map[string]*liveRun
	wedged map[string]bool // tasks whose handler was given up and has not returned
}

func newLiveRuns() *liveRuns {
	return &liveRuns{soon: make(chan struct{}, 1), left: make(chan struct{}, 1), runs: map[string]*liveRun{}, wedged: map[string]bool{}}
}

func (l *liveRuns) add(r *liveRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[r.task.ID] = r
}

// remove forgets r; a later run of the same task stays.
func (l *liveRuns) remove(r *liveRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs[r.task.ID] == r {
		delete(l.runs, r.task.ID)
		poke(l.left)
	}
}

// waitEmpty waits until no run is left, or ctx ends. Shutdown alone calls it.
func (l *liveRuns) waitEmpty(ctx context.Context) error {
	for {
		l.mu.Lock()
		n := len(l.runs)
		l.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-l.left:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wedge notes that a handler was given up, or that it has returned after all.
func (l *liveRuns) wedge(task string, given bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if given {
		l.wedged[task] = true
	} else {
		delete(l.wedged, task)
	}
}

// remaining are the tasks that still have a run or a handler in this process.
func (l *liveRuns) remaining() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks := slices.Collect(maps.Keys(l.wedged))
	for task := range l.runs {
		if !l.wedged[task] {
			tasks = append(tasks, task)
		}
	}
	slices.Sort(tasks)
	return tasks
}

func (l *liveRuns) has(task string) bool { return l.get(task) != nil }

func (l *liveRuns) get(task string) *liveRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs[task]
}

func (l *liveRuns) all() []*liveRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*liveRun, 0, len(l.runs))
	for _, r := range l.runs {
		all = append(all, r)
	}
	return all
}

// renewSoon brings the next renewal forward: one of the runs may have been cancelled.
func (l *liveRuns) renewSoon() { poke(l.soon) }

// renewLoop keeps the leases of all runs with one call for all of them.
func (l *liveRuns) renewLoop(c *core) func(context.Context) {
	return func(ctx context.Context) {
		tick := time.NewTimer(leaseRenew)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-l.soon:
			case <-ctx.Done():
				return
			}
			if l.renew(ctx, c) {
				tick.Reset(leaseRenew)
			} else {
				tick.Reset(time.Second)
			}
		}
	}
}

// renew renews all leases at once; false: the Store did not answer. Then runs whose lease comes to its end are let go.
func (l *liveRuns) renew(ctx context.Context, c *core) bool {
	runs := l.all()
	if len(runs) == 0 {
		return true
	}
	leases := make([]store.Lease, len(runs))
	for i, r := range runs {
		leases[i] = r.lease
	}
	asked := time.Now()
	call, cancel := context.WithTimeout(ctx, leaseMargin)
	defer cancel()
	states, err := c.store.Renew(call, leases, leaseTime)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("leases not renewed", "runs", len(runs), "err", err)
		}
		now := time.Now()
		for _, r := range runs {
			if r.leaseOver(now) {
				r.stop(ErrLeaseLost)
			}
		}
		return false
	}
	for i, s := range states {
		switch {
		case !s.Held:
			runs[i].stop(ErrLeaseLost)
		case s.Cancel:
			runs[i].renewed(asked)
			runs[i].stop(ErrCanceled)
		default:
			runs[i].renewed(asked)
		}
	}
	return true
}
