package line

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// model is the line as it is described, with nothing but a list: every question is a search through all of it.
type model struct {
	items  []*modelItem
	flows  map[flowKey]*modelFlow
	clock  map[int]float64
	weight map[string]int
	parked map[string]bool
	now    time.Time
	seq    int64
}

type modelItem struct {
	Item
	ready bool
}

type modelFlow struct {
	flowKey
	active      bool
	tag, credit float64
	since       int64
}

func newModel() *model {
	return &model{
		flows: map[flowKey]*modelFlow{}, clock: map[int]float64{}, weight: map[string]int{}, parked: map[string]bool{},
	}
}

func (m *model) cost(tenant string) float64 { return 1 / float64(max(m.weight[tenant], 1)) }

func (m *model) find(id string) *modelItem {
	for _, it := range m.items {
		if it.ID == id {
			return it
		}
	}
	return nil
}

func (m *model) drop(old *modelItem) {
	m.items = slices.DeleteFunc(m.items, func(it *modelItem) bool { return it == old })
	m.settle()
}

func (m *model) add(it Item) {
	if !slices.ContainsFunc(m.items, func(o *modelItem) bool { return o.Tenant == it.Tenant }) {
		m.weight[it.Tenant] = it.Weight
	}
	m.items = append(m.items, &modelItem{it, !it.Due.After(m.now) || !it.Due.After(it.Pushed)})
	slices.SortFunc(m.items, func(a, b *modelItem) int { return cmp.Compare(a.seq, b.seq) })
	m.settle()
}

// settle finds out again which flows there are and which of them are active.
func (m *model) settle() {
	oldest := map[flowKey]int64{}
	bands := map[int]bool{}
	for _, it := range m.items {
		key := flowKey{it.Tenant, it.Priority}
		bands[it.Priority] = true
		if m.flows[key] == nil {
			m.flows[key] = &modelFlow{flowKey: key}
		}
		if seq, ok := oldest[key]; !ok || seq == 0 && it.ready {
			oldest[key] = 0
			if it.ready {
				oldest[key] = it.seq
			}
		}
	}
	for key, f := range m.flows {
		since, ok := oldest[key]
		if !ok {
			delete(m.flows, key)
			continue
		}
		active := since > 0 && !m.parked[f.tenant]
		if active && !f.active {
			*f = modelFlow{flowKey: key, tag: max(m.clock[f.priority]+m.cost(f.tenant)-f.credit, m.clock[f.priority]), since: since}
		}
		f.active = active
	}
	for priority := range m.clock {
		if !bands[priority] {
			delete(m.clock, priority)
		}
	}
}

func (m *model) Push(it Item) bool {
	if old := m.find(it.ID); old != nil {
		if old.Generation >= it.Generation {
			return false
		}
		m.drop(old)
	}
	m.seq++
	it.seq = m.seq
	m.add(it)
	m.weight[it.Tenant] = it.Weight
	return true
}

func (m *model) promote(now time.Time) {
	if now.After(m.now) {
		m.now = now
	}
	byDue := slices.Clone(m.items)
	slices.SortStableFunc(byDue, func(a, b *modelItem) int { return a.Due.Compare(b.Due) })
	for _, it := range byDue {
		if !it.ready && !it.Due.After(now) {
			it.ready = true
			m.settle()
		}
	}
}

func (m *model) Take(now time.Time, eligible func(agent, tenant string) bool) (Item, bool) {
	m.promote(now)
	flows := []*modelFlow{}
	for _, f := range m.flows {
		if f.active {
			flows = append(flows, f)
		}
	}
	slices.SortFunc(flows, func(a, b *modelFlow) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.tag, b.tag), cmp.Compare(a.since, b.since))
	})
	answers := map[[2]string]bool{}
	for _, f := range flows {
		for _, it := range m.items {
			if !it.ready || it.Tenant != f.tenant || it.Priority != f.priority {
				continue
			}
			pair := [2]string{it.Agent, it.Tenant}
			if _, asked := answers[pair]; !asked {
				answers[pair] = eligible(it.Agent, it.Tenant)
			}
			if !answers[pair] {
				continue
			}
			it.before = m.clock[f.priority]
			m.clock[f.priority] = max(f.tag, m.clock[f.priority])
			it.served = m.clock[f.priority]
			it.cost = m.cost(f.tenant)
			f.tag = m.clock[f.priority] + it.cost
			m.drop(it)
			return it.Item, true
		}
	}
	return Item{}, false
}

func (m *model) Return(it Item) {
	refund := it.cost
	if clock, ok := m.clock[it.Priority]; ok && refund > 0 && clock == it.served {
		m.clock[it.Priority] = it.before
	}
	it.cost = 0
	known := m.flows[flowKey{it.Tenant, it.Priority}] != nil
	if old := m.find(it.ID); old == nil || old.Generation < it.Generation || old.seq == it.seq {
		if old != nil {
			m.drop(old)
			if old.seq == it.seq {
				refund = 0
			}
		}
		m.add(it)
	}
	if f := m.flows[flowKey{it.Tenant, it.Priority}]; f != nil && f.active && !known && refund > 0 {
		f.tag = it.served
	} else if f != nil && f.active {
		f.tag = max(f.tag, m.clock[f.priority]) - refund
	} else if f != nil {
		f.credit += refund
	}
}

func (m *model) Remove(id string) bool {
	it := m.find(id)
	if it != nil {
		m.drop(it)
	}
	return it != nil
}

func (m *model) Park(tenant string, parked bool) {
	if m.parked[tenant] && !parked {
		for _, f := range m.flows {
			if f.tenant == tenant {
				f.credit = 0
			}
		}
	}
	m.parked[tenant] = parked
	m.settle()
}

