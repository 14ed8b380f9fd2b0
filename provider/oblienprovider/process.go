package oblienprovider

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// What the scripts exit with. See there.
const (
	codeEnded    = 10
	codeLost     = 11
	codeRuns     = 12
	codeExists   = 17
	codeNotFound = 20
	codeRefused  = 21
	codeStarting = 42
)

const (
	lookTime = 20 * time.Second // how long one look at a process waits for news; gateways cut what is silent for long
	slack    = 25 * time.Second
)

// StartProcess uploads what is to run, and a supervisor that claims the name. See the package's comment.
func (p *Provider) StartProcess(ctx context.Context, id, name string, cmd provider.Cmd) (provider.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	run, key := strings.ToLower(rand.Text()), processKey(name)
	err := p.arrive(ctx, id)
	var code int
	if err == nil {
		var parcel *spool
		if parcel, err = bundle(run, p.doorways.home(id), cmd); err != nil {
			return nil, err
		}
		defer parcel.close()
		err = p.upload(ctx, "start", id, parcel)
	}
	if err == nil {
		_, code, err = p.scriptFor(ctx, id, command{op: "start", effect: true, limit: createTime}, launchScript, key, run)
	}
	switch {
	case err != nil:
		return nil, p.explain(ctx, "start", id, err)
	case code == 0:
		return &process{p, id, key}, nil
	case code == codeExists:
		return nil, fail("start", provider.ErrExists, "a process of this name was started before")
	}
	return nil, fail("start", provider.ErrUnavailable, "the supervisor did not start (%d): the disk may be full, or a tool be missing in the image", code)
}

// Attach finds a process by the name that it was started with.
func (p *Provider) Attach(ctx context.Context, id, name string) (provider.Process, error) {
	key := processKey(name)
	_, code, err := p.script(ctx, id, "attach", findScript, key)
	switch {
	case err != nil:
		return nil, p.explain(ctx, "attach", id, err)
	case code == codeNotFound:
		return nil, fail("attach", provider.ErrNotFound, "no process of this name")
	case code != 0:
		return nil, fail("attach", provider.ErrUnavailable, "the workspace's shell answers %d", code)
	}
	return &process{p, id, key}, nil
}

// processKey is a name as a file's name.
func processKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// bundle packs what one run of a process needs: an archive to be unpacked in the home folder.
func bundle(run, home string, cmd provider.Cmd) (*spool, error) {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return nil, fail("start", provider.ErrInvalid, "no program")
	}
	dir := cmd.Dir
	if !path.IsAbs(dir) {
		dir = path.Join(home, dir)
	}
	var b strings.Builder
	b.WriteString("rm -f ./cmd ./stdin\n") // both are open
	b.WriteString("cd -- " + quote(dir) + " || exit 126\n")
	for _, key := range slices.Sorted(maps.Keys(cmd.Env)) {
		if !variable.MatchString(key) {
			return nil, fail("start", provider.ErrInvalid, "%q is no name of a variable", key)
		}
		b.WriteString("export " + key + "=" + quote(cmd.Env[key]) + "\n")
	}
	b.WriteString("exec")
	for _, arg := range cmd.Args {
		b.WriteString(" " + quote(arg))
	}
	b.WriteString("\n")
	if strings.ContainsRune(b.String(), 0) {
		return nil, fail("start", provider.ErrInvalid, "a NUL in an argument, a variable or the folder")
	}

	packed := &spool{}
	gz, _ := gzip.NewWriterLevel(packed, gzip.BestSpeed)
	w := tar.NewWriter(gz)
	at := rootFolder + "/runs/" + run + "/"
	for _, dir := range []string{rootFolder + "/", rootFolder + "/names/", rootFolder + "/runs/", at} {
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o700})
	}
	for _, file := range []struct {
		name string
		data []byte
	}{
		{"cmd", []byte(b.String())}, {"stdin", cmd.Stdin}, {"ticket", []byte(run + "\n")}, {"supervise", []byte(libScript + superviseScript)},
	} {
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: at + file.name, Mode: 0o600, Size: int64(len(file.data))})
		_, _ = w.Write(file.data)
	}
	if err := errors.Join(w.Close(), gz.Close()); err != nil {
		packed.close()
		return nil, fmt.Errorf("oblienprovider: start: %w", err)
	}
	return packed, nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// upload sends an archive to be unpacked in the home folder of a workspace.
