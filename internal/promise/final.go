package promise

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// Final is how things stand when the fleet has come to rest, and whom to ask about it.
type Final struct {
	Store store.Store
	Tasks []string // to be found beside those whose Submit was seen

	// Provider is a Lister of the fleet's scope: a connection of the checker's own, so that its calls are not taken for
	// the fleet's. nil: leaks are not looked for.
	Provider provider.Provider
	Owner    string

	Drained bool          // all tasks must have finished by now
	Spares  int           // that pools keep when nothing runs
	Grace   time.Duration // how long what is left over may take to go, and the last sweep to come; 0: no time

	// With Drained and no Spares: for so long nobody may call the provider. Calls counts the fleet's calls.
	Idle  time.Duration
	Calls func() int
	// Goroutines is the most that this process may have at the end; 0: they are not counted.
	Goroutines int

	// Ask asks a dispatcher about a task, as its host would. nil: nobody is asked.
	Ask func(ctx context.Context, id string) (Answer, error)
	// Causes are the errors that a code stands for: the chain of a failed task's Result holds its own.
	Causes map[string]error

	// Fair are tenants whose tasks were all in line before the first of them was admitted, and that nothing but the line
	// kept waiting. Bound is by how many tasks of weight 1 their service may differ; 0: 1.
	Fair  map[string]int
	Bound float64
}

// Answer is what a dispatcher says of a task.
type Answer struct {
	State  store.State
	Reason string
	Result error // of Wait; only of a task that has finished
}

// Check says which promises were broken, up to now and in the end. It waits for what Final gives time for.
func (c *Checker) Check(ctx context.Context, f Final) []Violation {
	found := &Checker{} // of this check alone, so that it may be repeated
	found.checkTasks(ctx, f, c.known(f.Tasks))
	found.checkLeaks(ctx, f)
	found.checkZero(ctx, f)
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Fair != nil {
		found.checkFair(f, c.admitted)
	}
	for in := range c.inside {
		found.broken = append(found.broken, c.checkStuckLocked(in)...)
	}
	return slices.Concat(c.broken, found.broken)
}

