package freshet

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// What a call answers. errors.Is finds them in whatever wraps them.
var (
	// ErrInvalid: the request or the configuration is wrong; the text says where. Nothing was changed.
	ErrInvalid = errors.New("freshet: invalid")
	// ErrNotFound: there is no such task, or its record has been removed.
	ErrNotFound = store.ErrNotFound
	// ErrKeyConflict: the tenant used this key for another request.
	ErrKeyConflict = store.ErrKeyConflict
	// ErrFinished: the task has ended.
	ErrFinished = store.ErrFinished
	// ErrClosed: the Dispatcher was shut down, or was started before.
	ErrClosed = errors.New("freshet: dispatcher is closed")
	// ErrRetry is returned by a handler, alone or wrapped, to ask for another attempt.
	ErrRetry = errors.New("freshet: try again")
)

// Why a run ended. A handler finds them with context.Cause, Wait's caller in the chain of the *TaskError.
var (
	// ErrCanceled: the user cancelled the task.
	ErrCanceled = errors.New("freshet: canceled")
	// ErrTimeout: Agent.Timeout passed.
	ErrTimeout = errors.New("freshet: ran out of time")
	// ErrIdle: Agent.IdleTimeout passed without progress.
	ErrIdle = errors.New("freshet: no progress")
	// ErrExpired: Task.NotAfter passed before the task could start.
	ErrExpired = errors.New("freshet: expired before it could start")
	// ErrWorkspaceLost: the workspace vanished or failed, and the task could not go on elsewhere.
	ErrWorkspaceLost = errors.New("freshet: workspace lost")
	// ErrCrashed: the processes that ran the task kept dying under it.
	ErrCrashed = errors.New("freshet: its dispatchers crashed")
	// ErrShutdown: this process is ending; another one may go on with the task.
	ErrShutdown = errors.New("freshet: shutting down")
	// ErrLeaseLost: another process has the task. Return; nothing can be written any more.
	ErrLeaseLost = store.ErrLeaseLost
)

// LimitError says which limit refused a submission, how much of it is in use, and when to come back.
type LimitError = store.LimitError

// TaskError is how a task ended that did not succeed. Its chain holds the cause: one of the sentinels of this package,
// an *ExitError, or the text of the handler's error.
type TaskError struct {
	Status Status
	Err    error
}

// Error says which task it was, how it ended and why.
func (e *TaskError) Error() string {
	return fmt.Sprintf("task %s %s: %s", e.Status.ID, e.Status.State, e.Err)
}

// Unwrap gives the cause.
func (e *TaskError) Unwrap() error { return e.Err }

// ExitError is a process that did not end well.
type ExitError struct {
	Code   int    // exit status; meaningless when Signal is set
	Signal string // "SIGKILL" and so on; "": it exited by itself
	OOM    bool   // its workspace ran out of memory
	Tail   []byte // the end of its output, at most 4 KiB
}

// Error says how it ended, without its output.
func (e *ExitError) Error() string {
	switch {
	case e.OOM:
		return "process ran out of memory"
	case e.Signal != "":
		return "process was ended by " + e.Signal
	}
	return fmt.Sprintf("process exited with %d", e.Code)
}

// ShutdownError tells what Shutdown had to leave.
type ShutdownError struct {
	Abandoned []string // tasks whose handler had not returned, or whose workspace could not be stopped
	Err       error    // why it stopped waiting
}

// Error counts what was left.
func (e *ShutdownError) Error() string {
	return fmt.Sprintf("freshet: shutdown gave up on %d tasks (%s): %v", len(e.Abandoned), strings.Join(e.Abandoned, ", "), e.Err)
}

// Unwrap gives the cause, usually that of the context.
func (e *ShutdownError) Unwrap() error { return e.Err }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// The codes of Status.Code, which name a cause for programs and survive in the Store.
const (
	codeCanceled    = "canceled"
	codeTimeout     = "timeout"
	codeIdle        = "idle"
	codeExpired     = "expired"
	codeLost        = "workspace_lost"
	codeCrashed     = "crashed"
	codeInterrupted = "interrupted"
	codeExit        = "exit"
	codeInvalid     = "invalid"
	codeError       = "error"
	codeRetry       = "retry"
	codeProvider    = "provider"
)

var codes = []struct {
	code  string
	cause error
}{
	{codeCanceled, ErrCanceled},
	{codeTimeout, ErrTimeout},
	{codeIdle, ErrIdle},
	{codeExpired, ErrExpired},
	{codeLost, ErrWorkspaceLost},
	{codeCrashed, ErrCrashed},
	{codeInterrupted, ErrShutdown},
	{codeInvalid, ErrInvalid},
}

// codeOf names the cause of a run's end.
func codeOf(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.cause) {
			return c.code
		}
	}
	var exit *ExitError
	var fault *provider.Error
	switch {
	case errors.As(err, &exit):
		return codeExit
	case errors.As(err, &fault):
		return codeProvider
	}
	return codeError
}

// failure is what the Store keeps of an error, in place of a result.
type failure struct {
	Text string     `json:"text"`
	Exit *ExitError `json:"exit,omitempty"`
}

func encodeFailure(err error) []byte {
	f := failure{Text: err.Error()}
	errors.As(err, &f.Exit)
	if len(f.Text) > maxReason {
		f.Text = f.Text[:maxReason]
	}
	b, jsonErr := json.Marshal(f)
	if jsonErr != nil {
		return nil
	}
	return b
}

// causeOf rebuilds the cause of a task's end from its record.
func causeOf(code, reason string, result []byte) error {
	var f failure
	if len(result) > 0 && json.Unmarshal(result, &f) == nil && f.Text != "" {
		reason = f.Text
	}
	var cause error
	for _, c := range codes {
		if c.code == code {
			cause = c.cause
		}
	}
	switch {
	case f.Exit != nil && cause != nil:
		return fmt.Errorf("%w: %w", cause, f.Exit)
	case f.Exit != nil:
		return f.Exit
	case cause == nil:
		return errors.New(reason)
	case reason == "" || reason == cause.Error():
		return cause
	}
	return &because{cause: cause, text: reason}
}

// because is a known cause in the words of its record.
type because struct {
	cause error
	text  string
}

func (b *because) Error() string { return b.text }
func (b *because) Unwrap() error { return b.cause }
