package localprovider

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

const snapshotPrefix = "snap-"

// Snapshot copies the home of a workspace, in the way in which an image is copied. Processes go on meanwhile; a file that
// is being written may be copied half-written.
func (p *Provider) Snapshot(ctx context.Context, id string) (string, error) {
	r, err := p.use(ctx)
	if err != nil {
		return "", fail("snapshot", err)
	}
	name := snapshotPrefix + strings.ToLower(rand.Text())
	if err := r.snapshot(ctx, id, name); err != nil {
		return "", fail("snapshot", err)
	}
	return name, nil
}

// DeleteSnapshot removes a snapshot. A Create that is copying it fails.
func (p *Provider) DeleteSnapshot(ctx context.Context, snapshot string) error {
	r, err := p.use(ctx)
	if err != nil {
		return fail("delete snapshot", err)
	}
	if !isSnapshot(snapshot) {
		return nil // never made here
	}
	dir, release, err := r.stage(snapshot)
	if err != nil {
		return fail("delete snapshot", err)
	}
	defer release()
	// Out of its place at once: half of a snapshot must not boot.
	if err := os.Rename(r.path(snapshotFolder, snapshot), filepath.Join(dir, snapshot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail("delete snapshot", err)
	}
	return nil
}

func (r *root) snapshot(ctx context.Context, id, name string) error {
	w, err := r.find(id)
	if err == nil {
		err = w.whole()
	}
	if err != nil {
		return err
	}
	dir, release, err := r.stage(name)
	if err != nil {
		return err
	}
	defer release()
	home, err := w.openHome()
	if err == nil {
		err = copyTree(ctx, home, dir)
		home.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if w, err = r.find(id); err != nil {
		return err
	}
	if w.deleting { // the copy may be of half a home
		return &provider.Error{Class: provider.ErrNotFound}
	}
	if err := os.Rename(dir, r.path(snapshotFolder, name)); err != nil {
		return err
	}
	return syncFolder(r.path(snapshotFolder))
}

func isSnapshot(name string) bool {
	text, ok := strings.CutPrefix(name, snapshotPrefix)
	return ok && isToken(text)
}

// openSnapshot opens the folder of a snapshot; fs.ErrNotExist when there is none.
func (r *root) openSnapshot(name string) (*os.Root, error) {
	if !isSnapshot(name) {
		return nil, fs.ErrNotExist
	}
	return os.OpenRoot(r.path(snapshotFolder, name))
}
