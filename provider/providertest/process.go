package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func processCases() []conformance {
	return []conformance{
		{
			name: "process/exit",
			rule: "Wait returns the exit code of a process that exits by itself, and the name of the signal that ends it otherwise.",
			run:  processExit,
		},
		{
			name: "process/input",
			rule: "A process gets all of its standard input and then its end, its environment, and starts in its folder.",
			run:  processInput,
		},
		{
			name: "process/no-program",
			rule: "A program that does not exist is ErrInvalid, or a process that ends with a code other than 0.",
			run: func(e *env) {
				w := e.boot()
				p, err := e.p.StartProcess(e.ctx(), w.ID, "none", provider.Cmd{Args: []string{"providertest-no-such-program"}})
				if err != nil {
					e.want("StartProcess", err, provider.ErrInvalid)
					return
				}
				if exit := e.exit(p); exit.Code == 0 && exit.Signal == "" {
					e.t.Errorf("Wait: %+v", exit)
				}
			},
		},
		{
			name: "process/names",
			rule: "A name is used once in a workspace: again it is ErrExists and starts nothing, also when that process has ended. Another workspace has names of its own.",
			run:  processNames,
		},
		{
			name: "process/names-concurrent",
			rule: "Of many that start a process of one name at the same time exactly one does.",
			run:  processNamesConcurrent,
		},
		{
			name: "process/secrets",
			rule: "What a process gets in its environment and on its standard input is in no error and no observation.",
			run:  processSecrets,
		},
		{
			name: "process/wait",
			rule: "Wait answers as often and to as many as ask, before and after the end. The end of its context ends the wait alone.",
			run:  processWait,
		},
	}
}

func processExit(e *env) {
	w := e.boot()
	for _, code := range []int{0, 1, 75, 255} {
		exit := e.exit(e.start(w.ID, fmt.Sprintf("exit-%d", code), Action{Verb: Exit, N: code}))
		if exit.Code != code || exit.Signal != "" || exit.OOM {
			e.t.Errorf("exit with %d: %+v", code, exit)
		}
	}
	exit := e.exit(e.start(w.ID, "killed", Action{Verb: KillSelf}))
	if exit.Signal != "SIGKILL" {
		e.t.Errorf("end by SIGKILL: %+v", exit)
	}
}

func processInput(e *env) {
	w := e.boot()
	all := make([]byte, 1<<20)
	for i := range all {
		all[i] = byte(i ^ i>>8 ^ i>>16)
	}
	for name, stdin := range map[string][]byte{"none": nil, "short": []byte("no newline at the end"), "long": all} {
		cmd := e.h.Cmd(Action{Verb: Cat})
		cmd.Stdin = stdin
		p, err := e.p.StartProcess(e.ctx(), w.ID, "stdin-"+name, cmd)
		e.must("StartProcess", err)
		got, err := e.read(p, provider.Offset{})
		e.must("Output", err)
		if !bytes.Equal(got.out, stdin) {
			e.t.Errorf("standard input (%s): %d bytes of %d arrived, or others", name, len(got.out), len(stdin))
		}
	}

	e.run(w.ID, Action{Verb: Write, Path: "some/folder/here.txt", Text: "in the folder"})
	value := "two words, 'quotes' \"both\", $HOME and\na second line"
	cmd := e.h.Cmd(Action{Verb: Env, Text: "PT_VALUE"}, Action{Verb: Read, Path: "here.txt"})
	cmd.Dir, cmd.Env = "some/folder", map[string]string{"PT_VALUE": value, "PT_EMPTY": ""}
	p, err := e.p.StartProcess(e.ctx(), w.ID, "env", cmd)
	e.must("StartProcess", err)
	got, err := e.read(p, provider.Offset{})
	e.must("Output", err)
	if want := value + "\nin the folder"; string(got.out) != want {
		e.t.Errorf("environment and folder: %q, want %q; standard error %q", got.out, want, got.err)
	}
}

