package freshet

import (
	"context"
	"math/bits"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// Stats is a snapshot of the fleet. Counts and ages are of the whole fleet, from the Store; latencies and costs are what
// this process has measured since New.
type Stats struct {
	Total  AgentStats
	Agents map[string]AgentStats
}

// AgentStats are the figures of one agent, or of all.
type AgentStats struct {
	Queued, Starting, Running int
	Warm, Paused, Deleting    int // spare workspaces, and workspaces on their way out
	OldestQueued              time.Time

	WarmBoot, PausedBoot, ColdBoot Quantiles // from admission to the handler's call, by where the workspace came from
	Duration                       Quantiles // of runs
	Succeeded, Failed              int64     // tasks ended by this process; expired and canceled ones are neither

	Cost     float64       // of runs, from admission to their end
	IdleCost float64       // of spares, from ready until taken or gone
	IdleTime time.Duration // of spares, all together
}

// Quantiles sum up measured durations; each is at most 7 % above the true value.
type Quantiles struct {
	N             int
	P50, P95, P99 time.Duration
}

// Stats counts the fleet.
func (d *Dispatcher) Stats(ctx context.Context) (Stats, error) {
	if err := d.ready(ctx); err != nil {
		return Stats{}, err
	}
	counts, err := d.store.Counts(ctx)
	if err != nil {
		return Stats{}, err
	}
	return d.meter.stats(counts), nil
}

// meter measures what this process does, by agent.
type meter struct {
	price Price

	mu     sync.Mutex // protects the fields below
	agents map[string]*measures
	all    measures
}

type measures struct {
	boot      [3]histogram // warm (and kept), paused, cold
	duration  histogram
	cost      float64
	idleCost  float64
	idleTime  time.Duration
	succeeded int64
	failed    int64
}

func newMeter(p Price) *meter { return &meter{price: p, agents: map[string]*measures{}} }

// both calls fn for the agent's measures and those of all.
func (m *meter) both(agent string, fn func(*measures)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agents[agent]
	if a == nil {
		a = &measures{}
		m.agents[agent] = a
	}
	fn(a)
	fn(&m.all)
}

func (m *meter) booted(agent string, path store.Path, d time.Duration) {
	tier := 2
	switch path {
	case store.PathWarm, store.PathKept:
		tier = 0
	case store.PathPaused:
		tier = 1
	}
	m.both(agent, func(s *measures) { s.boot[tier].add(d) })
}

func (m *meter) ended(agent string, d time.Duration, cost float64, state State) {
	m.both(agent, func(s *measures) {
		s.duration.add(d)
		s.cost += cost
		s.count(state, 1)
	})
}

// uncount takes back an end that could not be recorded: the task's is another's to tell.
func (m *meter) uncount(agent string, state State) {
	m.both(agent, func(s *measures) { s.count(state, -1) })
}

func (s *measures) count(state State, n int64) {
	switch state {
	case StateSucceeded:
		s.succeeded += n
	case StateFailed:
		s.failed += n
	}
}

// idled counts the time that a spare was ready and waited.
func (m *meter) idled(agent string, r Resources, d time.Duration) {
	m.both(agent, func(s *measures) {
		s.idleTime += d
		s.idleCost += m.cost(r, d)
	})
}

func (m *meter) cost(r Resources, d time.Duration) float64 { return m.price.perSecond(r) * d.Seconds() }

// typical is the median duration of an agent's runs, once a few were measured.
func (m *meter) typical(agent string) time.Duration {
	const few = 5
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agents[agent]
	if a == nil || a.duration.n < few {
		return 0
	}
	return a.duration.quantile(0.5)
}

func (m *meter) stats(counts map[string]store.Counts) Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Stats{Agents: map[string]AgentStats{}, Total: m.all.stats()}
	for name, a := range m.agents {
		s.Agents[name] = a.stats()
	}
	for name, c := range counts {
		a := s.Agents[name]
		a.count(c)
		s.Agents[name] = a
		s.Total.count(c)
	}
	return s
}

func (a *AgentStats) count(c store.Counts) {
	a.Queued += c.Queued
	a.Starting += c.Starting
	a.Running += c.Running
	a.Warm += c.Warm
	a.Paused += c.Paused
	a.Deleting += c.Deleting
	if !c.OldestQueued.IsZero() && (a.OldestQueued.IsZero() || c.OldestQueued.Before(a.OldestQueued)) {
		a.OldestQueued = c.OldestQueued
	}
}

func (s *measures) stats() AgentStats {
	return AgentStats{
		WarmBoot: s.boot[0].quantiles(), PausedBoot: s.boot[1].quantiles(), ColdBoot: s.boot[2].quantiles(),
		Duration: s.duration.quantiles(), Cost: s.cost, IdleCost: s.idleCost, IdleTime: s.idleTime,
		Succeeded: s.succeeded, Failed: s.failed,
	}
}

// histogram counts durations in buckets, sixteen to each doubling.
type histogram struct {
	n      int
	counts []uint32 // by bucket, up to the largest that was needed
}

const perDoubling = 4 // log2 of the buckets to a doubling

func (h *histogram) add(d time.Duration) {
	b := int(bucket(uint64(max(d, 0))))
	if b >= len(h.counts) {
		h.counts = append(h.counts, make([]uint32, b+1-len(h.counts))...)
	}
	h.n++
	h.counts[b]++
}

func bucket(v uint64) uint16 {
	if v < 1<<perDoubling {
		return uint16(v)
	}
	shift := bits.Len64(v) - perDoubling - 1
	return uint16(shift+1)<<perDoubling | uint16(v>>shift)&(1<<perDoubling-1)
}

// upper is the largest value of a bucket.
func upper(b uint16) uint64 {
	shift := int(b>>perDoubling) - 1
	if shift < 0 {
		return uint64(b)
	}
	base := uint64(1<<perDoubling | b&(1<<perDoubling-1))
	return (base+1)<<shift - 1
}

// quantile is the upper end of the bucket in which the q-th part of all values lies.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := int(q*float64(h.n-1)) + 1
	for b, n := range h.counts {
		if rank -= int(n); rank <= 0 {
			return time.Duration(upper(uint16(b)))
		}
	}
	return 0
}

func (h *histogram) quantiles() Quantiles {
	return Quantiles{N: h.n, P50: h.quantile(0.5), P95: h.quantile(0.95), P99: h.quantile(0.99)}
}
