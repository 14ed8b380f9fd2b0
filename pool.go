package freshet

import (
	"context"
	"errors"
	"sync"
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

	mu       sync.Mutex           // protects the fields below
	idle     map[string]time.Time // by token: since when a spare has waited, as far as this process knows
	busy     map[string]bool      // by token: members that this process is making or pausing
	breakers map[string]policy.Breaker
}

func newKeeper(c *core) *keeper {
	return &keeper{core: c, woken: make(chan struct{}, 1), idle: map[string]time.Time{}, busy: map[string]bool{}, breakers: map[string]policy.Breaker{}}
}

// taken is told that a spare was handed out: it is replaced at once.
func (k *keeper) taken(w *store.Workspace, now time.Time) {
	k.idled(w, now)
	if k.agents[w.Agent].Pool.size() > 0 {
		poke(k.woken)
	}
}

// returned is told of a workspace that was kept after its run.
func (k *keeper) returned(w store.Workspace, now time.Time) {
	k.waits(w.Token, now)
	k.sweep.expireAt(w.KeepUntil)
}

// waits begins the idle time of a spare; idled ends and counts it.
func (k *keeper) waits(token string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.idle[token] = now
}

func (k *keeper) idled(w *store.Workspace, now time.Time) {
	k.mu.Lock()
	from, ok := k.idle[w.Token]
	delete(k.idle, w.Token)
	k.mu.Unlock()
	if !ok {
		from = w.Ready
	}
	k.meter.idled(w.Agent, w.Resources, since(now, from))
}

func (p Pool) size() int { return p.Warm + p.Paused }

func (k *keeper) loop(ctx context.Context) {
	any := false
	for _, a := range k.agents {
		any = any || a.Pool.size() > 0
	}
	if !any {
		return
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	checked := time.Now()
	for {
		select {
		case <-k.woken:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now := time.Now(); now.Sub(checked) >= healthTime {
			checked = now
			if err := k.check(ctx); err != nil && ctx.Err() == nil {
				k.log.Warn("spares not checked", "err", err)
			}
		}
		for _, a := range k.agents {
			if a.Pool.size() == 0 {
				continue
			}
			if err := k.refill(ctx, a); err != nil && ctx.Err() == nil {
				k.log.Warn("pool not refilled", "agent", a.Name, "err", err)
			}
		}
		tick.Reset(sweepInterval)
	}
}

// check looks at all spares with one List, so that handing one out needs no call. One that is found gone or failed is
// retired at once: it has nothing to lose.
func (k *keeper) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	held, err := k.store.Acquire(ctx, "pool", k.runner, leaseTime)
	if err != nil || !held {
		return err
	}
	rows, err := k.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: k.owner, Scope: k.scope, Spare: true})
	if err != nil {
		return err
	}
	all, err := k.watch.list(ctx)
	if err != nil && !errors.Is(err, provider.ErrUnsupported) {
		return nil // the provider's silence says nothing about a spare
	}
	for i := range rows {
		w := &rows[i]
		if w.Intent != store.IntentNone {
			continue
		}
		if seen, ok := all[w.ID]; ok && (seen.Ready || seen.State == provider.Paused) {
			continue
		}
		call, cancel := context.WithTimeout(ctx, healthTime)
		err := provider.Check(call, k.provider, w.ID)
		cancel()
		if !errors.Is(err, provider.ErrNotFound) && !errors.Is(err, provider.ErrLost) {
			continue
		}
		k.log.Warn("spare lost", "agent", w.Agent, "workspace", w.ID, "err", err)
		if err := k.retire(ctx, *w); err != nil {
			return err
		}
	}
	return nil
}

