//go:build linux

package localprovider

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// folders makes folders below a new one, which is what TOP stands for in the text.
func folders(t *testing.T, text string, names ...string) (top, filled string) {
	top = t.TempDir()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(top, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return top, strings.ReplaceAll(text, "TOP", top)
}

func TestFindHierarchies(t *testing.T) {
	for name, test := range map[string]struct {
		memberships, mounts, configured string
		folders                         []string
		unified                         string
		v1                              map[string]string
	}{
		"v2 alone": {
			memberships: "0::/system.slice/app.service\n",
			mounts:      "29 22 0:25 / TOP/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
			folders:     []string{"cg/system.slice/app.service"},
			unified:     "cg/system.slice/app.service",
		},
		"v2, another group": {
			memberships: "0::/system.slice/app.service/host\n",
			mounts:      "29 22 0:25 / TOP/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
			configured:  "/system.slice/app.service",
			folders:     []string{"cg/system.slice/app.service/host"},
			unified:     "cg/system.slice/app.service",
		},
		"v1 alone": {
			memberships: "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n2:freezer:/\n1:name=systemd:/x\n",
			mounts: "30 29 0:26 / TOP/memory rw shared:9 - cgroup cgroup rw,memory\n" +
				"31 29 0:27 /docker TOP/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"32 29 0:28 / TOP/freezer rw - cgroup cgroup rw,freezer\n",
			folders: []string{"memory/docker/1", "cpu,cpuacct/1", "freezer"},
			v1:      map[string]string{"memory": "memory/docker/1", "cpu": "cpu,cpuacct/1", "cpuacct": "cpu,cpuacct/1", "freezer": "freezer"},
		},
		"not to be seen": {
			memberships: "0::/../outside\n",
			mounts:      "29 22 0:25 / TOP/cg rw - cgroup2 cgroup2 rw\n",
			folders:     []string{"cg"},
		},
		"of another container": {
			memberships: "0::/kubepods/a\n",
			mounts:      "29 22 0:25 /kubepods/b TOP/cg rw - cgroup2 cgroup2 rw\n",
			folders:     []string{"cg"},
		},
		"not mounted": {memberships: "0::/x\n", mounts: "22 1 8:1 / / rw - ext4 /dev/sda rw\nbroken\n"},
	} {
		top, mounts := folders(t, test.mounts, test.folders...)
		full := func(name string) string {
			if name == "" {
				return ""
			}
			return filepath.Join(top, name)
		}
		got := parseHierarchies(test.memberships, mounts, test.configured)
		if got.unified != full(test.unified) {
			t.Errorf("%s: v2 is at %q, want %q", name, got.unified, full(test.unified))
		}
		want := map[string]string{}
		for controller, dir := range test.v1 {
			want[controller] = full(dir)
		}
		if !maps.Equal(got.v1, want) {
			t.Errorf("%s: v1 is at %v, want %v", name, got.v1, want)
		}
	}
	if h := findHierarchies("-"); h.unified != "" || len(h.v1) > 0 {
		t.Errorf("none are wanted, and found are %+v", h)
	}
}

// A machine whose controllers are all in v2, made of plain files.
func TestLimitsOfV2(t *testing.T) {
	top := t.TempDir()
	r := &root{cfg: Config{Processes: 70}, scope: "local-x", hierarchies: hierarchies{
		unified: top, controllers: []string{"cpu", "memory", "pids"}, v1: map[string]string{"memory": "/elsewhere"},
	}}
	g := r.planGroups("token", provider.Resources{CPU: 1.5, MemoryMB: 100})
	tree := filepath.Join(top, "freshet-x", "token")
	if g.Tree != tree || !g.Unified || len(g.folders()) != 1 || !slices.Equal(slices.Sorted(maps.Keys(g.Limits)), []string{"cpu", "memory", "pids"}) {
		t.Fatalf("groups are %+v", g)
	}
	if err := os.MkdirAll(filepath.Join(tree, "p-main"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"memory.max": "", "memory.swap.max": "", "cpu.max": "", "pids.max": "",
		"memory.events":  "low 0\noom 3\noom_kill 2\n",
		"memory.current": "5000000\n",
		"memory.stat":    "anon 4000000\ninactive_file 1000000\n",
		"cpu.stat":       "usage_usec 1500000\nuser_usec 1\n",
		"cgroup.events":  "populated 1\nfrozen 1\n",
		"cgroup.procs":   "12\n34\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{top, filepath.Dir(tree)} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g.make()
	for _, dir := range []string{top, filepath.Dir(tree)} {
		if got := setting(dir, "cgroup.subtree_control"); !strings.HasPrefix(got, "+") { // a plain file keeps the last
			t.Errorf("%s: controllers are enabled with %q", dir, got)
		}
	}
	check := func(want map[string]string) {
		t.Helper()
		for file, value := range want {
			if got := setting(tree, file); got != value {
				t.Errorf("%s is %q, want %q", file, got, value)
			}
			os.WriteFile(filepath.Join(tree, file), nil, 0o600)
		}
	}
	if err := g.limit(provider.Resources{CPU: 1.5, MemoryMB: 100}, 70); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"memory.max": "104857600", "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "70"})
	if err := g.limit(provider.Resources{}, 0); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"memory.max": "max", "memory.swap.max": "max", "cpu.max": "max 100000", "pids.max": "max"})

	if n := g.oomKills(); n != 2 {
		t.Errorf("%d out of memory", n)
	}
	if n, ok := g.memory(); n != 4_000_000 || !ok {
		t.Errorf("memory is %d, %v", n, ok)
	}
	if d, ok := g.cpuTime(); d != 1500*time.Millisecond || !ok {
		t.Errorf("CPU time is %v, %v", d, ok)
	}
	if !g.frozen(tree) {
		t.Error("not frozen")
	}
	if pids := groupPIDs(tree); fmt.Sprint(pids) != "[12 34]" {
		t.Errorf("processes are %v", pids)
	}
}
