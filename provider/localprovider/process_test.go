//go:build linux

package localprovider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func TestProcessEnvironment(t *testing.T) {
	t.Setenv("HOST_SECRET", "of the host")
	b := newBench(t, system{}, Config{Env: map[string]string{"FROM_CONFIG": "config", "BOTH": "config"}})
	w := b.make(provider.Spec{})
	p, err := b.StartProcess(b.ctx(), w.ID, "main", provider.Cmd{
		Args: []string{"env"},
		Env:  map[string]string{"BOTH": "cmd", "MULTI": "a\nb=c 'd' $e"},
	})
	b.must(err)
	out := b.read(p)
	b.exit(p)
	for _, want := range []string{"HOME=" + w.Home, "FROM_CONFIG=config", "BOTH=cmd", "MULTI=a\nb=c 'd' $e", "PWD=" + w.Home, "LANG=C.UTF-8"} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("no %q in the environment:\n%s", want, out)
		}
	}
	if strings.Contains(out, "HOST_SECRET") {
		t.Error("the environment of the host process is handed on")
	}
	for _, name := range []string{"", "A-B", "1A", "A B", "A=B", "BASH_FUNC_x%%"} {
		_, err := b.StartProcess(b.ctx(), w.ID, "bad", provider.Cmd{Args: []string{"env"}, Env: map[string]string{name: "x"}})
		b.want(err, provider.ErrInvalid)
	}
}

// What is secret is in the environment and the input of the process, and nowhere else.
func TestSecretsAreNotWrittenDown(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	p, err := b.StartProcess(b.ctx(), w.ID, "main", provider.Cmd{
		Args:  []string{"sh", "-c", "echo up; while :; do sleep 1; done"},
		Env:   map[string]string{"KEY": "secret-value"},
		Stdin: []byte("secret-input"),
	})
	b.must(err)
	b.await(p, "up")
	secret := []byte("secret-")
	b.must(filepath.WalkDir(b.cfg.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if content, err := os.ReadFile(path); err != nil || bytes.Contains(content, secret) {
			t.Errorf("%s holds a secret, %v", path, err)
		}
		return nil
	}))
	members, err := b.found(w.ID).processes().family([]supervisor{b.supervisorOf(p)}).members()
	b.must(err)
	for pid := range members {
		if strings.Contains(readText(fmt.Sprintf("/proc/%d/cmdline", pid)), string(secret)) {
			t.Error("a secret is among the arguments of a process")
		}
	}
}

func TestProgramThatIsMissing(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	p, err := b.StartProcess(b.ctx(), w.ID, "main", provider.Cmd{Args: []string{"no-such-program"}})
	b.must(err)
	if out := b.read(p); !strings.Contains(out, "no-such-program") {
		t.Errorf("error output is %q", out)
	}
	if exit := b.exit(p); exit.Code != 127 {
		t.Errorf("%+v, want code 127", exit)
	}
	for _, cmd := range []provider.Cmd{
		{},
		{Args: []string{""}},
		{Args: []string{"-n"}},
		{Args: []string{"echo", "a\x00b"}},
		{Args: []string{"true"}, Dir: "missing"},
		{Args: []string{"true"}, Dir: "../.."},
		{Args: []string{"true"}, Dir: "/dev/null"},
		{Args: []string{"true", strings.Repeat("x", 1<<20)}},
	} {
		_, err := b.StartProcess(b.ctx(), w.ID, "bad", cmd)
		b.want(err, provider.ErrInvalid)
	}
	b.exit(b.sh(w.ID, "bad", "true")) // a refused start does not use the name up
}

// Two host processes use one root folder at once.
func TestTwoHostsStartOneProcess(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		hosts := []*Provider{b.Provider, b.another(t)}
		var all sync.WaitGroup
		ctx := b.ctx()
		for i := range 10 {
			for _, p := range hosts {
				all.Go(func() {
					name := strconv.Itoa(i)
					_, err := p.StartProcess(ctx, w.ID, name, provider.Cmd{Args: []string{"sh", "-c", "echo ran >>" + name}})
					if err != nil && !errors.Is(err, provider.ErrExists) {
						t.Errorf("StartProcess: %v", err)
					}
				})
			}
		}
		all.Wait()
		for i := range 10 {
			p, err := hosts[i%2].Attach(b.ctx(), w.ID, strconv.Itoa(i))
			b.must(err)
			b.exit(p)
			got, _ := os.ReadFile(filepath.Join(w.Home, strconv.Itoa(i)))
			if string(got) != "ran\n" {
				t.Errorf("process %d has written %q", i, got)
			}
		}
	})
}