func (m *model) Oldest() time.Time {
	var oldest time.Time
	for i, it := range m.items {
		if i == 0 || it.Pushed.Before(oldest) {
			oldest = it.Pushed
		}
	}
	return oldest
}

func (m *model) NextDue(now time.Time) time.Time {
	m.promote(now)
	var next time.Time
	for _, it := range m.items {
		if !it.ready && (next.IsZero() || it.Due.Before(next)) {
			next = it.Due
		}
	}
	return next
}

func TestAgainstModel(t *testing.T) {
	rounds, steps := 60, 600
	if raceEnabled {
		rounds = 10
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			compare(t, rand.New(rand.NewPCG(seed, 1)), steps)
		})
	}
}

// compare does the same random steps to a line and to the model of it.
func compare(t *testing.T, rnd *rand.Rand, steps int) {
	l, m := New(), newModel()
	now := start
	var taken []Item
	tenants, agents := 1+rnd.IntN(6), 1+rnd.IntN(4)
	name := func(prefix string, n int) string { return fmt.Sprint(prefix, rnd.IntN(n)) }
	for step := range steps {
		switch rnd.IntN(12) {
		case 0, 1, 2, 3:
			it := Item{
				ID: name("task", 60), Generation: int64(1 + rnd.IntN(3)), Agent: name("agent", agents),
				Tenant: name("tenant", tenants), Priority: rnd.IntN(3), Weight: rnd.IntN(5),
				Pushed: now.Add(time.Duration(rnd.IntN(5)-4) * time.Second),
			}
			if rnd.IntN(3) == 0 {
				it.Due = now.Add(time.Duration(step) + time.Duration(rnd.IntN(20)-5)*time.Second)
			}
			if got, want := l.Push(it), m.Push(it); got != want {
				t.Fatalf("step %d: Push(%v) = %v, want %v", step, it, got, want)
			}
		case 4, 5, 6, 7:
			refused := map[string]bool{name("agent", agents) + name("tenant", tenants): true}
			refused[name("agent", agents)] = rnd.IntN(3) == 0
			refused[name("tenant", tenants)] = rnd.IntN(2) == 0
			var asked, wanted []string
			got, ok := l.Take(now, func(agent, tenant string) bool {
				asked = append(asked, agent+tenant)
				return !refused[agent] && !refused[tenant] && !refused[agent+tenant]
			})
			want, wantOK := m.Take(now, func(agent, tenant string) bool {
				wanted = append(wanted, agent+tenant)
				return !refused[agent] && !refused[tenant] && !refused[agent+tenant]
			})
			if got != want || ok != wantOK {
				t.Fatalf("step %d: took %v, want %v", step, got, want)
			}
			if !slices.Equal(asked, wanted) {
				t.Fatalf("step %d: asked for %v, want %v", step, asked, wanted)
			}
			if ok {
				taken = append(taken, got)
			}
		case 8:
			if len(taken) > 0 {
				i := rnd.IntN(len(taken))
				it := taken[i]
				if rnd.IntN(4) > 0 { // else it may be returned a second time
					taken = slices.Delete(taken, i, i+1)
				}
				if rnd.IntN(3) == 0 {
					it.Due = now.Add(time.Duration(step) + time.Duration(rnd.IntN(10))*time.Second)
				}
				l.Return(it)
				m.Return(it)
			}
		case 9:
			id := name("task", 60)
			if got, want := l.Remove(id), m.Remove(id); got != want {
				t.Fatalf("step %d: Remove(%s) = %v, want %v", step, id, got, want)
			}
		case 10:
			now = now.Add(time.Duration(rnd.IntN(3)) * time.Second)
		case 11:
			tenant := name("tenant", tenants)
			if parked := rnd.IntN(2) == 0; parked {
				l.Park(tenant)
				m.Park(tenant, true)
			} else {
				l.Unpark(tenant)
				m.Park(tenant, false)
			}
		}
		check(t, l)
		if got, want := l.Len(), len(m.items); got != want {
			t.Fatalf("step %d: %d items, want %d", step, got, want)
		}
		if got, want := l.Oldest(), m.Oldest(); !got.Equal(want) {
			t.Fatalf("step %d: oldest %v, want %v", step, got, want)
		}
		if got, want := l.NextDue(now), m.NextDue(now); !got.Equal(want) {
			t.Fatalf("step %d: next due %v, want %v", step, got, want)
		}
		id := name("task", 60)
		if place := l.Place(id); place < 0 || place > l.Len() || (place > 0) != (m.find(id) != nil) {
			t.Fatalf("step %d: place of %s is %d of %d", step, id, place, l.Len())
		}
	}
}

// check verifies what must be true of a line at any time.
func check(t *testing.T, l *Line) {
	t.Helper()
	count, ready, flows := 0, 0, 0
	for priority, b := range l.bands {
		active, n := 0, 0
		for _, f := range b.members {
			n += f.count()
			ready += f.ready
			if f.active {
				active++
			}
			if f.count() == 0 {
				t.Fatalf("the flow of %s at %d is empty", f.tenant.name, priority)
			}
		}
		if n != b.count || n == 0 {
			t.Fatalf("%d items at %d, but it counts %d", n, priority, b.count)
		}
		for range b.flows.all {
			active--
		}
		if active != 0 {
			t.Fatalf("flows at %d: %d more active than in order", priority, active)
		}
		count += n
		flows += len(b.members)
	}
	if count != len(l.items) || count != len(l.ages.slots) || count != ready+len(l.delayed.slots) || flows != len(l.flows) {
		t.Fatalf("%d items counted; the line has %d, ages %d, ready %d + delayed %d; flows %d and %d", count,
			len(l.items), len(l.ages.slots), ready, len(l.delayed.slots), flows, len(l.flows))
	}
}
