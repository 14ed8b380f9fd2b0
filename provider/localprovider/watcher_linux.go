package localprovider

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// watcher tells when supervisors end and when output grows, and reaps the supervisors that are children of this process.
// It has one goroutine, however many processes there are, and none while none runs.
type watcher struct {
	missing missing        // as on a system without; for tests
	wg      sync.WaitGroup // the goroutine
	closing chan struct{}  // closed by close

	mu      sync.Mutex          // protects what follows, and the waits of the trackers; nothing blocks under it
	watched map[string]*tracker // the supervisors that run, by the folder of their process
	notices *notices            // nil: no goroutine
	polled  int                 // how many things there are that the system gives no notice of
	closed  bool
}

// tracker follows one supervisor until its end.
type tracker struct {
	dir        string
	supervisor supervisor
	pidfd      int           // -1: its end is polled for
	child      bool          // this process must reap it
	done       chan struct{} // closed at its end

	grown chan struct{} // closed at the next growth of the output; nil: nobody waits for it
	watch int           // number of the notice of that; -1: it is polled for
}

func newWatcher() *watcher {
	return &watcher{closing: make(chan struct{}), watched: make(map[string]*tracker)}
}

// errClosed is what a call returns that needs the watcher after Close.
var errClosed error = &provider.Error{Class: provider.ErrUnavailable, Err: errors.New("the provider is closed")}

// open returns an error after close.
func (w *watcher) open() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	return nil
}

// adopt watches a supervisor that this process has just started.
func (w *watcher) adopt(dir string, s supervisor, c child) {
	t := &tracker{dir: dir, supervisor: s, pidfd: c.pidfd, child: true, done: make(chan struct{})}
	if w.missing.pidfd && t.pidfd >= 0 {
		syscall.Close(t.pidfd)
		t.pidfd = -1
	}
	w.add(t)
}

// track watches a supervisor that was started by anybody. One that has ended has a tracker that is done.
func (w *watcher) track(dir string, s supervisor, boot string) (*tracker, error) {
	w.mu.Lock()
	t, closed := w.watched[dir], w.closed
	w.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if t != nil && t.supervisor == s {
		return t, nil
	}
	t = &tracker{dir: dir, supervisor: s, pidfd: -1, done: make(chan struct{})}
	if !w.missing.pidfd {
		t.pidfd = openPidfd(s.pid)
	}
	if !s.alive(boot) { // asked after the pidfd was opened, so that this is of the supervisor and no later process
		if t.pidfd >= 0 {
			syscall.Close(t.pidfd)
		}
		close(t.done)
		return t, nil
	}
	return w.add(t)
}

// add watches for the end of a supervisor, unless another call was quicker.
func (w *watcher) add(t *tracker) (*tracker, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	earlier := w.watched[t.dir]
	if w.closed || earlier != nil && earlier.supervisor == t.supervisor {
		if t.pidfd >= 0 {
			syscall.Close(t.pidfd)
		}
		if w.closed {
			return nil, errClosed
		}
		return earlier, nil
	}
	if earlier != nil { // of the same name, killed before it could start anything
		w.forgetLocked(earlier)
		close(earlier.done)
	}
	if w.notices == nil {
		n := newNotices(w.missing)
		w.notices = n
		w.wg.Go(func() { w.run(n) })
	}
	if t.pidfd >= 0 && !w.notices.ofEnd(t.pidfd) {
		syscall.Close(t.pidfd)
		t.pidfd = -1
	}
	if t.pidfd < 0 {
		w.polled++
		w.notices.hurry()
	}
	w.watched[t.dir] = t
	return t, nil
}

// growth returns a channel that is closed when the output grows after this call, or the supervisor ends.
func (w *watcher) growth(t *tracker) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched[t.dir] != t || w.closed {
		return t.done
	}
	if t.grown == nil {
		t.grown = make(chan struct{})
		t.watch = w.notices.ofGrowth(t.dir)
		if t.watch < 0 {
			w.polled++
			w.notices.hurry()
		}
	}
	return t.grown
}

// run waits for notices until the last supervisor has ended.
func (w *watcher) run(n *notices) {
	defer n.close()
	for w.handle(n, n.wait(w.closing)) {
	}
}

// handle passes on what was noticed, and says whether there is more to wait for.
func (w *watcher) handle(n *notices, ready []int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := n.read(ready)
	for _, t := range w.watched {
		switch {
		case w.closed:
			w.forgetLocked(t)
		case seen.ended[t.pidfd] || t.pidfd < 0 && t.ended():
			w.forgetLocked(t)
			close(t.done)
		case t.grown != nil && (t.watch < 0 || seen.grown[t.watch] || seen.overflow):
			w.releaseLocked(t)
		}
	}
	if len(w.watched) == 0 {
		w.notices = nil
		return false
	}
	n.pollIf(w.polled > 0)
	return true
}

// forgetLocked stops to watch a supervisor, which the tracker's done tells of if it has ended.
func (w *watcher) forgetLocked(t *tracker) {
	w.releaseLocked(t)
	delete(w.watched, t.dir)
	if t.pidfd >= 0 {
		w.notices.noEnd(t.pidfd)
		syscall.Close(t.pidfd)
	} else {
		w.polled--
	}
	if t.child && !w.closed {
		reap(t.supervisor.pid, syscall.WNOHANG)
	}
}

// releaseLocked ends the waits for more output.
func (w *watcher) releaseLocked(t *tracker) {
	if t.grown == nil {
		return
	}
	close(t.grown)
	t.grown = nil
	if t.watch >= 0 {
		w.notices.noGrowth(t.watch)
	} else {
		w.polled--
	}
}

// ended looks whether a supervisor that there is no notice of has ended.
func (t *tracker) ended() bool {
	if t.child {
		return reap(t.supervisor.pid, syscall.WNOHANG)
	}
	return !t.supervisor.alive(t.supervisor.boot)
}

// openPidfd opens a descriptor that shows the end of a process; -1 when there is none to be had.
func openPidfd(pid int) int {
	// The number is the same on all machines but those whose numbers begin elsewhere (mips): they have no call 434.
	const pidfdOpen = 434
	fd, _, errno := syscall.RawSyscall(pidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1
	}
	return int(fd)
}

// reap takes note of the end of a child, so that it leaves no zombie. It says whether the child is gone.
func reap(pid, options int) bool {
	for {
		got, err := syscall.Wait4(pid, nil, options, nil)
		if err != syscall.EINTR {
			return got == pid || err == syscall.ECHILD
		}
	}
}

// wait waits until a supervisor has ended.
func (w *watcher) wait(ctx context.Context, t *tracker) error {
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return errClosed
	}
}

// drain waits until nothing is watched at path or below: the supervisors there have been killed.
func (w *watcher) drain(ctx context.Context, path string) error {
	w.mu.Lock()
	var left []*tracker
	for dir, t := range w.watched {
		if dir == path || strings.HasPrefix(dir, path+"/") {
			left = append(left, t)
		}
	}
	w.mu.Unlock()
	for _, t := range left {
		if err := w.wait(ctx, t); err != nil && err != errClosed {
			return err
		}
	}
	return nil
}

// close stops to watch. It may be called more than once.
func (w *watcher) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
		if w.notices != nil {
			w.notices.hurry()
		}
	}
	w.mu.Unlock()
	w.wg.Wait()
}
