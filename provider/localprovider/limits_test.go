//go:build linux

package localprovider

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/provider"
)

// setting reads a setting of a group.
func setting(dir, file string) string {
	return strings.TrimSpace(readText(filepath.Join(dir, file)))
}

func TestLimits(t *testing.T) {
	for _, s := range systems() {
		t.Run(s.name, func(t *testing.T) {
			b := newBench(t, s, Config{Processes: 50})
			want := provider.Resources{CPU: 0.5, MemoryMB: 64, DiskMB: 10}
			w := b.make(provider.Spec{Resources: want})
			g := b.found(w.ID).Groups
			if !g.limits("memory") {
				// Each process is limited by itself.
				if out := b.output(w.ID, "ulimit -d"); out != "65536\n" {
					t.Errorf("limit of data is %q KiB", out)
				}
			} else {
				b.checkMemory(w, g)
			}
			if g.limits("cpu") && !g.v2("cpu") {
				if got := setting(g.Limits["cpu"], "cpu.cfs_quota_us"); got != "50000" {
					t.Errorf("CPU quota is %s µs", got)
				}
			}
			if g.limits("cpu") && g.v2("cpu") {
				if got := setting(g.Tree, "cpu.max"); got != "50000 100000" {
					t.Errorf("CPU limit is %s", got)
				}
			}
			if g.limits("pids") {
				p := b.sh(w.ID, "forks", "while :; do sleep 1000 & done")
				if exit := b.exit(p); exit.Code == 0 {
					t.Errorf("a process that forks for ever: %+v", exit)
				}
				if n := len(groupPIDs(g.Tree)); n > 50 {
					t.Errorf("%d processes, and 50 are allowed", n)
				}
				b.must(p.Signal(b.ctx(), provider.Kill))
			}

			more := provider.Resources{CPU: 1.5, MemoryMB: 128, DiskMB: 20}
			if !g.limits("memory") || !g.limits("cpu") {
				b.want(b.Resize(b.ctx(), w.ID, more), provider.ErrInvalid)
				want.DiskMB = 20
				b.must(b.Resize(b.ctx(), w.ID, want))
				return
			}
			b.must(b.Resize(b.ctx(), w.ID, more))
			if got := b.found(w.ID).Resources; got != more {
				t.Errorf("resources are %+v after Resize", got)
			}
			if file := "memory.limit_in_bytes"; !g.v2("memory") && setting(g.Limits["memory"], file) != "134217728" {
				t.Errorf("memory limit is %s after Resize", setting(g.Limits["memory"], file))
			}
			if file := "memory.max"; g.v2("memory") && setting(g.Tree, file) != "134217728" {
				t.Errorf("memory limit is %s after Resize", setting(g.Tree, file))
			}
			b.must(b.Resize(b.ctx(), w.ID, want))
			b.want(b.Resize(b.ctx(), w.ID, provider.Resources{CPU: -1}), provider.ErrInvalid)
			_, err := b.Create(b.ctx(), provider.CreateRequest{Token: w.ID, Owner: "tests", Agent: "agent", Spec: provider.Spec{Resources: provider.Resources{CPU: 0.5, MemoryMB: 64, DiskMB: 10}}})
			b.must(err) // the spec that it was made with is what counts
		})
	}
}

// checkMemory has a process run out of memory, and others end in other ways.
func (b *bench) checkMemory(w provider.Workspace, g groups) {
	b.Helper()
	p := b.sh(w.ID, "greedy", "head -c 300000000 /dev/zero | tail | wc -c; exit 1")
	if exit := b.exit(p); !exit.OOM || exit.Code == 0 {
		b.Errorf("out of memory: %+v", exit)
	}
	p = b.sh(w.ID, "killed", "exec tail /dev/zero")
	if exit := b.exit(p); !exit.OOM || exit.Signal != "SIGKILL" {
		b.Errorf("killed for want of memory: %+v", exit)
	}
	p = b.sh(w.ID, "modest", "exit 1")
	if exit := b.exit(p); exit.OOM {
		b.Errorf("not out of memory: %+v", exit)
	}
	p = b.sh(w.ID, "ended", "kill -9 $$")
	if exit := b.exit(p); exit.OOM {
		b.Errorf("killed by somebody: %+v", exit)
	}
	p = b.sh(w.ID, "holds", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo up; while :; do sleep 1; done")
	b.await(p, "up")
	if u, err := b.Usage(b.ctx(), w.ID); err != nil || u.MemoryMB < 15 || u.MemoryMB > 64 {
		b.Errorf("Usage: %+v, %v", u, err)
	}
	b.want(b.Resize(b.ctx(), w.ID, provider.Resources{CPU: 0.5, MemoryMB: 2, DiskMB: 10}), provider.ErrConflict)
	b.must(p.Signal(b.ctx(), provider.Kill))
	b.exit(p)
}

func TestUsage(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		b.output(w.ID, "head -c 3000000 /dev/urandom >file; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
		p := b.sh(w.ID, "main", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo up; while :; do sleep 1; done")
		b.await(p, "up")
		u, err := b.Usage(b.ctx(), w.ID)
		b.must(err)
		if u.CPUTime <= 0 || u.MemoryMB < 15 || u.DiskMB < 2 || u.DiskMB > 10 {
			t.Errorf("Usage: %+v", u)
		}
		b.must(p.Signal(b.ctx(), provider.Kill))
		b.exit(p)
		after, err := b.Usage(b.ctx(), w.ID)
		b.must(err)
		if after.CPUTime < u.CPUTime {
			t.Errorf("CPU time was %v and is %v", u.CPUTime, after.CPUTime)
		}
	})
}

func TestFailedWorkspace(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	b.output(w.ID, `rm -r "$HOME"`) // as an agent may
	got, err := b.Get(b.ctx(), w.ID)
	b.must(err)
	if got.State != provider.Failed || got.Ready || got.Message == "" || got.Owner != "tests" {
		t.Errorf("Get: %+v", got)
	}
	b.want(b.Check(b.ctx(), w.ID), provider.ErrLost)
	_, err = b.Snapshot(b.ctx(), w.ID)
	b.want(err, provider.ErrConflict)
	b.must(os.Symlink("/etc", w.Home))
	if got, err = b.Get(b.ctx(), w.ID); err != nil || got.State != provider.Failed {
		t.Errorf("Get: %+v, %v", got, err)
	}
	_, err = b.Download(b.ctx(), w.ID, "passwd")
	b.want(err, provider.ErrConflict)
}
