package store

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/freshet-dev/freshet/internal/line"
)

// taskRow is one task with all that is kept of it.
type taskRow struct {
	Task
	events   []Event
	entries  map[EntryKey]Entry
	slots    []*slot // rows of the ledger that name it
	weight   int     // of its tenant when it was submitted
	detached bool    // its lease was ended by Detach
	place    *list.Element
}

// tenantKey is an idempotency key in its scope.
type tenantKey struct{ tenant, key string }

// taskTable finds tasks.
type taskTable struct {
	byID     map[string]*taskRow
	byKey    map[tenantKey]*taskRow
	byTenant map[string]*idIndex
	all      idIndex
	live     map[string]*taskRow
	expiring map[string]*taskRow // queued, with a NotAfter
	unacked  map[string]*taskRow // finished, not acknowledged
	finished *list.List          // of *taskRow, in the order of their ends
}

func newTaskTable() taskTable {
	return taskTable{
		byID:     make(map[string]*taskRow),
		byKey:    make(map[tenantKey]*taskRow),
		byTenant: make(map[string]*idIndex),
		live:     make(map[string]*taskRow),
		expiring: make(map[string]*taskRow),
		unacked:  make(map[string]*taskRow),
		finished: list.New(),
	}
}

// add puts a new row into the indexes that do not depend on its state.
func (tt *taskTable) add(t *taskRow) {
	tt.byID[t.ID] = t
	if t.Key != "" {
		tt.byKey[tenantKey{t.Tenant, t.Key}] = t
	}
	tt.all.insert(t)
	own := tt.byTenant[t.Tenant]
	if own == nil {
		own = &idIndex{}
		tt.byTenant[t.Tenant] = own
	}
	own.insert(t)
}

// remove forgets a finished task.
func (tt *taskTable) remove(t *taskRow) {
	delete(tt.byID, t.ID)
	if t.Key != "" {
		delete(tt.byKey, tenantKey{t.Tenant, t.Key})
	}
	delete(tt.unacked, t.ID)
	tt.finished.Remove(t.place)
	tt.all.remove(t)
	own := tt.byTenant[t.Tenant]
	if own.remove(t); own.empty() {
		delete(tt.byTenant, t.Tenant)
	}
}

// snapshot copies the task for a caller.
func (t *taskRow) snapshot(payload, result bool) Task {
	out := t.Task
	out.Payload, out.Result = nil, nil
	if payload {
		out.Payload = bytes.Clone(t.Payload)
	}
	if result {
		out.Result = bytes.Clone(t.Result)
	}
	return out
}

// current says whether l is the lease of t's present run.
func (t *taskRow) current(l Lease) bool {
	return t != nil && t.State.Live() && t.ID == l.Task && t.Fence == l.Fence
}

// record makes what has changed in t its next Event.
func (b *books) record(now time.Time, t *taskRow) {
	t.Version++
	t.Changed = now
	if t.events == nil {
		t.events = make([]Event, 0, 4) // most tasks have no more
	}
	if len(t.events) == MaxEvents {
		t.events[0] = Event{}
		t.events = t.events[1:]
	}
	t.events = append(t.events, Event{
		Task: t.ID, Version: t.Version, At: now, State: t.State, Reason: t.Reason, Code: t.Code, Note: t.Note,
		Attempt: t.Attempt, Path: t.Path,
	})
	b.watchers.task(t.ID)
}

// move puts t into another state, out of and into what is kept of the tasks in a state.
func (b *books) move(t *taskRow, to State) {
	agent, tenant := b.tally.agent(t.Agent), b.tally.tenant(t.Tenant)
	b.leave(t, agent, tenant)
	t.State = to
	b.enter(t, agent, tenant)
	b.tally.dropAgent(t.Agent, agent)
	b.dropTenant(t.Tenant, tenant)
}

// enter adds t to what is kept of the tasks in its state.
func (b *books) enter(t *taskRow, agent *agentTally, tenant *tenantTally) {
	switch t.State {
	case StateQueued:
		b.tally.queued++
		tenant.queued++
		agent.count.Queued++
		t.place = agent.line.PushBack(t)
		if !t.NotAfter.IsZero() {
			b.tasks.expiring[t.ID] = t
		}
	case StateStarting:
		b.tasks.live[t.ID] = t
		agent.count.Starting++
	case StateRunning:
		b.tasks.live[t.ID] = t
		agent.count.Running++
	default:
		t.place = b.tasks.finished.PushBack(t)
		b.tasks.unacked[t.ID] = t
	}
}

