package freshet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// conclude records how the run ended and sees to its workspace. It runs once, under the dispatcher's own context.
func (r *liveRun) conclude(ctx context.Context, result []byte, err error) {
	r.stopTimers()
	defer r.over()
	r.mu.Lock()
	cause, reached := r.cause, r.reached || !r.handling.IsZero()
	r.mu.Unlock()
	switch {
	case errors.Is(cause, ErrLeaseLost):
		r.log.close()
		return
	case errors.Is(cause, errDetached) && err != nil:
		r.log.settle(ctx)
		r.log.close()
		return
	}
	kind := endKind(cause, err)
	if kind == policy.EndLost && !r.adopted && !r.touched() && r.task.Path != store.PathCold {
		kind = policy.EndDeadSpare
	}
	if err != nil && cause != nil {
		err = cause
	}
	gone := r.vanished(ctx, kind, err)
	if reached && !gone && kind != policy.EndLost {
		r.collect(ctx)
	}
	r.log.settle(ctx)
	r.log.close()
	now := time.Now()
	end := policy.End{
		Kind: kind, Spent: r.task.Spent, Attempts: r.agent.Retry.Attempts, Crashes: r.task.Crashes, MaxCrashes: maxCrashes,
		Reached: reached, Idempotent: r.agent.Idempotent, Checkpoint: r.checkpointed(),
		MinDelay: r.agent.Retry.MinDelay, MaxDelay: r.agent.Retry.MaxDelay, RetryAfter: provider.RetryAfter(err),
		Consecutive: r.pace.failures(), Random: rand.Float64(),
	}
	end.Retryable = err != nil && r.agent.Retry.If != nil && r.agent.Retry.If(err)
	next := policy.After(end)
	if next.State == StateQueued && reached && !gone {
		// Another try must not begin while this one's processes may still run.
		if gone = r.clear(ctx); !gone {
			return
		}
	}
	out := store.Outcome{
		Lease: r.lease, State: next.State, Count: next.Count, LogSize: r.log.size(),
		Cost: r.meter.cost(r.agent.Resources, since(now, r.began)), Workspace: r.disposition(next, kind, gone, now),
	}
	if out.Workspace == store.DisposeKeep {
		out.KeepUntil = now.Add(r.agent.KeepFor)
	}
	if next.Delay > 0 {
		out.Due = now.Add(next.Delay)
	}
	r.words(&out, next, err, result)
	r.finishRun(ctx, out, now)
}

// clear deletes the run's workspace while the run still holds its lease; gone: it is confirmed. Otherwise the run is left to
// whoever adopts it, who finds the intent.
func (r *liveRun) clear(ctx context.Context) (gone bool) {
	ws := r.workspace()
	ws.Intent = store.IntentDelete
	if err := r.saveWorkspace(ctx, &ws); err != nil {
		return false
	}
	for failures := 0; ; failures++ {
		gone, err := r.reap.try(ctx, &ws)
		if gone {
			r.pace.freed()
			return true
		}
		if !wait(ctx, max(retryPause(failures), provider.RetryAfter(err))) || r.lost() {
			return false
		}
	}
}

// touch notes that something was done in the workspace; touched says whether.
func (r *liveRun) touch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = true
}

func (r *liveRun) touched() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// lost says whether the lease has passed to another.
func (r *liveRun) lost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Is(r.cause, ErrLeaseLost)
}

// tellStopping closes what Run.Stopping gives.
func (r *liveRun) tellStopping() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.told {
		r.told = true
		close(r.stopping)
	}
}

// words fills in what the user and programs are told.
func (r *liveRun) words(out *store.Outcome, next policy.Next, err error, result []byte) {
	switch {
	case next.State == store.StateSucceeded:
		out.Result = result
		return
	case next.State == store.StateQueued:
		out.Code = codeRetry
		out.Reason = clip(fmt.Sprintf("attempt %d ended: %v", r.task.Attempt, err), maxReason)
		if out.Count == store.CountNothing {
			out.Code, out.Reason = codeProvider, r.pace.excuse(err)
		}
		return
	}
	out.Code, out.Reason = codeOf(err), clip(err.Error(), maxReason)
	if next.Stranded {
		out.Reason = clip("it cannot go on elsewhere, for it has no checkpoint and is not idempotent: "+out.Reason, maxReason)
	}
	if next.Exhausted && r.task.Attempt > 1 {
		out.Reason = clip(fmt.Sprintf("gave up after attempt %d: %s", r.task.Attempt, out.Reason), maxReason)
	}
	out.Result = encodeFailure(err)
}

// finishRun writes the end and clears up.
func (r *liveRun) finishRun(ctx context.Context, out store.Outcome, now time.Time) {
	// Counted before it can be seen: whoever waits for the task finds it in the figures.
	r.meter.ended(r.task.Agent, since(now, r.began), out.Cost, out.State)
	done, err := r.finish.finish(ctx, out)
	if err != nil {
		r.meter.uncount(r.task.Agent, out.State)
		r.core.log.Warn("end not recorded", "task", r.task.ID, "fence", r.lease.Fence, "err", err)
		return
	}
	r.live.remove(r)
	r.decided("finish", &done.Task, "state", done.Task.State, "code", done.Task.Code, "reason", done.Task.Reason)
	r.core.finished(&done.Task)
	r.admit.freed(r.task.Tenant, r.task.Agent)
	switch {
	case done.Workspace.Intent == store.IntentDelete:
		r.reap.deleteNow(ctx, done.Workspace)
	case done.Workspace.Token != "":
		r.pool.returned(done.Workspace, now)
	}
}

func (r *liveRun) over() {
	r.enter(stageOver)
	r.live.remove(r)
}

// disposition is what becomes of the workspace.
func (r *liveRun) disposition(next policy.Next, kind policy.EndKind, gone bool, now time.Time) store.Disposition {
	switch {
	case gone:
		return store.DisposeGone
	case r.agent.KeepFor > 0 && next.State.Finished() && kind <= policy.EndError && r.workspace().State == store.WorkspaceReady:
		return store.DisposeKeep
	}
	return store.DisposeDelete
}

// vanished says whether the workspace is known not to exist: nothing was made, or the provider says so.
func (r *liveRun) vanished(ctx context.Context, kind policy.EndKind, err error) bool {
	ws := r.workspace()
	if ws.ID == "" {
		return errors.Is(err, errNothingMade)
	}
	if kind != policy.EndLost && kind != policy.EndDeadSpare {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = r.provider.Get(ctx, ws.ID)
	return errors.Is(err, provider.ErrNotFound)
}

// endKind reads how a run ended from why it was stopped and what the handler returned.
func endKind(cause, err error) policy.EndKind {
	var early *notStarted
	switch {
	case err == nil:
		return policy.EndSuccess
	case errors.Is(cause, ErrCanceled):
		return policy.EndCanceled
	case errors.Is(cause, ErrTimeout):
		return policy.EndTimeout
	case errors.Is(cause, ErrIdle):
		return policy.EndIdle
	case errors.Is(cause, ErrShutdown):
		return policy.EndInterrupted
	case errors.As(err, &early):
		return early.kind
	case errors.Is(cause, ErrWorkspaceLost), errors.Is(err, ErrWorkspaceLost):
		return policy.EndLost
	case errors.Is(err, ErrRetry):
		return policy.EndRetry
	}
	return policy.EndError
}