// known are the ids of all tasks that must be there.
func (c *Checker) known(more []string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := slices.Clone(more)
	for id, t := range c.tasks {
		if t.submitted && !t.removed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (c *Checker) checkTasks(ctx context.Context, f Final, ids []string) {
	for page := range slices.Chunk(ids, 100) {
		tasks, err := f.Store.QueryTasks(ctx, store.TaskQuery{IDs: page, N: len(page)})
		if err != nil {
			c.breakLocked(Lost, "the store cannot be asked: %v", err)
			return
		}
		for _, id := range page {
			i := slices.IndexFunc(tasks, func(t store.Task) bool { return t.ID == id })
			if i < 0 {
				c.breakLocked(Lost, "task %s was submitted and has no record", id)
				continue
			}
			c.checkEvents(ctx, f, &tasks[i])
			c.checkAnswer(ctx, f, &tasks[i])
		}
	}
}

// checkEvents follows a task's life: it ends once, nothing follows, and each bad turn says why.
func (c *Checker) checkEvents(ctx context.Context, f Final, t *store.Task) {
	if f.Drained && !t.State.Finished() {
		c.breakLocked(Lost, "task %s is still %s (%s)", t.ID, t.State, t.Reason)
	}
	events, err := allEvents(ctx, f.Store, t.ID)
	if err != nil || len(events) == 0 {
		c.breakLocked(Lost, "task %s: %d events, %v", t.ID, len(events), err)
		return
	}
	ends := 0
	for i, e := range events {
		if i > 0 && e.Version != events[i-1].Version+1 {
			c.breakLocked(Lost, "task %s: event %d follows event %d", t.ID, e.Version, events[i-1].Version)
		}
		if e.State.Finished() {
			ends++
		}
		bad := e.State.Finished() && e.State != store.StateSucceeded || e.State == store.StateQueued && e.Version > 1
		if bad && (e.Reason == "" || e.Code == "") {
			c.breakLocked(Explained, "task %s became %s with the reason %q, code %q", t.ID, e.State, e.Reason, e.Code)
		}
	}
	last := events[len(events)-1]
	switch {
	case ends > 1, ends == 1 && !last.State.Finished():
		c.breakLocked(Lost, "task %s: %d of its events are ends, the last event is %s", t.ID, ends, last.State)
	case last.State != t.State || last.Version != t.Version:
		c.breakLocked(Lost, "task %s is %s, version %d; its last event is %s, version %d", t.ID, t.State, t.Version, last.State, last.Version)
	}
}

func allEvents(ctx context.Context, s store.Store, task string) (all []store.Event, err error) {
	for after := int64(0); ; after = all[len(all)-1].Version {
		page, err := s.Events(ctx, task, after, store.MaxEvents)
		if err != nil || len(page) == 0 {
			return all, err
		}
		all = append(all, page...)
	}
}

// checkAnswer asks about a task as its host would.
func (c *Checker) checkAnswer(ctx context.Context, f Final, t *store.Task) {
	if f.Ask == nil {
		return
	}
	a, err := f.Ask(ctx, t.ID)
	if err != nil {
		c.breakLocked(Explained, "task %s: no answer: %v", t.ID, err)
		return
	}
	_, why, _ := strings.Cut(a.Reason, string(store.StateQueued))
	switch cause := f.Causes[t.Code]; {
	case a.State == store.StateSucceeded && a.Result != nil:
		c.breakLocked(Explained, "task %s has succeeded, its Wait answers %v", t.ID, a.Result)
	case a.State == store.StateSucceeded, a.State.Live():
	case a.Reason == "":
		c.breakLocked(Explained, "task %s is %s and says no reason", t.ID, a.State)
	case a.State == store.StateQueued && why == "":
		c.breakLocked(Explained, "task %s is queued and says only %q", t.ID, a.Reason)
	case a.State == store.StateQueued:
	case a.Result == nil:
		c.breakLocked(Explained, "task %s is %s, its Wait answers no error", t.ID, a.State)
	case cause != nil && !errors.Is(a.Result, cause):
		c.breakLocked(Explained, "task %s is %s with code %q, its Wait answers %v, which is not %v", t.ID, a.State, t.Code, a.Result, cause)
	}
}

// checkLeaks compares provider and ledger until they agree, or the grace has passed.
func (c *Checker) checkLeaks(ctx context.Context, f Final) {
	if f.Provider == nil {
		return
	}
	until := time.Now().Add(f.Grace)
	for {
		leaks := leaksOf(ctx, f)
		if len(leaks) > 0 && time.Now().Before(until) && pause(ctx, max(f.Grace/100, time.Millisecond)) {
			continue
		}
		c.broken = append(c.broken, leaks...)
		return
	}
}

// leaksOf finds workspaces that the ledger does not know and, after a drain, all beyond the pools.
func leaksOf(ctx context.Context, f Final) []Violation {
	found := &Checker{}
	lister, ok := provider.As[provider.Lister](f.Provider)
	if !ok {
		found.breakLocked(Leak, "the provider cannot list")
		return found.broken
	}
	var there []provider.Workspace
	for w, err := range lister.List(ctx, f.Owner) {
		if err != nil {
			found.breakLocked(Leak, "the provider cannot be asked: %v", err)
			return found.broken
		}
		there = append(there, w)
	}
	rows, err := f.Store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: f.Owner})
	if err != nil {
		found.breakLocked(Leak, "the store cannot be asked: %v", err)
		return found.broken
	}
	known := make(map[string]store.Workspace, len(rows))
	for _, row := range rows {
		known[row.Token] = row
	}
	for _, w := range there {
		row, ok := known[w.Token]
		if !ok || row.ID != "" && row.ID != w.ID {
			found.breakLocked(Leak, "workspace %s (%s, token %s) is %s and in no record", w.ID, w.Agent, w.Token, w.State)
		}
	}
	if !f.Drained {
		return found.broken
	}
	for _, row := range rows {
		if row.Task != "" {
			found.breakLocked(Leak, "row %s (workspace %q, %s, intent %q) still names task %s", row.Token, row.ID, row.State, row.Intent, row.Task)
		}
	}
	if len(there) != f.Spares || len(rows) != f.Spares {
		p := Leak
		if f.Spares == 0 {
			p = Zero
		}
		found.breakLocked(p, "%d workspaces and %d rows when nothing runs; the pools keep %d", len(there), len(rows), f.Spares)
	}
	return found.broken
}

// checkZero waits while nothing may happen.
func (c *Checker) checkZero(ctx context.Context, f Final) {
	if f.Drained && f.Spares == 0 && f.Idle > 0 {
		pause(ctx, f.Grace)
		before := f.Calls()
		pause(ctx, f.Idle)
		if n := f.Calls() - before; n > 0 {
			c.breakLocked(Zero, "the provider was called %d times in %v in which there was nothing to do", n, f.Idle)
		}
	}
	if n := runtime.NumGoroutine(); f.Goroutines > 0 && n > f.Goroutines {
		c.breakLocked(Zero, "%d goroutines when nothing runs, more than %d", n, f.Goroutines)
	}
}

// checkFair compares the service of tenants, by weight, for as long as all of them had work in line.
func (c *Checker) checkFair(f Final, admitted []string) {
	left := map[string]int{}
	for _, tenant := range admitted {
		if f.Fair[tenant] > 0 {
			left[tenant]++
		}
	}
	bound := f.Bound
	if bound == 0 {
		bound = 1
	}
	served := map[string]float64{}
	for n, tenant := range admitted {
		if f.Fair[tenant] == 0 {
			continue
		}
		served[tenant] += 1 / float64(f.Fair[tenant])
		least, most := served[tenant], served[tenant]
		for other := range f.Fair {
			least, most = min(least, served[other]), max(most, served[other])
		}
		if most-least > bound+1e-9 {
			c.breakLocked(Starved, "after %d admissions services by weight are %v, further apart than %g", n+1, served, bound)
			return
		}
		if left[tenant]--; left[tenant] == 0 {
			return
		}
	}
}

// pause waits for d, and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// String lists violations, one to a line.
func String(broken []Violation) string {
	var b strings.Builder
	for _, v := range broken {
		fmt.Fprintln(&b, v)
	}
	return b.String()
}
