package freshet

import (
	"context"
	"errors"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// finisher writes the ends of runs in batches: whatever gathers while one batch is written is the next.
type finisher struct {
	*core
	in chan *ending
}

type ending struct {
	out  store.Outcome
	done chan store.Finished // of capacity one
}

func newFinisher(c *core) *finisher { return &finisher{core: c, in: make(chan *ending, claimBatch)} }

// finish records the end of a run, and waits until that is done, the lease is lost, or ctx ends.
func (f *finisher) finish(ctx context.Context, out store.Outcome) (store.Finished, error) {
	e := &ending{out: out, done: make(chan store.Finished, 1)}
	select {
	case f.in <- e:
	case <-ctx.Done():
		return store.Finished{}, context.Cause(ctx)
	}
	select {
	case done := <-e.done:
		return done, done.Err
	case <-ctx.Done():
		return store.Finished{}, context.Cause(ctx)
	}
}

func (f *finisher) loop(ctx context.Context) {
	batch := make([]*ending, 0, claimBatch)
	for {
		batch = batch[:0]
		select {
		case e := <-f.in:
			batch = append(batch, e)
		case <-ctx.Done():
			return
		}
		for more := true; more && len(batch) < claimBatch; {
			select {
			case e := <-f.in:
				batch = append(batch, e)
			default:
				more = false
			}
		}
		f.write(ctx, batch)
	}
}

// write repeats until the Store answers. A run whose lease ends meanwhile learns that from its own wait.
func (f *finisher) write(ctx context.Context, batch []*ending) {
	outs := make([]store.Outcome, len(batch))
	for i, e := range batch {
		outs[i] = e.out
	}
	for failures := 0; ; failures++ {
		var done []store.Finished
		err := bounded(ctx, func(ctx context.Context) (err error) {
			done, err = f.store.Finish(ctx, outs)
			return err
		})
		if err == nil {
			for i, e := range batch {
				e.done <- f.settle(ctx, e.out, done[i], failures > 0)
			}
			return
		}
		f.log.Warn("finish failed", "runs", len(outs), "err", err)
		if !wait(ctx, retryPause(failures)) {
			return
		}
	}
}

// settle reads a lease lost after a failed write: the write may have had its effect, and then the end is ours.
func (f *finisher) settle(ctx context.Context, out store.Outcome, done store.Finished, repeated bool) store.Finished {
	if !repeated || !errors.Is(done.Err, store.ErrLeaseLost) {
		return done
	}
	t, err := f.task(ctx, store.TaskQuery{IDs: []string{out.Lease.Task}})
	if err != nil || t.Fence != out.Lease.Fence || t.State.Live() {
		return done
	}
	done = store.Finished{Task: *t}
	if rows, err := f.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Tokens: []string{t.Workspace}}); err == nil && len(rows) > 0 {
		done.Workspace = rows[0]
	}
	return done
}

// finished tells everybody who waits for it that a task has ended or is back in line.
func (c *core) finished(t *store.Task) {
	c.hub.wake(t.ID)
	c.admit.wake()
	if !t.State.Finished() {
		if c.queue != nil {
			c.work.Go(func(ctx context.Context) {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				if err := c.queue.Push(ctx, c.tickets(ctx, []store.Task{*t})); err != nil {
					c.log.Warn("ticket left to the sweep", "task", t.ID, "err", err)
				}
				c.admit.wake()
			})
		}
		c.admit.wakeAt(t.Due)
		return
	}
	if c.cfg.OnFinish != nil && !t.Acknowledged {
		c.sweep.deliver(t.ID)
	}
}

// duration since a moment that may be unknown.
func since(now, then time.Time) time.Duration {
	if then.IsZero() || now.Before(then) {
		return 0
	}
	return now.Sub(then)
}
