package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Adopt implements Runs. The run whose lease ended first comes first.
func (m *Memory) Adopt(ctx context.Context, a Admission, n int) ([]Begun, error) {
	now, err := m.step(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	b := &m.books
	var ended []*taskRow
	for _, t := range b.tasks.live {
		if !now.Before(t.LeaseEnd) && a.reaches(t, b.ledger.rows[t.Workspace]) {
			ended = append(ended, t)
		}
	}
	slices.SortFunc(ended, func(a, b *taskRow) int {
		return cmp.Or(a.LeaseEnd.Compare(b.LeaseEnd), cmp.Compare(a.ID, b.ID))
	})
	var out []Begun
	for _, t := range ended[:max(min(n, len(ended)), 0)] {
		if t.detached {
			t.Interruptions++
		} else {
			t.Crashes++
		}
		b.fence++
		for _, s := range t.slots {
			if w := s.Workspace; w.Fence == t.Fence { // not what an earlier run has left to be deleted
				w.Fence = b.fence
				b.replaceRow(now, s, w)
			}
		}
		t.Fence = b.fence
		t.Runner, t.LeaseEnd, t.detached = a.Runner, now.Add(a.Lease), false
		b.record(now, t)
		out = append(out, t.admitted(b.ledger.rows[t.Workspace]))
	}
	return out, nil
}

// reaches says whether the caller can go on with t's run in the workspace of s. A run that has lost its workspace (nil) can
// be taken by anybody who knows its agent.
func (a *Admission) reaches(t *taskRow, s *slot) bool {
	return (s == nil || s.Scope == a.Scope) && slices.ContainsFunc(a.Plans, func(p Plan) bool { return p.Agent == t.Agent })
}

// Renew implements Runs.
func (m *Memory) Renew(ctx context.Context, leases []Lease, ttl time.Duration) ([]LeaseState, error) {
	now, err := m.step(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	out := make([]LeaseState, len(leases))
	for i, l := range leases {
		if t := m.books.tasks.byID[l.Task]; t.current(l) {
			t.LeaseEnd, t.detached = now.Add(ttl), false
			out[i] = LeaseState{Held: true, Cancel: t.Cancel}
		}
	}
	return out, nil
}

// Detach implements Runs.
func (m *Memory) Detach(ctx context.Context, leases []Lease) error {
	now, err := m.step(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, l := range leases {
		if t := m.books.tasks.byID[l.Task]; t.current(l) {
			t.LeaseEnd, t.detached = now, true
		}
	}
	return nil
}

// Save implements Runs.
func (m *Memory) Save(ctx context.Context, l Lease, s Save) error {
	if s.Status != nil && s.Status.State != "" && s.Status.State != StateRunning {
		return fmt.Errorf("freshet: %q is no state to save", s.Status.State)
	}
	now, err := m.step(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	b := &m.books
	t := b.tasks.byID[l.Task]
	if !t.current(l) {
		return ErrLeaseLost
	}
	if s.Workspace != nil {
		if err := b.checkWrite(l, b.rules.inForce(nil), *s.Workspace); err != nil {
			return err
		}
		b.write(now, l, *s.Workspace)
	}
	t.LogSize = cmp.Or(s.LogSize, t.LogSize)
	for _, key := range s.Drop {
		delete(t.entries, key)
	}
	for _, e := range s.Entries {
		e.Data = bytes.Clone(e.Data)
		e.Fence, e.At = l.Fence, now
		if t.entries == nil {
			t.entries = make(map[EntryKey]Entry)
		}
		t.entries[EntryKey{e.Kind, e.Name}] = e
	}
	if c := s.Status; c != nil {
		if c.State == StateRunning {
			b.move(t, StateRunning)
			if t.Started.IsZero() {
				t.Started = now
			}
		}
		t.Reason, t.Code, t.Note = cmp.Or(c.Reason, t.Reason), cmp.Or(c.Code, t.Code), cmp.Or(c.Note, t.Note)
		b.record(now, t)
	}
	return nil
}

// Entries implements Runs.
func (m *Memory) Entries(ctx context.Context, task string, kind EntryKind) ([]Entry, error) {
	if _, err := m.step(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	t := m.books.tasks.byID[task]
	if t == nil {
		return nil, nil
	}
	var out []Entry
	for _, e := range t.entries {
		if kind == "" || e.Kind == kind {
			e.Data = bytes.Clone(e.Data)
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Finish implements Runs.
func (m *Memory) Finish(ctx context.Context, outs []Outcome) ([]Finished, error) {
	for _, o := range outs {
		if err := o.check(); err != nil {
			return nil, err
		}
	}
	now, err := m.step(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	b := &m.books
	done := make([]Finished, len(outs))
	for i, o := range outs {
		t := b.tasks.byID[o.Lease.Task]
		if !t.current(o.Lease) {
			done[i].Err = ErrLeaseLost
			continue
		}
		s := b.dispose(now, t, o)
		b.conclude(now, t, o)
		if s != nil {
			done[i].Workspace = s.Workspace
		}
		done[i].Task = t.snapshot(false, true)
	}
	return done, nil
}

// check says what is wrong with an outcome whatever the run's state.
func (o *Outcome) check() error {
	if !o.State.Finished() && o.State != StateQueued {
		return fmt.Errorf("freshet: %q is no state for the end of a run", o.State)
	}
	switch o.Workspace {
	case DisposeDelete, DisposeKeep, DisposePool, DisposeGone:
	default:
		return fmt.Errorf("freshet: unknown disposition %q", o.Workspace)
	}
	switch o.Count {
	case CountAttempt, CountInterruption, CountCrash, CountNothing:
	default:
		return fmt.Errorf("freshet: unknown count %q", o.Count)
	}
	return nil
}

// dispose parts an ending run from its workspace, whose row it returns unless that is removed. What else names the task
// is deleted: nobody will look after it.
func (b *books) dispose(now time.Time, t *taskRow, o Outcome) *slot {
	own := b.ledger.rows[t.Workspace]
	for _, s := range slices.Clone(t.slots) {
		w := s.Workspace
		keep := s == own && w.Intent != IntentDelete
		switch {
		case s == own && o.Workspace == DisposeGone:
			b.removeRow(s)
			own = nil
			continue
		case keep && o.Workspace == DisposeKeep && t.Tenant != "": // nobody's would be everybody's
			w.Task, w.Fence, w.KeepUntil = "", 0, o.KeepUntil
		case keep && o.Workspace == DisposePool:
			w.Task, w.Fence, w.Tenant = "", 0, ""
		case w.Intent == IntentDelete:
			continue
		default:
			w.Intent = IntentDelete
		}
		b.replaceRow(now, s, w)
	}
	return own
}

// conclude ends a run: its task goes back in line or finishes.
func (b *books) conclude(now time.Time, t *taskRow, o Outcome) {
	switch o.Count {
	case CountAttempt:
		t.Spent++
	case CountInterruption:
		t.Interruptions++
	case CountCrash:
		t.Crashes++
	}
	t.Cost += o.Cost
	t.LogSize = cmp.Or(o.LogSize, t.LogSize)
	switch {
	case o.State == StateQueued && t.Cancel:
		b.finish(now, t, Ending{State: StateCanceled, Reason: t.Reason, Code: t.Code})
	case o.State == StateQueued:
		b.move(t, StateQueued)
		t.Reason, t.Code = o.Reason, o.Code
		t.Runner, t.LeaseEnd, t.Workspace, t.Path = "", time.Time{}, "", ""
		t.Generation++
		t.Due = o.Due
		if o.Count == CountNothing {
			t.Attempt--
		}
		b.record(now, t)
		b.enqueue(now, t)
	default:
		t.Result = bytes.Clone(o.Result)
		b.finish(now, t, Ending{State: o.State, Reason: o.Reason, Code: o.Code})
	}
}
