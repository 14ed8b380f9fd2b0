package freshet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// callbacks delivers the ends that nobody has acknowledged: the process that should have is gone, or failed to.
func (s *sweeper) callbacks(ctx context.Context) error {
	if s.cfg.OnFinish == nil {
		return nil
	}
	held, err := s.store.Acquire(ctx, "callbacks", s.runner, leaseTime)
	if err != nil || !held {
		return err
	}
	q := store.TaskQuery{Unacknowledged: true, ChangedBefore: time.Now().Add(-stuckTime), N: claimBatch}
	for {
		tasks, err := s.store.QueryTasks(ctx, q)
		if err != nil {
			return err
		}
		for i := range tasks {
			s.deliver(tasks[i].ID)
		}
		if len(tasks) < claimBatch {
			return nil
		}
		q.Before = tasks[len(tasks)-1].ID
	}
}

// delivery is one task's end on its way to OnFinish.
type delivery struct {
	busy  bool
	fails int
	next  time.Time // not before
}

// callersAtOnce bounds how many OnFinish run at once.
const callersAtOnce = 8

// deliver has the end of a task delivered soon.
func (s *sweeper) deliver(task string) {
	s.mu.Lock()
	s.pending = append(s.pending, task)
	more := s.callers < callersAtOnce
	if more {
		s.callers++
	}
	s.mu.Unlock()
	if more && !s.work.Go(s.call) {
		s.mu.Lock()
		s.callers--
		s.mu.Unlock()
	}
}

// call delivers until nothing is pending.
func (s *sweeper) call(ctx context.Context) {
	for {
		s.mu.Lock()
		if len(s.pending) == 0 || ctx.Err() != nil {
			s.callers--
			s.pending = nil
			s.mu.Unlock()
			return
		}
		task := s.pending[0]
		s.pending = s.pending[1:]
		s.mu.Unlock()
		s.deliverOne(ctx, task)
	}
}

// take says whether the end of a task is to be delivered now: not while it is, and not soon after it failed.
func (s *sweeper) take(task string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deliveries[task]
	if d.busy || time.Now().Before(d.next) {
		return false
	}
	d.busy = true
	s.deliveries[task] = d
	return true
}

func (s *sweeper) gave(task string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.deliveries, task)
		return
	}
	d := s.deliveries[task]
	d.busy = false
	d.fails++
	d.next = time.Now().Add(min(time.Second<<min(d.fails, 10), 10*time.Minute))
	s.deliveries[task] = d
}

// deliverOne calls OnFinish for one task, and acknowledges it if that went well.
func (s *sweeper) deliverOne(ctx context.Context, id string) {
	if !s.take(id) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	t, err := s.task(ctx, store.TaskQuery{IDs: []string{id}})
	switch {
	case errors.Is(err, store.ErrNotFound):
		err = nil
	case err == nil && !t.Acknowledged && t.State.Finished():
		if err = s.callback(ctx, statusOf(t)); err == nil {
			err = s.store.Acknowledge(ctx, []string{id})
		}
	}
	if err != nil {
		s.log.Warn("end not delivered; again later", "task", id, "err", err)
	}
	s.gave(id, err)
}

func (s *sweeper) callback(ctx context.Context, st Status) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("OnFinish panicked: %v", p)
		}
	}()
	return s.cfg.OnFinish(ctx, st)
}
