package freshet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// errNothingMade: the provider refused a create for certain.
var errNothingMade = errors.New("freshet: no workspace was made")

// maker brings reserved, paused and adopted workspaces to ready. Each step is recorded with put before and after the
// provider is called; put is the run's fenced write, or the pool's.
type maker struct{ *core }

type putWorkspace func(ctx context.Context, w *store.Workspace) error

// make creates the workspace of a reserved row, waits until it is ready and sets it up. unsure: an earlier owner of the
// row may have created it already.
func (m *maker) make(ctx context.Context, a *agent, row *store.Workspace, unsure bool, put putWorkspace) error {
	w, err := m.create(ctx, a, row, unsure)
	if err != nil {
		return err
	}
	row.ID, row.Home = w.ID, w.Home
	if !w.Ready {
		if err := put(ctx, row); err != nil {
			return err
		}
		if w, err = m.await(ctx, row.ID); err != nil {
			return err
		}
		row.Home = orDefault(w.Home, row.Home)
	}
	if err := m.setup(ctx, a, row.ID); err != nil {
		return err
	}
	if k, ok := provider.As[provider.KeepAliver](m.provider); ok {
		if err := k.KeepAlive(ctx, row.ID, keepAliveTime); err != nil {
			m.log.Warn("workspace has no time-out of its own yet", "workspace", row.ID, "err", err)
		}
	}
	now := time.Now()
	row.State, row.Intent, row.Ready, row.Checked = store.WorkspaceReady, store.IntentNone, now, now
	return put(ctx, row)
}

// create asks the provider until it is known what it did.
func (m *maker) create(ctx context.Context, a *agent, row *store.Workspace, unsure bool) (provider.Workspace, error) {
	req := provider.CreateRequest{Token: row.Token, Owner: row.Owner, Agent: row.Agent, Spec: a.spec}
	for failures := 0; ; failures++ {
		if unsure && m.caps.Create == provider.Search {
			w, err := provider.Find(ctx, m.provider, row.Owner, row.Token)
			if err == nil {
				return w, nil
			}
			if !errors.Is(err, provider.ErrNotFound) {
				return w, m.refused(ctx, err, unsure)
			}
		}
		release, err := m.pace.acquire(ctx)
		if err != nil {
			return provider.Workspace{}, m.refused(ctx, err, unsure)
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		w, err := m.provider.Create(call, req)
		late := call.Err() != nil && ctx.Err() == nil
		cancel()
		release(err)
		m.sweep.created()
		switch {
		case err == nil:
			return w, nil
		case errors.Is(err, provider.ErrAmbiguous), late, !refusal(err):
			unsure = true
		case errors.Is(err, provider.ErrRateLimited):
		default:
			return w, m.refused(ctx, err, unsure)
		}
		if failures >= createTries || !wait(ctx, max(provider.RetryAfter(err), retryPause(failures))) {
			return w, m.refused(ctx, err, unsure)
		}
	}
}

// refusal says whether err is an answer by which nothing was made. An error of no class is none: it is more often a network
// than a verdict.
func refusal(err error) bool {
	for _, class := range []error{
		provider.ErrQuota, provider.ErrNoCapacity, provider.ErrRateLimited, provider.ErrUnavailable, provider.ErrSuspended,
		provider.ErrUnauthorized, provider.ErrInvalid, provider.ErrExists, errNothingMade,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// createTries bounds how often one create is asked for again before its task goes back in line.
const createTries = 8

// refused says what a failed create means for the run. unsure: the workspace may exist all the same.
func (m *maker) refused(ctx context.Context, err error, unsure bool) error {
	if cause := context.Cause(ctx); cause != nil {
		unsure = unsure || !errors.Is(err, errNothingMade)
		err = cause
	}
	if !unsure {
		err = fmt.Errorf("%w: %w", errNothingMade, err)
	}
	kind := policy.EndNotStarted
	if errors.Is(err, provider.ErrInvalid) || errors.Is(err, provider.ErrExists) {
		kind = policy.EndImpossible
	}
	return &notStarted{kind, err}
}

// await waits until a workspace that was asked for is ready.
func (m *maker) await(ctx context.Context, id string) (provider.Workspace, error) {
	call, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	w, err := m.watch.await(call, id)
	switch {
	case err == nil:
		return w, nil
	case ctx.Err() != nil:
		return w, context.Cause(ctx)
	case call.Err() != nil:
		return w, fmt.Errorf("%w: not ready within %s", ErrWorkspaceLost, bootTimeout)
	}
	return w, fmt.Errorf("%w: %w", ErrWorkspaceLost, err)
}

// setup runs the agent's set-up steps. A step that was begun before is found again by its name.
func (m *maker) setup(ctx context.Context, a *agent, id string) error {
	for i, cmd := range a.Setup {
		name := fmt.Sprintf("setup-%d", i)
		p, err := m.process(ctx, id, name, cmd)
		if err != nil {
			return fmt.Errorf("%w: set-up step %d: %w", ErrWorkspaceLost, i, err)
		}
		exit, err := p.Wait(ctx)
		if err != nil {
			return fmt.Errorf("%w: set-up step %d: %w", ErrWorkspaceLost, i, err)
		}
		if exit.Code != 0 || exit.Signal != "" {
			tail := tailOf(ctx, p)
			return fmt.Errorf("%w: set-up step %d failed: %w", ErrWorkspaceLost, i, &ExitError{Code: exit.Code, Signal: exit.Signal, OOM: exit.OOM, Tail: tail})
		}
	}
	return nil
}

// process starts a named process once: what was started under the name before is found again.
func (m *maker) process(ctx context.Context, id, name string, cmd Cmd) (provider.Process, error) {
	for failures := 0; ; failures++ {
		p, err := m.provider.StartProcess(ctx, id, name, cmd)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, provider.ErrExists) || errors.Is(err, provider.ErrAmbiguous) {
			attacher, ok := provider.As[provider.Attacher](m.provider)
			if !ok {
				return nil, fmt.Errorf("%w: process %q was started before, and this provider cannot attach", ErrWorkspaceLost, name)
			}
			p, attachErr := attacher.Attach(ctx, id, name)
			if attachErr == nil {
				return p, nil
			}
			if errors.Is(err, provider.ErrExists) || !errors.Is(attachErr, provider.ErrNotFound) {
				err = attachErr
			}
		}
		if fault := m.fault(ctx, id, err); fault != nil {
			return nil, fault
		}
		if !m.again(ctx, err, failures) {
			return nil, orCause(ctx, err)
		}
	}
}

// again waits before a call into a workspace is repeated. While the provider is away that goes on for as long as the run
// may: it says nothing about the workspace. What has no known cause is given up after a while.
func (m *maker) again(ctx context.Context, err error, failures int) bool {
	const most = 60 // about five minutes
	known := errors.Is(err, provider.ErrUnavailable) || errors.Is(err, provider.ErrRateLimited) || errors.Is(err, context.DeadlineExceeded)
	return (known || failures < most) && wait(ctx, max(provider.RetryAfter(err), retryPause(failures)))
}

// fault decides whether a failed call into a workspace may be repeated: nil. What is gone or failed is ErrWorkspaceLost;
// what the provider will never do is its own error.
func (m *maker) fault(ctx context.Context, id string, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, provider.ErrNotFound), errors.Is(err, provider.ErrLost):
		return fmt.Errorf("%w: %w", ErrWorkspaceLost, err)
	case errors.Is(err, provider.ErrConflict):
		w, getErr := m.provider.Get(ctx, id)
		if errors.Is(getErr, provider.ErrNotFound) || getErr == nil && (w.State == provider.Failed || w.State == provider.Deleting) {
			return fmt.Errorf("%w: %w", ErrWorkspaceLost, err)
		}
		return nil
	case !provider.Retryable(err):
		return err
	}
	return nil
}

