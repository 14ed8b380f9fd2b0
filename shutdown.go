package freshet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// errDetached is the cause of a run that this process leaves for another one to take over.
var errDetached = fmt.Errorf("%w: another process may go on", ErrShutdown)

// Shutdown ends this process's part, in phases:
//
//  1. Nothing is claimed any more; calls answer ErrClosed, and waits end with it.
//  2. Handlers see Run.Stopping.
//  3. Where the Store is durable and the provider can attach, agents run on: their handlers' contexts end with
//     ErrShutdown, and the runs can be adopted at once, by the next process or another.
//  4. Elsewhere, handlers may go on for half the time that ctx leaves, at most half of Config.ShutdownTimeout. Then their
//     contexts end with ErrShutdown, what they have made is checkpointed, their workspaces are deleted, and the tasks go
//     back in line, which counts as an interruption and not as an attempt.
//  5. With a Store in memory, every workspace of this fleet is deleted: nobody could find it again.
//
// It returns when all goroutines have ended: nil if nothing was given up, else a *ShutdownError. A handler that does not
// return when its context ends is given up when ctx ends. Shutdown may be called again, and without Start.
func (d *Dispatcher) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	was := d.phase
	if was == phaseStarting {
		d.mu.Unlock()
		return invalid("Shutdown while Start is under way")
	}
	d.phase = phaseClosed
	if was != phaseClosed {
		close(d.closed)
	}
	d.mu.Unlock()
	switch was {
	case phaseNew:
		close(d.over)
	case phaseStarted:
		err := d.end(ctx)
		d.mu.Lock()
		d.outcome = err
		d.mu.Unlock()
		close(d.over)
	}
	if was == phaseClosed { // another call is at it, or was
		select {
		case <-d.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outcome
}

// end takes a started dispatcher through the phases.
func (c *core) end(ctx context.Context) error {
	defer c.unlockID()
	c.claims.Stop(ErrShutdown)
	c.claims.Close()
	err := c.claims.Wait(ctx)

	_, attaches := provider.As[provider.Attacher](c.provider)
	detach := c.info.Durable && c.caps.Attach && attaches
	runs := c.live.all()
	for _, r := range runs {
		r.tellStopping()
		if !r.handlingNow() { // nothing has begun: it goes back in line
			r.stop(ErrShutdown)
		}
	}
	cause := ErrShutdown
	if detach {
		cause = errDetached
	} else {
		c.drain(ctx)
	}
	for _, r := range c.live.all() {
		r.stop(cause)
	}
	err = errors.Join(err, c.live.waitEmpty(ctx))
	if detach {
		c.detach(ctx, runs)
	}
	if !c.info.Durable {
		err = errors.Join(err, c.reap.everything(ctx))
	}
	c.work.Close()
	err = errors.Join(err, c.work.Wait(ctx))
	c.work.Stop(ErrShutdown)
	c.loops.Close()
	c.loops.Stop(ErrShutdown)
	err = errors.Join(err, c.loops.Wait(ctx))
	left := c.live.remaining()
	c.log.Info("shut down", "abandoned", len(left), "err", err)
	if len(left) > 0 || err != nil {
		return &ShutdownError{Abandoned: left, Err: err}
	}
	return nil
}

// drain lets handlers go on for a part of the time that is left.
func (c *core) drain(ctx context.Context) {
	patience := c.cfg.ShutdownTimeout
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline))
	}
	soft, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	_ = c.live.waitEmpty(soft)
}

// detach makes the runs that were left adoptable at once. Runs that have finished meanwhile are passed over.
func (c *core) detach(ctx context.Context, runs []*liveRun) {
	if len(runs) == 0 {
		return
	}
	leases := make([]store.Lease, len(runs))
	for i, r := range runs {
		leases[i] = r.lease
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseMargin)
	defer cancel()
	if err := c.store.Detach(call, leases); err != nil {
		c.log.Warn("runs left to the end of their leases", "runs", len(leases), "err", err)
	}
}

// everything deletes all workspaces of the ledger, and waits until they are gone.
func (r *reaper) everything(ctx context.Context) error {
	rows, err := r.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: r.owner, Scope: r.scope})
	if err != nil {
		return err
	}
	var ends []<-chan struct{}
	for i := range rows {
		row := rows[i]
		if row.Intent != store.IntentDelete {
			if row.Task != "" {
				continue // a run that was given up still holds it
			}
			row.Intent = store.IntentDelete
			if row.Version, err = r.store.PutWorkspace(ctx, store.Lease{}, nil, row); err != nil {
				continue
			}
		}
		end := make(chan struct{})
		if r.work.Go(func(ctx context.Context) {
			defer close(end)
			r.deleteNow(ctx, row)
		}) {
			ends = append(ends, end)
		}
	}
	for _, end := range ends {
		select {
		case <-end:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return r.leftovers(ctx)
}
