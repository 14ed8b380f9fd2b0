package localprovider

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// What is in the folder of a workspace.
const (
	recordFile  = "workspace.json" // the record
	homeFolder  = "home"           // HOME of its processes
	tmpFolder   = "tmp"            // TMPDIR of its processes
	procFolder  = "proc"           // one folder for each named process
	pausedFile  = "paused"         // there while it is paused; holds the id of the boot in which it was
	expiresFile = "expires"        // the end of its life in Unix seconds, and how the watchdog ends it
)

// record is what is kept of a workspace from its creation on.
type record struct {
	Token, Owner, Agent string
	Spec                provider.Spec      // as it was asked for
	Resources           provider.Resources // as they are now
	Created             time.Time
	Groups              groups
}

// workspace is a workspace that was found on the disk.
type workspace struct {
	record
	root     *root
	dir      string
	deleting bool
	damaged  string // why it can be used no more; "": it can
}

// find reads a workspace, be it in use or on its way out.
func (r *root) find(token string) (*workspace, error) {
	if !isToken(token) {
		return nil, r.gone()
	}
	for _, folder := range []string{workFolder, trashFolder} { // it moves from the first to the second
		w, err := r.read(folder, token)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return w, err
		}
	}
	return nil, r.gone()
}

// read reads the workspace in one of the two folders; fs.ErrNotExist when there is none.
func (r *root) read(folder, token string) (*workspace, error) {
	w := &workspace{root: r, dir: r.path(folder, token), deleting: folder == trashFolder}
	b, err := os.ReadFile(w.file(recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(w.dir); err != nil {
			return nil, err
		}
		b, err = os.ReadFile(w.file(recordFile)) // it may have come into its place just now
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if json.Unmarshal(b, &w.record) != nil || w.Token != token {
		w.record = record{Token: token}
		w.damaged = "its record is missing or damaged"
	} else if info, err := os.Lstat(w.file(homeFolder)); err != nil || !info.IsDir() {
		w.damaged = "its home is gone"
	} else {
		return w, nil
	}
	_, err = os.Lstat(w.dir) // or else all of it
	return w, err
}

// nameless says that it is not known whose workspace it is.
func (w *workspace) nameless() bool { return w.Created.IsZero() }

// isToken says whether s can be a token, and so the name of a folder.
func isToken(s string) bool {
	return s != "" && len(s) <= 26 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

func (w *workspace) file(names ...string) string {
	return filepath.Join(w.dir, filepath.Join(names...))
}

// save writes the record. The lock must be held exclusively, or the folder be in staging.
func (w *workspace) save() error {
	b, err := json.Marshal(w.record)
	if err != nil {
		return err
	}
	return replaceFile(w.file(recordFile), b)
}

// lock waits until it has locked the workspace's folder: shared while processes are started and files moved in,
// exclusively while its state changes. It returns the workspace as it is now, and the lock. ErrConflict when it is being
// deleted meanwhile, ErrNotFound when it is gone.
func (w *workspace) lock(ctx context.Context, how int) (*workspace, *os.File, error) {
	return w.lockBy(func(f *os.File) error { return waitLock(ctx, f, how) })
}

// lockNow is lock without the wait: ErrConflict when the lock is held.
func (w *workspace) lockNow(how int) (*workspace, *os.File, error) {
	return w.lockBy(func(f *os.File) error {
		err := tryLock(f, how)
		if err == errLocked {
			err = refuse(provider.ErrConflict, "workspace is in use by another call")
		}
		return err
	})
}

func (w *workspace) lockBy(take func(*os.File) error) (*workspace, *os.File, error) {
	f, err := os.Open(w.dir)
	if err == nil {
		if err = take(f); err == nil {
			if sameFile(f, w.dir) {
				now, err := w.root.read(filepath.Base(filepath.Dir(w.dir)), w.Token)
				if err == nil {
					return now, f, nil
				}
				unlock(f)
				return nil, nil, err
			}
			err = fs.ErrNotExist // it went while this waited
		}
		unlock(f)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if w.deleting {
		return nil, nil, w.root.gone()
	}
	return nil, nil, w.root.leaving(w.Token)
}

// leaving is the answer for a workspace that was there a moment ago.
func (r *root) leaving(token string) error {
	if _, err := r.find(token); err != nil {
		return err
	}
	return refuse(provider.ErrConflict, "workspace is being deleted")
}

func sameFile(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(name)
	return err == nil && os.SameFile(a, b)
}

// state observes the workspace.
func (w *workspace) state() provider.State {
	switch {
	case w.deleting:
		return provider.Deleting
	case w.damaged != "":
		return provider.Failed
	}
	boot, err := os.ReadFile(w.file(pausedFile))
	switch {
	case err != nil:
		return provider.Running
	case string(boot) == w.root.boot && w.Groups.has(w.Groups.Tree) && !w.Groups.frozen(w.Groups.Tree):
		return provider.Changing
	}
	return provider.Paused
}

// whole returns nil when the workspace is neither damaged nor being deleted.
func (w *workspace) whole() error {
	if w.deleting || w.damaged != "" {
		return refuse(provider.ErrConflict, "workspace is %s", w.state())
	}
	return nil
}

// running returns nil when processes may be started in the workspace.
func (w *workspace) running() error {
	if state := w.state(); state != provider.Running {
		return refuse(provider.ErrConflict, "workspace is %s", state)
	}
	if w.expired() {
		return refuse(provider.ErrConflict, "workspace has expired")
	}
	return nil
}

// expires is the end of the workspace's life; zero: none.
func (w *workspace) expires() time.Time {
	field, _, _ := strings.Cut(readText(w.file(expiresFile)), " ")
	seconds, err := strconv.ParseInt(field, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

func (w *workspace) expired() bool {
	end := w.expires()
	return !end.IsZero() && !time.Now().Before(end)
}

// view is what the provider tells of the workspace.
func (w *workspace) view() provider.Workspace {
	state := w.state()
	return provider.Workspace{
		ID:      w.Token,
		Token:   w.Token,
		Owner:   w.Owner,
		Agent:   w.Agent,
		State:   state,
		Ready:   state == provider.Running,
		Home:    w.root.path(workFolder, w.Token, homeFolder),
		Created: w.Created,
		Expires: w.expires(),
		Message: w.damaged,
	}
}

// openHome opens the home, and nothing that an agent may have put in its place.
func (w *workspace) openHome() (*os.Root, error) {
	folder, err := os.OpenRoot(w.dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	want, err := folder.Lstat(homeFolder)
	if err != nil {
		return nil, err
	}
	home, err := folder.OpenRoot(homeFolder)
	if err != nil {
		return nil, err
	}
	if is, err := home.Stat("."); err != nil || !os.SameFile(is, want) {
		home.Close()
		return nil, errors.Join(err, errors.New("the home is not a folder any more"))
	}
	return home, nil
}
