package providertest

import (
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

func signalCases() []conformance {
	return []conformance{
		{
			name: "signal/term",
			rule: "Term reaches a process, which may handle it and exit with a code; one that does not is ended by it.",
			run: func(e *env) {
				w := e.boot()
				p := e.start(w.ID, "handles", Action{Verb: OnTerm, N: 7}, Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
				up := e.await(p, provider.Offset{}, "up")
				e.must("Signal", p.Signal(e.ctx(), provider.Term))
				if exit := e.exit(p); exit.Code != 7 || exit.Signal != "" {
					e.t.Errorf("Wait: %+v, want code 7", exit)
				}
				e.await(p, up.next, "term\n")

				p = e.start(w.ID, "does-not", Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
				e.await(p, provider.Offset{}, "up")
				e.must("Signal", p.Signal(e.ctx(), provider.Term))
				if exit := e.exit(p); exit.Signal != "SIGTERM" {
					e.t.Errorf("Wait: %+v, want SIGTERM", exit)
				}
			},
		},
		{
			name: "signal/kill",
			rule: "A process that ignores Term goes on; Kill ends it.",
			run: func(e *env) {
				w := e.boot()
				p := e.start(w.ID, "stubborn", Action{Verb: IgnoreTerm}, Action{Verb: Out, Text: "up"}, Action{Verb: Tick})
				e.await(p, provider.Offset{}, "up")
				e.must("Signal", p.Signal(e.ctx(), provider.Term))
				now := e.await(p, provider.Offset{}, "tick\n")
				e.await(p, now.next, "tick\ntick\ntick\n")
				e.must("Signal", p.Signal(e.ctx(), provider.Kill))
				if exit := e.exit(p); exit.Signal != "SIGKILL" {
					e.t.Errorf("Wait: %+v, want SIGKILL", exit)
				}
			},
		},
		{
			name: "signal/descendants",
			rule: "A signal reaches what the process has started too.",
			run:  signalDescendants,
		},
		{
			name: "signal/ended",
			rule: "A signal to a process that has ended is nil and changes nothing.",
			run: func(e *env) {
				w := e.boot()
				p := e.start(w.ID, "short", Action{Verb: Exit, N: 4})
				e.exit(p)
				for _, sig := range []provider.Signal{provider.Term, provider.Kill} {
					e.must("Signal", p.Signal(e.ctx(), sig))
				}
				if exit := e.exit(p); exit.Code != 4 || exit.Signal != "" {
					e.t.Errorf("Wait: %+v, want code 4", exit)
				}
			},
		},
	}
}

func signalDescendants(e *env) {
	w := e.boot()
	for sig, file := range map[provider.Signal]string{provider.Term: "beat-term", provider.Kill: "beat-kill"} {
		child := Action{Verb: Spawn, Then: []Action{{Verb: Beat, Path: file}}}
		p := e.start(w.ID, file, Action{Verb: Spawn, Then: []Action{child, {Verb: Hang}}}, Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
		e.await(p, provider.Offset{}, "up")
		e.until("the grandchild runs", func() bool { return e.run(w.ID, Action{Verb: Size, Path: file}) != "0\n" })
		e.must("Signal", p.Signal(e.ctx(), sig))
		e.exit(p)
		e.until("the grandchild has ended", func() bool { return still(e, w.ID, file) })
	}
}

// still says whether a file stops growing.
func still(e *env, id, path string) bool {
	e.t.Helper()
	size := Action{Verb: Size, Path: path}
	first, second, _ := strings.Cut(e.run(id, size, Action{Verb: Sleep, N: 300}, size), "\n")
	return first == strings.TrimSpace(second)
}
