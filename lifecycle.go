package freshet

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/store"
)

// liveRun is one run from its admission to the clean-up of its workspace. Its goroutine brings the workspace to ready,
// calls the handler and records the end. Whoever wants it to end calls stop; if the handler then does not return, abandon
// records the end in its place, and what the handler does afterwards is without effect.
type liveRun struct {
	*core
	agent   *agent
	task    store.Task
	lease   store.Lease
	began   time.Time
	adopted bool
	log     *runLog

	stopping chan struct{} // closed when this process shuts down

	mu       sync.Mutex // protects the fields below
	ws       store.Workspace
	stage    stage
	reached  bool                    // an earlier owner of this attempt has called the handler
	resumed  bool                    // an earlier run of the task has called it
	cancel   context.CancelCauseFunc // of the run's context
	cause    error                   // why it was stopped
	leaseEnd time.Time
	handling time.Time // when the handler was called
	moved    time.Time // last sign of progress
	fails    int       // health checks in a row
	kept     *checkpoint
	dirMade  bool
	told     bool // stopping is closed
	used     bool // something was done in the workspace
	timers   []*time.Timer
	signs    signs
}

// stage is how far a run has come. It only grows.
type stage int

const (
	stageWorkspace stage = iota // bringing the workspace to ready
	stageHandler
	stageEnding // the handler has returned or was given up; the end is being recorded
	stageOver
)

func newLiveRun(c *core, a *agent, b *store.Begun, now time.Time, adopted bool) *liveRun {
	r := &liveRun{
		core: c, agent: a, task: b.Task, lease: b.Lease, began: now, adopted: adopted, stopping: make(chan struct{}),
		ws: b.Workspace, leaseEnd: now.Add(leaseTime), moved: now,
	}
	r.reached = adopted && !b.Task.Started.IsZero()
	r.log = newRunLog(r)
	return r
}

// main is the goroutine of the run.
func (r *liveRun) main(base context.Context) {
	ctx, cancel := context.WithCancelCause(base)
	defer cancel(nil)
	r.setCancel(cancel)
	err := r.prepare(ctx)
	var result []byte
	if err == nil {
		result, err = r.handle(ctx)
	}
	if r.enter(stageEnding) {
		r.conclude(base, result, err)
		return
	}
	r.live.wedge(r.task.ID, false)
}

func (r *liveRun) setCancel(cancel context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = cancel
	if r.cause != nil {
		cancel(r.cause)
	}
}

// enter moves on to a stage; false: the run is there already, and somebody else sees to it.
func (r *liveRun) enter(s stage) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stage >= s {
		return false
	}
	r.stage = s
	return true
}

// stop ends the run because of cause. A lost lease overrides every other cause; otherwise the first one stays.
func (r *liveRun) stop(cause error) {
	r.mu.Lock()
	if r.stage >= stageOver || r.stage == stageEnding && !errors.Is(cause, ErrLeaseLost) || r.cause != nil && (errors.Is(r.cause, ErrLeaseLost) || !errors.Is(cause, ErrLeaseLost)) {
		r.mu.Unlock()
		return
	}
	r.cause = cause
	cancel, handling := r.cancel, r.stage == stageHandler
	r.mu.Unlock()
	saves := handling && (errors.Is(cause, ErrTimeout) || errors.Is(cause, ErrIdle) || cause == ErrShutdown && r.info.Durable)
	if saves && r.work.Go(func(ctx context.Context) {
		r.keepWork(ctx)
		r.end(cancel, cause)
	}) {
		return
	}
	r.end(cancel, cause)
}

// end cancels the run's context, and gives the handler its grace.
func (r *liveRun) end(cancel context.CancelCauseFunc, cause error) {
	if cancel != nil {
		cancel(cause)
	}
	if errors.Is(cause, ErrLeaseLost) {
		r.live.remove(r)
	}
	r.after(r.agent.Grace+abandonMargin, r.abandon)
}

// abandonMargin is what a handler may need beyond its process's grace.
const abandonMargin = 10 * time.Second

// abandon records the end of a run whose handler does not return. The goroutine stays until it does; it cannot write.
func (r *liveRun) abandon(ctx context.Context) {
	r.mu.Lock()
	wedged := r.stage == stageHandler
	cause := r.cause
	r.mu.Unlock()
	if !wedged || !r.enter(stageEnding) {
		return
	}
	r.live.wedge(r.task.ID, true)
	r.core.log.Error("handler ignores its cancel", "task", r.task.ID, "agent", r.task.Agent, "cause", cause)
	r.conclude(ctx, nil, cause)
}

