// Package line is the order in which waiting tickets are served: priority, then weighted fair share over tenants, then
// first come, first served. It is a data structure without lock, clock or I/O; queue.Memory and store.Memory keep one.
//
// # Fair share
//
// Within one priority, tenants are served by virtual finish tags (self-clocked fair queueing). An item of a tenant of
// weight w costs 1/w. The virtual time of a priority is the tag served last. A tenant that comes gets the virtual time
// plus its cost as its tag, each service moves the tag on by the cost, and the lowest tag is next; one that the virtual
// time has passed counts as equal to it. So a tag is always at the virtual time, or later by at most one item:
//
//   - Over any interval in which two tenants both have something to take that is due and eligible, their services
//     divided by their weights differ by at most 1/w1 + 1/w2: one item each.
//   - Nobody starves. A tenant's next item waits for at most two items of each other tenant of its weight, and for none
//     of a tenant that comes when the virtual time is past the item's tag less that tenant's cost.
//   - The share is the tenant's, whether its items are of one agent or of many.
//   - A tenant that has nothing to take, is passed over or parked saves up nothing, and owes nothing when it is back.
//     So nothing at all is kept of a tenant without items.
//   - A return moves the tag back by what the service cost, but not behind the virtual time: what others were given
//     meanwhile is not made up for. The return of what was taken last turns the virtual time back too, so that taking
//     several and giving them back in reverse order leaves no trace.
package line

import "time"

// Item is one place in the line.
type Item struct {
	ID         string // of the task
	Generation int64
	Agent      string
	Tenant     string
	Priority   int
	Weight     int // of the tenant, at most 1<<20; 0: 1. That of the item pushed last counts for all of its items
	Due        time.Time
	Pushed     time.Time

	seq  int64   // its place among all; 0: it was never in the line
	cost float64 // what Take charged for it
	// The virtual time before Take and after it: who gives back the last that was taken turns it back.
	before, served float64
}

// Line is the order of service. It is not safe for concurrent use. Push, Take, Return and Remove cost O(log n). A now
// that goes back does no harm: what was due once stays so.
type Line struct {
	items   map[string]*entry
	tenants map[string]*tenant // those with items
	flows   map[flowKey]*flow
	queues  map[queueKey]*queue
	bands   map[int]*band
	active  tree[*band]  // those with something to take, highest first
	delayed heap[*entry] // by Due
	ages    heap[*entry] // all, by Pushed
	parked  map[string]struct{}
	peak    int       // the most items since the line was last empty
	seq     int64     // of the newest item
	takes   uint64    // calls of Take
	now     time.Time // the latest that a caller named
}

// New returns an empty line.
func New() *Line {
	l := &Line{parked: make(map[string]struct{})}
	l.renew()
	return l
}

// renew makes the parts that hold items; maps do not shrink.
func (l *Line) renew() {
	l.items = make(map[string]*entry)
	l.tenants = make(map[string]*tenant)
	l.flows = make(map[flowKey]*flow)
	l.queues = make(map[queueKey]*queue)
	l.bands = make(map[int]*band)
	l.active = tree[*band]{before: higherBand}
	l.delayed = heap[*entry]{pos: entryPos}
	l.ages = heap[*entry]{pos: entryAge}
	l.peak = 0
}

// Push adds an item in its place. A newer generation of an ID replaces an older one; the same or an older generation has
// no effect, and the answer is false.
func (l *Line) Push(it Item) bool {
	if old := l.items[it.ID]; old != nil {
		if old.Generation >= it.Generation {
			return false
		}
		l.drop(old)
	}
	l.seq++
	it.seq, it.cost = l.seq, 0
	l.add(it)
	l.tenants[it.Tenant].weight = it.Weight
	return true
}

