package store

import (
	"container/list"
	"math"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// amount is an Amount that adds up exactly: of cores, it counts thousandths.
type amount struct {
	n     int
	milli int64
	mem   int
}

// milliCores is cores in thousandths.
func milliCores(cores float64) int64 { return int64(math.Round(cores * 1000)) }

// amountOf is what one workspace of these resources holds.
func amountOf(r provider.Resources) amount {
	return amount{n: 1, milli: milliCores(r.CPU), mem: r.MemoryMB}
}

// most is what the account may hold; zero fields limit nothing.
func (l *Limits) most() amount { return amount{l.Workspaces, milliCores(l.CPU), l.MemoryMB} }

// most is what a tenant may hold; zero fields limit nothing.
func (l *TenantLimits) most() amount { return amount{l.Concurrent, milliCores(l.CPU), l.MemoryMB} }

func (a amount) plus(b amount) amount { return amount{a.n + b.n, a.milli + b.milli, a.mem + b.mem} }

func (a amount) minus(b amount) amount { return amount{a.n - b.n, a.milli - b.milli, a.mem - b.mem} }

// above is by how much more on top of a exceeds most. What more has nothing of is not exceeded.
func (a amount) above(most, more amount) amount {
	var over amount
	if most.n > 0 && more.n > 0 {
		over.n = max(a.n+more.n-most.n, 0)
	}
	if most.milli > 0 && more.milli > 0 {
		over.milli = max(a.milli+more.milli-most.milli, 0)
	}
	if most.mem > 0 && more.mem > 0 {
		over.mem = max(a.mem+more.mem-most.mem, 0)
	}
	return over
}

// helps says whether a has any of what is lacking.
func (a amount) helps(lacks amount) bool {
	return a.n > 0 && lacks.n > 0 || a.milli > 0 && lacks.milli > 0 || a.mem > 0 && lacks.mem > 0
}

// public is a for callers.
func (a amount) public() Amount {
	return Amount{Workspaces: a.n, CPU: float64(a.milli) / 1000, MemoryMB: a.mem}
}

// limitError names the limit that over, from above, tells of: names has those of the number, the cores and the memory.
func (a amount) limitError(most, over amount, names [3]string) *LimitError {
	switch {
	case over.n > 0:
		return &LimitError{Limit: names[0], Max: float64(most.n), InUse: float64(a.n)}
	case over.milli > 0:
		return &LimitError{Limit: names[1], Max: float64(most.milli) / 1000, InUse: float64(a.milli) / 1000}
	}
	return &LimitError{Limit: names[2], Max: float64(most.mem), InUse: float64(a.mem)}
}

// tallies are running sums over all tasks and workspaces.
type tallies struct {
	account  amount // held by all rows that count
	deleting amount // of account, what is on its way out
	queued   int
	tenants  map[string]*tenantTally
	agents   map[string]*agentTally
	recent   *list.List // tenants whose window is not empty, by their last submission
	start    time.Time  // from which windows count
}

// tenantTally is what one tenant holds. It exists while anything in it is not zero.
type tenantTally struct {
	name   string
	held   amount // by its runs
	queued int
	window []time.Duration // when its submissions of the last hour came, oldest first
	recent *list.Element   // nil: the window is empty
}

// agentTally is what one agent holds. It exists while anything in it is not zero.
type agentTally struct {
	held  amount    // by its runs
	count Counts    // without OldestQueued
	line  list.List // its queued tasks, in the order in which they were put in line
}

func newTallies() tallies {
	return tallies{
		tenants: make(map[string]*tenantTally), agents: make(map[string]*agentTally), recent: list.New(), start: time.Now(),
	}
}

func (ta *tallies) tenant(name string) *tenantTally {
	t := ta.tenants[name]
	if t == nil {
		t = &tenantTally{name: name}
		ta.tenants[name] = t
	}
	return t
}

func (ta *tallies) agent(name string) *agentTally {
	a := ta.agents[name]
	if a == nil {
		a = &agentTally{}
		ta.agents[name] = a
	}
	return a
}

// dropAgent forgets a tally in which all is zero.
func (ta *tallies) dropAgent(name string, a *agentTally) {
	if a.held == (amount{}) && a.count == (Counts{}) {
		delete(ta.agents, name)
	}
}

// dropTenant forgets a tally in which all is zero.
func (b *books) dropTenant(name string, t *tenantTally) {
	if t.held == (amount{}) && t.queued == 0 && t.recent == nil {
		b.unpark(name)
		delete(b.tally.tenants, name)
	}
}

// unpark lets a tenant take part in claims again.
func (b *books) unpark(tenant string) {
	if _, ok := b.parked[tenant]; ok {
		delete(b.parked, tenant)
		b.line.Unpark(tenant)
	}
}

// submitted adds n submissions to a tenant's window.
func (ta *tallies) submitted(now time.Time, t *tenantTally, n int) {
	for range n {
		t.window = append(t.window, now.Sub(ta.start))
	}
	if t.recent == nil {
		t.recent = ta.recent.PushBack(t)
	} else {
		ta.recent.MoveToBack(t.recent)
	}
}

// slide drops what has left the tenant's window.
func (ta *tallies) slide(now time.Time, t *tenantTally) {
	gone, left := 0, now.Sub(ta.start)-time.Hour // what came until then has left
	for gone < len(t.window) && t.window[gone] <= left {
		gone++
	}
	if t.window = t.window[gone:]; len(t.window) == 0 && t.recent != nil {
		ta.recent.Remove(t.recent)
		t.window, t.recent = nil, nil
	}
}

// forgetWindows drops the windows of tenants who have submitted nothing for an hour.
func (b *books) forgetWindows(now time.Time) {
	for e := b.tally.recent.Front(); e != nil; e = b.tally.recent.Front() {
		t := e.Value.(*tenantTally)
		if t.window[len(t.window)-1] > now.Sub(b.tally.start)-time.Hour {
			return
		}
		b.tally.slide(now, t)
		b.dropTenant(t.name, t)
	}
}