func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// resume wakes a paused workspace. One that cannot be woken, or wakes without having kept what its pause promised, is
// still a workspace that no handler has seen.
func (m *maker) resume(ctx context.Context, row *store.Workspace, put putWorkspace) error {
	pauser, ok := provider.As[provider.Pauser](m.provider)
	if !ok {
		return &notStarted{policy.EndDeadSpare, fmt.Errorf("%w: this provider cannot resume it", ErrWorkspaceLost)}
	}
	if row.Intent != store.IntentResume {
		row.Intent = store.IntentResume
		if err := put(ctx, row); err != nil {
			return err
		}
	}
	call, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	if _, err := pauser.Resume(call, row.ID); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &notStarted{policy.EndDeadSpare, fmt.Errorf("%w: resume: %w", ErrWorkspaceLost, err)}
	}
	w, err := m.await(ctx, row.ID)
	if err != nil {
		return err
	}
	row.Home = orDefault(w.Home, row.Home)
	row.State, row.Intent, row.Uncounted, row.Checked = store.WorkspaceReady, store.IntentNone, false, time.Now()
	return put(ctx, row)
}

// still makes sure that the workspace of an adopted run is there. While the provider does not answer, it waits: a
// control plane that is away says nothing about a workspace.
func (m *maker) still(ctx context.Context, row *store.Workspace) error {
	for failures := 0; ; failures++ {
		w, err := m.provider.Get(ctx, row.ID)
		switch {
		case err == nil && w.Ready:
			return nil
		case err == nil && (w.State == provider.Failed || w.State == provider.Deleting):
			return fmt.Errorf("%w: it is %s", ErrWorkspaceLost, w.State)
		case errors.Is(err, provider.ErrNotFound):
			return fmt.Errorf("%w: %w", ErrWorkspaceLost, err)
		}
		if !wait(ctx, retryPause(failures)) {
			return context.Cause(ctx)
		}
	}
}

// tailOf is the end of what an ended process has written.
func tailOf(ctx context.Context, p provider.Process) []byte {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var tail []byte
	for chunk, err := range p.Output(ctx, provider.Offset{}) {
		if err != nil {
			break
		}
		tail = appendTail(tail, chunk.Data, maxTail)
	}
	return tail
}

// appendTail appends to what is kept of a stream's end.
func appendTail(tail, data []byte, most int) []byte {
	tail = append(tail, data...)
	if len(tail) > 2*most {
		tail = append(tail[:0], tail[len(tail)-most:]...)
	}
	return tail
}

func lastBytes(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// confirm resolves a conflict that follows a write whose answer was lost: nil if the row is what that write made it.
func (c *core) confirm(ctx context.Context, w *store.Workspace) error {
	rows, err := c.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Tokens: []string{w.Token}})
	if err != nil {
		return err
	}
	if len(rows) == 0 || rows[0].Version != w.Version+1 || rows[0].State != w.State || rows[0].Intent != w.Intent ||
		rows[0].ID != w.ID || rows[0].Task != w.Task {
		return store.ErrConflict
	}
	return nil
}
