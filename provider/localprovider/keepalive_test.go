//go:build linux

package localprovider

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// When every host process is gone the watchdog ends what is past its time, and goes itself.
func TestWatchdog(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w, kept := b.make(provider.Spec{}), b.make(provider.Spec{})
		p := b.sh(w.ID, "main", "echo up; while :; do sleep 1; done")
		q := b.sh(kept.ID, "main", "echo up; while :; do sleep 1; done")
		b.await(p, "up")
		b.must(b.KeepAlive(b.ctx(), kept.ID, time.Hour))
		watchdog := b.watchdog()
		b.must(b.KeepAlive(b.ctx(), kept.ID, 2*time.Hour))
		if again := b.watchdog(); again != watchdog {
			t.Error("there are two watchdogs")
		}
		// A second one, since the first sleeps for half a minute.
		b.must(stopAndWait(b, watchdog))
		b.must(b.KeepAlive(b.ctx(), w.ID, time.Second))
		if b.watchdog() == watchdog {
			t.Error("no watchdog was started")
		}
		_, err := p.Wait(b.ctx()) // nobody but the watchdog does anything
		b.want(err, provider.ErrLost)
		if exit, err := os.ReadFile(q.(*process).file(exitFile)); err != nil || len(exit) == 0 {
			t.Error(err)
		}
		b.must(b.Check(b.ctx(), kept.ID))
		_, err = b.Get(b.ctx(), w.ID)
		b.want(err, provider.ErrNotFound)
		b.want(b.KeepAlive(b.ctx(), kept.ID, 0), provider.ErrInvalid)
		got, err := b.Get(b.ctx(), kept.ID)
		if err != nil || time.Until(got.Expires) < time.Hour {
			t.Errorf("Get: %+v, %v", got, err)
		}
		last := b.watchdog()
		b.must(b.Delete(b.ctx(), kept.ID))
		r, err := b.open()
		b.must(err)
		if last.alive(r.boot) {
			t.Error("the watchdog watches nothing")
		}
	})
}

func (b *bench) watchdog() supervisor {
	b.Helper()
	r, err := b.open()
	b.must(err)
	var s supervisor
	b.until("the watchdog has said who it is", func() bool {
		s, err = parseSupervisor(readText(r.path(watchdogFile)))
		return err == nil
	})
	return s
}

// stopAndWait ends the watchdog as a fault would.
func stopAndWait(b *bench, s supervisor) error {
	r, err := b.open()
	if err != nil {
		return err
	}
	return errors.Join(syscall.Kill(-s.pid, syscall.SIGKILL), b.watcher.drain(b.ctx(), r.path(watchdogFile)))
}

func TestExpiredWorkspaceIsSwept(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	p := b.sh(w.ID, "main", "echo up; while :; do sleep 1; done")
	b.await(p, "up")
	b.must(os.WriteFile(b.found(w.ID).file(expiresFile), []byte("1 \n"), 0o600))
	_, err := b.StartProcess(b.ctx(), w.ID, "late", provider.Cmd{Args: []string{"true"}})
	b.want(err, provider.ErrConflict)
	b.want(b.KeepAlive(b.ctx(), w.ID, time.Hour), provider.ErrConflict)
	for w, err := range b.another(t).List(b.ctx(), "somebody else") {
		t.Errorf("List: %+v, %v", w, err)
	}
	_, err = b.Get(b.ctx(), w.ID)
	b.want(err, provider.ErrNotFound)
}
