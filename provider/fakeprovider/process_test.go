package fakeprovider_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func TestNoMain(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{})
	defer p.Close()
	proc := start(t, p, create(t, p, "t").ID, "main")
	exit, err := proc.Wait(t.Context())
	if err != nil || exit.Code != 0 || exit.Signal != "" || exit.At.IsZero() {
		t.Errorf("Wait: %+v, %v", exit, err)
	}
	if got := text(t, proc); got != "" {
		t.Errorf("Output: %q", got)
	}
}

func TestTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
			if p.Name == "handles" {
				<-p.Term()
				p.Sleep(5 * time.Second) // cleans up
				fmt.Fprint(p.Stdout, "clean")
				return 3
			}
			<-ctx.Done()
			return 4 // too late
		}})
		defer p.Close()
		w := create(t, p, "t")
		for name, want := range map[string]provider.Exit{"handles": {Code: 3}, "ignores": {Signal: "SIGTERM"}} {
			proc := start(t, p, w.ID, name)
			synctest.Wait()
			check(t, "Signal", proc.Signal(t.Context(), provider.Term))
			check(t, "Signal again", proc.Signal(t.Context(), provider.Term))
			exit, err := proc.Wait(t.Context())
			exit.At = time.Time{}
			if err != nil || exit != want {
				t.Errorf("%s: %+v, %v; want %+v", name, exit, err, want)
			}
		}
	})
}

func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan error, 3)
		p := fakeprovider.New(fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
			fmt.Fprint(p.Stdout, "eats memory")
			p.Crash(provider.Exit{Signal: "SIGKILL", OOM: true})
			<-ctx.Done()
			_, err := p.Stdout.Write([]byte("late"))
			late <- err
			late <- p.WriteFile("late", nil)
			late <- p.Sleep(time.Hour)
			return 0
		}})
		defer p.Close()
		proc := start(t, p, create(t, p, "t").ID, "main")
		exit, err := proc.Wait(t.Context())
		if err != nil || exit.Signal != "SIGKILL" || !exit.OOM {
			t.Errorf("Wait: %+v, %v", exit, err)
		}
		if got := text(t, proc); got != "eats memory" {
			t.Errorf("Output: %q", got)
		}
		wantErr(t, "Write after the end", <-late, io.ErrClosedPipe)
		wantErr(t, "WriteFile after the end", <-late, io.ErrClosedPipe)
		wantErr(t, "Sleep after the end", <-late, io.ErrClosedPipe)
	})
}

func TestProcessFiles(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
		err := errors.Join(p.WriteFile("a.txt", []byte("a")), p.WriteFile("../b.txt", []byte("b")), p.WriteFile("/home/agent/c.txt", []byte("c")))
		for name, want := range map[string]string{
			"a.txt": "a", "./a.txt": "a", "/home/agent/sub/a.txt": "a", "../sub/a.txt": "a", "../b.txt": "b", "../c.txt": "c",
		} {
			if got, readErr := p.ReadFile(name); readErr != nil || string(got) != want {
				err = errors.Join(err, fmt.Errorf("%s: %q, %v", name, got, readErr))
			}
		}
		for _, name := range []string{"../../x", "/etc/passwd", "/home/agent2/x"} {
			if writeErr := p.WriteFile(name, nil); !errors.Is(writeErr, fs.ErrPermission) {
				err = errors.Join(err, fmt.Errorf("%s: %v", name, writeErr))
			}
		}
		for _, name := range []string{"missing", "/home/agent", "a.txt/b"} {
			if _, readErr := p.ReadFile(name); !errors.Is(readErr, fs.ErrNotExist) {
				err = errors.Join(err, fmt.Errorf("%s: %v", name, readErr))
			}
		}
		for _, name := range []string{".", "a.txt/b"} {
			if p.WriteFile(name, nil) == nil {
				err = errors.Join(err, fmt.Errorf("WriteFile(%s) is nil", name))
			}
		}
		if err != nil {
			fmt.Fprint(p.Stdout, err)
			return 1
		}
		return 0
	}})
	defer p.Close()
	w := create(t, p, "t")
	proc, err := p.StartProcess(t.Context(), w.ID, "main", provider.Cmd{Args: []string{"a"}, Dir: "sub"})
	check(t, "StartProcess", err)
	if got := text(t, proc); got != "" {
		t.Error(got)
	}
}

func TestPausedProcessWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := fakeprovider.New(fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
			switch p.Name {
			case "sleeps":
				p.Sleep(time.Minute)
			case "writes":
				time.Sleep(time.Minute) // a Go function goes on; it is held at its next effect
				fmt.Fprint(p.Stdout, "late")
			case "writes-file":
				time.Sleep(time.Minute)
				p.WriteFile("f", nil)
			case "returns":
				time.Sleep(time.Minute)
			}
			return 0
		}})
		defer p.Close()
		w := create(t, p, "t")
		var procs []provider.Process
		for _, name := range []string{"sleeps", "writes", "writes-file", "returns"} {
			procs = append(procs, start(t, p, w.ID, name))
		}
		synctest.Wait()
		check(t, "Pause", p.Pause(t.Context(), w.ID, provider.Hibernated))
		wantErr(t, "Pause of another kind", p.Pause(t.Context(), w.ID, provider.Frozen), provider.ErrConflict)
		wantErr(t, "Signal while paused", procs[0].Signal(t.Context(), provider.Term), provider.ErrConflict)
		time.Sleep(time.Hour)
		_, err := p.Resume(t.Context(), w.ID)
		check(t, "Resume", err)
		for i, proc := range procs {
			exit, err := proc.Wait(t.Context())
			if err != nil || exit.At.Sub(begin) != time.Hour {
				t.Errorf("process %d: ended after %v, %v", i, exit.At.Sub(begin), err)
			}
		}
	})
}

func TestBurn(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
		p.Burn(2 * time.Second)
		return 0
	}})
	defer p.Close()
	w := create(t, p, "t")
	for _, name := range []string{"a", "b"} {
		_, err := start(t, p, w.ID, name).Wait(t.Context())
		check(t, "Wait", err)
	}
	if u, err := p.Usage(t.Context(), w.ID); err != nil || u.CPUTime != 4*time.Second {
		t.Errorf("Usage: %+v, %v", u, err)
	}
}
