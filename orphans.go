package freshet

import (
	"context"
	"errors"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// orphans deletes workspaces that bear our owner's name and that the Store does not know. Once a sweep found none, the
// provider is left alone until something is created again.
func (s *sweeper) orphans(ctx context.Context) error {
	s.mu.Lock()
	due := s.made && since(time.Now(), s.swept) >= orphanGrace/2
	if s.swept.IsZero() {
		s.swept = time.Now()
		due = false
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	held, err := s.store.Acquire(ctx, "orphans", s.runner, 2*orphanGrace)
	if err != nil || !held {
		return err
	}
	s.mu.Lock()
	s.made, s.swept = false, time.Now()
	s.mu.Unlock()
	unknown, rows, err := s.unknown(ctx)
	if err != nil {
		s.created()
		if errors.Is(err, provider.ErrUnsupported) {
			return nil
		}
		return err
	}
	if len(unknown) > 0 || rows > 0 {
		s.created() // not clean yet: look again
	}
	ripe := s.ripe(unknown, time.Now())
	if len(ripe) == 0 {
		return nil
	}
	if s.cfg.KeepOrphans || policy.MassDeletion(len(ripe), rows+len(unknown)) {
		s.log.Error("orphans left alone", "workspaces", len(ripe), "known", rows, "keep_orphans", s.cfg.KeepOrphans)
		return nil
	}
	for i := range ripe {
		s.log.Warn("deleting orphan", "workspace", ripe[i].ID, "token", ripe[i].Token, "agent", ripe[i].Agent)
		if err := s.provider.Delete(ctx, ripe[i].ID); err != nil && !errors.Is(err, provider.ErrNotFound) {
			return err
		}
	}
	return nil
}

// unknown lists what the provider holds for this owner and the Store has no row of; rows counts the rows. The provider is
// asked first: a row is always there before its workspace.
func (s *sweeper) unknown(ctx context.Context) (unknown []provider.Workspace, rows int, err error) {
	all, err := s.watch.list(ctx)
	if err != nil {
		return nil, 0, err
	}
	known, err := s.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: s.owner, Scope: s.scope})
	if err != nil {
		return nil, 0, err
	}
	tokens := make(map[string]string, len(known))
	for i := range known {
		tokens[known[i].Token] = known[i].ID
	}
	for _, w := range all {
		id, ok := tokens[w.Token]
		surplus := ok && id != "" && id != w.ID // a second one of the same token
		if (!ok || surplus) && w.State != provider.Deleting {
			unknown = append(unknown, w)
		}
	}
	return unknown, len(known), nil
}

// ripe are those that have been unknown for the grace period.
func (s *sweeper) ripe(unknown []provider.Workspace, now time.Time) []provider.Workspace {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := make(map[string]time.Time, len(unknown))
	var ripe []provider.Workspace
	for _, w := range unknown {
		at, seen := s.suspects[w.ID]
		if !seen {
			at = now
		}
		first[w.ID] = at
		if now.Sub(at) >= orphanGrace {
			ripe = append(ripe, w)
		}
	}
	s.suspects = first
	return ripe
}

// Orphans lists the workspaces that bear this fleet's name and that the Store does not know, grace or not: what the sweep
// would delete. It needs a started Dispatcher, and a provider that can list (provider.ErrUnsupported).
func (d *Dispatcher) Orphans(ctx context.Context) ([]provider.Workspace, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	if !d.started.Load() {
		return nil, invalid("Orphans needs a Dispatcher that was started")
	}
	unknown, _, err := d.sweep.unknown(ctx)
	return unknown, err
}

// DeleteOrphans deletes exactly these workspaces, as Orphans gave them, past the guard against deleting many at once.
// One that has become known meanwhile, or never was an orphan, is ErrInvalid, and then none is deleted.
func (d *Dispatcher) DeleteOrphans(ctx context.Context, ids ...string) error {
	unknown, err := d.Orphans(ctx)
	if err != nil {
		return err
	}
	is := map[string]bool{}
	for _, w := range unknown {
		is[w.ID] = true
	}
	for _, id := range ids {
		if !is[id] {
			return invalid("workspace %q is no orphan", clip(id, 128))
		}
	}
	for _, id := range ids {
		if err := d.provider.Delete(ctx, id); err != nil && !errors.Is(err, provider.ErrNotFound) {
			return err
		}
	}
	return nil
}
