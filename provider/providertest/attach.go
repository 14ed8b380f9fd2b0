package providertest

import (
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

func attachCases() []conformance {
	attacher := ability[provider.Attacher]("an Attacher")
	return []conformance{
		{
			name:  "attach/same",
			rule:  "Attach finds a process by its name, running or ended; a name that was never used in this workspace is ErrNotFound.",
			needs: []need{attacher},
			run: func(e *env) {
				w, other := e.boot(), e.boot()
				started := e.start(w.ID, "main", Action{Verb: OnTerm, N: 6}, Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
				e.await(started, provider.Offset{}, "up")
				p := attach(e, w.ID, "main")
				e.await(p, provider.Offset{}, "up")
				e.must("Signal", p.Signal(e.ctx(), provider.Term))
				for _, p := range []provider.Process{started, p, attach(e, w.ID, "main")} {
					if exit := e.exit(p); exit.Code != 6 {
						e.t.Errorf("Wait: %+v, want code 6", exit)
					}
				}
				a, _ := provider.As[provider.Attacher](e.p)
				_, err := a.Attach(e.ctx(), w.ID, "other")
				e.want("Attach to an unknown name", err, provider.ErrNotFound)
				_, err = a.Attach(e.ctx(), other.ID, "main")
				e.want("Attach in another workspace", err, provider.ErrNotFound)
			},
		},
		{
			name:  "attach/after-restart",
			rule:  "Processes outlive their host process. A new one finds them by name: running ones go on, ended ones have their exit, and the output of both is there from any offset, no byte lost or doubled.",
			needs: []need{attacher, attaches, reopens},
			run:   attachAfterRestart,
		},
		{
			name:  "attach/workspace-after-restart",
			rule:  "A new host process sees the workspaces of the old one: by id, by token, in the list; their files are there and they can be deleted.",
			needs: []need{reopens},
			run:   workspaceAfterRestart,
		},
	}
}

func attach(e *env, id, name string) provider.Process {
	e.t.Helper()
	a, _ := provider.As[provider.Attacher](e.p)
	p, err := a.Attach(e.ctx(), id, name)
	e.must("Attach", err)
	return p
}

func attachAfterRestart(e *env) {
	const n = 5000
	w := e.boot()
	e.exit(e.start(w.ID, "ended", Action{Verb: Flood, N: n}, Action{Verb: Exit, N: 3}))
	e.exit(e.start(w.ID, "killed", Action{Verb: KillSelf}))
	p := e.start(w.ID, "running", Action{Verb: OnTerm, N: 5}, Action{Verb: Out, Text: "begin"}, Action{Verb: Tick})
	read := e.await(p, provider.Offset{}, "tick\n")
	e.start(w.ID, "ending", Action{Verb: Sleep, N: 200}, Action{Verb: Out, Text: "end"}, Action{Verb: Exit, N: 9})
	quiet := e.start(w.ID, "quiet", Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
	e.await(quiet, provider.Offset{}, "up")

	e.p = e.h.Reopen(e.t, e.p)

	ended := attach(e, w.ID, "ended")
	if exit := e.exit(ended); exit.Code != 3 || exit.Signal != "" {
		e.t.Errorf("Wait of an ended process: %+v, want code 3", exit)
	}
	for _, from := range []int64{0, 16*n/2 + 3} {
		got, err := e.read(ended, provider.Offset{Stdout: from})
		e.must("Output of an ended process", err)
		flooded(e, got.out, from, n)
	}
	if exit := e.exit(attach(e, w.ID, "killed")); exit.Signal != "SIGKILL" {
		e.t.Errorf("Wait of a killed process: %+v", exit)
	}
	ending := attach(e, w.ID, "ending")
	if exit := e.exit(ending); exit.Code != 9 {
		e.t.Errorf("Wait of a process that ended under a new host: %+v, want code 9", exit)
	}
	e.await(ending, provider.Offset{}, "end\n")
	for _, name := range []string{"ended", "running"} {
		_, err := e.p.StartProcess(e.ctx(), w.ID, name, e.h.Cmd())
		e.want("StartProcess with a name of before", err, provider.ErrExists)
	}

	running := attach(e, w.ID, "running")
	more := e.await(running, read.next, "tick\ntick\n")
	e.must("Signal", running.Signal(e.ctx(), provider.Term))
	rest, err := e.read(running, more.next)
	e.must("Output", err)
	if exit := e.exit(running); exit.Code != 5 {
		e.t.Errorf("Wait of a running process: %+v, want code 5", exit)
	}
	pieces := string(read.out) + string(more.out) + string(rest.out)
	whole, err := e.read(running, provider.Offset{})
	e.must("Output", err)
	if pieces != string(whole.out) || !strings.HasPrefix(pieces, "begin\ntick\n") || !strings.HasSuffix(pieces, "term\n") {
		e.t.Errorf("Output in pieces %q, whole %q", pieces, whole.out)
	}

	orphan := attach(e, w.ID, "quiet")
	e.must("Signal", orphan.Signal(e.ctx(), provider.Kill))
	if exit := e.exit(orphan); exit.Signal != "SIGKILL" {
		e.t.Errorf("Wait of a process killed by a new host: %+v", exit)
	}
}

func workspaceAfterRestart(e *env) {
	req := e.request()
	w := e.bootAs(req)
	e.run(w.ID, Action{Verb: Write, Path: "kept.txt", Text: "kept"})

	e.p = e.h.Reopen(e.t, e.p)

	got := e.ready(w.ID)
	if got.ID != w.ID || got.Token != w.Token || got.Owner != w.Owner || got.Agent != w.Agent || got.Home != w.Home {
		e.t.Errorf("Get: %+v, before %+v", got, w)
	}
	if text, ok := e.file(w.ID, "kept.txt"); !ok || text != "kept" {
		e.t.Errorf("a file of before reads %q, %v", text, ok)
	}
	if e.caps.Create == provider.Idempotent {
		again, err := e.create(req)
		e.must("Create again", err)
		if again.ID != w.ID {
			e.t.Errorf("Create again: %q, want %q", again.ID, w.ID)
		}
	}
	if _, ok := provider.As[provider.Lister](e.p); ok {
		if all := listed(e, e.owner); len(all) != 1 {
			e.t.Errorf("List: %v, want one workspace", all)
		}
	}
	e.gone(w.ID)
}
