//go:build linux

package localprovider

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func TestPause(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		p := b.sh(w.ID, "main", `setsid sh -c 'while :; do echo x; sleep 0.01; done' & while :; do (sleep 0.01 &) ; sleep 0.01; done`)
		b.await(p, "x")
		b.want(b.Pause(b.ctx(), w.ID, provider.DiskOnly), provider.ErrInvalid)
		for range 3 {
			b.must(b.Pause(b.ctx(), w.ID, provider.Frozen))
			b.must(b.Pause(b.ctx(), w.ID, provider.Frozen))
			b.checkStill(p)
			got, err := b.another(t).Get(b.ctx(), w.ID)
			if err != nil || got.State != provider.Paused || got.Ready {
				t.Errorf("Get: %+v, %v", got, err)
			}
			b.want(b.Check(b.ctx(), w.ID), provider.ErrConflict)
			_, err = b.StartProcess(b.ctx(), w.ID, "late", provider.Cmd{Args: []string{"true"}})
			b.want(err, provider.ErrConflict)
			for range 2 {
				warm, err := b.Resume(b.ctx(), w.ID)
				if err != nil || !warm {
					t.Errorf("Resume: %v, %v", warm, err)
				}
			}
			b.goesOn(p)
		}
		b.must(b.Pause(b.ctx(), w.ID, provider.Frozen))
		b.must(p.Signal(b.ctx(), provider.Kill))
		b.must(b.Delete(b.ctx(), w.ID))
	})
}

func TestPauseWithoutProcesses(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		b.must(b.Pause(b.ctx(), w.ID, provider.Frozen))
		if got, err := b.Get(b.ctx(), w.ID); err != nil || got.State != provider.Paused {
			t.Errorf("Get: %+v, %v", got, err)
		}
		_, err := b.Resume(b.ctx(), w.ID)
		b.must(err)
		b.output(w.ID, "true")
	})
}

// After a new start of the machine nothing that was paused is there any more.
func TestResumeAfterANewStart(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	b.must(b.Pause(b.ctx(), w.ID, provider.Frozen))
	b.must(os.WriteFile(b.found(w.ID).file(pausedFile), []byte("another boot"), 0o600))
	if got, err := b.Get(b.ctx(), w.ID); err != nil || got.State != provider.Paused {
		t.Errorf("Get: %+v, %v", got, err)
	}
	warm, err := b.Resume(b.ctx(), w.ID)
	if err != nil || warm {
		t.Errorf("Resume: %v, %v", warm, err)
	}
}

// A pause that somebody has undone by hand shows.
func TestPauseIsObserved(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	p := b.sh(w.ID, "main", "echo up; while :; do sleep 1; done")
	b.await(p, "up")
	b.must(b.Pause(b.ctx(), w.ID, provider.Frozen))
	g := b.found(w.ID).Groups
	if g.has(g.Tree) {
		b.must(g.thaw(g.Tree))
		b.until("the workspace is changing", func() bool {
			got, err := b.Get(b.ctx(), w.ID)
			b.must(err)
			return got.State == provider.Changing
		})
		b.must(b.Pause(b.ctx(), w.ID, provider.Frozen))
	}
	_, err := b.Resume(b.ctx(), w.ID)
	b.must(err)
}

// checkStill checks that a process writes nothing for a while.
func (b *bench) checkStill(p provider.Process) {
	b.Helper()
	end := b.outputEnd(p)
	ctx, cancel := context.WithTimeout(b.ctx(), 100*time.Millisecond)
	defer cancel()
	for c, err := range p.Output(ctx, end) {
		if err == nil {
			b.Errorf("a paused process has written %q", c.Data)
			return
		}
	}
}

// goesOn waits until a process writes something.
func (b *bench) goesOn(p provider.Process) {
	b.Helper()
	for _, err := range p.Output(b.ctx(), b.outputEnd(p)) {
		b.must(err)
		return
	}
}

// outputEnd is where the output ends now.
func (b *bench) outputEnd(p provider.Process) provider.Offset {
	b.Helper()
	c := p.(*process).claim
	out, err := os.Stat(c.file(stdoutFile))
	b.must(err)
	diag, err := os.Stat(c.file(stderrFile))
	b.must(err)
	return provider.Offset{Stdout: out.Size(), Stderr: diag.Size()}
}
