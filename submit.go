package freshet

import (
	"context"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// Submit records a task and returns its id. When it returns nil, the task is recorded, within the durability that the
// Store states. ErrInvalid, *LimitError, ErrKeyConflict and ErrClosed mean that it certainly is not. After any other
// error that is unknown: submit again with the same Key.
func (d *Dispatcher) Submit(ctx context.Context, t Task) (string, error) {
	ids, err := d.SubmitMany(ctx, []Task{t})
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// SubmitMany records tasks, all or none, and returns their ids in the order given; at most 10,000. Errors as for Submit.
func (d *Dispatcher) SubmitMany(ctx context.Context, tasks []Task) ([]string, error) {
	if len(tasks) > maxMany {
		return nil, invalid("%d tasks at once, more than %d", len(tasks), maxMany)
	}
	now := time.Now()
	records := make([]store.Task, len(tasks))
	for i, t := range tasks {
		if err := d.checkTask(t, now); err != nil {
			if len(tasks) > 1 {
				err = fmt.Errorf("task %d: %w", i, err)
			}
			return nil, err
		}
		records[i] = t.record(newID(now), "")
	}
	return d.submit(ctx, records)
}

// Prepare checks a task as Submit does and gives it an id, without I/O. What it returns is written by a backend that
// can do so within the host's own transaction; the limits are checked there.
func (d *Dispatcher) Prepare(t Task) (id string, record store.Task, err error) {
	now := time.Now()
	if err := d.checkTask(t, now); err != nil {
		return "", store.Task{}, err
	}
	id = newID(now)
	return id, t.record(id, ""), nil
}

// Resubmit submits the request of a finished task again, as a new task that names the old one as its Parent and goes on
// from its last checkpoint, if there is one. The old task stays as it is. Limits count it as any submission. ErrNotFound
// if there is no such task, ErrInvalid if it has not finished.
func (d *Dispatcher) Resubmit(ctx context.Context, id string) (string, error) {
	if err := d.ready(ctx); err != nil {
		return "", err
	}
	old, err := d.task(ctx, store.TaskQuery{IDs: []string{id}, Payload: true})
	if err != nil {
		return "", err
	}
	if !old.State.Finished() {
		return "", invalid("task %s has not finished", id)
	}
	t := taskOf(old)
	t.Key, t.NotBefore, t.NotAfter = "", time.Time{}, time.Time{}
	now := time.Now()
	if err := d.checkTask(t, now); err != nil {
		return "", err
	}
	ids, err := d.submit(ctx, []store.Task{t.record(newID(now), id)})
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// checkTask refuses what no dispatcher of this configuration would run. A client without agents knows only the form.
func (c *core) checkTask(t Task, now time.Time) error {
	if err := t.check(now); err != nil {
		return err
	}
	if len(c.agents) > 0 && c.agents[t.Agent] == nil {
		return invalid("unknown agent %q", t.Agent)
	}
	return nil
}

func (c *core) submit(ctx context.Context, records []store.Task) ([]string, error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, nil
	}
	ids, err := c.store.Submit(ctx, store.SubmitRequest{Limits: &c.cfg.Limits, Tasks: records})
	if err != nil {
		return nil, err
	}
	if c.queue != nil {
		// A ticket that is lost here is made again by the sweep: the task is recorded, which is what counts.
		if err := c.queue.Push(ctx, c.tickets(ctx, records)); err != nil {
			c.log.Warn("tickets left to the sweep", "tasks", len(records), "err", err)
		}
	}
	c.woken(records)
	return ids, nil
}

// tickets puts tasks in line. A task that was known before keeps its ticket: the same generation again has no effect.
func (c *core) tickets(ctx context.Context, records []store.Task) []queue.Ticket {
	tickets := make([]queue.Ticket, len(records))
	weights := map[string]int{}
	for i := range records {
		r := &records[i]
		weight, known := weights[r.Tenant]
		if !known {
			weight = c.cfg.Limits.Tenant.Weight
			if u, err := c.store.Usage(ctx, &c.cfg.Limits, r.Tenant, r.Agent); err == nil {
				weight = u.TenantLimits.Weight
			}
			weights[r.Tenant] = weight
		}
		tickets[i] = queue.Ticket{
			Task: r.ID, Generation: max(r.Generation, 1), Agent: r.Agent, Tenant: r.Tenant, Priority: r.Priority,
			Weight: weight, NotBefore: latest(r.NotBefore, r.Due),
		}
	}
	return tickets
}

// woken tells this process's own loops of new tasks.
func (c *core) woken(records []store.Task) {
	if !c.started.Load() {
		return
	}
	c.admit.wake()
	for i := range records {
		c.sweep.expireAt(records[i].NotAfter)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
