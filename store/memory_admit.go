package store

import (
	"context"
	"slices"
	"time"

	"github.com/freshet-dev/freshet/internal/line"
)

// accountLimits, tenantLimits and agentLimits name what an amount may exceed.
var (
	accountLimits = [3]string{LimitWorkspaces, LimitCPU, LimitMemory}
	tenantLimits  = [3]string{LimitTenantConcurrent, LimitTenantCPU, LimitTenantMemory}
	agentLimits   = [3]string{LimitAgentConcurrent}
)

// expiriesPerClaim bounds how many tasks one ClaimBegin ends because they are too late.
const expiriesPerClaim = 1000

// parkKey is what decides, beside what a tenant holds, whether it is parked: the limits, and the least that any of the
// caller's plans needs.
type parkKey struct {
	limits Limits
	least  amount
}

// admission is one call of Begin or ClaimBegin.
type admission struct {
	*books
	Admission
	now    time.Time
	limits Limits // in force
	plans  map[string]*Plan
	wanted amount // by tasks met that only the account keeps from starting: room is made for all of them

	// Of ClaimBegin:
	ahead ahead
	full  []string // tenants met that are at a cap
}

// ahead is what tasks would hold that only the account keeps from starting, and that those behind them in the line must
// leave to them.
type ahead struct {
	account amount
	tenants map[string]amount
	agents  map[string]amount
}

// berth is where a run can have its workspace.
type berth struct {
	spare *slot // nil: a new one
	path  Path
	holds amount
}

// newAdmission begins a call.
func newAdmission(b *books, now time.Time, a Admission) *admission {
	x := &admission{
		books: b, Admission: a, now: now, limits: b.rules.inForce(a.Limits), plans: make(map[string]*Plan, len(a.Plans)),
	}
	for i := range a.Plans {
		x.plans[a.Plans[i].Agent] = &a.Plans[i]
	}
	return x
}

// overTenant says which limit of the tenant a run that holds so much would exceed, or nil.
func (x *admission) overTenant(tenant string, holds amount) *LimitError {
	l := x.rules.tenant(tenant, x.limits)
	most, used := l.most(), x.ahead.tenants[tenant]
	if t := x.tally.tenants[tenant]; t != nil {
		used = used.plus(t.held)
	}
	over := used.above(most, holds)
	if over == (amount{}) {
		return nil
	}
	err := used.limitError(most, over, tenantLimits)
	err.Tenant = tenant
	return err
}

// overAgent says whether one more run of the plan's agent would exceed its limit.
func (x *admission) overAgent(p *Plan) *LimitError {
	most, used := amount{n: p.Concurrent}, x.ahead.agents[p.Agent]
	if a := x.tally.agents[p.Agent]; a != nil {
		used = used.plus(a.held)
	}
	over := used.above(most, amount{n: 1})
	if over == (amount{}) {
		return nil
	}
	err := used.limitError(most, over, agentLimits)
	err.Agent = p.Agent
	return err
}

// overAccount is by how much so much more would exceed the limits of the account.
func (x *admission) overAccount(more amount) amount {
	return x.tally.account.plus(x.ahead.account).above(x.limits.most(), more)
}

// berth finds a workspace for a run. If only the account stands in the way, blocked is true and the berth is the one that
// the run would have; any other obstacle is told by limit.
func (x *admission) berth(p *Plan, tenant string) (found berth, blocked bool, limit *LimitError) {
	need := amountOf(p.Resources)
	if limit = x.overTenant(tenant, need); limit == nil {
		limit = x.overAgent(p)
	}
	if limit != nil {
		return berth{}, false, limit
	}
	for _, path := range p.Paths {
		here := x.along(p, path, tenant)
		if here.path == "" {
			continue
		}
		if here.holds != need { // a spare that was resized
			if over := x.overTenant(tenant, here.holds); over != nil {
				limit = over
				continue
			}
		}
		if here.spare != nil && here.spare.counted() || x.overAccount(here.holds) == (amount{}) {
			return here, false, nil
		}
		if !blocked {
			found, blocked = here, true
		}
	}
	switch {
	case blocked:
		return found, true, nil
	case limit == nil: // no path has a member, and none makes one
		limit = &LimitError{Limit: LimitWorkspaces, Agent: p.Agent}
	}
	return berth{}, false, limit
}

