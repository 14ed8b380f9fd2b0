package localprovider

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// procStat is what the system tells of a process.
type procStat struct {
	pid, parent, session int
	state                byte
	started              uint64        // ticks since the boot; with the pid it names the process
	cpu                  time.Duration // its own, and that of the children that it has waited for
	resident             int64         // bytes
}

const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs on Linux

// ended says that a process only waits for its parent to take note of its end.
func (s procStat) ended() bool { return s.state == 'Z' || s.state == 'X' }

// readProc reads /proc/<pid>/stat.
func readProc(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The second field is the program's name in brackets, in which there may be anything.
	text := string(b)
	field := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(field) < 22 {
		return procStat{}, errors.New("short stat of a process")
	}
	number := func(i int) int64 { // numbered as in proc(5)
		n, _ := strconv.ParseInt(field[i-3], 10, 64)
		return n
	}
	started, _ := strconv.ParseUint(field[22-3], 10, 64)
	return procStat{
		pid:      pid,
		parent:   int(number(4)),
		session:  int(number(6)),
		state:    field[0][0],
		started:  started,
		cpu:      time.Duration(number(14)+number(15)+number(16)+number(17)) * tick,
		resident: number(24) * int64(os.Getpagesize()),
	}, nil
}

// readProcs reads all processes of the machine that have not ended.
func readProcs() (map[int]procStat, error) {
	f, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := make(map[int]procStat)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := readProc(pid); err == nil && !s.ended() {
			all[pid] = s
		}
	}
	return all, nil
}

// supervisor names the supervisor of a process for as long as the machine exists: pids are used again, but not with the
// same start within one boot.
type supervisor struct {
	pid      int
	started  uint64
	boot     string
	oomKills int64 // of the workspace before it started
}

func (s supervisor) String() string {
	return fmt.Sprintf("%d %d %s %d\n", s.pid, s.started, s.boot, s.oomKills)
}

func parseSupervisor(text string) (s supervisor, err error) {
	_, err = fmt.Sscan(text, &s.pid, &s.started, &s.boot, &s.oomKills)
	return s, err
}

// alive says whether the supervisor still runs.
func (s supervisor) alive(boot string) bool {
	if s.boot != boot {
		return false
	}
	now, err := readProc(s.pid)
	return err == nil && now.started == s.started && !now.ended()
}

// family are the processes that descend from supervisors, as far as this can be seen without control groups.
type family struct {
	supervisors []supervisor
	boot        string
	marks       []string // variables of the environment that all processes of the workspace are started with
	whole       bool     // the family is the workspace: a mark is enough
}

// members looks for the family.
func (f family) members() (map[int]procStat, error) {
	all, err := readProcs()
	if err != nil {
		return nil, err
	}
	return f.among(all), nil
}

// among finds the family among all processes: the supervisors, their sessions, and all whose chain of parents leads to
// those. What has left its session and lost its parents shows by its mark alone.
func (f family) among(all map[int]procStat) map[int]procStat {
	sessions := make(map[int]bool) // true: its supervisor lives, so the number cannot have been used again
	for _, s := range f.supervisors {
		now, there := all[s.pid]
		if s.boot == f.boot && (!there || now.started == s.started) {
			sessions[s.pid] = there
		}
	}
	belongs := func(s procStat) bool {
		for range 1000 { // the parents were read at different moments: a bound, lest they form a circle
			if lives, ok := sessions[s.session]; ok && (lives || f.marked(s.pid)) {
				return true
			}
			parent, ok := all[s.parent]
			if !ok {
				break
			}
			s = parent
		}
		return false
	}
	members := make(map[int]procStat)
	for pid, s := range all {
		if belongs(s) || f.whole && f.marked(pid) {
			members[pid] = s
		}
	}
	return members
}

// marked says whether a process was started with a mark of the workspace.
func (f family) marked(pid int) bool {
	environ := "\x00" + readText(fmt.Sprintf("/proc/%d/environ", pid)) + "\x00"
	return slices.ContainsFunc(f.marks, func(mark string) bool {
		return strings.Contains(environ, "\x00"+mark+"\x00")
	})
}

// kill ends the members but for one, and says how many there were. They are stopped first, so that none starts another
// in time.
func (f family) kill(spare int) (int, error) {
	members, err := f.signal(syscall.SIGSTOP, spare)
	for before := 0; err == nil && len(members) > before; {
		before = len(members)
		members, err = f.signal(syscall.SIGSTOP, spare)
	}
	if err != nil || len(members) == 0 {
		return 0, err
	}
	_, err = f.signal(syscall.SIGKILL, spare)
	return len(members), err
}

// stop stops the members, those that they start meanwhile too, and returns when they stand still.
func (f family) stop(ctx context.Context) error {
	told := make(map[int]bool)
	for p := newPause(); ; {
		members, err := f.signal(syscall.SIGSTOP, 0)
		if err != nil {
			return err
		}
		moving := false
		for pid, s := range members { // as they were before this signal
			// One that waits for a disk, or for a child between its fork and its exec, cannot stop before that ends,
			// but does nothing else either.
			still := s.state == 'T' || s.state == 't' || s.state == 'D' && told[pid]
			moving = moving || !still
			told[pid] = true
		}
		if !moving {
			return nil
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

// signal sends a signal to the members but for one.
func (f family) signal(sig syscall.Signal, spare int) (map[int]procStat, error) {
	members, err := f.members()
	if err != nil {
		return nil, err
	}
	delete(members, spare)
	for pid := range members {
		syscall.Kill(pid, sig)
	}
	return members, nil
}