// refill compares one agent's members with what they should be, and begins what is missing.
func (k *keeper) refill(ctx context.Context, a *agent) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	held, err := k.store.Acquire(ctx, "pool/"+a.Name, k.runner, leaseTime)
	if err != nil || !held {
		return err
	}
	rows, err := k.store.QueryWorkspaces(ctx, store.WorkspaceQuery{Owner: k.owner, Scope: k.scope, Agent: a.Name, Spare: true})
	if err != nil {
		return err
	}
	for i := range rows {
		k.takeUp(a, rows[i])
	}
	target := policy.Target{Warm: a.Pool.Warm, Paused: a.Pool.Paused}
	do := policy.Refill(target, a.hash, rows)
	for i := range do.Delete {
		if err := k.retire(ctx, do.Delete[i]); err != nil {
			return err
		}
	}
	for i := 0; i < min(do.Create, k.allowed(a.Name, do.Create)); i++ {
		if full, err := k.add(ctx, a); err != nil || full {
			return err
		}
	}
	for i := range do.Pause {
		k.pause(a, do.Pause[i])
	}
	return nil
}

// allowed is how many of n members may be made now: none while the provider makes none, or while this agent's keep
// failing; one as a probe.
func (k *keeper) allowed(agent string, n int) int {
	if n == 0 {
		return 0
	}
	now := time.Now()
	k.mu.Lock()
	b := k.breakers[agent]
	if b.Open(now) {
		k.mu.Unlock()
		return 0
	}
	if b.Tripped() {
		n = 1
		k.breakers[agent] = b.Probed(now)
	}
	k.mu.Unlock()
	most, creates := k.pace.room(n)
	if !creates {
		return 0
	}
	k.pace.probed()
	return min(n, most)
}

// made tells the agent's breaker how making a member ended.
func (k *keeper) made(agent string, began time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.breakers[agent]
	if err == nil {
		delete(k.breakers, agent)
		return
	}
	k.breakers[agent] = b.Failed(time.Now(), began, reasonOf(err), provider.RetryAfter(err))
}

// takeUp goes on with a member that a process began to make or pause and did not finish: it may be gone. If it is not,
// both do the same to the same workspace, and one of them finds the row changed and lets go.
func (k *keeper) takeUp(a *agent, row store.Workspace) {
	begun := row.Intent == store.IntentCreate || row.Intent == store.IntentPause
	if !begun || row.Spec != a.hash || since(time.Now(), row.Since) < 2*leaseTime {
		return
	}
	if row.Intent == store.IntentPause {
		k.pause(a, row)
		return
	}
	k.make(a, row, true)
}

// begin and end keep this process from doing the same to a member twice.
func (k *keeper) begin(token string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[token] {
		return false
	}
	k.busy[token] = true
	return true
}

func (k *keeper) end(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, token)
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
	k.make(a, row, false)
	return false, nil
}

// make makes a reserved member. unsure: somebody may have created it already.
func (k *keeper) make(a *agent, row store.Workspace, unsure bool) {
	if !k.begin(row.Token) {
		return
	}
	k.claims.Go(func(ctx context.Context) {
		defer k.end(row.Token)
		began := time.Now()
		err := k.maker.make(ctx, a, &row, unsure, k.put)
		if ctx.Err() == nil && !errors.Is(err, store.ErrConflict) {
			k.made(a.Name, began, err)
		}
		if err != nil {
			if ctx.Err() == nil {
				k.log.Warn("pool member not made", "agent", a.Name, "token", row.Token, "err", err)
			}
			k.discard(ctx, row, err)
			return
		}
		k.waits(row.Token, time.Now())
		k.admit.wake()
		poke(k.woken)
	})
}

// put records a spare.
func (k *keeper) put(ctx context.Context, w *store.Workspace) error {
	for failures := 0; ; failures++ {
		err := bounded(ctx, func(ctx context.Context) error {
			_, err := k.store.PutWorkspace(ctx, store.Lease{}, nil, *w)
			return err
		})
		if failures > 0 && errors.Is(err, store.ErrConflict) {
			err = k.confirm(ctx, w)
		}
		if err == nil {
			w.Version++
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
	if !row.Ready.IsZero() {
		k.idled(&row, time.Now())
	}
	k.reap.delete(row)
	return nil
}

// pause turns a warm member into a paused one.
func (k *keeper) pause(a *agent, row store.Workspace) {
	pauser, ok := provider.As[provider.Pauser](k.provider)
	if !ok || !k.begin(row.Token) {
		return
	}
	k.claims.Go(func(ctx context.Context) {
		defer k.end(row.Token)
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