// A name whose starter died before its process could run is not found, and free.
func TestClaimWithoutAProcess(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	for name, leave := range map[string]func(claim){
		"nothing but the claim": func(claim) {},
		"files, and no supervisor": func(c claim) {
			files, err := c.openFiles([]byte("input"))
			b.must(err)
			files.close()
		},
		"a supervisor that was never told to go on": func(c claim) {
			files, err := c.openFiles(nil)
			b.must(err)
			defer files.close()
			b.must(c.record(supervisor{pid: 1 << 22, boot: b.found(w.ID).root.boot}))
		},
	} {
		folder, err := processFolder(name)
		b.must(err)
		c := b.found(w.ID).processes().claim(folder)
		held, err := c.take(b.ctx(), b.found(w.ID).root.boot)
		b.must(err)
		leave(c)
		short, cancel := context.WithTimeout(b.ctx(), 10*time.Millisecond)
		defer cancel()
		_, err = b.StartProcess(short, w.ID, name, provider.Cmd{Args: []string{"true"}})
		b.want(err, context.DeadlineExceeded) // its starter lives
		held.Close()

		_, err = b.Attach(b.ctx(), w.ID, name)
		b.want(err, provider.ErrNotFound)
		p := b.sh(w.ID, name, "echo ran")
		if out := b.read(p); out != "ran\n" {
			t.Errorf("%s: output %q", name, out)
		}
		b.exit(p)
	}
}

// The supervisor starts nothing when its host dies before it has said so.
func TestSupervisorWithoutItsHost(t *testing.T) {
	b := plain(t)
	w := b.found(b.make(provider.Spec{}).ID)
	c := w.processes().claim("main")
	held, err := c.take(b.ctx(), w.root.boot)
	b.must(err)
	defer held.Close()
	files, err := c.openFiles(nil)
	b.must(err)
	defer files.close()
	gate, say, err := os.Pipe()
	b.must(err)
	defer gate.Close()
	b.must(say.Close())
	cmd := exec.Command(shell, "-c", supervisorScript, "freshet", "touch", filepath.Join(w.file(homeFolder), "ran"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.ExtraFiles = []*os.File{gate, files[4], files[5]}
	if err := cmd.Run(); err == nil {
		t.Error("the supervisor has succeeded")
	}
	if r, err := readReport(c.file(exitFile)); err != nil || r.begun {
		t.Errorf("it has recorded %+v, %v", r, err)
	}
	if _, err := os.Stat(filepath.Join(w.file(homeFolder), "ran")); err == nil {
		t.Error("the process was started")
	}
}

// A pid that was used again is neither waited for nor signalled.
func TestRecycledPid(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		bystander := exec.Command("sleep", "1000")
		bystander.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		b.must(bystander.Start())
		defer bystander.Wait()
		defer bystander.Process.Kill()
		now, err := readProc(bystander.Process.Pid)
		b.must(err)

		w := b.make(provider.Spec{})
		for name, change := range map[string]func(*supervisor){
			"another start": func(s *supervisor) { s.started = now.started - 1 },
			"another boot":  func(s *supervisor) { s.started, s.boot = now.started, "another" },
		} {
			p := b.sh(w.ID, name, "echo up; while :; do sleep 1; done")
			b.await(p, "up")
			c := p.(*process).claim
			s := b.supervisorOf(p)
			s.pid = bystander.Process.Pid
			change(&s)
			b.must(c.record(s))

			again, err := b.another(t).Attach(b.ctx(), w.ID, name)
			b.must(err)
			_, err = again.Wait(b.ctx())
			b.want(err, provider.ErrLost)
			b.must(again.Signal(b.ctx(), provider.Kill))
			b.want(b.Check(b.ctx(), w.ID), provider.ErrLost)
			b.must(c.record(b.supervisorOf(p)))
		}
		b.must(b.Delete(b.ctx(), w.ID))
		if s, err := readProc(now.pid); err != nil || s.ended() || s.started != now.started {
			t.Errorf("the bystander was hit: %+v, %v", s, err)
		}
	})
}

