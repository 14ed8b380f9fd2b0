package localprovider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// What is in the folder of a process.
const (
	startFile  = "start"  // the supervisor; written before it may go on
	exitFile   = "exit"   // the end; written by the supervisor
	stdoutFile = "stdout" // its output
	stderrFile = "stderr"
	stdinFile  = "stdin" // its input; has lost its name before it is written
)

// claim is the folder of a named process. Who holds its lock starts the process; when that has begun, the name is used for
// ever.
type claim struct {
	dir  string
	leaf string // the control group; "": none
}

// processFolder is the name of the folder of a process: its name, if that can be one, else written in another way such
// that no two names meet.
func processFolder(name string) (string, error) {
	if name == "" {
		return "", refuse(provider.ErrInvalid, "a process needs a name")
	}
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	if b.Len() > 200 {
		sum := sha256.Sum256([]byte(name))
		return "%%" + hex.EncodeToString(sum[:]), nil
	}
	return b.String(), nil
}

func (c claim) file(name string) string { return filepath.Join(c.dir, name) }

// supervisor reads who supervises the process; fs.ErrNotExist when it was never started. A file that the fall of the
// machine has damaged gives one that cannot live.
func (c claim) supervisor() (supervisor, error) {
	b, err := os.ReadFile(c.file(startFile))
	if err != nil {
		return supervisor{}, err
	}
	s, err := parseSupervisor(string(b))
	if err != nil {
		return supervisor{}, nil
	}
	return s, nil
}

// begun says whether the process runs or has run: then its name is used for ever. A supervisor that has been recorded, but
// not yet told to go on, is waited for; it does so or ends at once.
func (c claim) begun(ctx context.Context, boot string) (bool, error) {
	s, err := c.supervisor()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && s.boot != boot {
		return true, nil // what it has recorded may have been lost with the machine's fall
	}
	for p := newPause(); err == nil; err = p.wait(ctx) {
		alive := s.alive(boot) // asked first: it may end after its report
		r, err := readReport(c.file(exitFile))
		if err != nil || r.begun || !alive {
			return r.begun, err
		}
	}
	return false, err
}

// take locks the name for the one who starts the process, after whoever is at it. ErrExists when the process was started. A
// name whose taker died before the process could run is free again.
func (c claim) take(ctx context.Context, boot string) (*os.File, error) {
	if err := os.Mkdir(c.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.Open(c.dir)
	if err != nil {
		return nil, err
	}
	used := false
	if err = waitLock(ctx, f, syscall.LOCK_EX); err == nil {
		used, err = c.begun(ctx, boot)
	}
	if used {
		err = &provider.Error{Class: provider.ErrExists}
	}
	if err == nil {
		err = c.clear()
	}
	if err != nil {
		unlock(f)
		return nil, err
	}
	return f, nil
}

// clear makes the name free again. The lock must be held.
func (c claim) clear() error {
	for _, name := range []string{startFile, startFile + ".new", exitFile, stdoutFile, stderrFile, stdinFile} {
		if err := os.Remove(c.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// record writes down who supervises the process. It need not survive a fall of the machine, which no process does.
func (c claim) record(s supervisor) error {
	made := c.file(startFile + ".new")
	if err := os.WriteFile(made, []byte(s.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(made, c.file(startFile))
}

// processFiles are the files of a process, in the order of the supervisor's descriptors.
type processFiles [6]*os.File

// openFiles makes the files, but for the gate, which is the pipe.
func (c claim) openFiles(stdin []byte) (f processFiles, err error) {
	const anew = os.O_CREATE | os.O_EXCL
	for _, open := range []struct {
		at   int
		name string
		flag int
	}{
		{0, c.file(stdinFile), os.O_RDWR | anew},
		{1, c.file(stdoutFile), os.O_WRONLY | os.O_APPEND | anew},
		{2, os.DevNull, os.O_WRONLY},
		{4, c.file(stderrFile), os.O_WRONLY | os.O_APPEND | anew},
		{5, c.file(exitFile), os.O_WRONLY | anew},
	} {
		if f[open.at], err = os.OpenFile(open.name, open.flag, 0o600); err != nil {
			f.close()
			return f, err
		}
	}
	// The input loses its name before it is written: it goes with the process, and nobody can read it but through that.
	err = os.Remove(c.file(stdinFile))
	if err == nil {
		_, err = f[0].WriteAt(stdin, 0)
	}
	if err == nil {
		_, err = f[5].WriteAt(exitRoom, 0)
	}
	if err != nil {
		f.close()
	}
	return f, err
}

func (f processFiles) close() {
	for _, file := range f {
		if file != nil {
			file.Close()
		}
	}
}