func processNames(e *env) {
	w := e.boot()
	p := e.start(w.ID, "once", Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
	e.await(p, provider.Offset{}, "up")
	_, err := e.p.StartProcess(e.ctx(), w.ID, "once", e.h.Cmd(Action{Verb: Write, Path: "second.txt", Text: "started"}))
	e.want("StartProcess while the first one runs", err, provider.ErrExists)
	e.must("Signal", p.Signal(e.ctx(), provider.Kill))
	e.exit(p)
	_, err = e.p.StartProcess(e.ctx(), w.ID, "once", e.h.Cmd(Action{Verb: Write, Path: "second.txt", Text: "started"}))
	e.want("StartProcess after the end of the first one", err, provider.ErrExists)
	if _, ok := e.file(w.ID, "second.txt"); ok {
		e.t.Error("a refused process has run")
	}
	e.exit(e.start(e.boot().ID, "once"))

	// Every name that the contract allows is a name of its own.
	for _, name := range []string{"a", "A", "-", "-rf", ".", "..", ".hidden", "once.", "once_1", strings.Repeat("long", 32)} {
		p := e.start(w.ID, name, Action{Verb: Out, Text: "named"})
		got, err := e.read(p, provider.Offset{})
		e.must("Output", err)
		if string(got.out) != "named\n" {
			e.t.Errorf("process %q: output %q", name, got.out)
		}
		_, err = e.p.StartProcess(e.ctx(), w.ID, name, e.h.Cmd())
		e.want("StartProcess again", err, provider.ErrExists)
	}
}

func processNamesConcurrent(e *env) {
	w := e.boot()
	started := make(chan provider.Process, 8)
	var starts sync.WaitGroup
	for range cap(started) {
		starts.Go(func() {
			p, err := e.p.StartProcess(e.ctx(), w.ID, "race", e.h.Cmd(Action{Verb: Out, Text: "ran"}))
			switch {
			case err == nil:
				started <- p
			case !errors.Is(err, provider.ErrExists):
				e.t.Errorf("StartProcess: %v, want ErrExists", err)
			}
		})
	}
	starts.Wait()
	if n := len(started); n != 1 {
		e.t.Fatalf("%d processes were started", n)
	}
	got, err := e.read(<-started, provider.Offset{})
	e.must("Output", err)
	if string(got.out) != "ran\n" {
		e.t.Errorf("output %q", got.out)
	}
}

func processSecrets(e *env) {
	w := e.boot()
	secret := random()
	cmd := e.h.Cmd()
	cmd.Env, cmd.Stdin = map[string]string{"PT_SECRET": secret}, []byte(secret)
	p, err := e.p.StartProcess(e.ctx(), w.ID, "main", cmd)
	e.must("StartProcess", err)
	e.exit(p)
	errs := make(map[string]error)
	_, errs["a name that is used"] = e.p.StartProcess(e.ctx(), w.ID, "main", cmd)
	bad := cmd
	bad.Args = []string{"providertest-no-such-program"}
	_, errs["no program"] = e.p.StartProcess(e.ctx(), w.ID, "no-program", bad)
	bad = cmd
	bad.Dir = "no/such/folder"
	_, errs["no folder"] = e.p.StartProcess(e.ctx(), w.ID, "no-folder", bad)
	seen := fmt.Sprintf("%+v", e.ready(w.ID))
	e.gone(w.ID)
	_, errs["gone"] = e.p.StartProcess(e.ctx(), w.ID, "late", cmd)
	for what, err := range errs {
		seen += fmt.Sprintf("\n%s: %v", what, err)
	}
	if strings.Contains(seen, secret) {
		e.t.Errorf("a secret is told: %s", seen)
	}
}

func processWait(e *env) {
	w := e.boot()
	p := e.start(w.ID, "main", Action{Verb: OnTerm, N: 5}, Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
	e.await(p, provider.Offset{}, "up")
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := p.Wait(short)
	e.want("Wait of a running process", err, context.DeadlineExceeded)

	var waits sync.WaitGroup
	ctx := e.ctx()
	for range 8 {
		waits.Go(func() {
			exit, err := p.Wait(ctx)
			if err != nil || exit.Code != 5 || exit.Signal != "" {
				e.t.Errorf("Wait: %+v, %v", exit, err)
			}
		})
	}
	e.must("Signal", p.Signal(e.ctx(), provider.Term))
	waits.Wait()
	first, again := e.exit(p), e.exit(p)
	if first.Code != 5 || !first.At.Equal(again.At) || first.Code != again.Code {
		e.t.Errorf("Wait after the end: %+v, then %+v", first, again)
	}
}