// When the supervisor itself is killed nobody knows the end of the process, which is ended too.
func TestSupervisorKilled(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		p := b.sh(w.ID, "main", "echo $$; while :; do sleep 1; done")
		b.await(p, "\n")
		b.must(b.Check(b.ctx(), w.ID))
		b.must(syscall.Kill(b.supervisorOf(p).pid, syscall.SIGKILL))
		_, err := p.Wait(b.ctx())
		b.want(err, provider.ErrLost)
		pid, err := strconv.Atoi(strings.TrimSpace(b.read(p)))
		b.must(err)
		b.until("the process has ended", func() bool {
			s, err := readProc(pid)
			return err != nil || s.ended()
		})
		b.want(b.Check(b.ctx(), w.ID), provider.ErrLost)
		_, err = b.StartProcess(b.ctx(), w.ID, "main", provider.Cmd{Args: []string{"true"}})
		b.want(err, provider.ErrExists)
	})
}

// A process may signal its own group, as scripts do when they end. Its end is recorded none the less.
func TestSupervisorOutlivesSignalsToItsGroup(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	for _, sig := range []string{"HUP", "INT", "PIPE", "ALRM", "TERM", "USR1", "USR2"} {
		p := b.sh(w.ID, sig, "kill -"+sig+" 0; sleep 10")
		if exit := b.exit(p); exit.Signal != "SIG"+sig {
			t.Errorf("%s: %+v", sig, exit)
		}
		if out := b.read(p); out != "" {
			t.Errorf("%s: the supervisor has written %q", sig, out)
		}
	}
}

func TestSignalsAreNotIgnoredInProcesses(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	for line := range strings.Lines(b.output(w.ID, "grep -E '^Sig(Ign|Blk)' /proc/self/status")) {
		mask, err := strconv.ParseUint(strings.TrimSpace(line[strings.Index(line, ":")+1:]), 16, 64)
		// 32 and 33 are the C library's, and QUIT is ignored in all that some shells start.
		if err != nil || mask&^(1<<31|1<<32|1<<(syscall.SIGQUIT-1)) != 0 {
			t.Errorf("%q, %v", line, err)
		}
	}
}

// What has left its session and its parents is still ended with the workspace, and signalled where groups know it.
func TestEscapees(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		p := b.sh(w.ID, "main", `setsid sh -c 'sh -c "echo \$\$; while :; do sleep 1; done" & exit' & wait; `+waitForFile)
		b.await(p, "\n")
		if b.found(w.ID).Groups.has(p.(*process).leaf) {
			pid := 0
			for c, err := range p.Output(b.ctx(), provider.Offset{}) {
				b.must(err)
				fmt.Sscan(string(c.Data), &pid)
				break
			}
			b.must(p.Signal(b.ctx(), provider.Kill))
			b.until("the escapee has ended", func() bool {
				s, err := readProc(pid)
				return err != nil || s.ended()
			})
		}
		b.must(b.Delete(b.ctx(), w.ID)) // that nothing is left is checked at the end
	})
}

// Delete is quicker than those who multiply.
func TestDeleteEndsThoseWhoMultiply(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		p := b.sh(w.ID, "main", `multiply() { while [ -d . ]; do (sleep 0.05; echo x) & sleep 0.01; setsid sh -c 'trap "" TERM; sleep 3 & sleep 1' & done; }
multiply & multiply & multiply & echo up; wait`)
		b.await(p, "x")
		b.must(b.Delete(b.ctx(), w.ID))
		_, err := p.Wait(b.ctx())
		b.want(err, provider.ErrNotFound)
	})
}

func TestNoZombies(t *testing.T) {
	b := plain(t)
	before := children(t)
	w := b.make(provider.Spec{})
	var all []provider.Process
	for i := range 20 {
		all = append(all, b.sh(w.ID, strconv.Itoa(i), "exit 0"))
	}
	for _, p := range all {
		b.exit(p)
	}
	w2 := b.make(provider.Spec{})
	b.sh(w2.ID, "main", "while :; do sleep 1; done")
	b.must(b.Delete(b.ctx(), w2.ID))
	b.must(b.Delete(b.ctx(), w.ID))
	for pid, state := range children(t) {
		if _, old := before[pid]; !old {
			t.Errorf("process %d is still a child, in state %c", pid, state)
		}
	}
}

