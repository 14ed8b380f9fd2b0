package freshet

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
	"golang.org/x/sync/errgroup"
)

// sweeper does at intervals what no event can be relied on for: it takes over runs whose owner is gone, ends tasks that
// expired in line, mends lost tickets, finishes deletes that somebody began, delivers the ends of tasks, removes old
// records, and deletes workspaces that nobody knows.
type sweeper struct {
	*core
	woken   chan struct{}
	expiry  *alarm
	renewed time.Time // time-outs at the provider, last; of the loop alone

	mu         sync.Mutex           // protects the fields below
	made       bool                 // something was created since the last clean sweep of the provider
	swept      time.Time            // the provider, last
	suspects   map[string]time.Time // unknown workspaces, by id: since when
	removed    time.Time            // old records, last
	deliveries map[string]delivery
	pending    []string // ends to deliver
	callers    int      // goroutines that deliver them
}

func newSweeper(c *core) *sweeper {
	s := &sweeper{core: c, woken: make(chan struct{}, 1), made: true, suspects: map[string]time.Time{}, deliveries: map[string]delivery{}}
	s.expiry = newAlarm(func() { poke(s.woken) })
	return s
}

// expireAt has the sweep run at a time to come.
func (s *sweeper) expireAt(t time.Time) { s.expiry.at(t) }

// created says that the provider may hold something new.
func (s *sweeper) created() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = true
}

func (s *sweeper) loop(ctx context.Context) {
	defer s.expiry.stop()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-s.woken:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, step := range []struct {
			name string
			do   func(context.Context) error
		}{
			{"adopt", s.adopt}, {"keep alive", s.keepAlive}, {"expire", s.expire}, {"heal", s.heal}, {"deletes", s.deletes}, {"callbacks", s.callbacks},
			{"retention", s.retention}, {"orphans", s.orphans},
		} {
			call, cancel := context.WithTimeout(ctx, callTimeout)
			if err := step.do(call); err != nil && ctx.Err() == nil {
				s.log.Warn("sweep failed", "step", step.name, "err", err)
			}
			cancel()
		}
		tick.Reset(sweepInterval)
	}
}

// adopt takes over runs whose lease has ended: their owner died, detached, or was cut off.
func (s *sweeper) adopt(ctx context.Context) error {
	for {
		begun, err := s.store.Adopt(ctx, s.offer(s.admit.plans, nil), claimBatch)
		if err != nil {
			return err
		}
		now := time.Now()
		for i := range begun {
			if own := s.live.get(begun[i].Task.ID); own != nil { // under an older fence: its next write is refused
				own.stop(ErrLeaseLost)
			}
			s.log.Info("took over", "task", begun[i].Task.ID, "fence", begun[i].Lease.Fence, "crashes", begun[i].Task.Crashes)
			s.admit.launch(&begun[i], now, true)
		}
		if len(begun) < claimBatch {
			return nil
		}
	}
}