// after runs fn in a goroutine of the dispatcher after d, unless the run is over by then.
func (r *liveRun) after(d time.Duration, fn func(context.Context)) {
	t := time.AfterFunc(d, func() { r.work.Go(fn) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stage >= stageEnding {
		t.Stop()
		return
	}
	r.timers = append(r.timers, t)
}

func (r *liveRun) stopTimers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.timers {
		t.Stop()
	}
	r.timers = nil
}

func (r *liveRun) renewed(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaseEnd = at.Add(leaseTime)
}

func (r *liveRun) leaseOver(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !now.Before(r.leaseEnd.Add(-leaseMargin))
}

func (r *liveRun) workspace() store.Workspace {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ws
}

// notStarted is a run that ended before its handler was called.
type notStarted struct {
	kind policy.EndKind
	err  error
}

func (e *notStarted) Error() string { return e.err.Error() }
func (e *notStarted) Unwrap() error { return e.err }

// prepare brings the workspace to where the handler can begin.
func (r *liveRun) prepare(ctx context.Context) error {
	if r.adopted && policy.Poisoned(r.task.Crashes, maxCrashes) {
		return &notStarted{policy.EndError, ErrCrashed}
	}
	if r.adopted && r.task.Cancel {
		return &notStarted{policy.EndCanceled, ErrCanceled}
	}
	ws := r.workspace()
	save := func(ctx context.Context, w *store.Workspace) error { return r.saveWorkspace(ctx, w) }
	var err error
	switch {
	case ws.Intent == store.IntentDelete:
		err = &notStarted{policy.EndLost, fmt.Errorf("%w: it was being deleted", ErrWorkspaceLost)}
	case ws.State == store.WorkspaceNew:
		err = r.maker.make(ctx, r.agent, &ws, r.adopted, save)
	case ws.State == store.WorkspacePaused || ws.Intent == store.IntentResume:
		err = r.maker.resume(ctx, &ws, save)
	case r.adopted:
		err = r.maker.still(ctx, &ws)
	}
	if err != nil {
		return err
	}
	if r.task.State == store.StateRunning {
		return nil
	}
	err = r.insist(ctx, func(ctx context.Context) error {
		return r.store.Save(ctx, r.lease, store.Save{Status: &store.Change{State: store.StateRunning}})
	})
	if err == nil {
		r.hub.wake(r.task.ID)
	}
	return err
}

// insist repeats a call to the Store while it does not answer. A lease that is lost ends the run.
func (r *liveRun) insist(ctx context.Context, call func(context.Context) error) error {
	for failures := 0; ; failures++ {
		err := bounded(ctx, call)
		switch {
		case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, ErrInvalid):
			return err
		case errors.Is(err, store.ErrLeaseLost), errors.Is(err, store.ErrConflict):
			r.stop(ErrLeaseLost)
			return ErrLeaseLost
		}
		if !wait(ctx, retryPause(failures)) {
			return context.Cause(ctx)
		}
	}
}

// bounded gives one call to the Store its time.
func bounded(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return call(ctx)
}

// saveWorkspace records the run's workspace under its fence.
func (r *liveRun) saveWorkspace(ctx context.Context, w *store.Workspace) error {
	unsure := false
	err := r.insist(ctx, func(ctx context.Context) error {
		err := r.store.Save(ctx, r.lease, store.Save{Workspace: w})
		if unsure && errors.Is(err, store.ErrConflict) {
			return r.confirm(ctx, w)
		}
		unsure = unsure || err != nil
		return err
	})
	if err != nil {
		return err
	}
	w.Version++
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ws = *w
	return nil
}

// handle calls the handler with everything that watches over it.
func (r *liveRun) handle(ctx context.Context) (result []byte, err error) {
	now := time.Now()
	r.mu.Lock()
	r.stage, r.handling, r.moved = stageHandler, now, now
	r.mu.Unlock()
	r.meter.booted(r.task.Agent, r.task.Path, since(now, r.began))
	if r.agent.Timeout > 0 {
		left := r.agent.Timeout
		if r.adopted {
			left -= since(now, r.task.Started)
		}
		r.after(max(left, 0), func(context.Context) { r.stop(ErrTimeout) })
	}
	r.watchProgress()
	r.watchCheckpoint()
	public, err := r.newRun(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			r.core.log.Error("handler panicked", "task", r.task.ID, "agent", r.task.Agent, "panic", p, "stack", string(debug.Stack()))
			result, err = nil, fmt.Errorf("handler panicked: %v", p)
		}
	}()
	result, err = r.agent.Handler(ctx, public)
	if err == nil && len(result) > maxResult {
		return nil, invalid("result has %d bytes, more than %d", len(result), maxResult)
	}
	return result, err
}