func TestClose(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		p := b.sh(w.ID, "main", "echo up; while :; do sleep 1; done")
		b.await(p, "up")
		closing := b.another(t)
		attached, err := closing.Attach(b.ctx(), w.ID, "main")
		b.must(err)
		var all sync.WaitGroup
		ctx := b.ctx()
		all.Go(func() {
			_, err := attached.Wait(ctx)
			b.want(err, provider.ErrUnavailable)
		})
		all.Go(func() {
			for c, err := range attached.Output(ctx, provider.Offset{}) {
				if err != nil {
					b.want(err, provider.ErrUnavailable)
				} else if string(c.Data) == "up\n" {
					closing.Close()
				}
			}
		})
		all.Wait()
		closing.Close()
		closing.watcher.mu.Lock()
		if closing.watcher.notices != nil || len(closing.watcher.watched) > 0 {
			t.Error("something is still watched")
		}
		closing.watcher.mu.Unlock()
		_, err = closing.StartProcess(b.ctx(), w.ID, "late", provider.Cmd{Args: []string{"true"}})
		b.want(err, provider.ErrUnavailable)
		_, err = closing.Get(b.ctx(), w.ID)
		b.must(err)
	})
}

// A provider without processes holds nothing.
func TestNothingIsHeldAtRest(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		for i := range 3 {
			b.output(w.ID, "echo "+strconv.Itoa(i))
			b.until("the watcher rests", func() bool {
				b.watcher.mu.Lock()
				defer b.watcher.mu.Unlock()
				return b.watcher.notices == nil && b.watcher.polled == 0
			})
		}
	})
}

func TestManyAgents(t *testing.T) {
	const n = 300
	b := plain(t)
	ids := make([]string, n)
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	fail := func(err error) bool {
		if err != nil {
			t.Error(err)
		}
		return err != nil
	}
	running := make(chan struct{}, n)
	done := make(chan struct{})
	for i := range n {
		all.Go(func() {
			w, err := b.Create(ctx, provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent"})
			if fail(err) {
				running <- struct{}{}
				return
			}
			ids[i] = w.ID
			p, err := b.StartProcess(ctx, w.ID, "main", provider.Cmd{Args: []string{"sh", "-c", "echo up; while [ ! -f go ]; do sleep 0.5; done; echo down; exit 7"}})
			if fail(err) {
				running <- struct{}{}
				return
			}
			out := ""
			for c, err := range p.Output(ctx, provider.Offset{}) {
				fail(err)
				out += string(c.Data)
				if out == "up\n" {
					running <- struct{}{}
					<-done
					fail(os.WriteFile(filepath.Join(w.Home, "go"), nil, 0o600))
				}
			}
			exit, err := p.Wait(ctx)
			if fail(err); exit.Code != 7 || out != "up\ndown\n" {
				t.Errorf("agent %d: %+v, output %q", i, exit, out)
			}
			fail(b.Delete(ctx, w.ID))
		})
	}
	for range n {
		<-running
	}
	seen := 0
	for w, err := range b.List(ctx, "tests") {
		if fail(err); slices.Contains(ids, w.ID) {
			seen++
		}
		fail(b.Check(ctx, w.ID))
	}
	if seen != n {
		t.Errorf("List yields %d of %d workspaces", seen, n)
	}
	close(done)
	all.Wait()
}

func TestProcessFolder(t *testing.T) {
	seen := make(map[string]string)
	for _, name := range []string{"main", ".", "..", ".hidden", "a.b", "a/b", "a%2fb", "%2e", "A", "a", "ä", "a\x00b", strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("/", 100)} {
		folder, err := processFolder(name)
		if err != nil || folder != filepath.Base(folder) || folder[0] == '.' || len(folder) > 200 {
			t.Errorf("%q has the folder %q, %v", name, folder, err)
		}
		if other, twice := seen[folder]; twice {
			t.Errorf("%q and %q have the folder %q", name, other, folder)
		}
		seen[folder] = name
	}
	if _, err := processFolder(""); !errors.Is(err, provider.ErrInvalid) {
		t.Errorf("an empty name: %v", err)
	}
}
