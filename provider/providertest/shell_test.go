//go:build unix

package providertest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// shell runs a command of Shell on this machine.
func shell(t *testing.T, dir string, actions ...Action) (stdout, stderr string, state *os.ProcessState) {
	t.Helper()
	args := Shell(actions...).Args
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PT_VALUE=a 'b' $c\nd")
	cmd.Stdin = strings.NewReader("in\x00put")
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), err.String(), cmd.ProcessState
}

func TestShell(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name        string
		actions     []Action
		out, err    string
		code        int
		signal      syscall.Signal
		file, holds string
	}{
		{name: "nothing"},
		{name: "cat", actions: []Action{{Verb: Cat}}, out: "in\x00put"},
		{name: "out and err", actions: []Action{{Verb: Out, Text: "it's $HOME"}, {Verb: Err, Text: "%s\\n"}}, out: "it's $HOME\n", err: "%s\\n\n"},
		{name: "env", actions: []Action{{Verb: Env, Text: "PT_VALUE"}}, out: "a 'b' $c\nd\n"},
		{name: "lines", actions: []Action{{Verb: Lines, N: 2}}, out: "out 1\nout 2\n", err: "err 1\nerr 2\n"},
		{name: "flood", actions: []Action{{Verb: Flood, N: 1234}}, out: string(flood(1234))},
		{name: "write", actions: []Action{{Verb: Write, Path: "a b/c.txt", Text: "one\ntwo"}}, file: "a b/c.txt", holds: "one\ntwo"},
		{name: "read", actions: []Action{{Verb: Write, Path: "r.txt", Text: "data"}, {Verb: Read, Path: "r.txt"}}, out: "data"},
		{name: "read nothing", actions: []Action{{Verb: Read, Path: "missing"}, {Verb: Out, Text: "on"}}, err: "any", code: 1},
		{name: "size", actions: []Action{{Verb: Write, Path: "s.txt", Text: "12345"}, {Verb: Size, Path: "s.txt"}, {Verb: Size, Path: "missing"}}, out: "5\n0\n"},
		{name: "link", actions: []Action{{Verb: Write, Path: "t.txt", Text: "target"}, {Verb: Link, Path: "l", Text: "t.txt"}, {Verb: Read, Path: "l"}}, out: "target"},
		{name: "sleep and burn", actions: []Action{{Verb: Sleep, N: 5}, {Verb: Burn}}},
		{name: "exit", actions: []Action{{Verb: Exit, N: 75}, {Verb: Out, Text: "on"}}, code: 75},
		{name: "killself", actions: []Action{{Verb: KillSelf}}, code: -1, signal: syscall.SIGKILL},
		{name: "spawn", actions: []Action{{Verb: Spawn, Then: []Action{{Verb: Sleep, N: 20}, {Verb: Out, Text: "child"}}}, {Verb: Out, Text: "parent"}}, out: "parent\nchild\n"},
	} {
		out, err, state := shell(t, dir, c.actions...)
		if out != c.out {
			t.Errorf("%s: standard output %q, want %q", c.name, out, c.out)
		}
		if err != c.err && (c.err != "any" || err == "") {
			t.Errorf("%s: standard error %q, want %q", c.name, err, c.err)
		}
		if status := state.Sys().(syscall.WaitStatus); state.ExitCode() != c.code || status.Signaled() && status.Signal() != c.signal {
			t.Errorf("%s: ended with %v", c.name, state)
		}
		if c.file == "" {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, c.file)); string(got) != c.holds {
			t.Errorf("%s: file holds %q, %v", c.name, got, err)
		}
	}
}

// The actions without an end are ended by signals to the group of processes, as a provider does it.
func TestShellSignals(t *testing.T) {
	for _, c := range []struct {
		name    string
		actions []Action
		sig     syscall.Signal
		out     string // at the end
		code    int    // -1: ended by sig
	}{
		{"hang", []Action{{Verb: Out, Text: "up"}, {Verb: Hang}}, syscall.SIGTERM, "up\n", -1},
		{"tick", []Action{{Verb: Out, Text: "up"}, {Verb: Tick}}, syscall.SIGTERM, "", -1},
		{"beat", []Action{{Verb: Out, Text: "up"}, {Verb: Beat, Path: "beat"}}, syscall.SIGTERM, "up\n", -1},
		{"onterm", []Action{{Verb: OnTerm, N: 7}, {Verb: Out, Text: "up"}, {Verb: Hang}}, syscall.SIGTERM, "up\nterm\n", 7},
		{"onterm in tick", []Action{{Verb: OnTerm, N: 7}, {Verb: Out, Text: "up"}, {Verb: Tick}}, syscall.SIGTERM, "term\n", 7},
		{"ignoreterm", []Action{{Verb: IgnoreTerm}, {Verb: Out, Text: "up"}, {Verb: Hang}}, syscall.SIGKILL, "up\n", -1},
		{"spawned", []Action{{Verb: Spawn, Then: []Action{{Verb: Hang}}}, {Verb: Out, Text: "up"}, {Verb: Hang}}, syscall.SIGTERM, "up\n", -1},
	} {
		args := Shell(c.actions...).Args
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.SysProcAttr = t.TempDir(), &syscall.SysProcAttr{Setpgid: true}
		var out upThen
		out.up = func() {
			if c.name == "ignoreterm" {
				syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			}
			syscall.Kill(-cmd.Process.Pid, c.sig)
		}
		cmd.Stdout = &out
		err := cmd.Run()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if c.code < 0 && (!status.Signaled() || status.Signal() != c.sig) || c.code >= 0 && status.ExitStatus() != c.code {
			t.Errorf("%s: ended with %v", c.name, err)
		}
		if got := string(out.all); !strings.HasSuffix(got, c.out) {
			t.Errorf("%s: output %q, want %q", c.name, got, c.out)
		}
	}
}

// upThen calls up at the first output.
type upThen struct {
	all []byte
	up  func()
}

func (w *upThen) Write(p []byte) (int, error) {
	if len(w.all) == 0 {
		w.up()
	}
	w.all = append(w.all, p...)
	return len(p), nil
}
