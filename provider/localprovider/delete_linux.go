package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// Delete ends all processes of the workspace, waits until they are gone and removes its folder and control groups. When
// ctx ends before that, it is ErrAmbiguous: the workspace is Deleting then, and goes with the next Delete, Get or List.
func (p *Provider) Delete(ctx context.Context, id string) error {
	r, err := p.use(ctx)
	if err != nil {
		return fail("delete", err)
	}
	for {
		w, err := r.find(id)
		if errors.Is(err, provider.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = w.delete(ctx)
		}
		if err != nil && !errors.Is(err, provider.ErrNotFound) && !errors.Is(err, provider.ErrConflict) {
			return fail("delete", err)
		}
	}
}

// delete deletes what was found. ErrNotFound or ErrConflict when it is elsewhere now.
func (w *workspace) delete(ctx context.Context) error {
	w, lock, err := w.lock(ctx, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock(lock)
	return w.purge(ctx)
}

// due says whether a workspace is to be deleted by whoever sees it: its time is over, or somebody has begun to delete it.
func (w *workspace) due() bool { return w.deleting || w.expired() || w.nameless() }

// sweep deletes a workspace whose deletion is due, unless another call is at work on it.
func (w *workspace) sweep(ctx context.Context) error {
	w, lock, err := w.lockNow(syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock(lock)
	if !w.due() {
		return nil // not any more: it was kept alive
	}
	return w.purge(ctx)
}

// purge deletes a workspace, whose lock is held exclusively. It first takes it out of its place, so that nothing is
// started in it any more; what follows may be broken off anywhere and done again.
func (w *workspace) purge(ctx context.Context) error {
	r := w.root
	if !w.deleting {
		trash := r.path(trashFolder, w.Token)
		err := os.Rename(w.dir, trash)
		if errors.Is(err, fs.ErrExist) { // an earlier workspace of this token is still on its way out
			earlier, err := r.read(trashFolder, w.Token)
			if err == nil {
				err = earlier.delete(ctx)
			}
			return err
		}
		if err != nil {
			return err
		}
		w.dir, w.deleting = trash, true
	}
	if w.nameless() {
		w.Groups = r.allGroups(w.Token)
	}
	r.known.forget(w.Token)
	err := w.processes().end(ctx)
	if err == nil {
		err = r.watcher.drain(ctx, r.path(workFolder, w.Token))
	}
	if err == nil {
		wait := newPause()
		err = w.Groups.remove(func() error { return wait.wait(ctx) })
	}
	_, watched := os.Lstat(w.file(expiresFile))
	if err == nil {
		err = removeTree(w.dir)
	}
	if err == nil && watched == nil {
		err = stopWatchdog(ctx, r)
	}
	if err != nil && ctx.Err() != nil {
		return &provider.Error{Class: provider.ErrAmbiguous, Err: ctx.Err()}
	}
	return err
}

// sweepGroups ends what runs in the control groups of workspaces whose folders somebody else has removed.
func (r *root) sweepGroups(ctx context.Context) {
	all := r.allGroups("*")
	groups, err := filepath.Glob(all.Tree)
	if err != nil {
		return
	}
	for _, dir := range groups {
		token := filepath.Base(dir)
		if _, err := r.find(token); !errors.Is(err, provider.ErrNotFound) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, observePatience)
		g := r.allGroups(token)
		for wait := newPause(); g.kill(ctx, dir, 0) > 0 && wait.wait(ctx) == nil; {
		}
		g.remove(func() error { return ctx.Err() })
		cancel()
	}
}
