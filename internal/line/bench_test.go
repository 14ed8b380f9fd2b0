package line

import (
	"fmt"
	"testing"
	"time"
)

// fill returns a line with n items of so many tenants, pushed in turn.
func fill(n, tenants int) *Line {
	l := New()
	for i := range n {
		l.Push(Item{
			ID: fmt.Sprintf("task-%09d", i), Generation: 1, Agent: "agent", Tenant: fmt.Sprintf("tenant-%06d", i%tenants),
			Weight: 1 + i%tenants%3, Pushed: start.Add(time.Duration(i)),
		})
	}
	return l
}

// BenchmarkTake takes from lines of several lengths that stay full.
func BenchmarkTake(b *testing.B) {
	const goal, goalGrowth = 10 * time.Microsecond, 4.0 // of the longest line, and compared with the shortest
	var shortest time.Duration
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("items=%d", n), func(b *testing.B) {
			l := fill(n, min(n, 10_000))
			taken := make([]Item, 100)
			var spent time.Duration
			for b.Loop() {
				began := time.Now()
				for i := range taken {
					taken[i], _ = l.Take(start, nil)
				}
				spent += time.Since(began)
				for _, it := range taken {
					l.Push(it)
				}
			}
			each := spent / time.Duration(b.N*len(taken))
			b.ReportMetric(float64(each), "ns/take")
			b.Logf("goal=%v measured=%v", goal, each)
			if shortest == 0 {
				shortest = each
			}
			b.Logf("growth: goal=%.1f measured=%.1f", goalGrowth, float64(each)/float64(shortest))
		})
	}
}

// BenchmarkTakePassing takes the one eligible tenant's items, behind 1000 others.
func BenchmarkTakePassing(b *testing.B) {
	l := fill(10_000, 1001)
	eligible := func(_, tenant string) bool { return tenant == "tenant-001000" }
	b.ReportAllocs()
	for b.Loop() {
		it, ok := l.Take(start, eligible)
		if !ok {
			b.Fatal("nothing was taken")
		}
		l.Push(it)
	}
}
