package line

import "math"

// maxWeight is the highest weight that counts, so that a service always moves a tag.
const maxWeight = 1 << 20

// band is what waits at one priority.
type band struct {
	priority int
	clock    float64     // virtual time: the highest tag served
	flows    tree[*flow] // those that can be taken from, by tag
	members  bag[*flow]  // all
	count    int         // items
	node     node[*band] // in Line.active, while flows is not empty
}

// tenant is what the bands share about one tenant.
type tenant struct {
	name    string
	weight  int
	parked  bool
	flows   bag[*flow]
	take    uint64              // the Take that refused is about
	refused map[string]struct{} // its agents that are not eligible; kept for tenants that wait in several bands
}

// cost is what one item costs.
func (t *tenant) cost() float64 { return 1 / float64(min(max(t.weight, 1), maxWeight)) }

// flow is what waits of one tenant in one band.
type flow struct {
	band    *band
	tenant  *tenant
	queues  tree[*queue] // what is due, by agent; the one with the oldest head first
	ready   int          // items in queues
	delayed bag[*entry]

	active bool    // in band.flows: something is ready and the tenant is not parked
	tag    float64 // while active: the virtual time at which its next item is served, if that has not passed
	since  int64   // while active: the place of its oldest item when it became so; decides between equal tags
	credit float64 // while not active: refunds that its next tag will show

	node     node[*flow]
	inBand   int
	inTenant int
}

// flowKey names a flow.
type flowKey struct {
	tenant   string
	priority int
}

// queue is what is due of one agent in a flow.
type queue struct {
	flow  *flow
	agent string
	head  int64 // place of its first item
	items heap[*entry]
	node  node[*queue]
}

// queueKey names a queue.
type queueKey struct {
	flow  *flow
	agent string
}

// entry is an item in the line.
type entry struct {
	Item
	flow  *flow
	queue *queue // nil: delayed
	pos   int    // in queue.items, or in Line.delayed
	aside int    // in flow.delayed
	age   int    // in Line.ages
}

func (f *flow) count() int { return f.ready + len(f.delayed) }

// next is the virtual time at which the flow's next item is served. A tag that has passed counts as the clock: what was
// missed meanwhile, for whatever reason, is not saved up.
func (f *flow) next() float64 {
	tag := f.tag
	if !f.active {
		tag = f.band.clock + f.tenant.cost() - f.credit
	}
	return max(tag, f.band.clock)
}

// eligible returns the queue with the oldest item whose agent is eligible, or nil.
func (f *flow) eligible(take uint64, ask func(agent, tenant string) bool) *queue {
	t := f.tenant
	if t.take != take {
		t.take = take
		clear(t.refused)
	}
	for q := range f.queues.all {
		if _, refused := t.refused[q.agent]; refused {
			continue
		}
		if ask == nil || ask(q.agent, t.name) {
			return q
		}
		if len(t.flows) > 1 {
			if t.refused == nil {
				t.refused = make(map[string]struct{})
			}
			t.refused[q.agent] = struct{}{}
		}
	}
	return nil
}

// servedBefore estimates how many items of f are served before one of a flow o, whose turn comes at tag.
func (f *flow) servedBefore(o *flow, tag float64) int {
	const tie = 1e-6
	n := (tag - f.next()) / f.tenant.cost()
	if whole := math.Round(n); math.Abs(n-whole) < tie {
		n = whole
		if f.active && (!o.active || f.since < o.since) {
			n++
		}
	}
	return int(min(max(math.Ceil(n), 0), float64(f.count())))
}

// before counts the items of the flow that came before the one at place seq.
func (f *flow) before(seq int64) int {
	n := 0
	for _, e := range f.delayed {
		if e.seq < seq {
			n++
		}
	}
	for q := range f.queues.all {
		for _, s := range q.items.slots {
			if s.key < seq {
				n++
			}
		}
	}
	return n
}

func earlierFlow(a, b *flow) bool {
	if a.tag != b.tag {
		return a.tag < b.tag
	}
	return a.since < b.since
}

func higherBand(a, b *band) bool  { return a.priority > b.priority }
func olderQueue(a, b *queue) bool { return a.head < b.head }
func entryPos(e *entry) *int      { return &e.pos }
func entryAside(e *entry) *int    { return &e.aside }
func entryAge(e *entry) *int      { return &e.age }
func flowInBand(f *flow) *int     { return &f.inBand }
func flowInTenant(f *flow) *int   { return &f.inTenant }
