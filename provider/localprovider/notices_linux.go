package localprovider

import (
	"encoding/binary"
	"os"
	"syscall"
	"time"
)

// pollEvery is the pace at which is looked at what the system gives no notice of.
const pollEvery = 20 * time.Millisecond

// missing says what a system lacks.
type missing struct{ pidfd, inotify bool }

// notices are the system's: of the ends of processes by pidfd, of writes into folders by inotify, all in one epoll, which
// the runtime's poller waits for, so that no thread does. Its methods do not block, but for
// wait.
type notices struct {
	missing missing
	epoll   int
	poller  *os.File // of epoll; nil when there is none: everything is polled
	inotify int      // -1 until it is needed, and when there is none
}

// noticed is what has happened, at least; what there is no notice of is looked at anyway.
type noticed struct {
	ended    map[int]bool // by pidfd
	grown    map[int]bool // by number of the watch
	overflow bool         // any may have grown
}

func newNotices(m missing) *notices {
	n := &notices{missing: m, inotify: -1}
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return n
	}
	syscall.SetNonblock(fd, true) // lets the runtime's poller take it
	n.epoll, n.poller = fd, os.NewFile(uintptr(fd), "epoll")
	if n.poller.SetReadDeadline(time.Time{}) != nil { // it did not
		n.poller.Close()
		n.poller = nil
	}
	return n
}

func (n *notices) close() {
	if n.inotify >= 0 {
		syscall.Close(n.inotify)
	}
	if n.poller != nil {
		n.poller.Close()
	}
}

// add has epoll watch a descriptor.
func (n *notices) add(fd int) bool {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	return n.poller != nil && syscall.EpollCtl(n.epoll, syscall.EPOLL_CTL_ADD, fd, &event) == nil
}

// ofEnd asks for a notice of the end of a process; false when there can be none.
func (n *notices) ofEnd(pidfd int) bool { return n.add(pidfd) }

// noEnd takes ofEnd back.
func (n *notices) noEnd(pidfd int) {
	syscall.EpollCtl(n.epoll, syscall.EPOLL_CTL_DEL, pidfd, nil)
}

// ofGrowth asks for one notice of a write into a file of a folder, and returns its number; -1 when there can be none.
// One, so that a process which writes a lot makes no more notices than there are readings.
func (n *notices) ofGrowth(dir string) int {
	if n.missing.inotify {
		return -1
	}
	if n.inotify < 0 {
		fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
		if err != nil {
			return -1
		}
		if !n.add(fd) {
			syscall.Close(fd)
			return -1
		}
		n.inotify = fd
	}
	watch, err := syscall.InotifyAddWatch(n.inotify, dir, syscall.IN_MODIFY|syscall.IN_ONESHOT)
	if err != nil {
		return -1
	}
	return watch
}

// noGrowth takes ofGrowth back.
func (n *notices) noGrowth(watch int) {
	syscall.InotifyRmWatch(n.inotify, uint32(watch)) // fails when the notice has come, which is as well
}

// pollIf has wait return after pollEvery, or not before there is a notice.
func (n *notices) pollIf(poll bool) {
	if n.poller == nil {
		return
	}
	var end time.Time
	if poll {
		end = time.Now().Add(pollEvery)
	}
	n.poller.SetReadDeadline(end)
}

// hurry has wait return at once.
func (n *notices) hurry() {
	if n.poller != nil {
		n.poller.SetReadDeadline(time.Unix(1, 0))
	}
}

// wait waits for notices, or the time that pollIf has set, and returns the descriptors that have some. It alone may be
// called while the others are.
func (n *notices) wait(closing <-chan struct{}) []int {
	if n.poller == nil {
		t := time.NewTimer(pollEvery)
		defer t.Stop()
		select {
		case <-t.C:
		case <-closing:
		}
		return nil
	}
	conn, err := n.poller.SyscallConn()
	if err != nil {
		return nil
	}
	var events [64]syscall.EpollEvent
	count := 0
	conn.Read(func(fd uintptr) bool {
		count, err = syscall.EpollWait(int(fd), events[:], 0)
		return count > 0 || err != nil && err != syscall.EINTR
	})
	var ready []int
	for _, e := range events[:max(0, count)] {
		ready = append(ready, int(e.Fd))
	}
	return ready
}

// read reads the notices of the descriptors that wait has returned.
func (n *notices) read(ready []int) noticed {
	seen := noticed{ended: make(map[int]bool), grown: make(map[int]bool)}
	for _, fd := range ready {
		if fd == n.inotify {
			n.readGrowth(&seen)
		} else {
			seen.ended[fd] = true
		}
	}
	return seen
}

// readGrowth reads what inotify has to tell.
func (n *notices) readGrowth(seen *noticed) {
	var buf [16 << 10]byte
	for {
		count, err := syscall.Read(n.inotify, buf[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || count <= 0 {
			return
		}
		for b := buf[:count]; len(b) >= syscall.SizeofInotifyEvent; {
			watch := int(int32(binary.NativeEndian.Uint32(b[0:])))
			mask := binary.NativeEndian.Uint32(b[4:])
			if mask&syscall.IN_Q_OVERFLOW != 0 {
				seen.overflow = true
			} else if mask&syscall.IN_MODIFY != 0 {
				seen.grown[watch] = true
			}
			b = b[min(len(b), syscall.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
		}
	}
}
