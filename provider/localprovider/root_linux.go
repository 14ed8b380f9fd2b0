package localprovider

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// The folders of the root folder. All are on one file system: what is made is made in staging and then renamed.
const (
	workFolder     = "work"      // one folder for each workspace
	trashFolder    = "trash"     // workspaces that are being deleted
	stagingFolder  = "staging"   // half-made things, each locked by its maker
	snapshotFolder = "snapshots" // one folder for each snapshot
	namesFolder    = "names"     // one file for each owner's name, locked by the process that bears it
	idFile         = "id"        // a random id of the root folder, made once
)

// root is the root folder, verified, with what the calls of one Provider share. It does not change.
type root struct {
	cfg         Config
	dir         string // absolute, without symbolic links
	scope       string
	boot        string // id of this boot of the machine
	hierarchies hierarchies
	watcher     *watcher
	known       *measured
	procs       *procTable
	swept       *atomic.Int64 // when the leftovers were last looked for, Unix time
}

// opener opens the root folder at the first use.
type opener struct {
	cfg     Config
	watcher *watcher
	root    atomic.Pointer[root]
}

func (o *opener) open() (*root, error) {
	if r := o.root.Load(); r != nil {
		return r, nil
	}
	r, err := openRoot(o.cfg, o.watcher)
	if err != nil {
		return nil, err
	}
	o.root.CompareAndSwap(nil, r)
	return o.root.Load(), nil
}

// use opens the root folder for a call that may be refused by its context.
func (o *opener) use(ctx context.Context) (*root, error) {
	r, err := o.open()
	if err == nil {
		err = ctx.Err()
	}
	return r, err
}

func openRoot(cfg Config, w *watcher) (*root, error) {
	dir, err := makeRoot(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{workFolder, trashFolder, stagingFolder, snapshotFolder, namesFolder} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	id, err := rootID(dir)
	if err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	// An image of a machine may be started many times with the same machine id, and some systems have none: the root
	// folder's own id tells those apart.
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s", bytes.TrimSpace(machine), id))
	return &root{
		cfg:         cfg,
		dir:         dir,
		scope:       "local-" + hex.EncodeToString(sum[:8]),
		boot:        strings.TrimSpace(string(boot)),
		hierarchies: findHierarchies(cfg.Cgroup),
		watcher:     w,
		known:       new(measured),
		procs:       new(procTable),
		swept:       new(atomic.Int64),
	}, nil
}

// makeRoot makes the root folder and refuses one that another user could tamper with.
func makeRoot(dir string) (string, error) {
	others := fs.FileMode(0o022)
	if dir == "" {
		// The parent is open to all, so the name may have been taken by somebody else: no link, and nobody may look in.
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("freshet-%d", os.Geteuid()))
		others = 0o077
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		info, err := os.Lstat(dir)
		if err != nil {
			return "", err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			return "", refuse(provider.ErrUnauthorized, "%s is a symbolic link", dir)
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&others != 0 {
		return "", refuse(provider.ErrUnauthorized, "%s (mode %s) must be a folder of user %d that others cannot change", dir, info.Mode(), os.Geteuid())
	}
	return dir, nil
}

// rootID reads the id of the root folder, and makes it if there is none: of several processes that do so at once, one
// succeeds, and the others read what it wrote.
func rootID(dir string) (string, error) {
	file := filepath.Join(dir, idFile)
	id, err := os.ReadFile(file)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return string(id), err
	}
	made := filepath.Join(dir, idFile+"."+rand.Text())
	defer os.Remove(made)
	if err := writeSynced(made, []byte(rand.Text())); err != nil {
		return "", err
	}
	if err := os.Link(made, file); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	id, err = os.ReadFile(file)
	return string(id), err
}

// path joins names to the root folder's path.
func (r *root) path(names ...string) string {
	return filepath.Join(r.dir, filepath.Join(names...))
}

// gone is the answer for a workspace whose folder is missing. If the root folder is missing too (a volume that is not
// mounted), nothing can be said of any workspace.
func (r *root) gone() error {
	if _, err := os.Stat(r.path(idFile)); err != nil {
		return err
	}
	return &provider.Error{Class: provider.ErrNotFound}
}

// stage makes an empty folder in staging whose name begins with prefix. It is locked until release is called, which
// removes what is left of it; that of a process which died is removed by sweepStaging.
func (r *root) stage(prefix string) (dir string, release func(), err error) {
	for {
		dir = r.path(stagingFolder, prefix+"."+rand.Text())
		if err := os.Mkdir(dir, 0o700); err != nil {
			return "", nil, err
		}
		held, err := os.Open(dir)
		if err == nil {
			if err = tryLock(held, syscall.LOCK_EX); err == nil && sameFile(held, dir) {
				return dir, func() {
					removeTree(dir)
					unlock(held)
				}, nil
			}
			unlock(held)
		}
		if err != nil && err != errLocked && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
		// It was swept before it was locked.
	}
}

// sweepStaging removes what processes that died have left half-made.
func (r *root) sweepStaging() {
	r.swept.Store(time.Now().Unix())
	entries, err := os.ReadDir(r.path(stagingFolder))
	if err != nil {
		return // the next sweep tries again
	}
	for _, e := range entries {
		dir := r.path(stagingFolder, e.Name())
		held, err := os.Open(dir)
		if err != nil {
			continue // its maker was quicker
		}
		if tryLock(held, syscall.LOCK_EX) == nil {
			removeTree(dir)
		}
		unlock(held)
	}
}

// sweepEvery is the pace of the sweeps that come with Create, of which there may be many.
const sweepEvery = 10 * time.Second

func (r *root) sweepStagingIfDue() {
	if time.Since(time.Unix(r.swept.Load(), 0)) >= sweepEvery {
		r.sweepStaging()
	}
}
