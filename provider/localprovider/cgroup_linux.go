package localprovider

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// hierarchies are the control groups below which this process may make its own, as folders; "" where there is none.
// A machine may have both versions at once, each controller in one of them.
type hierarchies struct {
	unified     string            // of cgroup v2
	controllers []string          // that v2 has
	v1          map[string]string // by controller
}

// findHierarchies looks where the groups of this process are, or where those of the given name are.
func findHierarchies(name string) hierarchies {
	if name == "-" {
		return hierarchies{}
	}
	return parseHierarchies(readText("/proc/self/cgroup"), readText("/proc/self/mountinfo"), name)
}

// parseHierarchies reads the two files of /proc that say in which groups a process is, and where they are to be seen.
func parseHierarchies(memberships, mounts, name string) hierarchies {
	found := hierarchies{v1: map[string]string{}}
	own := map[string]string{} // path by controller; "" is v2
	for line := range strings.Lines(memberships) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		for _, controller := range strings.Split(part[1], ",") {
			own[controller] = part[2]
		}
	}
	for line := range strings.Lines(mounts) {
		mount, super, ok := strings.Cut(line, " - ")
		place, kind := strings.Fields(mount), strings.Fields(super)
		if !ok || len(place) < 5 || len(kind) < 3 {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			found.unified = groupFolder(place[4], place[3], name, own[""])
			found.controllers = strings.Fields(readText(filepath.Join(found.unified, "cgroup.controllers")))
		case "cgroup":
			for _, controller := range strings.Split(kind[2], ",") {
				if path, ok := own[controller]; ok {
					found.v1[controller] = groupFolder(place[4], place[3], name, path)
				}
			}
		}
	}
	return found
}

// groupFolder is the folder of a group in a mounted hierarchy; "" when this process may not make groups in it.
func groupFolder(mountPoint, mountRoot, name, own string) string {
	if name == "" {
		name = own
	}
	below, err := filepath.Rel(mountRoot, name)
	if err != nil || !filepath.IsLocal(below) {
		return ""
	}
	dir := filepath.Join(mountPoint, below)
	const writeAndEnter = 2 | 1
	if err := syscall.Access(dir, writeAndEnter); err != nil {
		return ""
	}
	return dir
}

// readText reads a small file of the system; "" when it cannot be read.
func readText(name string) string {
	b, _ := os.ReadFile(name)
	return string(b)
}

// groups are the control groups of one workspace, as folders. They may be missing on the disk: then nothing is limited.
type groups struct {
	// Tree holds a leaf for each process, and so tells what descends from it. Through it the workspace is frozen and
	// ended. It is of cgroup v2, or of the freezer of v1. "": none.
	Tree    string `json:",omitempty"`
	Unified bool   `json:",omitempty"` // Tree is of v2

	// Limits are by controller: memory, cpu, pids, and cpuacct where v1 must measure. In v2 they are the Tree.
	Limits map[string]string `json:",omitempty"`
}

// planGroups says which groups a workspace gets. None is made without need: it takes the system some milliseconds to
// move a process into a group of v1.
func (r *root) planGroups(token string, want provider.Resources) groups {
	h := r.hierarchies
	name := filepath.Join("freshet-"+strings.TrimPrefix(r.scope, "local-"), token)
	g := groups{Limits: map[string]string{}}
	switch {
	case h.unified != "":
		g.Tree, g.Unified = filepath.Join(h.unified, name), true
	case h.v1["freezer"] != "":
		g.Tree = filepath.Join(h.v1["freezer"], name)
	}
	for controller, needed := range map[string]bool{
		"memory":  want.MemoryMB > 0,
		"cpu":     want.CPU > 0,
		"pids":    r.cfg.Processes > 0,
		"cpuacct": !g.Unified,
	} {
		switch {
		case !needed:
		case h.unified != "" && slices.Contains(h.controllers, controller):
			g.Limits[controller] = g.Tree
		case h.v1[controller] != "":
			g.Limits[controller] = filepath.Join(h.v1[controller], name)
		}
	}
	return g
}

// allGroups are all that a workspace may have.
func (r *root) allGroups(token string) groups {
	return r.planGroups(token, provider.Resources{CPU: 1, MemoryMB: 1})
}