// keepAlive puts off the provider's own time-out of all workspaces: the switch that ends them when every dispatcher of the
// fleet is dead.
func (s *sweeper) keepAlive(ctx context.Context) error {
	k, ok := provider.As[provider.KeepAliver](s.provider)
	now := time.Now()
	if !ok || since(now, s.renewed) < keepAliveTime/3 && !s.renewed.IsZero() {
		return nil
	}
	held, err := s.store.Acquire(ctx, "keep alive", s.runner, leaseTime)
	if err != nil || !held {
		return err
	}
	rows, err := s.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: s.owner, Scope: s.scope})
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(getsAtOnce)
	for i := range rows {
		if rows[i].ID == "" || rows[i].Intent == store.IntentDelete {
			continue
		}
		g.Go(func() error {
			err := k.KeepAlive(ctx, rows[i].ID, keepAliveTime)
			if errors.Is(err, provider.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.renewed = now
	return nil
}

// expire ends tasks whose latest start has passed while they waited.
func (s *sweeper) expire(ctx context.Context) error {
	now := time.Now()
	tasks, err := s.store.QueryTasks(ctx, store.TaskQuery{States: []store.State{StateQueued}, ExpiredBefore: now, N: claimBatch})
	if err != nil {
		return err
	}
	for i := range tasks {
		err := s.store.End(ctx, tasks[i].ID, store.Ending{
			State: StateExpired, Code: codeExpired, Reason: "it could not start before " + tasks[i].NotAfter.UTC().Format(time.RFC3339),
		})
		switch {
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrFinished), errors.Is(err, store.ErrNotFound):
			continue
		case err != nil:
			return err
		}
		s.hub.wake(tasks[i].ID)
		if s.cfg.OnFinish != nil {
			s.deliver(tasks[i].ID)
		}
	}
	return nil
}

// heal gives tickets to tasks that have been queued for a while: theirs may have been lost on its way into the Queue.
func (s *sweeper) heal(ctx context.Context) error {
	if s.queue == nil {
		return nil
	}
	q := store.TaskQuery{States: []store.State{StateQueued}, ChangedBefore: time.Now().Add(-healTime), N: claimBatch}
	for {
		tasks, err := s.store.QueryTasks(ctx, q)
		if err != nil || len(tasks) == 0 {
			return err
		}
		if err := s.queue.Push(ctx, s.tickets(ctx, tasks)); err != nil {
			return err
		}
		if len(tasks) < claimBatch {
			return nil
		}
		q.Before = tasks[len(tasks)-1].ID
	}
}

// deletes takes up what was to be done to a workspace by somebody who is gone, and ends what was kept for long enough.
func (s *sweeper) deletes(ctx context.Context) error {
	rows, err := s.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: s.owner, Scope: s.scope, Spare: true})
	if err != nil {
		return err
	}
	ending, err := s.store.QueryWorkspaces(ctx, store.WorkspaceQuery{
		Owner: s.owner, Scope: s.scope, Intents: []store.Intent{store.IntentDelete}, SinceBefore: time.Now().Add(-stuckTime),
	})
	if err != nil {
		return err
	}
	for i := range ending {
		s.reap.delete(ending[i])
	}
	now := time.Now()
	for i := range rows {
		w := &rows[i]
		stuck := w.Intent != store.IntentNone && w.Intent != store.IntentDelete && since(now, w.Since) > slowTimeout+bootTimeout
		kept := w.Intent == store.IntentNone && !w.KeepUntil.IsZero() && !now.Before(w.KeepUntil)
		if stuck || kept {
			if err := s.pool.retire(ctx, *w); err != nil {
				return err
			}
		} else if w.Intent == store.IntentNone {
			s.expireAt(w.KeepUntil)
		}
	}
	return nil
}

const retentionInterval = time.Minute

// retention removes the records of tasks that ended long ago, and first the blobs that only they name.
func (s *sweeper) retention(ctx context.Context) error {
	s.mu.Lock()
	due := since(time.Now(), s.removed) >= retentionInterval || s.removed.IsZero()
	if due {
		s.removed = time.Now()
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	tasks, err := s.store.QueryTasks(ctx, store.TaskQuery{
		States:        []store.State{StateSucceeded, StateFailed, StateCanceled, StateExpired},
		ChangedBefore: time.Now().Add(-s.cfg.Retention), OldestFirst: true, N: 100,
	})
	if err != nil {
		return err
	}
	for i := range tasks {
		entries, err := s.store.Entries(ctx, tasks[i].ID, "")
		if err != nil {
			return err
		}
		var keys []string
		for _, e := range entries {
			if e.Blob != "" {
				keys = append(keys, e.Blob)
			}
		}
		if len(keys) > 0 {
			if err := s.blobs.Delete(ctx, keys...); err != nil {
				return err
			}
		}
		if err := s.store.Remove(ctx, []string{tasks[i].ID}); err != nil {
			return err
		}
	}
	if len(tasks) == 100 {
		s.mu.Lock()
		s.removed = time.Time{}
		s.mu.Unlock()
	}
	return nil
}
