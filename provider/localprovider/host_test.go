//go:build linux

package localprovider

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/provider"
)

// These tests run this test binary a second time, as a host process that they kill.
const (
	hostVariable   = "LOCALPROVIDER_TEST_HOST" // its root folder
	partVariable   = "LOCALPROVIDER_TEST_PART" // what it does
	cgroupVariable = "LOCALPROVIDER_TEST_CGROUP"
)

// playHost is the host process. It says on its standard output how far it is, and ends with its standard input.
func playHost(dir string) {
	p := New(Config{Dir: dir, Cgroup: os.Getenv(cgroupVariable)})
	ctx := context.Background()
	switch os.Getenv(partVariable) {
	case "agents":
		hostCheck(playAgents(ctx, p))
	case "churn":
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { hostCheck(playChurn(ctx, p)) })
		}
		all.Wait()
	case "name":
		name, _, err := p.OwnerName(ctx)
		hostCheck(err)
		fmt.Println(name)
	}
	io.Copy(io.Discard, os.Stdin)
}

func hostCheck(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

const waitForFile = `while [ ! -f go ]; do sleep 0.02; done; `

func playAgents(ctx context.Context, p *Provider) error {
	w, err := p.Create(ctx, provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent"})
	if err != nil {
		return err
	}
	for name, command := range map[string]string{
		"ended":   "echo out; echo err >&2; exit 3",
		"orphan":  "echo before; " + waitForFile + "cat; echo after; exit 9",
		"running": "echo up; while :; do sleep 1; done",
	} {
		started, err := p.StartProcess(ctx, w.ID, name, provider.Cmd{Args: []string{"sh", "-c", command}, Stdin: []byte("input\n")})
		if err != nil {
			return err
		}
		if name == "ended" {
			if _, err := started.Wait(ctx); err != nil {
				return err
			}
		}
	}
	fmt.Println(w.ID)
	return nil
}

// playChurn makes workspaces, starts processes and deletes again, and says a word at each step.
func playChurn(ctx context.Context, p *Provider) error {
	for {
		w, err := p.Create(ctx, provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent"})
		if err != nil {
			return err
		}
		fmt.Println("created")
		for _, name := range []string{"a", "b"} {
			if _, err := p.StartProcess(ctx, w.ID, name, provider.Cmd{Args: []string{"sh", "-c", "echo ran >>" + name + "; sleep 0.01"}}); err != nil {
				return err
			}
			fmt.Println("started")
		}
		if rand.IntN(2) == 0 {
			if err := p.Delete(ctx, w.ID); err != nil {
				return err
			}
			fmt.Println("deleted")
		}
	}
}

// startHost starts a host process and returns what it says. kill kills it.
func (b *bench) startHost(part string) (said *bufio.Scanner, kill func()) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hostVariable+"="+b.cfg.Dir, partVariable+"="+part, cgroupVariable+"="+b.cfg.Cgroup)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	b.must(err)
	out, err := cmd.StdoutPipe()
	b.must(err)
	b.must(cmd.Start())
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		in.Close()
		io.Copy(io.Discard, out)
		cmd.Wait()
	})
	b.Cleanup(kill)
	return bufio.NewScanner(out), kill
}

func (b *bench) hear(said *bufio.Scanner) string {
	b.Helper()
	if !said.Scan() || strings.HasPrefix(said.Text(), "failed") {
		b.Fatalf("the host process says %q, %v", said.Text(), said.Err())
	}
	return said.Text()
}

func TestAgentsSurviveTheirHost(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		if b.system.without != nil {
			return // the host process cannot pretend it
		}
		said, kill := b.startHost("agents")
		id := b.hear(said)
		b.Cleanup(func() { b.must(b.Delete(b.ctx(), id)) })
		kill()

		attach := func(name string) provider.Process {
			p, err := b.Attach(b.ctx(), id, name)
			b.must(err)
			return p
		}
		ended := attach("ended")
		if exit := b.exit(ended); exit.Code != 3 || exit.Signal != "" || exit.At.IsZero() {
			t.Errorf("Wait of what had ended before: %+v", exit)
		}
		if out := b.read(ended); out != "out\nerr\n" {
			t.Errorf("output of what had ended before: %q", out)
		}
		orphan := attach("orphan")
		b.await(orphan, "before")
		b.output(id, "touch go")
		if exit := b.exit(orphan); exit.Code != 9 {
			t.Errorf("Wait of what ended without its host: %+v", exit)
		}
		if out := b.read(orphan); out != "before\ninput\nafter\n" {
			t.Errorf("output of what ended without its host: %q", out)
		}
		running := attach("running")
		b.await(running, "up")
		b.must(b.Check(b.ctx(), id))
		b.must(running.Signal(b.ctx(), provider.Term))
		if exit := b.exit(running); exit.Signal != "SIGTERM" {
			t.Errorf("Wait of what was ended by another host: %+v", exit)
		}
		for _, name := range []string{"ended", "orphan", "running"} {
			_, err := b.StartProcess(b.ctx(), id, name, provider.Cmd{Args: []string{"true"}})
			b.want(err, provider.ErrExists)
		}
	})
}

// A host process dies at any moment. What it leaves can be observed, is as if each step had happened or not, and no
// process has been or will be started twice.
func TestHostDiesAnywhere(t *testing.T) {
	for _, cgroup := range []string{"", "-"} {
		b := newBench(t, system{}, Config{Cgroup: cgroup})
		for range 8 {
			said, kill := b.startHost("churn")
			for range 1 + rand.IntN(40) {
				b.hear(said)
			}
			kill()
			b.takeOver()
		}
	}
}

// takeOver deletes all that a host process has left, after it has started again what was started.
func (b *bench) takeOver() {
	b.Helper()
	for w, err := range b.List(b.ctx(), "tests") {
		b.must(err)
		if w.State == provider.Deleting {
			continue
		}
		for _, name := range []string{"a", "b"} {
			p, err := b.StartProcess(b.ctx(), w.ID, name, provider.Cmd{Args: []string{"sh", "-c", "echo ran >>" + name}})
			if errors.Is(err, provider.ErrExists) {
				p, err = b.Attach(b.ctx(), w.ID, name)
			}
			b.must(err)
			_, err = p.Wait(b.ctx())
			lost := errors.Is(err, provider.ErrLost) // told to start, but its host died before it could say so
			if !lost {
				b.must(err)
			}
			got, err := os.ReadFile(b.found(w.ID).file(homeFolder, name))
			if string(got) != "ran\n" && !(lost && errors.Is(err, os.ErrNotExist)) {
				b.Errorf("process %s has written %q, lost: %v", name, got, lost)
			}
		}
		b.must(b.Delete(b.ctx(), w.ID))
	}
	for _, err := range b.List(b.ctx(), "tests") { // which sweeps what was half-made
		b.must(err)
	}
}

func TestNameOfADeadHostIsFoundAgain(t *testing.T) {
	b := plain(t)
	said, kill := b.startHost("name")
	name := b.hear(said)
	mine, release, err := b.OwnerName(b.ctx())
	b.must(err)
	if mine == name {
		t.Errorf("two live processes are %q", name)
	}
	defer release()
	kill()
	next, releaseNext, err := b.another(t).OwnerName(b.ctx())
	b.must(err)
	defer releaseNext()
	if next != name {
		t.Errorf("the next process is %q, the dead one was %q", next, name)
	}
}