// leave is the reverse of enter; a finished task never leaves its state.
func (b *books) leave(t *taskRow, agent *agentTally, tenant *tenantTally) {
	switch t.State {
	case StateQueued:
		b.tally.queued--
		tenant.queued--
		agent.count.Queued--
		agent.line.Remove(t.place)
		t.place = nil
		delete(b.tasks.expiring, t.ID)
	case StateStarting:
		delete(b.tasks.live, t.ID)
		agent.count.Starting--
	case StateRunning:
		delete(b.tasks.live, t.ID)
		agent.count.Running--
	}
}

// enqueue puts a queued task in the line.
func (b *books) enqueue(now time.Time, t *taskRow) {
	limits := b.rules.inForce(&Limits{Tenant: TenantLimits{Weight: t.weight}})
	b.line.Push(line.Item{
		ID: t.ID, Generation: t.Generation, Agent: t.Agent, Tenant: t.Tenant, Priority: t.Priority,
		Weight: b.rules.tenant(t.Tenant, limits).Weight, Due: t.Due, Pushed: now,
	})
	b.watchers.claimable()
}

// finish ends a task. Its run, if it has one, has been parted from its workspace.
func (b *books) finish(now time.Time, t *taskRow, e Ending) {
	if t.State == StateQueued {
		b.line.Remove(t.ID)
	}
	b.move(t, e.State)
	t.Reason, t.Code = e.Reason, e.Code
	t.Runner, t.LeaseEnd, t.Workspace = "", time.Time{}, ""
	t.Finished = now
	b.record(now, t)
}

// expired says whether a queued task can no longer start in time.
func (t *taskRow) expired(now time.Time) bool { return !t.NotAfter.IsZero() && now.After(t.NotAfter) }

