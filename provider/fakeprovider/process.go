package fakeprovider

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

var errEnded = fmt.Errorf("fakeprovider: process has ended: %w", io.ErrClosedPipe)

// Process is a process as its Main sees it. Its methods and writers may be used from many goroutines, until Main
// returns.
type Process struct {
	Workspace string // id of its workspace
	Name      string
	Cmd       provider.Cmd

	// What is written is kept for Output. While the workspace is paused, writes wait. After the end of the process they
	// fail with an io.ErrClosedPipe, as do Sleep and WriteFile.
	Stdout, Stderr io.Writer

	p *process
}

// Term makes SIGTERM the matter of this process: it closes the channel. Until Term is called the first time, SIGTERM
// ends the process, as it does with a process that has no handler for it.
func (p *Process) Term() <-chan struct{} {
	p.p.mu.Lock()
	defer p.p.mu.Unlock()
	p.p.trapped = true
	return p.p.term
}

// Sleep waits for d, and as long as the workspace is paused. An error says that the process has ended meanwhile.
func (p *Process) Sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return p.p.awaitRunning()
	case <-p.p.ctx.Done():
		return context.Cause(p.p.ctx)
	}
}

// Burn adds d to the CPU time that the workspace has used. It takes no time.
func (p *Process) Burn(d time.Duration) { p.p.w.cpu.Add(int64(d)) }

// Crash ends the process as exit says, such as by a signal or for want of memory. ctx ends; what Main returns does not
// count any more.
func (p *Process) Crash(exit provider.Exit) { p.p.kill(exit) }

// ReadFile returns the content of a file of the workspace, an error of package fs when there is none. A relative path
// begins in Cmd.Dir, an absolute one must lie in the workspace's home.
func (p *Process) ReadFile(name string) ([]byte, error) {
	return p.p.w.files.read(p.path(name))
}

// WriteFile makes or replaces a file of the workspace, and the folders that it needs. Paths are those of ReadFile. While
// the workspace is paused it waits.
func (p *Process) WriteFile(name string, data []byte) error {
	if err := p.p.awaitRunning(); err != nil {
		return err
	}
	return p.p.w.files.write(p.path(name), data)
}

// path is name relative to the workspace's home.
func (p *Process) path(name string) string {
	return inHome(p.Cmd.Dir, name)
}

// process is a process as its workspace keeps it, running or ended.
type process struct {
	w       *workspace
	name    string
	starter *client
	ctx     context.Context // of Main; its methods have none
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed at the end
	term    chan struct{} // closed by the first SIGTERM that Main handles

	mu      sync.Mutex // protects the fields below
	out     [2][]byte  // what was written to standard output and error; only ever appended to
	ended   bool
	exit    provider.Exit
	lost    bool          // nobody knows how it ended
	gone    bool          // its workspace does not exist any more
	trapped bool          // Main handles SIGTERM
	termed  bool          // term is closed
	changed chan struct{} // closed at the next write or the end; nil: nobody waits
	resumed chan struct{} // closed at the next resume; nil: not paused
}

// newProcess starts cmd.
func newProcess(w *workspace, starter *client, name string, cmd provider.Cmd) *process {
	p := &process{w: w, name: name, starter: starter, done: make(chan struct{}), term: make(chan struct{})}
	c := w.cloud
	if c.cfg.Main == nil {
		p.ended, p.exit = true, provider.Exit{At: time.Now()}
		close(p.done)
		return p
	}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	cmd.Args, cmd.Env, cmd.Stdin = slices.Clone(cmd.Args), maps.Clone(cmd.Env), slices.Clone(cmd.Stdin)
	seen := &Process{
		Workspace: w.ID, Name: name, Cmd: cmd,
		Stdout: stream{p, 0}, Stderr: stream{p, 1}, p: p,
	}
	c.mains.Go(func() {
		code := c.cfg.Main(p.ctx, seen)
		if p.awaitRunning() == nil {
			p.kill(provider.Exit{Code: code})
		}
	})
	return p
}

// kill ends the process, if it runs.
func (p *process) kill(exit provider.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(exit)
}

// lose ends the process, if it runs, so that nobody knows how.
func (p *process) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = p.lost || !p.ended
	p.endLocked(provider.Exit{})
}

// vanish ends the process with its workspace.
func (p *process) vanish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.endLocked(provider.Exit{})
	p.changedLocked()
}

func (p *process) endLocked(exit provider.Exit) {
	if p.ended {
		return
	}
	exit.At = time.Now()
	p.ended, p.exit = true, exit
	close(p.done)
	p.cancel(errEnded)
	p.changedLocked()
}

func (p *process) changedLocked() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// signal does what sig does to a process.
func (p *process) signal(sig provider.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.gone:
		return &provider.Error{Op: "signal", Class: provider.ErrNotFound}
	case p.ended:
	case p.resumed != nil:
		return failure("signal", provider.ErrConflict, "workspace is paused")
	case sig == provider.Kill:
		p.endLocked(provider.Exit{Signal: "SIGKILL"})
	case sig != provider.Term:
		return failure("signal", provider.ErrInvalid, "signal %d", sig)
	case !p.trapped:
		p.endLocked(provider.Exit{Signal: "SIGTERM"})
	case !p.termed:
		p.termed = true
		close(p.term)
	}
	return nil
}

// pause stops the progress of the process until resume.
func (p *process) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended && p.resumed == nil {
		p.resumed = make(chan struct{})
	}
}

func (p *process) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resumed != nil {
		close(p.resumed)
		p.resumed = nil
	}
}

// awaitRunning waits while the process is paused. An error says that it has ended.
func (p *process) awaitRunning() error {
	for {
		p.mu.Lock()
		resumed, ended := p.resumed, p.ended
		p.mu.Unlock()
		switch {
		case ended:
			return errEnded
		case resumed == nil:
			return nil
		}
		select {
		case <-resumed:
		case <-p.ctx.Done():
		}
	}
}

// stream is standard output (0) or error (1) of a process.
type stream struct {
	p *process
	i int
}

func (s stream) Write(data []byte) (int, error) {
	for {
		if err := s.p.awaitRunning(); err != nil {
			return 0, err
		}
		if s.p.append(s.i, data) {
			return len(data), nil
		}
	}
}

// append adds to a stream, unless the process is paused or has ended.
func (p *process) append(i int, data []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.resumed != nil {
		return false
	}
	p.out[i] = append(p.out[i], data...)
	p.changedLocked()
	return true
}

// inHome makes name, as a process in the folder dir means it, relative to the workspace's home.
func inHome(dir, name string) string {
	if !path.IsAbs(name) {
		name = path.Join(dir, name)
	}
	if name == home {
		return ""
	}
	return strings.TrimPrefix(name, home+"/") // what lies outside stays absolute, and files refuse it
}