// along finds what one path has for a run; without a path when it has nothing.
func (x *admission) along(p *Plan, path Path, tenant string) berth {
	on := shelf{fleet: fleet{x.Owner, x.Scope}, agent: p.Agent, spec: p.Spec, state: WorkspaceReady}
	var spare *slot
	switch path {
	case PathCold:
		for len(x.Tokens) > 0 && x.ledger.rows[x.Tokens[0]] != nil {
			x.Tokens = x.Tokens[1:]
		}
		if len(x.Tokens) == 0 {
			return berth{}
		}
		return berth{path: path, holds: amountOf(p.Resources)}
	case PathKept:
		if tenant == "" { // the shelf of nobody's spares
			return berth{}
		}
		on.tenant = tenant
		if spare = x.ledger.find(x.now, on); spare == nil {
			on.state = WorkspacePaused
			spare = x.ledger.find(x.now, on)
		}
	case PathPaused:
		on.state = WorkspacePaused
		spare = x.ledger.find(x.now, on)
	case PathWarm:
		spare = x.ledger.find(x.now, on)
	}
	if spare == nil {
		return berth{}
	}
	return berth{spare: spare, path: path, holds: spare.stake.amount}
}

// begin starts a run of a queued task that nothing stands in the way of.
func (x *admission) begin(t *taskRow, p *Plan, at berth) Begun {
	x.fence++
	t.Fence = x.fence
	t.Attempt++
	t.Path = at.path
	t.Runner, t.LeaseEnd, t.detached = x.Runner, x.now.Add(x.Lease), false
	t.Started = time.Time{}
	t.Reason, t.Code = "", ""
	s := at.spare
	if s == nil {
		s = x.insertRow(x.now, Workspace{
			Token: x.Tokens[0], Scope: x.Scope, Owner: x.Owner, Agent: p.Agent, Spec: p.Spec, Resources: p.Resources,
			State: WorkspaceNew, Intent: IntentCreate, Task: t.ID, Fence: t.Fence, Tenant: t.Tenant,
		})
		x.Tokens = x.Tokens[1:]
	} else {
		w := s.Workspace
		w.Task, w.Fence, w.Tenant = t.ID, t.Fence, t.Tenant
		w.KeepUntil, w.Uncounted = time.Time{}, false
		if w.State == WorkspacePaused {
			w.Intent = IntentResume
		}
		x.replaceRow(x.now, s, w)
	}
	t.Workspace = s.Token
	if s.State == WorkspaceReady {
		x.move(t, StateRunning)
		t.Started = x.now
	} else {
		x.move(t, StateStarting)
	}
	x.record(x.now, t)
	return t.admitted(s)
}

// admitted is what the owner of t's new lease is given.
func (t *taskRow) admitted(s *slot) Begun {
	begun := Begun{Verdict: Admitted, Task: t.snapshot(true, false), Lease: Lease{Task: t.ID, Fence: t.Fence}}
	if s != nil {
		begun.Workspace = s.Workspace
	}
	return begun
}

// wait puts a task that only the account keeps from starting ahead of all that the call meets after it.
func (x *admission) wait(t *taskRow, at berth) {
	a := &x.ahead
	if a.tenants == nil {
		a.tenants, a.agents = make(map[string]amount), make(map[string]amount)
	}
	a.account = a.account.plus(at.holds)
	a.tenants[t.Tenant] = a.tenants[t.Tenant].plus(at.holds)
	a.agents[t.Agent] = a.agents[t.Agent].plus(at.holds)
}

// evict makes room for a run that the account keeps from starting: it marks spares for deletion, the longest idle first
// and at most n, until as much is on its way out as all tasks lack for which this was called. It answers whether that is
// reached.
func (x *admission) evict(more amount, n int) (evicted []Workspace, enough bool) {
	lacking := func() amount {
		return x.tally.account.minus(x.tally.deleting).plus(x.wanted).above(x.limits.most(), more)
	}
	lacks := lacking()
	if idle := x.ledger.idle[fleet{x.Owner, x.Scope}]; idle != nil {
		for e := idle.Front(); e != nil && lacks != (amount{}) && len(evicted) < n; {
			s := e.Value.(*slot)
			e = e.Next()
			if s.stake.amount.helps(lacks) {
				w := s.Workspace
				w.Intent = IntentDelete
				x.replaceRow(x.now, s, w)
				evicted = append(evicted, s.Workspace)
				lacks = lacking()
			}
		}
	}
	x.wanted = x.wanted.plus(more)
	return evicted, lacks == amount{}
}

// expire finishes a task whose NotAfter has passed.
func (x *admission) expire(t *taskRow) {
	x.finish(x.now, t, Ending{State: StateExpired, Reason: "could not start before its deadline", Code: "expired"})
}

