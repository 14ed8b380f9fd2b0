package localprovider

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// files moves files in and out: the provider.Filer of Provider.
type files struct{ *opener }

// Upload unpacks files with their permissions and times, folders, symbolic and hard links, in staging first: nothing is
// seen of an archive that is refused. Then it is moved to its place, where folders are merged and everything else that
// stands in the way is replaced. Refused are names that lead out of dir, links that lead out of the home, entries below
// a link, in the archive or in the workspace, devices and pipes, and more than Config allows. Owners and the set-uid,
// set-gid and sticky bits are left out.
func (f files) Upload(ctx context.Context, id, dir string, archive io.Reader) error {
	r, err := f.use(ctx)
	if err == nil {
		err = upload(ctx, r, id, dir, archive)
	}
	return fail("upload", err)
}

func upload(ctx context.Context, r *root, id, dir string, archive io.Reader) error {
	dir, err := below(dir)
	if err != nil {
		return err
	}
	w, err := r.find(id)
	if err == nil {
		err = w.whole()
	}
	if err != nil {
		return err
	}
	stage, release, err := r.stage("upload")
	if err != nil {
		return err
	}
	defer release()
	staging, err := os.OpenRoot(stage)
	if err != nil {
		return err
	}
	defer staging.Close()
	u := newUnpacking(staging, depthOf(dir), r.cfg)
	if err := u.unpack(ctx, archive); err != nil {
		return err
	}
	w, lock, err := w.lock(ctx, syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock(lock)
	if err := w.whole(); err != nil {
		return err
	}
	return u.moveTo(w, dir)
}

// moveTo moves what was unpacked below a folder of the home.
func (u *unpacking) moveTo(w *workspace, dir string) error {
	home, err := w.openHome()
	if err != nil {
		return err
	}
	defer home.Close()
	if err := u.fits(home, dir); err != nil {
		return err
	}
	if err := home.MkdirAll(dir, 0o755); err != nil {
		return badPath(err)
	}
	to, err := home.OpenRoot(dir)
	if err != nil {
		return badPath(err)
	}
	defer to.Close()
	if err := merge(u.to, to); err != nil {
		return err
	}
	return u.dressFolders(to)
}

// below makes a path relative to the home clean; "" and "." are the home itself.
func below(name string) (string, error) {
	if name == "" {
		return ".", nil
	}
	if !filepath.IsLocal(name) {
		return "", refuse(provider.ErrInvalid, "path %q leads out of the home", name)
	}
	return path.Clean(name), nil
}

// depthOf counts the folders of a clean path.
func depthOf(name string) int {
	if name == "." {
		return 0
	}
	return 1 + strings.Count(name, "/")
}

// badPath is the error for a path of the caller's that an operation in the home has failed with.
func badPath(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &provider.Error{Class: provider.ErrNotFound, Err: err}
	case outside(err), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ELOOP):
		return &provider.Error{Class: provider.ErrInvalid, Err: err}
	}
	return err
}

// merge moves what is in one folder into another.
func merge(src, dst *os.Root) error {
	from, err := src.Open(".")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := dst.Open(".")
	if err != nil {
		return err
	}
	defer to.Close()
	entries, err := from.ReadDir(-1)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		there, err := dst.Lstat(e.Name())
		switch {
		case err == nil && e.IsDir() && there.IsDir():
			err = mergeFolder(src, dst, e.Name())
			if err != nil {
				return err
			}
			continue
		case err == nil && (e.IsDir() || there.IsDir()): // of two kinds: one cannot be renamed over the other
			if err := dst.RemoveAll(e.Name()); err != nil {
				return err
			}
		}
		if err := syscall.Renameat(int(from.Fd()), e.Name(), int(to.Fd()), e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func mergeFolder(src, dst *os.Root, name string) error {
	from, err := src.OpenRoot(name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := dst.OpenRoot(name)
	if err != nil {
		return err
	}
	defer to.Close()
	return merge(from, to)
}
