package freshet

import (
	"context"
	"errors"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// keeper keeps the pools of spare workspaces at their size. In a fleet one process does so at a time, by a short named
// lease; the ledger in the Store says what exists, so that another can go on at any moment.
type keeper struct {
	*core
	woken chan struct{}
	poll  time.Duration
}

func newKeeper(c *core) *keeper {
	return &keeper{core: c, woken: make(chan struct{}, 1), poll: sweepInterval}
}

// taken is told that a member was handed out: it is replaced at once.
func (k *keeper) taken(agent string) {
	if k.agents[agent].Pool.size() > 0 {
		poke(k.woken)
	}
}

// returned is told of a workspace that was kept after its run.
func (k *keeper) returned(w store.Workspace) { k.sweep.expireAt(w.KeepUntil) }

func (p Pool) size() int { return p.Warm + p.Paused }

func (k *keeper) loop(ctx context.Context) {
	any := false
	for _, a := range k.agents {
		any = any || a.Pool.size() > 0
	}
	if !any {
		return
	}
	failures := map[string]int{}
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-k.woken:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, a := range k.agents {
			if a.Pool.size() == 0 {
				continue
			}
			if err := k.refill(ctx, a); err != nil && ctx.Err() == nil {
				k.log.Warn("pool not refilled", "agent", a.Name, "err", err)
				failures[a.Name]++
			}
		}
		tick.Reset(k.poll)
	}
}

// refill compares one agent's members with what they should be, and begins what is missing.
func (k *keeper) refill(ctx context.Context, a *agent) error {
	held, err := k.store.Acquire(ctx, "pool/"+a.Name, k.runner, leaseTime)
	if err != nil || !held {
		return err
	}
	rows, err := k.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: k.owner, Scope: k.scope, Agent: a.Name, Spare: true})
	if err != nil {
		return err
	}
	target := policy.Target{Warm: a.Pool.Warm, Paused: a.Pool.Paused}
	do := policy.Refill(target, a.hash, rows)
	for i := range do.Delete {
		if err := k.retire(ctx, do.Delete[i]); err != nil {
			return err
		}
	}
	for i := 0; i < do.Create; i++ {
		if k.pace.outage() != "" {
			return nil
		}
		if full, err := k.add(ctx, a); err != nil || full {
			return err
		}
	}
	for i := range do.Pause {
		k.pause(a, do.Pause[i])
	}
	return nil
}

// add reserves one member and makes it; full: the account's limits leave no room, and runs come first.
func (k *keeper) add(ctx context.Context, a *agent) (full bool, err error) {
	row := store.Workspace{
		Token: newToken(), Owner: k.owner, Scope: k.scope, Agent: a.Name, Spec: a.hash, Resources: a.Resources,
		State: store.WorkspaceNew, Intent: store.IntentCreate,
	}
	row.Version, err = k.store.PutWorkspace(ctx, store.Lease{}, &k.cfg.Limits, row)
	var limit *store.LimitError
	if errors.As(err, &limit) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	k.claims.Go(func(ctx context.Context) {
		if err := k.maker.make(ctx, a, &row, false, k.put); err != nil {
			if ctx.Err() == nil {
				k.log.Warn("pool member not made", "agent", a.Name, "token", row.Token, "err", err)
			}
			k.discard(ctx, row, err)
			return
		}
		k.admit.wake()
		poke(k.woken)
	})
	return false, nil
}

// put records a spare.
func (k *keeper) put(ctx context.Context, w *store.Workspace) error {
	for failures := 0; ; failures++ {
		version, err := k.store.PutWorkspace(ctx, store.Lease{}, nil, *w)
		if err == nil {
			w.Version = version
			return nil
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrLeaseLost) || !wait(ctx, retryPause(failures)) {
			return err
		}
	}
}

// discard ends a member that could not be made.
func (k *keeper) discard(ctx context.Context, row store.Workspace, err error) {
	if errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
		return // somebody else's, or the next process's
	}
	if row.ID == "" && errors.Is(err, errNothingMade) {
		row.State = store.WorkspaceGone
		if _, err := k.store.PutWorkspace(ctx, store.Lease{}, nil, row); err != nil {
			k.log.Warn("member not forgotten yet", "token", row.Token, "err", err)
		}
		return
	}
	if err := k.retire(ctx, row); err != nil {
		k.log.Warn("member not deleted yet", "token", row.Token, "err", err)
	}
}

// retire deletes a spare, the intent first.
func (k *keeper) retire(ctx context.Context, row store.Workspace) error {
	row.Intent = store.IntentDelete
	version, err := k.store.PutWorkspace(ctx, store.Lease{}, nil, row)
	if errors.Is(err, store.ErrConflict) {
		return nil // it was taken
	}
	if err != nil {
		return err
	}
	row.Version = version
	k.reap.delete(row)
	return nil
}

// pause turns a warm member into a paused one.
func (k *keeper) pause(a *agent, row store.Workspace) {
	pauser, ok := provider.As[provider.Pauser](k.provider)
	if !ok {
		return
	}
	k.claims.Go(func(ctx context.Context) {
		row.Intent = store.IntentPause
		if err := k.put(ctx, &row); err != nil {
			return // it was taken
		}
		call, cancel := context.WithTimeout(ctx, slowTimeout)
		defer cancel()
		kind := a.Pool.Kind
		if kind == "" && len(k.caps.PauseKinds) > 0 {
			kind = k.caps.PauseKinds[0]
		}
		if err := pauser.Pause(call, row.ID, kind); err != nil {
			k.log.Warn("member not paused", "agent", a.Name, "workspace", row.ID, "err", err)
			k.discard(ctx, row, err)
			return
		}
		row.State, row.Intent, row.Uncounted = store.WorkspacePaused, store.IntentNone, !k.caps.PausedCounts
		if err := k.put(ctx, &row); err != nil {
			k.log.Warn("paused member not recorded", "token", row.Token, "err", err)
			return
		}
		poke(k.woken)
		k.admit.wake()
	})
}
