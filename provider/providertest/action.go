package providertest

import (
	"fmt"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

// Action is one thing that a process of the suite does. It can be encoded as JSON, for harnesses that interpret it.
type Action struct {
	Verb Verb
	N    int      `json:",omitempty"`
	Text string   `json:",omitempty"`
	Path string   `json:",omitempty"` // relative to the working folder
	Then []Action `json:",omitempty"` // of Spawn
}

// Verb says what an Action does. Paths are those of files.
type Verb string

const (
	Cat        Verb = "cat"        // copy standard input to standard output
	Out        Verb = "out"        // write Text and a newline to standard output
	Err        Verb = "err"        // write Text and a newline to standard error
	Env        Verb = "env"        // write the value of the variable Text and a newline to standard output
	Lines      Verb = "lines"      // for i from 1 to N write "out <i>\n" to standard output, "err <i>\n" to standard error
	Flood      Verb = "flood"      // for i from 1 to N write i in 15 digits and a newline to standard output
	Tick       Verb = "tick"       // write "tick\n" to standard output every 50 ms, for ever
	Beat       Verb = "beat"       // append "beat\n" to Path every 50 ms, for ever
	Write      Verb = "write"      // make Path with the content Text, and the folders that it needs
	Read       Verb = "read"       // write the content of Path to standard output; exit with 1 when there is none
	Size       Verb = "size"       // write the size of Path in bytes and a newline to standard output; 0 when there is none
	Link       Verb = "link"       // make Path a symbolic link to Text
	Sleep      Verb = "sleep"      // wait for N ms
	Hang       Verb = "hang"       // wait for ever
	OnTerm     Verb = "onterm"     // from now on SIGTERM makes the process write "term\n" and exit with N
	IgnoreTerm Verb = "ignoreterm" // from now on SIGTERM does nothing, here and in processes spawned after
	Spawn      Verb = "spawn"      // do Then in a child process, and go on without waiting for it
	Burn       Verb = "burn"       // use CPU time, some tenths of a second
	Exit       Verb = "exit"       // exit with N
	KillSelf   Verb = "killself"   // end by SIGKILL
)

// Shell makes a command of actions for workspaces with a POSIX shell, awk and a sleep that takes fractions.
func Shell(actions ...Action) provider.Cmd {
	return provider.Cmd{Args: []string{"sh", "-c", script(actions)}}
}

func script(actions []Action) string {
	var b strings.Builder
	for _, a := range actions {
		b.WriteString(statement(a))
		b.WriteByte('\n')
	}
	return b.String()
}

func statement(a Action) string {
	text, path := quote(a.Text), quote(a.Path)
	switch a.Verb {
	case Cat:
		return "cat"
	case Out:
		return `printf '%s\n' ` + text
	case Err:
		return `printf '%s\n' ` + text + ` >&2`
	case Env:
		return `printf '%s\n' "$` + a.Text + `"`
	case Lines:
		return fmt.Sprintf(`i=0; while [ $i -lt %d ]; do i=$((i+1)); echo "out $i"; echo "err $i" >&2; done`, a.N)
	case Flood:
		return fmt.Sprintf(`awk 'BEGIN { for (i = 1; i <= %d; i++) printf "%%015d\n", i }'`, a.N)
	case Tick:
		return `while :; do echo tick; sleep 0.05; done`
	case Beat:
		return `while :; do echo beat >>` + path + `; sleep 0.05; done`
	case Write:
		return `mkdir -p "$(dirname ` + path + `)" && printf '%s' ` + text + ` >` + path
	case Read:
		return `cat ` + path + ` || exit 1`
	case Size:
		return `if [ -f ` + path + ` ]; then wc -c <` + path + ` | tr -d ' '; else echo 0; fi`
	case Link:
		return `ln -s ` + text + ` ` + path
	case Sleep:
		return fmt.Sprintf(`sleep %d.%03d`, a.N/1000, a.N%1000)
	case Hang:
		return `while :; do sleep 1; done`
	case OnTerm:
		return fmt.Sprintf(`trap 'echo term; exit %d' TERM`, a.N)
	case IgnoreTerm:
		return `trap '' TERM`
	case Spawn:
		return "(\n" + script(a.Then) + ") &"
	case Burn:
		return `awk 'BEGIN { for (i = 0; i < 3000000; i++) x += i }'`
	case Exit:
		return fmt.Sprintf(`exit %d`, a.N)
	case KillSelf:
		return `kill -9 $$`
	}
	panic("providertest: unknown verb " + string(a.Verb))
}

func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
