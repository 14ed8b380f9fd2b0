package line

import (
	"fmt"
	"testing"
	"time"
)

// fill returns a line with n items of so many tenants, pushed in turn.
func fill(n, tenants int) (*Line, []Item) {
	l := New()
	items := make([]Item, n)
	start := time.Unix(1_000_000, 0)
	for i := range items {
		items[i] = Item{
			ID: fmt.Sprintf("task-%09d", i), Generation: 1, Agent: "agent", Tenant: fmt.Sprintf("tenant-%06d", i%tenants),
			Weight: 1 + i%tenants%3, Pushed: start.Add(time.Duration(i)),
		}
		l.Push(items[i])
	}
	return l, items
}

// BenchmarkTake takes from lines of several sizes that stay full.
func BenchmarkTake(b *testing.B) {
	for _, size := range []struct{ items, tenants int }{{1_000, 10}, {1_000, 1_000}, {100_000, 10_000}, {1_000_000, 10_000}, {1_000_000, 1_000_000}} {
		b.Run(fmt.Sprintf("items=%d/tenants=%d", size.items, size.tenants), func(b *testing.B) {
			l, _ := fill(size.items, size.tenants)
			now := time.Unix(2_000_000, 0)
			taken := make([]Item, 100)
			var spent time.Duration
			n := 0
			for b.Loop() {
				start := time.Now()
				for i := range taken {
					taken[i], _ = l.Take(now, nil)
				}
				spent += time.Since(start)
				n += len(taken)
				for _, it := range taken {
					l.Push(it)
				}
			}
			b.ReportMetric(float64(spent)/float64(n), "ns/take")
		})
	}
}