// Take removes the next item that is due at now and whose agent and tenant are eligible, and charges its tenant. It asks
// eligible at most once for each pair of tenant and agent, in the order of service. A nil eligible takes anything.
//
// What is not eligible costs one step each time it is passed over. What is not due or parked costs nothing.
func (l *Line) Take(now time.Time, eligible func(agent, tenant string) bool) (Item, bool) {
	l.promote(now)
	l.takes++
	for b := range l.active.all {
		for f := range b.flows.all {
			if q := f.eligible(l.takes, eligible); q != nil {
				return l.serve(q), true
			}
		}
	}
	return Item{}, false
}

// serve takes the first item of q and charges its tenant.
func (l *Line) serve(q *queue) Item {
	f, e := q.flow, q.items.first()
	e.before = f.band.clock
	f.band.clock = f.next()
	e.served = f.band.clock
	e.cost = f.tenant.cost()
	l.retag(f, f.band.clock+e.cost)
	l.drop(e)
	return e.Item
}

// Return puts back an item that Take gave, in its old place (later if its Due was moved), and refunds its tenant.
// A newer generation that came meanwhile stays instead. An item that is back already is only moved to its Due.
func (l *Line) Return(it Item) {
	refund := it.cost
	if b := l.bands[it.Priority]; b != nil && refund > 0 && b.clock == it.served {
		b.clock = it.before
	}
	it.cost = 0
	key := flowKey{it.Tenant, it.Priority}
	known := l.flows[key] != nil
	switch old := l.items[it.ID]; {
	case old == nil:
		l.restore(it)
	case old.seq == it.seq:
		refund = 0
		l.drop(old)
		l.restore(it)
	case old.Generation < it.Generation:
		l.drop(old)
		l.restore(it)
	}
	f := l.flows[key]
	switch {
	case f == nil || refund == 0:
	case f.active && !known: // nothing was kept of the tenant: the item brings its tag back
		l.retag(f, it.served)
	case f.active:
		l.retag(f, f.next()-refund)
	default:
		f.credit += refund
	}
}

// restore adds an item in its old place.
func (l *Line) restore(it Item) {
	if it.seq == 0 {
		l.seq++
		it.seq = l.seq
	}
	l.add(it)
}

// Remove takes an item out of the line without a charge.
func (l *Line) Remove(id string) bool {
	e := l.items[id]
	if e == nil {
		return false
	}
	l.drop(e)
	return true
}

// Park leaves a tenant out of Take, at no cost per Take, until Unpark. It need not have items.
func (l *Line) Park(tenant string) {
	l.parked[tenant] = struct{}{}
	if t := l.tenants[tenant]; t != nil && !t.parked {
		t.parked = true
		for _, f := range t.flows {
			l.settle(f)
		}
	}
}

// Unpark lets a tenant take part again, with its share as if it had just come.
func (l *Line) Unpark(tenant string) {
	delete(l.parked, tenant)
	if t := l.tenants[tenant]; t != nil && t.parked {
		t.parked = false
		for _, f := range t.flows {
			f.credit = 0
			l.settle(f)
		}
	}
}

// Len counts the items.
func (l *Line) Len() int { return len(l.items) }

// Oldest is the earliest Pushed; zero when the line is empty.
func (l *Line) Oldest() time.Time {
	if l.ages.empty() {
		return time.Time{}
	}
	return l.ages.first().Pushed
}

// NextDue is the earliest Due after now; zero when there is none.
func (l *Line) NextDue(now time.Time) time.Time {
	l.promote(now)
	if l.delayed.empty() {
		return time.Time{}
	}
	return l.delayed.first().Due
}

// Place is how many items would be served before the one of this ID, plus one, if all were due and eligible and nothing
// new came; 0 when it is not in the line. It costs O(tenants + the items of the item's tenant).
func (l *Line) Place(id string) int {
	e := l.items[id]
	if e == nil {
		return 0
	}
	mine := e.flow
	rank := mine.before(e.seq)
	tag := mine.next() + float64(rank)*mine.tenant.cost()
	place := rank + 1
	for _, b := range l.bands {
		if b.priority > mine.band.priority {
			place += b.count
		}
	}
	for _, f := range mine.band.members {
		if f != mine {
			place += f.servedBefore(mine, tag)
		}
	}
	return place
}
