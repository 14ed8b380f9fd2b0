//go:build linux

package localprovider

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/providertest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(hostVariable); dir != "" {
		playHost(dir)
		return
	}
	os.Exit(m.Run())
}

// system is a kind of machine that the tests pretend to be on.
type system struct {
	name    string
	cgroup  string                 // of Config
	without func(*hierarchies)     // takes away what this system lacks
	missing missing                // notices that this system lacks
	exists  func(hierarchies) bool // whether this machine can pretend it
}

func systems() []system {
	always := func(hierarchies) bool { return true }
	all := []system{
		{name: "as it is", exists: always},
		{name: "without groups", cgroup: "-", exists: always},
		{name: "without notices", cgroup: "-", missing: missing{pidfd: true, inotify: true}, exists: always},
		{
			name:    "groups of v1",
			without: func(h *hierarchies) { h.unified = "" },
			exists:  func(h hierarchies) bool { return h.v1["freezer"] != "" },
		},
	}
	here := findHierarchies("")
	var possible []system
	for _, s := range all {
		if s.exists(here) {
			possible = append(possible, s)
		}
	}
	return possible
}

// onSystems runs a test on each kind of machine.
func onSystems(t *testing.T, f func(*testing.T, *bench)) {
	for _, s := range systems() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			f(t, newBench(t, s, Config{}))
		})
	}
}

// bench is what one test works with: a root folder, and a provider for it. At the end nothing may be left.
type bench struct {
	*testing.T
	*Provider
	system system
	cfg    Config
}

func newBench(t testing.TB, s system, cfg Config) *bench {
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "root")
	}
	if cfg.Cgroup == "" {
		cfg.Cgroup = s.cgroup
	}
	b := &bench{system: s, cfg: cfg}
	b.T, _ = t.(*testing.T)
	b.Provider = b.another(t)
	t.Cleanup(func() { checkNothingLeft(t, b.Provider) })
	return b
}

// another is a provider as another host process would have it.
func (b *bench) another(t testing.TB) *Provider {
	p := New(b.cfg)
	p.watcher.missing = b.system.missing
	r, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	if b.system.without != nil {
		b.system.without(&r.hierarchies)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func plain(t *testing.T) *bench { return newBench(t, system{}, Config{}) }

// checkNothingLeft checks that the root folder is as if nothing had ever been in it.
func checkNothingLeft(t testing.TB, p *Provider) {
	t.Helper()
	r, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{workFolder, trashFolder, stagingFolder, snapshotFolder} {
		entries, _ := os.ReadDir(r.path(folder))
		for _, e := range entries {
			t.Errorf("left behind: %s/%s", folder, e.Name())
		}
	}
	for _, dir := range r.allGroups("x").folders() {
		if _, err := os.Stat(filepath.Dir(dir)); err == nil {
			t.Errorf("left behind: control group %s", filepath.Dir(dir))
		}
	}
	procs, err := readProcs()
	if err != nil {
		t.Fatal(err)
	}
	for pid := range procs {
		environ := readText(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.Contains(environ, "TMPDIR="+r.path(workFolder)) {
			t.Errorf("left behind: process %d, %q", pid, readText(fmt.Sprintf("/proc/%d/cmdline", pid)))
		}
	}
	p.watcher.mu.Lock()
	defer p.watcher.mu.Unlock()
	for dir := range p.watcher.watched {
		t.Errorf("left behind: the watch of %s", dir)
	}
}

func token() string { return strings.ToLower(rand.Text()) }

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) want(err, class error) {
	b.Helper()
	if !errors.Is(err, class) {
		b.Errorf("error is %v, want %v", err, class)
	}
}

// make makes a workspace that is deleted at the end.
func (b *bench) make(spec provider.Spec) provider.Workspace {
	b.Helper()
	w, err := b.Create(b.ctx(), provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent", Spec: spec})
	b.must(err)
	b.Cleanup(func() { b.must(b.Delete(b.ctx(), w.ID)) })
	return w
}

// sh starts a shell command.
func (b *bench) sh(id, name, command string) provider.Process {
	b.Helper()
	p, err := b.StartProcess(b.ctx(), id, name, provider.Cmd{Args: []string{"sh", "-c", command}})
	b.must(err)
	return p
}

// output runs a shell command to its end and returns what it wrote.
func (b *bench) output(id, command string) string {
	b.Helper()
	p := b.sh(id, token(), command)
	out := b.read(p)
	if exit := b.exit(p); exit.Code != 0 {
		b.Fatalf("%s: %+v, output %q", command, exit, out)
	}
	return out
}

// read reads all output.
func (b *bench) read(p provider.Process) string {
	b.Helper()
	var all strings.Builder
	for c, err := range p.Output(b.ctx(), provider.Offset{}) {
		b.must(err)
		all.Write(c.Data)
	}
	return all.String()
}

// await reads until the output contains text.
func (b *bench) await(p provider.Process, text string) {
	b.Helper()
	var all strings.Builder
	for c, err := range p.Output(b.ctx(), provider.Offset{}) {
		b.must(err)
		all.Write(c.Data)
		if strings.Contains(all.String(), text) {
			return
		}
	}
	b.Fatalf("output ended without %q: %q", text, all.String())
}

func (b *bench) exit(p provider.Process) provider.Exit {
	b.Helper()
	exit, err := p.Wait(b.ctx())
	b.must(err)
	return exit
}

// until asks again and again until ok.
func (b *bench) until(what string, ok func() bool) {
	b.Helper()
	ctx := b.ctx()
	for p := newPause(); !ok(); {
		if p.wait(ctx) != nil {
			b.Fatalf("never: %s", what)
		}
	}
}

// found is a workspace as it is on the disk.
func (b *bench) found(id string) *workspace {
	b.Helper()
	r, err := b.open()
	b.must(err)
	w, err := r.find(id)
	b.must(err)
	return w
}

// supervisorOf is the supervisor of a process.
func (b *bench) supervisorOf(p provider.Process) supervisor { return p.(*process).supervisor }

func TestConformance(t *testing.T) {
	for _, s := range systems() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, s, Config{MaxUploadBytes: 6 << 20, MaxUploadFiles: 1200})
			providertest.Run(t, providertest.Harness{
				New:            func(t *testing.T) provider.Provider { return b.another(t) },
				Reopen:         func(t *testing.T, _ provider.Provider) provider.Provider { return b.another(t) },
				Cmd:            providertest.Shell,
				Parallel:       true,
				MaxUploadBytes: 6 << 20,
				MaxUploadFiles: 1200,
				Fail: func(t *testing.T, p provider.Provider, id string) {
					b.killAll(t, id)
					if err := os.RemoveAll(b.found(id).file(homeFolder)); err != nil {
						t.Error(err)
					}
				},
				Vanish: func(t *testing.T, p provider.Provider, id string) {
					b.killAll(t, id)
					w := b.found(id)
					if err := w.Groups.remove(func() error { return nil }); err != nil {
						t.Error(err)
					}
					if err := os.RemoveAll(w.dir); err != nil {
						t.Error(err)
					}
				},
			})
		})
	}
}

// killAll kills the processes of a workspace with their supervisors.
func (b *bench) killAll(t *testing.T, id string) {
	if err := b.found(id).processes().end(t.Context()); err != nil {
		t.Error(err)
	}
}

// children are the processes that this process has to reap.
func children(t testing.TB) map[int]byte {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[int]byte)
	for _, name := range names {
		var pid int
		fmt.Sscanf(name, "/proc/%d/stat", &pid)
		if s, err := readProc(pid); err == nil && s.parent == os.Getpid() {
			found[pid] = s.state
		}
	}
	return found
}
