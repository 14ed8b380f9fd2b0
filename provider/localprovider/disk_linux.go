package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// errLocked is what tryLock returns when another process, or another part of this one, holds the lock.
const errLocked = syscall.EWOULDBLOCK

// tryLock locks a file or folder until unlock, or the end of this process.
func tryLock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err != syscall.EINTR {
			return err
		}
	}
}

// unlock unlocks and closes. To close is not enough: for a moment after its fork, a process that is being started holds
// what is open here.
func unlock(f *os.File) {
	syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	f.Close()
}

// waitLock waits for a lock until ctx ends, without blocking a thread.
func waitLock(ctx context.Context, f *os.File, how int) error {
	for p := newPause(); ; {
		err := tryLock(f, how)
		if err != errLocked {
			return err
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

// pause is a wait that grows from 0.2 ms to 20 ms, for what the system has no notice of.
type pause struct{ next time.Duration }

func newPause() *pause { return &pause{next: 200 * time.Microsecond} }

func (p *pause) wait(ctx context.Context) error {
	t := time.NewTimer(p.next)
	defer t.Stop()
	p.next = min(2*p.next, 20*time.Millisecond)
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeSynced writes a new file and has it on the disk when it returns.
func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// replaceFile writes a file so that a reader sees the old or the new content, also after a crash.
func replaceFile(name string, data []byte) error {
	made := name + ".new"
	if err := writeSynced(made, data); err != nil {
		return err
	}
	if err := os.Rename(made, name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeTree removes a folder with all that is in it, never following a link. What stands in the way because its
// folder may not be written is made writable first.
func removeTree(name string) error {
	err := os.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	parent, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	openFolders(parent, filepath.Base(name))
	return os.RemoveAll(name)
}

// openFolders gives the user all rights to a folder and those below. Errors show in the removal that follows.
func openFolders(in *os.Root, name string) {
	info, err := in.Lstat(name)
	if err != nil || !info.IsDir() {
		return
	}
	if info.Mode().Perm()&0o700 != 0o700 {
		in.Chmod(name, 0o700)
	}
	folder, err := in.OpenRoot(name)
	if err != nil {
		return
	}
	defer folder.Close()
	entries, _ := readDir(folder)
	for _, e := range entries {
		if e.IsDir() {
			openFolders(folder, e.Name())
		}
	}
}

// readDir lists a folder.
func readDir(in *os.Root) ([]fs.DirEntry, error) {
	f, err := in.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}
