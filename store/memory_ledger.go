package store

import (
	"container/list"
	"slices"
	"time"
)

// slot is a row of Workspaces, with what it holds of the limits and where it can be found as a spare.
type slot struct {
	Workspace
	made  int64 // orders rows of the same moment
	stake stake

	shelf shelf // zero: it cannot be handed out
	since time.Time
	spare *list.Element // in the shelf's list
	idle  *list.Element // in its fleet's list; nil: it cannot be evicted
}

// stake is what a row counts for.
type stake struct {
	amount        amount
	agent, tenant string
	counted       bool // against the account
	run           bool // against its agent and tenant
	deleting      bool
	spare         WorkspaceState // "": it is no spare, or on its way out
}

// shelf is where spares lie that can stand for one another.
type shelf struct {
	fleet               fleet
	agent, spec, tenant string
	state               WorkspaceState
}

// fleet is who can reach a workspace.
type fleet struct{ owner, scope string }

// ledger finds workspaces. Its lists are ordered by Since, the longest idle first.
type ledger struct {
	rows    map[string]*slot
	shelves map[shelf]*list.List // of *slot
	idle    map[fleet]*list.List // of *slot: all that are on a shelf and count against the account
	made    int64
}

func newLedger() ledger {
	return ledger{rows: make(map[string]*slot), shelves: make(map[shelf]*list.List), idle: make(map[fleet]*list.List)}
}

// place tells the shelf on which a row belongs; zero: none.
func (w *Workspace) place() shelf {
	if w.Task != "" || w.Intent != IntentNone || (w.State != WorkspaceReady && w.State != WorkspacePaused) {
		return shelf{}
	}
	return shelf{fleet{w.Owner, w.Scope}, w.Agent, w.Spec, w.Tenant, w.State}
}

// counted says whether a row counts against the account.
func (w *Workspace) counted() bool { return !w.Uncounted || w.State != WorkspacePaused }

// claim tells what a row counts for.
func (w *Workspace) claim() stake {
	st := stake{
		amount: amountOf(w.Resources), agent: w.Agent, tenant: w.Tenant,
		counted: w.counted(), run: w.Task != "", deleting: w.Intent == IntentDelete,
	}
	if !st.run && !st.deleting {
		st.spare = w.State
	}
	return st
}

// reshelve puts a row that has changed where it can now be found. It answers whether it has become a spare to hand out.
func (l *ledger) reshelve(s *slot, to shelf) bool {
	evictable := to != shelf{} && s.counted()
	if s.shelf == to && s.since.Equal(s.Since) && evictable == (s.idle != nil) {
		return false
	}
	if s.spare != nil {
		s.spare = take(l.shelves, s.shelf, s.spare)
	}
	if s.idle != nil {
		s.idle = take(l.idle, s.shelf.fleet, s.idle)
	}
	s.shelf, s.since = to, s.Since
	if to == (shelf{}) {
		return false
	}
	s.spare = put(l.shelves, to, s)
	if evictable {
		s.idle = put(l.idle, to.fleet, s)
	}
	return true
}

// put puts a row into the list under key, in its place by Since: nearly always the last.
func put[K comparable](lists map[K]*list.List, key K, s *slot) *list.Element {
	l := lists[key]
	if l == nil {
		l = list.New()
		lists[key] = l
	}
	e := l.PushBack(s)
	for before := e.Prev(); before != nil && before.Value.(*slot).Since.After(s.Since); before = e.Prev() {
		l.MoveBefore(e, before)
	}
	return e
}

// take removes an element from the list under key, and the list when it is empty. It returns nil.
func take[K comparable](lists map[K]*list.List, key K, e *list.Element) *list.Element {
	l := lists[key]
	l.Remove(e)
	if l.Len() == 0 {
		delete(lists, key)
	}
	return nil
}

// find returns the longest idle spare on a shelf that can be handed out now, or nil.
func (l *ledger) find(now time.Time, on shelf) *slot {
	spares := l.shelves[on]
	if spares == nil {
		return nil
	}
	for e := spares.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*slot); s.Tenant == "" || now.Before(s.KeepUntil) {
			return s
		}
	}
	return nil
}

// insertRow adds a row.
func (b *books) insertRow(now time.Time, w Workspace) *slot {
	b.ledger.made++
	s := &slot{made: b.ledger.made}
	b.ledger.rows[w.Token] = s
	w.Created = now
	b.replaceRow(now, s, w)
	return s
}

// replaceRow makes w the content of a row, as its next version.
func (b *books) replaceRow(now time.Time, s *slot, w Workspace) {
	old := s.Workspace
	w.Version = old.Version + 1
	w.Since = old.Since
	if old.Version == 0 || w.State != old.State || w.Intent != old.Intent || w.Task != old.Task {
		w.Since = now
	}
	s.Workspace = w
	if w.Task != old.Task {
		b.tasks.unlink(s, old.Task)
		if t := b.tasks.byID[w.Task]; t != nil {
			t.slots = append(t.slots, s)
		}
	}
	b.stakeRow(s, w.claim())
	if b.ledger.reshelve(s, w.place()) {
		b.watchers.claimable()
	}
}

// removeRow forgets a row, and so frees what it held.
func (b *books) removeRow(s *slot) {
	delete(b.ledger.rows, s.Token)
	b.tasks.unlink(s, s.Task)
	b.stakeRow(s, stake{})
	b.ledger.reshelve(s, shelf{})
}

// unlink parts a row from the task that it named.
func (tt *taskTable) unlink(s *slot, task string) {
	if t := tt.byID[task]; t != nil {
		t.slots = slices.DeleteFunc(t.slots, func(other *slot) bool { return other == s })
	}
}

// stakeRow brings the tallies from what a row counted for to what it counts for now.
func (b *books) stakeRow(s *slot, to stake) {
	from := s.stake
	if from == to {
		return
	}
	s.stake = to
	b.addStake(to, amount.plus, 1)
	b.addStake(from, amount.minus, -1)
	if from == (stake{}) {
		return
	}
	if from.counted && !to.counted || from.run && !to.run || from.amount != to.amount {
		b.watchers.claimable()
	}
	if from.run && (!to.run || from.tenant != to.tenant || from.amount != to.amount) {
		b.unpark(from.tenant)
		b.dropTenant(from.tenant, b.tally.tenant(from.tenant))
	}
	b.tally.dropAgent(from.agent, b.tally.agent(from.agent))
}

// addStake adds a stake to the tallies, or takes it away.
func (b *books) addStake(st stake, change func(amount, amount) amount, sign int) {
	if st == (stake{}) {
		return
	}
	if st.counted {
		b.tally.account = change(b.tally.account, st.amount)
		if st.deleting {
			b.tally.deleting = change(b.tally.deleting, st.amount)
		}
	}
	agent := b.tally.agent(st.agent)
	if st.run {
		tenant := b.tally.tenant(st.tenant)
		tenant.held = change(tenant.held, st.amount)
		agent.held = change(agent.held, st.amount)
	}
	switch {
	case st.deleting:
		agent.count.Deleting += sign
	case st.spare == WorkspaceReady:
		agent.count.Warm += sign
	case st.spare == WorkspacePaused:
		agent.count.Paused += sign
	case st.spare == WorkspaceNew:
		agent.count.New += sign
	}
}
