package localprovider

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Each process is started by a supervisor, a shell that waits for it and records its end. It is a program that every
// Linux has, and it outlives the host process.
//
// Its descriptors are 0 and 1: input and output of the process; 2: nothing, since shells remark on how their children
// end; 3: a pipe from the host process; 4: error output of the process; 5: the exit file. Only 0, 1 and 4, as 2, are
// handed on to the process.
//
// It starts nothing before it reads "go" from the pipe and has recorded that. If the host process dies before it has
// recorded the supervisor and said so, the pipe ends and nothing is ever started.
//
// Signals which a process may send to its own group are caught, not ignored: what is ignored stays ignored in children.
const supervisorScript = `trap : HUP INT QUIT PIPE ALRM TERM USR1 USR2
read -r go <&3 && echo "$go" >&5 || exit 125
exec 3<&-
(exec 2>&4 4>&- 5>&-; exec "$@")
code=$?
{ echo "$code"; times; echo end; } >&5
exit "$code"`

const shell = "/bin/sh"

// exitRoom is written to the exit file in advance, so that an end can be recorded on a full disk.
var exitRoom = []byte(strings.Repeat(" ", 159) + "\n")

// report is what a supervisor has recorded in the exit file.
type report struct {
	begun bool // it was told to go on: the process runs or has run
	ended bool
	code  int
	cpu   time.Duration // of the process and of those children that it waited for
	at    time.Time     // of the end
}

// readReport reads an exit file.
func readReport(name string) (report, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return report{}, err
	}
	// go; the code; user and system time of the shell; user and system time of its children; end.
	field := strings.Fields(string(b))
	if len(field) == 0 {
		return report{}, nil
	}
	if len(field) < 7 || field[6] != "end" {
		return report{begun: true}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return report{}, err
	}
	code, err := strconv.Atoi(field[1])
	return report{begun: true, ended: true, code: code, cpu: shellTime(field[4]) + shellTime(field[5]), at: info.ModTime()}, err
}

// shellTime reads a time as the shell's times writes it, e.g. 1m2.34s; some write a comma.
func shellTime(s string) time.Duration {
	d, _ := time.ParseDuration(strings.ReplaceAll(s, ",", "."))
	return d
}

// exit is the end for those who ask. A shell tells a signal by 128 more than its number.
func (r report) exit() provider.Exit {
	x := provider.Exit{Code: r.code, At: r.at}
	if r.code > 128 {
		x.Signal = signalNames[syscall.Signal(r.code-128)]
	}
	return x
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT", syscall.SIGQUIT: "SIGQUIT", syscall.SIGILL: "SIGILL",
	syscall.SIGTRAP: "SIGTRAP", syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE",
	syscall.SIGKILL: "SIGKILL", syscall.SIGUSR1: "SIGUSR1", syscall.SIGSEGV: "SIGSEGV", syscall.SIGUSR2: "SIGUSR2",
	syscall.SIGPIPE: "SIGPIPE", syscall.SIGALRM: "SIGALRM", syscall.SIGTERM: "SIGTERM", syscall.SIGVTALRM: "SIGVTALRM",
	syscall.SIGPROF: "SIGPROF", syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ", syscall.SIGSYS: "SIGSYS",
	syscall.SIGPOLL: "SIGPOLL",
}
