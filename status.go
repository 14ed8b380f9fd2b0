package freshet

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// Status tells where a task stands and why. ErrNotFound if there is no such task.
func (d *Dispatcher) Status(ctx context.Context, id string) (Status, error) {
	if err := d.ready(ctx); err != nil {
		return Status{}, err
	}
	r, err := d.task(ctx, store.TaskQuery{IDs: []string{id}})
	if err != nil {
		return Status{}, err
	}
	s := statusOf(r)
	if s.State == StateQueued {
		d.explain(ctx, r, &s)
	}
	return s, nil
}

// task reads one record.
func (c *core) task(ctx context.Context, q store.TaskQuery) (*store.Task, error) {
	tasks, err := c.store.QueryTasks(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return nil, ErrNotFound
	}
	return &tasks[0], nil
}

// explain completes the status of a queued task. What cannot be had is left out: a status is owed all the same.
func (c *core) explain(ctx context.Context, r *store.Task, s *Status) {
	var placer queue.Placer
	if c.queue != nil {
		placer, _ = c.queue.(queue.Placer)
	} else {
		placer, _ = c.store.(queue.Placer)
	}
	if placer != nil {
		s.Position, _ = placer.Place(ctx, r.ID)
	}
	w := policy.Waiting{Now: time.Now(), Due: r.Due, Position: s.Position, Reason: r.Reason, Agent: r.Agent}
	if a := c.agents[r.Agent]; a != nil {
		w.Resources, w.Concurrent = a.Resources, a.Concurrent
	}
	usage, err := c.store.Usage(ctx, &c.cfg.Limits, r.Tenant, r.Agent)
	if err != nil {
		s.Reason = policy.Explain(w)
		return
	}
	w.Usage = usage
	if w.Reason == "" {
		w.Reason = c.outage()
	}
	s.Reason = policy.Explain(w)
	s.ExpectedStart = policy.ExpectedStart(w, c.expected(r.Agent))
}

// outage is what this process knows of its provider's.
func (c *core) outage() string {
	if !c.started.Load() {
		return ""
	}
	return c.pace.outage()
}

// expected is how long a run of an agent takes, as measured, else as its configuration says.
func (c *core) expected(agent string) time.Duration {
	if d := c.meter.typical(agent); d > 0 {
		return d
	}
	if a := c.agents[agent]; a != nil {
		return a.Expected
	}
	return 0
}

// Wait waits for a task to finish and returns its result. A task that did not succeed gives a *TaskError whose chain
// holds the cause. The end of ctx ends the wait and never the task.
func (d *Dispatcher) Wait(ctx context.Context, id string) ([]byte, error) {
	var end *store.Task
	err := d.follow(ctx, id, func() (bool, bool, error) {
		r, err := d.task(ctx, store.TaskQuery{IDs: []string{id}, Result: true})
		if err != nil {
			return false, false, err
		}
		end = r
		return r.State.Finished(), false, nil
	})
	switch {
	case err != nil:
		return nil, err
	case end.State == StateSucceeded:
		return end.Result, nil
	}
	return nil, &TaskError{Status: statusOf(end), Err: causeOf(end.Code, end.Reason, end.Result)}
}

// Watch yields each recorded change of a task with a Version above after, in order, and ends after the final one; 0
// begins at the first that is kept. It works from any process, goes on where an earlier Watch ended, and needs no
// goroutine. An error is yielded once, last.
func (d *Dispatcher) Watch(ctx context.Context, id string, after int64) iter.Seq2[Status, error] {
	const page = 100
	return func(yield func(Status, error) bool) {
		stopped := false
		err := d.follow(ctx, id, func() (bool, bool, error) {
			r, err := d.task(ctx, store.TaskQuery{IDs: []string{id}})
			if err != nil {
				return false, false, err
			}
			moved := false
			for r.Version > after {
				events, err := d.store.Events(ctx, id, after, page)
				if err != nil {
					return false, moved, err
				}
				if len(events) == 0 {
					break
				}
				for i := range events {
					s := statusOf(r)
					s.apply(&events[i])
					after, moved = events[i].Version, true
					if !yield(s, nil) {
						stopped = true
						return true, true, nil
					}
				}
			}
			return r.State.Finished() && after >= r.Version, moved, nil
		})
		if err != nil && !stopped {
			yield(Status{}, err)
		}
	}
}

// List yields the tasks that f selects, newest first, without their place in line. An error is yielded once, last.
func (d *Dispatcher) List(ctx context.Context, f Filter) iter.Seq2[Status, error] {
	const page = 100
	return func(yield func(Status, error) bool) {
		q := store.TaskQuery{Agent: f.Agent, Tenant: f.Tenant, States: f.States, N: page}
		for {
			if err := d.ready(ctx); err != nil {
				yield(Status{}, err)
				return
			}
			tasks, err := d.store.QueryTasks(ctx, q)
			if err != nil {
				yield(Status{}, err)
				return
			}
			for i := range tasks {
				if !yield(statusOf(&tasks[i]), nil) {
					return
				}
			}
			if len(tasks) < page {
				return
			}
			q.Before = tasks[len(tasks)-1].ID
		}
	}
}

// Cancel ends a task. nil: it is or will be canceled, unless it ends first. A queued task is canceled at once; a running
// one is told, has its Agent.Grace, and is then ended by force. ErrFinished if it has ended, ErrNotFound if there is none.
func (d *Dispatcher) Cancel(ctx context.Context, id string) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	err := d.store.End(ctx, id, store.Ending{State: StateCanceled, Code: codeCanceled, Reason: "canceled"})
	if errors.Is(err, store.ErrFinished) || err == nil {
		d.taskChanged(id)
	}
	return err
}
