package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// has says whether a group is there.
func (g groups) has(dir string) bool {
	if dir == "" {
		return false
	}
	_, err := os.Stat(dir)
	return err == nil
}

// makeLeaf makes the group of one process; "" when there is no tree to make it in.
func (g groups) makeLeaf(process string) string {
	leaf := g.leaf(process)
	if leaf == "" {
		return ""
	}
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return ""
	}
	return leaf
}

// leaf is the group of a process. The prefix keeps it apart from the system's files.
func (g groups) leaf(process string) string {
	if g.Tree == "" {
		return ""
	}
	return filepath.Join(g.Tree, "p-"+process)
}

// join moves a process into the groups of v1 that limit the workspace. (In v2 its leaf is below them.)
func (g groups) join(pid int) error {
	for controller, dir := range g.Limits {
		if g.v2(controller) {
			continue
		}
		if err := writeGroup(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// groupPIDs are the processes in a group and those below it.
func groupPIDs(dir string) []int {
	var pids []int
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // what is gone is empty
		}
		for _, field := range strings.Fields(readText(filepath.Join(path, "cgroup.procs"))) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// freeze stops all processes of a group, those that they start meanwhile too, and returns when they stand still.
func (g groups) freeze(ctx context.Context, dir string) error {
	for p := newPause(); ; {
		file, value := "freezer.state", "FROZEN"
		if g.Unified {
			file, value = "cgroup.freeze", "1"
		}
		if err := writeGroup(dir, file, value); err != nil {
			return err
		}
		if g.frozen(dir) {
			return nil
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

func (g groups) thaw(dir string) error {
	if g.Unified {
		return writeGroup(dir, "cgroup.freeze", "0")
	}
	return writeGroup(dir, "freezer.state", "THAWED")
}

func (g groups) frozen(dir string) bool {
	if g.Unified {
		return counter(filepath.Join(dir, "cgroup.events"), "frozen") == 1
	}
	return strings.TrimSpace(readText(filepath.Join(dir, "freezer.state"))) == "FROZEN"
}

// kill ends the processes of a group and those below it, but for one, and says how many there were. They stand still
// meanwhile, so that none starts another in time.
func (g groups) kill(ctx context.Context, dir string, spare int) int {
	pids := others(groupPIDs(dir), spare)
	if len(pids) == 0 {
		return 0
	}
	if g.Unified && spare == 0 && writeGroup(dir, "cgroup.kill", "1") == nil { // Linux 5.14 and later
		return len(pids)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // some cannot be frozen; they are killed as they run
	defer cancel()
	g.freeze(ctx, dir)
	for _, pid := range others(groupPIDs(dir), spare) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	g.thaw(dir) // in v1 they end now
	return len(pids)
}

func others(pids []int, spare int) []int {
	return slices.DeleteFunc(pids, func(pid int) bool { return pid == spare })
}

// oomKills counts the processes of the workspace that the system ended for want of memory.
func (g groups) oomKills() int64 {
	dir := g.Limits["memory"]
	switch {
	case dir == "":
		return 0
	case g.v2("memory"):
		return counter(filepath.Join(dir, "memory.events"), "oom_kill")
	}
	return counter(filepath.Join(dir, "memory.oom_control"), "oom_kill")
}

// cpuTime is what all processes of the workspace have used, also those that ended; false without groups.
func (g groups) cpuTime() (time.Duration, bool) {
	if g.Unified && g.has(g.Tree) {
		return time.Duration(counter(filepath.Join(g.Tree, "cpu.stat"), "usage_usec")) * time.Microsecond, true
	}
	if g.Limits["cpuacct"] == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(readText(filepath.Join(g.Limits["cpuacct"], "cpuacct.usage"))), 10, 64)
	return time.Duration(n), err == nil
}

// memory is what the workspace holds, without the file cache that can be dropped; false without a group that counts it.
func (g groups) memory() (bytes int64, ok bool) {
	dir := g.Limits["memory"]
	if dir == "" {
		return 0, false
	}
	file, cache := "memory.usage_in_bytes", "total_inactive_file"
	if g.v2("memory") {
		file, cache = "memory.current", "inactive_file"
	}
	n, err := strconv.ParseInt(strings.TrimSpace(readText(filepath.Join(dir, file))), 10, 64)
	return max(0, n-counter(filepath.Join(dir, "memory.stat"), cache)), err == nil
}

// counter is a number of a file of lines "key number"; 0 when it is not there.
func counter(file, key string) int64 {
	for line := range strings.Lines(readText(file)) {
		if value, ok := strings.CutPrefix(line, key+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}