// folders are all groups, each once.
func (g groups) folders() []string {
	all := make([]string, 0, 1+len(g.Limits))
	if g.Tree != "" {
		all = append(all, g.Tree)
	}
	for _, dir := range g.Limits {
		if !slices.Contains(all, dir) {
			all = append(all, dir)
		}
	}
	return all
}

// v2 says whether the system keeps the limits of a controller in the Tree.
func (g groups) v2(controller string) bool {
	return g.Unified && g.Limits[controller] == g.Tree
}

// make makes the groups that are missing and can be made.
func (g groups) make() {
	for _, dir := range g.folders() {
		for range 10 { // the last workspace to go takes the folder above with it, perhaps just now
			if err := g.makeOne(dir); !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
	}
}

func (g groups) makeOne(dir string) error {
	parent := filepath.Dir(dir)
	if err := os.Mkdir(parent, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for controller := range g.Limits {
		if dir == g.Tree && g.v2(controller) {
			writeGroup(filepath.Dir(parent), "cgroup.subtree_control", "+"+controller)
			writeGroup(parent, "cgroup.subtree_control", "+"+controller)
		}
	}
	return os.Mkdir(dir, 0o755)
}

// remove removes the groups, which must hold no process any more, and the folder above when it is empty.
func (g groups) remove(leave func() error) error {
	for _, dir := range g.folders() {
		for {
			err := removeGroup(dir)
			if err == nil {
				break
			}
			if err != syscall.EBUSY {
				return err
			}
			if err := leave(); err != nil { // processes that have ended are leaving it
				return err
			}
		}
		syscall.Rmdir(filepath.Dir(dir))
	}
	return nil
}

// removeGroup removes a group with those below it. Its files are the system's and go with it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && err != syscall.ENOENT {
		return err
	}
	return nil
}

// limitFiles tell by their presence that a controller limits a group.
var limitFiles = map[bool]map[string]string{
	true:  {"memory": "memory.max", "cpu": "cpu.max", "pids": "pids.max"},
	false: {"memory": "memory.limit_in_bytes", "cpu": "cpu.cfs_quota_us", "pids": "pids.max"},
}

// limits says whether the system limits the workspace in what a controller counts.
func (g groups) limits(controller string) bool {
	dir := g.Limits[controller]
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, limitFiles[g.v2(controller)][controller]))
	return err == nil
}

const cpuPeriod = 100_000 // µs, the default of both versions

// limit sets the limits, where there are groups. A zero want is no limit.
func (g groups) limit(want provider.Resources, processes int) error {
	var errs []error
	set := func(controller, file, value string) error {
		if !g.limits(controller) {
			return nil
		}
		return writeGroup(g.Limits[controller], file, value)
	}
	value := func(n int, none string) string {
		if n <= 0 {
			return none
		}
		return strconv.Itoa(n)
	}
	if memory := want.MemoryMB << 20; g.v2("memory") {
		swap := "max"
		if memory > 0 {
			swap = "0" // it is not more memory
		}
		set("memory", "memory.swap.max", swap) // missing where there is no swap
		errs = append(errs, set("memory", "memory.max", value(memory, "max")))
	} else {
		// The limit of memory and swap together may never be the lower of the two, so what works depends on the
		// direction. It is missing where swap is not counted.
		set("memory", "memory.memsw.limit_in_bytes", value(memory, "-1"))
		errs = append(errs, set("memory", "memory.limit_in_bytes", value(memory, "-1")))
		set("memory", "memory.memsw.limit_in_bytes", value(memory, "-1"))
	}
	quota := 0
	if want.CPU > 0 {
		quota = max(1000, int(math.Ceil(want.CPU*cpuPeriod)))
	}
	if g.v2("cpu") {
		errs = append(errs, set("cpu", "cpu.max", fmt.Sprintf("%s %d", value(quota, "max"), cpuPeriod)))
	} else {
		errs = append(errs, set("cpu", "cpu.cfs_quota_us", value(quota, "-1")))
	}
	return errors.Join(append(errs, set("pids", "pids.max", value(processes, "max")))...)
}

// writeGroup writes one setting of a group.
func writeGroup(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
