package line

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestFairShare checks the bound of the package's doc over every interval of random histories: as long as two tenants
// both have something to take, their services divided by weight differ by at most one item each.
func TestFairShare(t *testing.T) {
	rounds, steps := 30, 4000
	if raceEnabled {
		rounds = 4
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			share(t, rand.New(rand.NewPCG(seed, 2)), steps)
		})
	}
}

type contender struct {
	name     string
	weight   int
	agents   int // a load that is split over many agents has the same share
	waiting  int
	barred   bool
	services float64 // divided by weight
}

// span is the range of the difference of two tenants' services since both have something to take.
type span struct {
	on        bool
	low, high float64
}

func share(t *testing.T, rnd *rand.Rand, steps int) {
	l := New()
	tenants := make([]*contender, 2+rnd.IntN(7))
	byName := map[string]*contender{}
	for i := range tenants {
		c := &contender{name: fmt.Sprint("tenant", i), weight: 1 + rnd.IntN(10), agents: 1 + rnd.IntN(5)*rnd.IntN(2)}
		tenants[i], byName[c.name] = c, c
	}
	spans := make([]span, len(tenants)*len(tenants))
	observe := func() {
		for i, a := range tenants {
			for j, b := range tenants[:i] {
				s, diff := &spans[i*len(tenants)+j], a.services-b.services
				switch {
				case a.waiting == 0 || b.waiting == 0 || a.barred || b.barred:
					s.on = false
				case !s.on:
					*s = span{true, diff, diff}
				default:
					s.low, s.high = min(s.low, diff), max(s.high, diff)
				}
				if bound := 1/float64(a.weight) + 1/float64(b.weight); s.on && s.high-s.low > bound+1e-9 {
					t.Fatalf("%s and %s (weights %d, %d) drifted apart by %v; bound %v", a.name, b.name, a.weight, b.weight,
						s.high-s.low, bound)
				}
			}
		}
	}
	load := rnd.Float64() // how often something comes
	for id := range steps {
		switch p := rnd.Float64(); {
		case p < 0.02:
			c := tenants[rnd.IntN(len(tenants))]
			c.barred = !c.barred
		case p < 0.02+0.98*load:
			c := tenants[rnd.IntN(len(tenants))]
			for n := range 1 + rnd.IntN(20)*rnd.IntN(2) {
				l.Push(Item{
					ID: fmt.Sprint(id, "-", n), Tenant: c.name, Weight: c.weight, Agent: fmt.Sprint(rnd.IntN(c.agents)),
				})
				c.waiting++
			}
		default:
			it, ok := l.Take(start, func(_, tenant string) bool { return !byName[tenant].barred })
			if !ok {
				break
			}
			c := byName[it.Tenant]
			c.services += 1 / float64(c.weight)
			observe() // before waiting ends: the last service belongs to the interval
			c.waiting--
		}
		observe()
	}
}

// A tenant with a long line is served in its turn whatever number of new tenants comes, each for the first time.
func TestNewcomersStarveNobody(t *testing.T) {
	l := New()
	for i := range 100 {
		push(l, fmt.Sprint("a", i))
	}
	served, next := 0, 0
	for range 10_000 {
		for range 2 { // twice as fast as they are served
			l.Push(Item{ID: fmt.Sprint("new", next), Tenant: fmt.Sprint("new", next)})
			next++
		}
		if it, _ := l.Take(start, nil); it.Tenant == "a" {
			served++
		}
	}
	// While all are served once, twice as many come; so each round of all is twice as long as the one before.
	if want := int(math.Log2(10_000)) - 2; served < want {
		t.Errorf("served %d times in 10000; want at least %d", served, want)
	}
}

// TestMemory checks that tenants that came once and went leave nothing behind, while others wait.
func TestMemory(t *testing.T) {
	tenants := 1_000_000
	if raceEnabled {
		tenants = 50_000
	}
	l := New()
	for i := range 50 {
		push(l, fmt.Sprint("a", i), fmt.Sprint("b", i))
		it := item(fmt.Sprint("c", i))
		it.Due = at(i + 1)
		l.Push(it)
	}
	kept := l.Len()
	highest := 0
	for i := range tenants {
		id := fmt.Sprint("once", i)
		l.Push(Item{ID: id, Tenant: id, Agent: id, Priority: i % 1000})
		it, _ := l.Take(start, nil)
		if it.Tenant == "a" || it.Tenant == "b" {
			push(l, it.ID)
		}
		switch i % 4 {
		case 0:
			l.Return(it)
			l.Remove(it.ID)
		case 1:
			l.Park(id)
			l.Unpark(id)
		}
		highest = max(highest, len(l.tenants), len(l.flows), len(l.queues), len(l.bands), len(l.items)-kept)
	}
	if highest > 110 {
		t.Errorf("%d records of %d tenants that came once", highest, tenants)
	}

	for i := range 5000 {
		push(l, fmt.Sprint("d", i))
	}
	drain(l, at(100), nil)
	if l.peak != 0 {
		t.Error("an empty line keeps the room of a long one")
	}
}

// TestPlace checks that, with nothing delayed or barred, the estimate is exact as far as tags are: those of weights that
// are powers of two are, others differ in their last digits where they should be equal.
func TestPlace(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		l := New()
		for i := range 300 {
			if rnd.IntN(3) == 0 {
				if it, ok := l.Take(start, nil); ok && rnd.IntN(2) == 0 {
					l.Return(it)
				}
			}
			tenant := rnd.IntN(8)
			l.Push(Item{
				ID: fmt.Sprint(i), Tenant: fmt.Sprint(tenant), Weight: 1 << (tenant / 2), Agent: fmt.Sprint(rnd.IntN(3)), Priority: rnd.IntN(2),
			})
		}
		places := map[string]int{}
		for id := range l.items {
			places[id] = l.Place(id)
		}
		for want := 1; l.Len() > 0; want++ {
			it, _ := l.Take(start, nil)
			if got := places[it.ID]; got != want {
				t.Errorf("seed %d: place %d for what was served as number %d", seed, got, want)
			}
		}
	}
}
