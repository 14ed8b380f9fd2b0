package freshet

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"

	"math/rand/v2"
)

// Handler does an agent's work. Result (at most 1 MiB) and success are one write; an error discards the result. An error
// is final unless it wraps ErrRetry or the agent's Retry.If says so. ctx ends with a cause when the run is to end:
// ErrCanceled, ErrTimeout, ErrIdle, ErrWorkspaceLost, ErrShutdown or ErrLeaseLost; a handler that does not return then is
// reported, and whatever it does afterwards is without effect. A panic is an error.
type Handler func(ctx context.Context, run *Run) (result []byte, err error)

// exTempFail is EX_TEMPFAIL of sysexits.h: an agent's way to ask for another attempt.
const exTempFail = 75

// Command is an agent in any language. The program gets the payload on its standard input and in the file payload of the
// folder $FRESHET_DIR, and FRESHET_TASK_ID, FRESHET_RUN_ID, FRESHET_TENANT and FRESHET_ATTEMPT in its environment. Its
// output is the task's log and a sign of progress. Its result is the file result in that folder, else its standard output,
// of which the last 1 MiB is kept. What it leaves in artifacts/ is kept; checkpoint/ is saved at each checkpoint and there
// again after a restart. Exit status 0 is success, 75 (EX_TEMPFAIL) asks for another attempt, anything else fails.
func Command(argv ...string) Handler {
	return func(ctx context.Context, run *Run) ([]byte, error) {
		if len(argv) == 0 {
			return nil, invalid("Command has no program")
		}
		out, err := run.Exec(ctx, "main", Cmd{Args: argv, Stdin: run.Task.Payload})
		var exit *ExitError
		if errors.As(err, &exit) && exit.Code == exTempFail && exit.Signal == "" {
			return nil, fmt.Errorf("%w: %w", ErrRetry, exit)
		}
		if err != nil {
			return nil, err
		}
		result, found, err := run.run.resultFile(ctx)
		if err != nil || found {
			return result, err
		}
		return out, nil
	}
}

// resultFile reads the file result that an agent may have left.
func (r *liveRun) resultFile(ctx context.Context) (result []byte, found bool, err error) {
	filer, ok := provider.As[provider.Filer](r.provider)
	if !ok {
		return nil, false, nil
	}
	for failures := 0; ; failures++ {
		result, err = readFile(ctx, filer, r.workspace().ID, r.dir()+"/result")
		if err == nil {
			return result, true, nil
		}
		if errors.Is(err, provider.ErrNotFound) { // the file, or the workspace
			if _, err = r.provider.Get(ctx, r.workspace().ID); err == nil {
				return nil, false, nil
			}
		}
		if errors.Is(err, ErrInvalid) {
			return nil, false, err
		}
		if fault := r.maker.fault(ctx, r.workspace().ID, err); fault != nil {
			return nil, false, fault
		}
		if !r.maker.again(ctx, err, failures) {
			return nil, false, orCause(ctx, err)
		}
	}
}

// readFile reads one small file out of a workspace.
func readFile(ctx context.Context, filer provider.Filer, id, path string) ([]byte, error) {
	files, err := filer.Download(ctx, id, path)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	t := tar.NewReader(files)
	h, err := t.Next()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if h.Typeflag != tar.TypeReg || h.Size > maxResult {
		return nil, invalid("%s must be a file of at most %d bytes", path, maxResult)
	}
	return io.ReadAll(io.LimitReader(t, maxResult))
}

// JSON makes a Handler of a function with types: payload and result are JSON. A payload that does not decode fails at once.
func JSON[In, Out any](fn func(ctx context.Context, run *Run, in In) (Out, error)) Handler {
	return func(ctx context.Context, run *Run) ([]byte, error) {
		var in In
		if err := json.Unmarshal(run.Task.Payload, &in); err != nil {
			return nil, invalid("payload: %v", err)
		}
		out, err := fn(ctx, run, in)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	}
}

// Step runs fn once for a task: its value is recorded as JSON (at most 1 MiB) under name, and a run that resumes is given
// the recorded value. If the process dies inside fn, fn runs again. An error that wraps ErrRetry is tried again as
// Agent.Retry says; every other error, and the last one, reaches the handler.
func Step[T any](ctx context.Context, run *Run, name string, fn func(context.Context) (T, error)) (T, error) {
	var value T
	l := run.run
	if name == "" || len(name) > maxKey {
		return value, invalid("the name of a Step has 1 to %d bytes", maxKey)
	}
	recorded, err := l.store.Entries(ctx, l.task.ID, store.EntryStep)
	if err != nil {
		return value, err
	}
	for _, e := range recorded {
		if e.Name == name {
			return value, json.Unmarshal(e.Data, &value)
		}
	}
	retry := l.agent.Retry
	for tries := 0; ; tries++ {
		value, err = fn(ctx)
		if err == nil || !errors.Is(err, ErrRetry) || tries+1 >= retry.Attempts {
			break
		}
		if !wait(ctx, policy.Delay(tries, retry.MinDelay, retry.MaxDelay, rand.Float64())) {
			return value, context.Cause(ctx)
		}
	}
	if err != nil {
		return value, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return value, fmt.Errorf("step %q: %w", name, err)
	}
	if len(data) > maxState {
		return value, invalid("step %q: its value has %d bytes, more than %d", name, len(data), maxState)
	}
	l.sign()
	return value, l.saveEntries(ctx, store.Entry{Kind: store.EntryStep, Name: name, Data: data})
}

// saveEntries records entries under the run's fence, and repeats while the Store does not answer.
func (r *liveRun) saveEntries(ctx context.Context, entries ...store.Entry) error {
	return r.insist(ctx, func(ctx context.Context) error { return r.store.Save(ctx, r.lease, store.Save{Entries: entries}) })
}
