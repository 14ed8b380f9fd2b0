package queue

import (
	"container/heap"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/line"
)

// Memory is a Queue in the memory of this process, and a Notifier and a Placer. It has no goroutine: leases that have
// run out are noticed by the next call. Its methods never block, except Notify, and fail only when their context is
// done. All may be called from many goroutines.
type Memory struct {
	mu      sync.Mutex // protects what follows
	line    *line.Line
	holds   map[string]*hold // by task: who claimed it last, until the ticket is gone, released or claimed again
	live    holdHeap         // the holds whose lease has not run out; their tickets are not in the line
	claims  uint64           // given so far
	pushes  uint64           // times that tickets may have become claimable
	changed chan struct{}    // closed when something changes that Notify waits for; nil: nobody waits
}

var (
	_ Queue    = (*Memory)(nil)
	_ Notifier = (*Memory)(nil)
	_ Placer   = (*Memory)(nil)
)

// NewMemory returns an empty queue.
func NewMemory() *Memory {
	return &Memory{line: line.New(), holds: make(map[string]*hold)}
}

// hold is a claim as the queue knows it.
type hold struct {
	item  line.Item
	token string
	until time.Time
	pos   int // in Memory.live; -1: its lease has run out and the ticket is back in the line
}

// Push implements Queue.
func (m *Memory) Push(ctx context.Context, tickets []Ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, t := range tickets {
		m.pushLocked(t, now)
	}
	if len(tickets) > 0 {
		m.pushes++
		m.signalLocked()
	}
	return nil
}

func (m *Memory) pushLocked(t Ticket, now time.Time) {
	h := m.holds[t.Task]
	if h != nil && h.item.Generation >= t.Generation {
		return
	}
	if h != nil {
		m.forgetLocked(h)
	}
	m.line.Push(line.Item{
		ID: t.Task, Generation: t.Generation, Agent: t.Agent, Tenant: t.Tenant, Priority: t.Priority, Weight: t.Weight,
		Due: t.NotBefore, Pushed: now,
	})
}

// Claim implements Queue. It costs O(log n) for each ticket, and a step for each pair of tenant and agent passed over.
func (m *Memory) Claim(ctx context.Context, req ClaimRequest) ([]Claim, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	agents, tenants := set(req.Agents), set(req.SkipTenants)
	for _, agent := range req.SkipAgents {
		delete(agents, agent)
	}
	eligible := func(agent, tenant string) bool { return agents[agent] && !tenants[tenant] }

	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.lapseLocked(now)
	var claims []Claim
	for len(claims) < req.N && len(agents) > 0 {
		it, ok := m.line.Take(now, eligible)
		if !ok {
			break
		}
		m.claims++
		h := &hold{item: it, token: strconv.FormatUint(m.claims, 10), until: now.Add(req.Lease)}
		m.holds[it.ID] = h
		heap.Push(&m.live, h)
		claims = append(claims, Claim{Ticket: ticket(it), Token: h.token})
	}
	if len(claims) > 0 {
		m.signalLocked() // there may be an earlier end of a lease to wait for
	}
	return claims, nil
}

// Done implements Queue.
func (m *Memory) Done(ctx context.Context, claims []Claim) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range claims {
		if h := m.holdLocked(c); h != nil {
			if h.pos < 0 {
				m.line.Remove(c.Ticket.Task)
			}
			m.forgetLocked(h)
		}
	}
	return nil
}

// Release implements Queue.
func (m *Memory) Release(ctx context.Context, claims []Claim, after time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, c := range slices.Backward(claims) { // as the line can forget what was taken last
		if h := m.holdLocked(c); h != nil {
			if after > 0 {
				h.item.Due = now.Add(after)
			}
			m.line.Return(h.item)
			m.forgetLocked(h)
		}
	}
	if len(claims) > 0 {
		m.pushes++
		m.signalLocked()
	}
	return nil
}

// Stats implements Queue. It costs O(claimed tickets).
func (m *Memory) Stats(ctx context.Context) (Stats, error) {
	if err := ctx.Err(); err != nil {
		return Stats{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Stats{Queued: m.line.Len() + len(m.live), Oldest: m.line.Oldest()}
	for _, h := range m.live {
		if s.Oldest.IsZero() || h.item.Pushed.Before(s.Oldest) {
			s.Oldest = h.item.Pushed
		}
	}
	return s, nil
}

// Place implements Placer. It costs O(tenants + the tickets of the task's tenant). A claimed ticket has the place 0.
func (m *Memory) Place(ctx context.Context, task string) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lapseLocked(time.Now())
	return m.line.Place(task), nil
}

// Notify implements Notifier. It wakes at once, after each Push and Release, and when a delay or a lease ends.
func (m *Memory) Notify(ctx context.Context, wake func()) error {
	var seen uint64
	for due := true; ; {
		changed, pushes, next := m.watch()
		if due || pushes != seen {
			wake()
		}
		seen = pushes
		if err := wait(ctx, changed, next); err != nil {
			return err
		}
		due = !next.IsZero() && !time.Now().Before(next)
	}
}

// watch returns a channel that is closed at the next change, the number of pushes so far, and the time at which the
// next ticket becomes claimable if nothing changes; zero: none will.
func (m *Memory) watch() (changed <-chan struct{}, pushes uint64, next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.lapseLocked(now)
	next = m.line.NextDue(now)
	if len(m.live) > 0 && (next.IsZero() || m.live[0].until.Before(next)) {
		next = m.live[0].until
	}
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed, m.pushes, next
}

// wait returns nil when changed is closed or next has come, and the context's error when it is done.
func wait(ctx context.Context, changed <-chan struct{}, next time.Time) error {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-due:
	}
	return nil
}

// signalLocked lets Notify look again.
func (m *Memory) signalLocked() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// lapseLocked puts the tickets whose lease has run out back in the line.
func (m *Memory) lapseLocked(now time.Time) {
	for len(m.live) > 0 && !m.live[0].until.After(now) {
		h := heap.Pop(&m.live).(*hold)
		m.line.Return(h.item)
	}
}

// holdLocked returns the hold of a claim, or nil when the ticket is gone or somebody else's.
func (m *Memory) holdLocked(c Claim) *hold {
	if h := m.holds[c.Ticket.Task]; h != nil && h.token == c.Token {
		return h
	}
	return nil
}

func (m *Memory) forgetLocked(h *hold) {
	delete(m.holds, h.item.ID)
	if h.pos >= 0 {
		heap.Remove(&m.live, h.pos)
	}
}

func ticket(it line.Item) Ticket {
	return Ticket{
		Task: it.ID, Generation: it.Generation, Agent: it.Agent, Tenant: it.Tenant, Priority: it.Priority, Weight: it.Weight,
		NotBefore: it.Due,
	}
}

func set(names []string) map[string]bool {
	s := make(map[string]bool, len(names))
	for _, name := range names {
		s[name] = true
	}
	return s
}

// holdHeap is a container/heap of holds by the end of their leases.
type holdHeap []*hold

func (h holdHeap) Len() int           { return len(h) }
func (h holdHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }

func (h holdHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *holdHeap) Push(x any) {
	e := x.(*hold)
	e.pos = len(*h)
	*h = append(*h, e)
}

func (h *holdHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.pos = -1
	return e
}
