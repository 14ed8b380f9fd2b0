package freshet

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// reaper deletes workspaces whose record says so, and frees their slot once they are confirmed gone.
type reaper struct {
	*core

	mu   sync.Mutex      // protects busy
	busy map[string]bool // by token: being deleted by this process
}

func newReaper(c *core) *reaper { return &reaper{core: c, busy: map[string]bool{}} }

// delete sees to a workspace in a goroutine of its own.
func (r *reaper) delete(w store.Workspace) {
	r.work.Go(func(ctx context.Context) { r.deleteNow(ctx, w) })
}

// deleteNow deletes a workspace whose Intent is to delete, and returns when it is gone or the rest is left to the sweep.
func (r *reaper) deleteNow(ctx context.Context, w store.Workspace) {
	if !r.claim(w.Token) {
		return
	}
	defer r.unclaim(w.Token)
	for failures := 0; failures < reapTries; failures++ {
		gone, err := r.try(ctx, &w)
		if gone {
			r.pace.freed()
			r.freed(ctx, w)
			return
		}
		if err != nil && ctx.Err() == nil && failures == 0 {
			r.log.Warn("delete failed", "workspace", w.ID, "token", w.Token, "err", err)
		}
		pause := retryPause(failures)
		if err == nil { // it is on its way out
			pause = min(reapPoll<<min(failures, 6), pollInterval)
		}
		if !wait(ctx, max(pause, provider.RetryAfter(err))) {
			return
		}
	}
}

const (
	reapTries = 30
	reapPoll  = 10 * time.Millisecond
)

// try asks once for the end of w; gone: it is confirmed.
func (r *reaper) try(ctx context.Context, w *store.Workspace) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	if w.ID == "" {
		found, err := provider.Find(ctx, r.provider, w.Owner, w.Token)
		switch {
		case errors.Is(err, provider.ErrNotFound):
			return true, nil
		case err != nil:
			return false, err
		}
		w.ID = found.ID
	}
	if err := r.provider.Delete(ctx, w.ID); err != nil && !errors.Is(err, provider.ErrNotFound) {
		return false, err
	}
	_, err = r.provider.Get(ctx, w.ID)
	if errors.Is(err, provider.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// freed removes the record, and with it the slot. A record that somebody else changed is his to see to.
func (r *reaper) freed(ctx context.Context, w store.Workspace) {
	w.State = store.WorkspaceGone
	for failures := 0; failures < reapTries; failures++ {
		err := bounded(ctx, func(ctx context.Context) error {
			_, err := r.store.PutWorkspace(ctx, store.Lease{}, nil, w)
			return err
		})
		if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrLeaseLost) {
			r.admit.freed(w.Tenant, w.Agent)
			return
		}
		if !wait(ctx, retryPause(failures)) {
			return
		}
	}
}

func (r *reaper) claim(token string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[token] {
		return false
	}
	r.busy[token] = true
	return true
}

func (r *reaper) unclaim(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, token)
}

// leftovers deletes every workspace of this owner. With a Store in memory, whatever exists at Start belongs to a process
// that is gone with all its records.
func (r *reaper) leftovers(ctx context.Context) error {
	lister, ok := provider.As[provider.Lister](r.provider)
	if !ok {
		return nil
	}
	for failures := 0; ; failures++ {
		var ids []string
		for w, err := range lister.List(ctx, r.owner) {
			if err != nil {
				return err
			}
			ids = append(ids, w.ID)
		}
		if len(ids) == 0 {
			return nil
		}
		if failures == 0 {
			r.log.Info("deleting what an earlier process left", "workspaces", len(ids))
		}
		for _, id := range ids {
			if err := r.provider.Delete(ctx, id); err != nil && !errors.Is(err, provider.ErrNotFound) {
				return err
			}
		}
		if !wait(ctx, retryPause(failures)) {
			return context.Cause(ctx)
		}
	}
}