func (p *Provider) upload(ctx context.Context, op, id string, parcel *spool) error {
	r := request{op: op, method: http.MethodPost, path: "/files/transfer/upload", file: parcel, limit: powerTime,
		query: url.Values{"dest": {p.doorways.home(id)}}}
	return p.knock(ctx, id, r, func(token string) error {
		return p.exchange(ctx, p.runtime, r, nil, bearer(token), token)
	})
}

// process is a process in a workspace.
type process struct {
	p   *Provider
	id  string
	key string
}

// Output asks the workspace again and again, each time for what is new within lookTime.
func (pr *process) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	return func(yield func(provider.Chunk, error) bool) {
		for {
			began, was := time.Now(), from
			sink := func(stream provider.Stream, data []byte) bool {
				if stream == provider.Stdout {
					from.Stdout += int64(len(data))
				} else {
					from.Stderr += int64(len(data))
				}
				return yield(provider.Chunk{Stream: stream, Data: data, Next: from}, nil)
			}
			_, code, err := pr.p.scriptFor(ctx, pr.id, command{op: "output", limit: lookTime + slack, sink: sink}, readScript, pr.key,
				strconv.FormatInt(from.Stdout+1, 10), strconv.FormatInt(from.Stderr+1, 10), seconds(lookTime))
			switch {
			case errors.Is(err, errEnough):
				return
			case err != nil:
				yield(provider.Chunk{}, pr.p.explain(ctx, "output", pr.id, err))
				return
			case code == codeEnded, code == codeLost:
				return
			case code != codeRuns:
				yield(provider.Chunk{}, unexpected("output", code))
				return
			}
			if was == from && !rest(ctx, began) {
				yield(provider.Chunk{}, ctx.Err())
				return
			}
		}
	}
}

// Wait asks the workspace again and again, each time for lookTime.
func (pr *process) Wait(ctx context.Context) (provider.Exit, error) {
	for {
		began := time.Now()
		out, code, err := pr.p.scriptFor(ctx, pr.id, command{op: "wait", limit: lookTime + slack}, waitScript, pr.key, seconds(lookTime))
		switch {
		case err != nil:
			return provider.Exit{}, pr.p.explain(ctx, "wait", pr.id, err)
		case code == codeEnded:
			return parseExit(string(out))
		case code == codeLost:
			return provider.Exit{}, fail("wait", provider.ErrLost, "its supervisor has ended with the machine, or was killed")
		case code != codeRuns:
			return provider.Exit{}, unexpected("wait", code)
		}
		if !rest(ctx, began) {
			return provider.Exit{}, ctx.Err()
		}
	}
}

// Signal sends a signal to the process, what has its session, and their children.
func (pr *process) Signal(ctx context.Context, sig provider.Signal) error {
	name := map[provider.Signal]string{provider.Kill: "KILL", provider.Term: "TERM"}[sig]
	if name == "" {
		return fail("signal", provider.ErrInvalid, "signal %d", sig)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, code, err := pr.p.scriptFor(ctx, pr.id, command{op: "signal", effect: true, limit: createTime}, signalScript, pr.key, name)
	switch {
	case err != nil:
		return pr.p.explain(ctx, "signal", pr.id, err)
	case code == codeStarting:
		return fail("signal", provider.ErrConflict, "the process is being started")
	case code != 0:
		return unexpected("signal", code)
	}
	return nil
}

// rest keeps a workspace that answers at once from being asked all the time.
func rest(ctx context.Context, began time.Time) bool {
	if time.Since(began) > time.Second {
		return ctx.Err() == nil
	}
	return pause(ctx, 50*time.Millisecond)
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }

func unexpected(op string, code int) error {
	if code == codeNotFound {
		return fail(op, provider.ErrLost, "the workspace knows nothing of this process any more")
	}
	return fail(op, provider.ErrUnavailable, "the workspace's shell answers %d", code)
}

// parseExit reads what the supervisor has recorded: the shell's status, the time, and whether memory ran out.
func parseExit(record string) (provider.Exit, error) {
	var status, oom int
	var at int64
	if _, err := fmt.Sscan(record, &status, &at, &oom); err != nil && !errors.Is(err, io.EOF) {
		return provider.Exit{}, fail("wait", provider.ErrLost, "the record of its end cannot be read")
	}
	exit := provider.Exit{Code: status, OOM: oom == 1}
	if at > 0 {
		exit.At = time.Unix(at, 0)
	}
	if n := status - 128; n > 0 && n < len(signals) {
		exit.Signal = signals[n]
	}
	return exit, nil
}

// signals of Linux by number.
var signals = []string{
	"", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV",
	"SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU",
	"SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}
