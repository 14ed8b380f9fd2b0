package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// PutWorkspace implements Workspaces.
func (m *Memory) PutWorkspace(ctx context.Context, l Lease, limits *Limits, w Workspace) (int64, error) {
	now, err := m.step(ctx)
	if err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	if err := m.books.checkWrite(l, m.books.rules.inForce(limits), w); err != nil {
		return 0, err
	}
	return m.books.write(now, l, w), nil
}

// checkWrite says why w may not be written under l.
func (b *books) checkWrite(l Lease, limits Limits, w Workspace) error {
	switch w.State {
	case WorkspaceNew, WorkspaceReady, WorkspacePaused, WorkspaceGone:
	default:
		return fmt.Errorf("freshet: %q is no state of a workspace", w.State)
	}
	s := b.ledger.rows[w.Token]
	var old Workspace
	if s != nil {
		old = s.Workspace
	}
	if l != (Lease{}) && !b.tasks.byID[l.Task].current(l) {
		return ErrLeaseLost
	}
	if s == nil && w.State == WorkspaceGone {
		return nil
	}
	held := old.Task != "" && old.Intent != IntentDelete
	named := w.Task != "" && w.Task != old.Task
	own := l == Lease{Task: old.Task, Fence: old.Fence}
	switch {
	case held && l.Task != old.Task, named && l.Task != w.Task:
		return ErrLeaseLost
	case old.Version != w.Version:
		return ErrConflict
	case w.State == WorkspaceGone:
		return nil
	case old.Task != "" && !held && !own && (w.Task != old.Task || w.Intent != IntentDelete):
		return ErrConflict // the slot lasts until the workspace is gone
	}
	begins := s == nil || !old.counted() && w.State == WorkspacePaused
	if begins && w.counted() {
		most, more := limits.most(), amountOf(w.Resources)
		if over := b.tally.account.above(most, more); over != (amount{}) {
			return b.tally.account.limitError(most, over, accountLimits)
		}
	}
	return nil
}

// write does what checkWrite has allowed, and returns the row's version.
func (b *books) write(now time.Time, l Lease, w Workspace) int64 {
	s := b.ledger.rows[w.Token]
	if t := b.tasks.byID[l.Task]; t != nil {
		switch {
		case w.Task == l.Task && w.State != WorkspaceGone && w.Intent != IntentDelete:
			t.Workspace = w.Token
		case t.Workspace == w.Token && (w.Task == "" || w.State == WorkspaceGone):
			t.Workspace = ""
		}
	}
	if w.State == WorkspaceGone {
		if s != nil {
			b.removeRow(s)
		}
		return 0
	}
	switch {
	case w.Task == "":
		w.Fence = 0
	case s != nil && w.Task == s.Task:
		w.Fence, w.Tenant = s.Fence, s.Tenant
	default:
		w.Fence, w.Tenant = l.Fence, b.tasks.byID[l.Task].Tenant
	}
	if s == nil {
		s = b.insertRow(now, w)
	} else {
		w.Created = s.Created
		b.replaceRow(now, s, w)
	}
	return s.Version
}

// QueryWorkspaces implements Workspaces.
func (m *Memory) QueryWorkspaces(ctx context.Context, q WorkspaceQuery) ([]Workspace, error) {
	if _, err := m.step(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var found []*slot
	add := func(s *slot) {
		if s != nil && q.matches(s) {
			found = append(found, s)
		}
	}
	if len(q.Tokens) > 0 {
		for _, token := range q.Tokens {
			add(m.books.ledger.rows[token])
		}
	} else {
		for _, s := range m.books.ledger.rows {
			add(s)
		}
	}
	slices.SortFunc(found, func(a, b *slot) int { return cmp.Compare(a.made, b.made) })
	found = slices.Compact(found)
	if q.N > 0 {
		found = found[:min(q.N, len(found))]
	}
	out := make([]Workspace, len(found))
	for i, s := range found {
		out[i] = s.Workspace
	}
	return out, nil
}

// matches says whether a row is one that q asks for.
func (q *WorkspaceQuery) matches(s *slot) bool {
	switch {
	case q.Owner != "" && s.Owner != q.Owner,
		q.Scope != "" && s.Scope != q.Scope,
		q.Agent != "" && s.Agent != q.Agent,
		q.Spec != "" && s.Spec != q.Spec,
		len(q.Intents) > 0 && !slices.Contains(q.Intents, s.Intent),
		q.Spare && s.Task != "",
		!q.SinceBefore.IsZero() && !s.Since.Before(q.SinceBefore):
		return false
	}
	return true
}
