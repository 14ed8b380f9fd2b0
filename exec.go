package freshet

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Exec runs a process in the workspace to its end and returns its standard output, of which it keeps the last 1 MiB; all
// of its output is in the task's log. A status other than 0 is an *ExitError.
//
// name is the process's identity in its workspace: a handler that is called again after a take-over, in the same
// workspace, finds the running process, or its recorded end, and never starts it twice. When ctx ends, the process gets
// SIGTERM, and SIGKILL after Agent.Grace; unless another process takes the run over: then it goes on.
func (r *Run) Exec(ctx context.Context, name string, cmd Cmd) ([]byte, error) {
	l := r.run
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return nil, invalid("Exec %q: Args is empty", clip(name, 64))
	}
	if name == "" || len(name) > maxKey || strings.ContainsRune(name, 0) {
		return nil, invalid("Exec: the name of a process has 1 to %d bytes, without NUL", maxKey)
	}
	if err := l.makeDir(ctx); err != nil {
		return nil, err
	}
	cmd.Env = r.environ(cmd)
	p, err := l.maker.process(ctx, l.workspace().ID, l.processName(name), cmd)
	if err != nil {
		return nil, err
	}
	l.touch()
	l.sign()
	out := &output{run: l, name: name}
	if rec := l.log.process(name); rec != nil {
		out.logged = rec.Read
	}
	exit, err := l.attend(ctx, p, out)
	if err != nil {
		return nil, err
	}
	l.sign()
	l.log.ended(name, exit)
	if exit.Code != 0 || exit.Signal != "" {
		return nil, &ExitError{Code: exit.Code, Signal: exit.Signal, OOM: exit.OOM, Tail: out.end()}
	}
	return out.result(), nil
}

// attend reads a process's output and waits for its end. When ctx ends, it ends the process, unless somebody else is to
// go on with it.
func (r *liveRun) attend(ctx context.Context, p provider.Process, out *output) (provider.Exit, error) {
	read, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReading()
	drained := make(chan struct{})
	if !r.work.Go(func(context.Context) {
		defer close(drained)
		out.pump(read, p)
	}) {
		return provider.Exit{}, ErrClosed
	}
	exit, err := r.awaitExit(ctx, p)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		stopReading()
		<-drained
		if errors.Is(cause, ErrLeaseLost) || errors.Is(cause, errDetached) || errors.Is(cause, ErrWorkspaceLost) {
			return exit, cause
		}
		r.endProcess(ctx, p)
		return exit, cause
	}
	if err != nil {
		stopReading()
		<-drained
		return exit, err
	}
	// The process has ended: what it has written is all there, but a provider that falls silent must not hold us.
	t := time.AfterFunc(drainTimeout, stopReading)
	defer t.Stop()
	<-drained
	return exit, nil
}

const drainTimeout = 30 * time.Second

// awaitExit waits for a process's end, through any silence of the provider.
func (r *liveRun) awaitExit(ctx context.Context, p provider.Process) (provider.Exit, error) {
	for failures := 0; ; failures++ {
		exit, err := p.Wait(ctx)
		if err == nil {
			return exit, nil
		}
		if fault := r.maker.fault(ctx, r.workspace().ID, err); fault != nil {
			return exit, fault
		}
		if !r.maker.again(ctx, err, failures) {
			return exit, orCause(ctx, err)
		}
	}
}

// endProcess asks a process to end, and after the agent's grace makes it.
func (r *liveRun) endProcess(ctx context.Context, p provider.Process) {
	ctx = context.WithoutCancel(ctx)
	for _, step := range []struct {
		signal provider.Signal
		wait   time.Duration
	}{{provider.Term, r.agent.Grace}, {provider.Kill, abandonMargin / 2}} {
		call, cancel := context.WithTimeout(ctx, step.wait)
		err := p.Signal(call, step.signal)
		if err == nil {
			_, err = p.Wait(call)
		}
		cancel()
		if err == nil || errors.Is(err, provider.ErrNotFound) || errors.Is(err, provider.ErrLost) {
			return
		}
	}
}

// output is where the output of one process goes.
type output struct {
	run    *liveRun
	name   string
	logged provider.Offset // what the log has already, from an earlier owner

	mu     sync.Mutex // protects the fields below
	stdout []byte
	tail   []byte
	next   provider.Offset
}

// pump follows a process's output until its end, ctx's end, or the workspace's.
func (o *output) pump(ctx context.Context, p provider.Process) {
	for failures := 0; ; failures++ {
		o.mu.Lock()
		from := o.next
		o.mu.Unlock()
		var err error
		for chunk, chunkErr := range p.Output(ctx, from) {
			if err = chunkErr; err != nil {
				break
			}
			o.take(chunk)
			failures = 0
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if errors.Is(err, provider.ErrNotFound) || errors.Is(err, provider.ErrLost) || !wait(ctx, retryPause(failures)) {
			return
		}
	}
}

func (o *output) take(chunk provider.Chunk) {
	o.mu.Lock()
	fresh := chunk.Data
	if chunk.Stream == provider.Stdout {
		o.stdout = appendTail(o.stdout, chunk.Data, maxStdout)
		fresh = beyond(chunk.Data, chunk.Next.Stdout, o.logged.Stdout)
	} else {
		fresh = beyond(chunk.Data, chunk.Next.Stderr, o.logged.Stderr)
	}
	o.tail = appendTail(o.tail, chunk.Data, maxTail)
	o.next = chunk.Next
	logged := provider.Offset{Stdout: max(chunk.Next.Stdout, o.logged.Stdout), Stderr: max(chunk.Next.Stderr, o.logged.Stderr)}
	o.mu.Unlock()
	if len(fresh) > 0 {
		o.run.sign()
		o.run.log.write(o.name, fresh, logged)
	}
}

// beyond is the part of data, which ends at next, that lies behind logged.
func beyond(data []byte, next, logged int64) []byte {
	start := next - int64(len(data))
	if start >= logged {
		return data
	}
	return data[min(logged-start, int64(len(data))):]
}

func (o *output) result() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return lastBytes(o.stdout, maxStdout)
}

func (o *output) end() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return lastBytes(o.tail, maxTail)
}

// seed uploads a task's folder as it begins.
func (r *liveRun) seed(ctx context.Context) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must := func(err error) {
		if err != nil { // into memory, with names of our own
			panic(err)
		}
	}
	for _, dir := range []string{"artifacts/", "checkpoint/"} {
		must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: r.began}))
	}
	must(w.WriteHeader(&tar.Header{Name: "payload", Mode: 0o644, Size: int64(len(r.task.Payload)), ModTime: r.began}))
	_, err := w.Write(r.task.Payload)
	must(err)
	must(w.Close())
	return r.upload(ctx, r.dir(), &b)
}

// processName is the name of a run's process at the provider: within the task, for a workspace may serve several of one
// tenant's, and in characters that every provider takes.
func (r *liveRun) processName(name string) string {
	if !plainName.MatchString(name) {
		sum := sha256.Sum256([]byte(name))
		name = "x" + hex.EncodeToString(sum[:16])
	}
	return r.task.ID + "." + name
}

var plainName = regexp.MustCompile(`^[a-wyzA-Z0-9][a-zA-Z0-9_-]{0,63}$`)