// Begin implements Runs. A request for an agent without a Plan is NotYours.
func (m *Memory) Begin(ctx context.Context, a Admission, reqs []BeginRequest) ([]Begun, error) {
	now, err := m.step(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	x := newAdmission(&m.books, now, a)
	out := make([]Begun, len(reqs))
	for i, req := range reqs {
		if t := m.books.tasks.byID[req.Task]; t == nil {
			out[i] = Begun{Verdict: NotYours}
		} else if out[i] = x.try(t, req.Generation); out[i].Verdict != Admitted {
			out[i].Task = t.snapshot(false, false)
		}
	}
	return out, nil
}

// try answers one request of Begin.
func (x *admission) try(t *taskRow, generation int64) Begun {
	p := x.plans[t.Agent]
	if p == nil || t.State != StateQueued || t.Generation != generation {
		return Begun{Verdict: NotYours}
	}
	if t.expired(x.now) {
		x.expire(t)
		return Begun{Verdict: NotYours}
	}
	if t.Due.After(x.now) {
		return Begun{Verdict: NotDue}
	}
	if hold := x.rules.hold(x.now, t.Agent, t.Tenant); hold != nil {
		return Begun{Verdict: Held, Hold: hold}
	}
	at, blocked, limit := x.berth(p, t.Tenant)
	switch {
	case limit != nil:
		return Begun{Verdict: Limited, Limit: limit}
	case blocked:
		begun := Begun{Verdict: Limited, Limit: x.accountError(at.holds)}
		if evicted, _ := x.evict(at.holds, 1); len(evicted) > 0 {
			begun.Evicted = &evicted[0]
		}
		return begun
	}
	x.line.Remove(t.ID)
	return x.begin(t, p, at)
}

// accountError names the limit of the account that so much more would exceed.
func (x *admission) accountError(more amount) *LimitError {
	used, most := x.tally.account, x.limits.most()
	return used.limitError(most, used.above(most, more), accountLimits)
}

// ClaimBegin implements Liner. Where only the account stands in the way of a task, spares are evicted for it, and what
// stands behind it in the line and needs a part of what it waits for has to wait too.
func (m *Memory) ClaimBegin(ctx context.Context, a Admission, n int) (Claimed, error) {
	now, err := m.step(ctx)
	if err != nil {
		return Claimed{}, err
	}
	defer m.mu.Unlock()
	x := newAdmission(&m.books, now, a)
	x.unparkFor(a.Plans)
	return x.claim(n), nil
}

// claim takes up to n tasks from the line.
func (x *admission) claim(n int) (out Claimed) {
	if !slices.ContainsFunc(x.Plans, func(p Plan) bool { return x.overAgent(x.plans[p.Agent]) == nil }) {
		return out // without a look at each tenant
	}
	var waiting []line.Item // only the account keeps them from starting
	late := 0
	for enough := true; enough && len(out.Begun)+len(waiting) < n; {
		item, ok := x.line.Take(x.now, x.eligible)
		x.park()
		if !ok {
			out.Next = earlier(x.line.NextDue(x.now), x.rules.nextHoldEnd(x.now))
			break
		}
		t := x.tasks.byID[item.ID]
		if t.expired(x.now) {
			x.line.Return(item) // a refund to its tenant; expire takes it out
			x.expire(t)
			if late++; late == expiriesPerClaim {
				out.Next = x.now
				break
			}
			continue
		}
		p := x.plans[t.Agent]
		at, blocked, _ := x.berth(p, t.Tenant)
		if !blocked {
			if out.Begun == nil { // rows are large: copy few of them while it grows
				out.Begun = make([]Begun, 0, min(n, x.tally.queued, 64))
			}
			out.Begun = append(out.Begun, x.begin(t, p, at))
			continue
		}
		waiting = append(waiting, item)
		x.wait(t, at)
		var evicted []Workspace
		evicted, enough = x.evict(at.holds, len(x.ledger.rows))
		out.Evicted = append(out.Evicted, evicted...)
	}
	for _, item := range slices.Backward(waiting) { // as the line can forget what was taken last
		x.line.Return(item)
	}
	return out
}

// eligible says whether a task of this agent and tenant could start now, or only the account keeps it from that.
func (x *admission) eligible(agent, tenant string) bool {
	p := x.plans[agent]
	if p == nil {
		return false
	}
	if t := x.tally.tenants[tenant]; t != nil {
		l := x.rules.tenant(tenant, x.limits)
		if t.held.above(l.most(), x.parkedUnder.least) != (amount{}) {
			x.full = append(x.full, tenant)
			return false
		}
	}
	if x.rules.hold(x.now, agent, tenant) != nil {
		return false
	}
	_, _, limit := x.berth(p, tenant)
	return limit == nil
}

// park takes the tenants that eligible has met at a cap out of the line's sight until they hold less.
func (x *admission) park() {
	for _, tenant := range x.full {
		if _, ok := x.parked[tenant]; !ok {
			x.parked[tenant] = struct{}{}
			x.line.Park(tenant)
		}
	}
	x.full = x.full[:0]
}

// unparkFor lets all tenants take part again if they were parked for other limits or needs than those of this call.
func (x *admission) unparkFor(plans []Plan) {
	key := parkKey{limits: x.limits}
	for i, p := range plans {
		need := amountOf(p.Resources)
		if i == 0 {
			key.least = need
		}
		key.least = amount{1, min(key.least.milli, need.milli), min(key.least.mem, need.mem)}
	}
	if key == x.parkedUnder {
		return
	}
	x.parkedUnder = key
	for tenant := range x.parked {
		x.unpark(tenant)
	}
}
