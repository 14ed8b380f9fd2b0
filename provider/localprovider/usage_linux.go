package localprovider

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Usage reads CPU time and memory from the control groups. Without them it adds up the processes that it finds, as they
// were at most a second ago, and of those that ended what their supervisors have seen; a process that has lost its
// parents is then forgotten when it ends. The disk is looked at at most every 30 s, and less often when that takes long.
func (p *Provider) Usage(ctx context.Context, id string) (provider.Usage, error) {
	r, err := p.use(ctx)
	if err != nil {
		return provider.Usage{}, fail("usage", err)
	}
	w, err := r.find(id)
	if err != nil {
		return provider.Usage{}, fail("usage", err)
	}
	u, err := w.usage(ctx)
	return u, fail("usage", err)
}

func (w *workspace) usage(ctx context.Context) (provider.Usage, error) {
	cpu, haveCPU := w.Groups.cpuTime()
	memory, haveMemory := w.Groups.memory()
	if !haveCPU || !haveMemory {
		found, err := w.processes().sum()
		if err != nil {
			return provider.Usage{}, err
		}
		if !haveCPU {
			cpu = found.cpu
		}
		if !haveMemory {
			memory = found.resident
		}
	}
	disk, ok := w.root.known.disk(w.Token)
	if !ok {
		begin := time.Now()
		var err error
		if disk, err = sizeOf(ctx, w.dir); err != nil {
			return provider.Usage{}, err
		}
		w.root.known.setDisk(w.Token, disk, max(diskAge, diskCost*time.Since(begin)))
	}
	return provider.Usage{CPUTime: w.root.known.cpu(w.Token, cpu), MemoryMB: toMB(memory), DiskMB: toMB(disk)}, nil
}

func toMB(bytes int64) int { return int((bytes + 1<<20 - 1) >> 20) }

// Check looks whether the workspace is there, and whether the supervisors of its processes live that have not recorded an
// end.
func (p *Provider) Check(ctx context.Context, id string) error {
	r, err := p.use(ctx)
	if err != nil {
		return fail("check", err)
	}
	w, err := r.find(id)
	if err == nil {
		err = w.check()
	}
	return fail("check", err)
}

func (w *workspace) check() error {
	if w.whole() != nil {
		return refuse(provider.ErrLost, "workspace is %s", w.state())
	}
	for _, c := range w.processes().claims() {
		s, err := c.supervisor()
		if err != nil || s.alive(w.root.boot) {
			continue
		}
		if r, err := readReport(c.file(exitFile)); err == nil && r.begun && !r.ended {
			return refuse(provider.ErrLost, "the supervisor of a process was killed")
		}
	}
	if w.state() != provider.Running {
		return refuse(provider.ErrConflict, "workspace is %s", w.state())
	}
	return nil
}

// procTable remembers the processes of the machine for a moment, in which many workspaces may be looked at.
type procTable struct {
	mu    sync.Mutex // protects what follows
	procs map[int]procStat
	until time.Time
}

func (t *procTable) recent() (map[int]procStat, error) {
	t.mu.Lock()
	procs, until := t.procs, t.until
	t.mu.Unlock()
	if time.Now().Before(until) {
		return procs, nil
	}
	procs, err := readProcs()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.procs, t.until = procs, time.Now().Add(time.Second)
	return procs, nil
}

// measured remembers what was measured of workspaces.
type measured struct {
	mu sync.Mutex // protects of
	of map[string]measure
}

type measure struct {
	cpu       time.Duration
	disk      int64
	diskUntil time.Time // how long disk may be used
}

const (
	diskAge  = 30 * time.Second // how old an answer may be
	diskCost = 20               // how many times longer than the looking took
)

// cpu returns the greatest CPU time so far: what processes have used is not given back when they are forgotten.
func (m *measured) cpu(token string, now time.Duration) (most time.Duration) {
	m.update(token, func(of *measure) {
		of.cpu = max(of.cpu, now)
		most = of.cpu
	})
	return most
}

func (m *measured) disk(token string) (bytes int64, ok bool) {
	m.update(token, func(of *measure) { bytes, ok = of.disk, time.Now().Before(of.diskUntil) })
	return bytes, ok
}

func (m *measured) setDisk(token string, bytes int64, age time.Duration) {
	m.update(token, func(of *measure) { of.disk, of.diskUntil = bytes, time.Now().Add(age) })
}

func (m *measured) update(token string, do func(*measure)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = make(map[string]measure)
	}
	of := m.of[token]
	do(&of)
	m.of[token] = of
}

func (m *measured) forget(token string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, token)
}

// sizeOf is what a folder takes up. What disappears meanwhile, or cannot be read, counts nothing.
func sizeOf(ctx context.Context, dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return ctx.Err()
		}
		if info, err := e.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += stat.Blocks * 512
			}
		}
		return ctx.Err()
	})
	return bytes, err
}
