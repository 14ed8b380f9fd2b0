package providertest

import (
	"context"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func pauseCases() []conformance {
	pauser := ability[provider.Pauser]("a Pauser")
	all := []conformance{{
		name:  "pause/kinds",
		rule:  "Pause of a kind that Capabilities does not list is ErrInvalid and changes nothing.",
		needs: []need{pauser},
		run: func(e *env) {
			w := e.boot()
			a, _ := provider.As[provider.Pauser](e.p)
			e.want("Pause", a.Pause(e.ctx(), w.ID, "no such kind"), provider.ErrInvalid)
			e.ready(w.ID)
		},
	}}
	for _, kind := range []provider.PauseKind{provider.Frozen, provider.Hibernated, provider.DiskOnly} {
		all = append(all, conformance{
			name:  "pause/" + string(kind),
			rule:  "Pause and Resume return when it is done, and may be repeated. A paused workspace starts nothing and makes no progress. Files are kept; processes and memory as the kind of pause says, and as warm says.",
			needs: []need{pauser, pauses(kind)},
			run:   func(e *env) { pause(e, kind) },
		}, conformance{
			name:  "pause/delete-" + string(kind),
			rule:  "Delete works while a workspace is paused.",
			needs: []need{pauser, pauses(kind)},
			run: func(e *env) {
				w := e.boot()
				e.start(w.ID, "hang", Action{Verb: Hang})
				a, _ := provider.As[provider.Pauser](e.p)
				e.must("Pause", a.Pause(e.ctx(), w.ID, kind))
				e.gone(w.ID)
				_, err := a.Resume(e.ctx(), w.ID)
				e.want("Resume of what is gone", err, provider.ErrNotFound)
			},
		})
	}
	return all
}

func pause(e *env, kind provider.PauseKind) {
	a, _ := provider.As[provider.Pauser](e.p)
	w := e.boot()
	e.run(w.ID, Action{Verb: Write, Path: "kept.txt", Text: "kept"})
	p := e.start(w.ID, "ticker", Action{Verb: Tick})
	seen := e.await(p, provider.Offset{}, "tick\n")

	for range 2 {
		e.must("Pause", a.Pause(e.ctx(), w.ID, kind))
		if got, err := e.p.Get(e.ctx(), w.ID); err != nil || got.State != provider.Paused || got.Ready {
			e.t.Errorf("Get while paused: %+v, %v", got, err)
		}
	}
	if err := provider.Check(e.ctx(), e.p, w.ID); err == nil {
		e.t.Error("Check of a paused workspace is nil")
	}
	_, err := e.p.StartProcess(e.ctx(), w.ID, "early", e.h.Cmd())
	e.want("StartProcess while paused", err, provider.ErrConflict)
	seen.next = quiet(e, p, quiet(e, p, seen.next, false), true)

	warm, err := a.Resume(e.ctx(), w.ID)
	e.must("Resume", err)
	e.ready(w.ID)
	again, err := a.Resume(e.ctx(), w.ID)
	e.must("Resume again", err)
	if again && !warm {
		e.t.Error("Resume is cold, and again warm")
	}
	if text, ok := e.file(w.ID, "kept.txt"); !ok || text != "kept" {
		e.t.Errorf("a file of before reads %q, %v", text, ok)
	}
	e.exit(e.start(w.ID, "early"))
	if warm {
		if kind == provider.DiskOnly {
			e.t.Error("warm after a pause that keeps the disk only")
		}
		e.await(p, seen.next, "tick\ntick\n")
		e.must("Signal", p.Signal(e.ctx(), provider.Kill))
		if exit := e.exit(p); exit.Signal != "SIGKILL" {
			e.t.Errorf("Wait: %+v, want SIGKILL", exit)
		}
		return
	}
	if exit, err := p.Wait(e.ctx()); err == nil && exit.Signal == "" {
		e.t.Errorf("Wait of a process that did not survive: %+v", exit)
	} else if err != nil {
		e.want("Wait of a process that did not survive", err, provider.ErrLost)
	}
}

// quiet reads what a process of a paused workspace shows within half a second. After the first reading, which takes what
// was written before the pause, there must be nothing. A provider may also refuse.
func quiet(e *env, p provider.Process, from provider.Offset, silent bool) provider.Offset {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	got, _ := e.readUntil(ctx, p, from, func(output) bool { return false })
	if silent && got.next != from {
		e.t.Errorf("a paused process writes %q", got.out)
	}
	return got.next
}