// Submit implements Tasks.
func (m *Memory) Submit(ctx context.Context, req SubmitRequest) ([]string, error) {
	now, err := m.step(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	b := &m.books
	ids, fresh, err := b.tasks.resolve(req.Tasks)
	if err != nil || len(fresh) == 0 {
		return ids, err
	}
	limits := b.rules.inForce(req.Limits)
	if err := b.accept(now, limits, fresh); err != nil {
		return nil, err
	}
	for _, task := range fresh {
		t := &taskRow{Task: Task{
			ID: task.ID, Agent: task.Agent, Tenant: task.Tenant, Key: task.Key, Digest: task.Digest, Parent: task.Parent,
			Payload: bytes.Clone(task.Payload), Priority: task.Priority, NotBefore: task.NotBefore, NotAfter: task.NotAfter,
			State: StateQueued, Generation: 1, Created: now, Due: task.NotBefore,
		}, weight: b.rules.tenant(task.Tenant, limits).Weight}
		b.tasks.add(t)
		b.enter(t, b.tally.agent(t.Agent), b.tally.tenant(t.Tenant))
		b.record(now, t)
		b.enqueue(now, t)
	}
	return ids, nil
}

// resolve tells the id that each task goes by, and which of the tasks are new.
func (tt *taskTable) resolve(tasks []Task) (ids []string, fresh []*Task, err error) {
	ids = make([]string, len(tasks))
	fresh = make([]*Task, 0, len(tasks))
	// Tasks of this request are compared with one another too.
	byID, byKey := make(map[string]*Task), make(map[tenantKey]*Task)
	for i := range tasks {
		task := &tasks[i]
		if task.ID == "" {
			return nil, nil, fmt.Errorf("freshet: task %d of the request has no id", i)
		}
		key := tenantKey{task.Tenant, task.Key}
		sameKey, sameID := byKey[key], byID[task.ID] // nobody is indexed without a key
		if t := tt.byKey[key]; t != nil {
			sameKey = &t.Task
		}
		if t := tt.byID[task.ID]; t != nil {
			sameID = &t.Task
		}
		switch {
		case sameKey != nil:
			if sameKey.Digest != task.Digest {
				return nil, nil, ErrKeyConflict
			}
			ids[i] = sameKey.ID
		case sameID != nil:
			if sameID.Digest != task.Digest {
				return nil, nil, ErrExists
			}
			ids[i] = sameID.ID
		default:
			ids[i] = task.ID
			fresh = append(fresh, task)
			if len(tasks) > 1 {
				byID[task.ID] = task
				if task.Key != "" {
					byKey[key] = task
				}
			}
		}
	}
	return ids, fresh, nil
}

// QueryTasks implements Tasks.
func (m *Memory) QueryTasks(ctx context.Context, q TaskQuery) ([]Task, error) {
	if _, err := m.step(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	n := q.N
	if n <= 0 {
		n = 100
	}
	var found []*taskRow
	if m.books.tasks.candidates(q, func(t *taskRow) bool {
		if q.matches(t) {
			found = append(found, t)
		}
		return true
	}) {
		slices.SortFunc(found, func(a, b *taskRow) int {
			if q.OldestFirst {
				return cmp.Compare(a.ID, b.ID)
			}
			return cmp.Compare(b.ID, a.ID)
		})
		found = slices.CompactFunc(found, func(a, b *taskRow) bool { return a == b })
		found = found[:min(n, len(found))]
	} else {
		m.books.tasks.walk(q, func(t *taskRow) bool {
			if q.matches(t) {
				found = append(found, t)
			}
			return len(found) < n
		})
	}
	out := make([]Task, len(found))
	for i, t := range found {
		out[i] = t.snapshot(q.Payload, q.Result)
	}
	return out, nil
}

// candidates calls yield with all rows that may match q, in no order, where a set smaller than all rows has them. If
// none does, it answers false and calls nothing.
func (tt *taskTable) candidates(q TaskQuery, yield func(*taskRow) bool) bool {
	all := func(rows map[string]*taskRow) {
		for _, t := range rows {
			yield(t)
		}
	}
	switch only := func(state func(State) bool) bool {
		return len(q.States) > 0 && !slices.ContainsFunc(q.States, func(s State) bool { return !state(s) })
	}; {
	case len(q.IDs) > 0:
		for _, id := range q.IDs {
			if t := tt.byID[id]; t != nil {
				yield(t)
			}
		}
	case only(State.Live):
		all(tt.live)
	case q.Unacknowledged:
		all(tt.unacked)
	case !q.ExpiredBefore.IsZero() && only(func(s State) bool { return s == StateQueued }):
		all(tt.expiring)
	case !q.ChangedBefore.IsZero() && only(State.Finished):
		for e := tt.finished.Front(); e != nil; e = e.Next() {
			if t := e.Value.(*taskRow); !t.Changed.Before(q.ChangedBefore) || !yield(t) {
				break
			}
		}
	default:
		return false
	}
	return true
}

// walk calls yield with rows that may match q, in the order of q, until it returns false.
func (tt *taskTable) walk(q TaskQuery, yield func(*taskRow) bool) {
	index := &tt.all
	if q.Tenant != "" {
		if index = tt.byTenant[q.Tenant]; index == nil {
			return
		}
	}
	if q.OldestFirst {
		index.ascend(yield)
	} else {
		index.descend(q.Before, yield)
	}
}

// matches says whether t is one that q asks for.
func (q *TaskQuery) matches(t *taskRow) bool {
	switch {
	case q.Agent != "" && t.Agent != q.Agent,
		q.Tenant != "" && t.Tenant != q.Tenant,
		q.Before != "" && t.ID >= q.Before,
		len(q.States) > 0 && !slices.Contains(q.States, t.State),
		q.Unacknowledged && (!t.State.Finished() || t.Acknowledged),
		!q.ChangedBefore.IsZero() && !t.Changed.Before(q.ChangedBefore),
		!q.ExpiredBefore.IsZero() && (t.NotAfter.IsZero() || !t.NotAfter.Before(q.ExpiredBefore)):
		return false
	}
	return true
}

// Events implements Tasks.
func (m *Memory) Events(ctx context.Context, task string, after int64, n int) ([]Event, error) {
	if _, err := m.step(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	t := m.books.tasks.byID[task]
	if t == nil {
		return nil, ErrNotFound
	}
	skip := max(after+1-t.events[0].Version, 0)
	if skip >= int64(len(t.events)) || n <= 0 {
		return nil, nil
	}
	events := t.events[skip:]
	return slices.Clone(events[:min(n, len(events))]), nil
}

// End implements Tasks.
func (m *Memory) End(ctx context.Context, task string, e Ending) error {
	switch e.State {
	case StateCanceled, StateExpired, StateFailed:
	default:
		return fmt.Errorf("freshet: %q is no state for an ending", e.State)
	}
	now, err := m.step(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	b := &m.books
	t := b.tasks.byID[task]
	switch {
	case t == nil:
		return ErrNotFound
	case t.State.Finished():
		return ErrFinished
	case t.State == StateQueued:
		b.finish(now, t, e)
	case e.State != StateCanceled:
		return ErrConflict
	case !t.Cancel:
		t.Cancel, t.Reason, t.Code = true, e.Reason, e.Code
		b.record(now, t)
	}
	return nil
}

// Acknowledge implements Tasks.
func (m *Memory) Acknowledge(ctx context.Context, tasks []string) error {
	if _, err := m.step(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, id := range tasks {
		if t := m.books.tasks.byID[id]; t != nil && t.State.Finished() {
			t.Acknowledged = true
			delete(m.books.tasks.unacked, id)
		}
	}
	return nil
}

// Remove implements Tasks.
func (m *Memory) Remove(ctx context.Context, tasks []string) error {
	if _, err := m.step(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, id := range tasks {
		if t := m.books.tasks.byID[id]; t != nil && t.State.Finished() {
			m.books.tasks.remove(t)
		}
	}
	return nil
}
