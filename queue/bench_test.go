package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/queue/queuetest"
)

func BenchmarkMemory(b *testing.B) {
	queuetest.Bench(b, queuetest.Harness{New: func(testing.TB) queue.Queue { return queue.NewMemory() }})
}

// fill returns a queue with n tickets of so many tenants, pushed in turn.
func fill(b *testing.B, n, tenants int) *queue.Memory {
	q := queue.NewMemory()
	tickets := make([]queue.Ticket, n)
	for i := range tickets {
		tickets[i] = queue.Ticket{
			Task: fmt.Sprintf("task-%09d", i), Generation: 1, Agent: "agent", Tenant: fmt.Sprintf("tenant-%06d", i%tenants),
		}
	}
	if err := q.Push(context.Background(), tickets); err != nil {
		b.Fatal(err)
	}
	return q
}

// BenchmarkMemoryClaim claims one ticket from lines of several lengths, and gives it back as a new one.
func BenchmarkMemoryClaim(b *testing.B) {
	const goal = 10 * time.Microsecond
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("tickets=%d", n), func(b *testing.B) {
			ctx := context.Background()
			q := fill(b, n, min(n, 10_000))
			req := queue.ClaimRequest{Agents: []string{"agent"}, N: 1, Lease: time.Hour}
			var spent time.Duration
			for b.Loop() {
				start := time.Now()
				claims, err := q.Claim(ctx, req)
				spent += time.Since(start)
				if err != nil || len(claims) != 1 {
					b.Fatalf("claimed %v, %v", claims, err)
				}
				if err := q.Done(ctx, claims); err != nil {
					b.Fatal(err)
				}
				if err := q.Push(ctx, []queue.Ticket{claims[0].Ticket}); err != nil {
					b.Fatal(err)
				}
			}
			b.Logf("goal=%v measured=%v", goal, spent/time.Duration(b.N))
		})
	}
}

// BenchmarkMemoryClaimSkipping claims batches that pass over as many tenants as may be skipped.
func BenchmarkMemoryClaimSkipping(b *testing.B) {
	ctx := context.Background()
	q := fill(b, 100_000, 10_000)
	req := queue.ClaimRequest{Agents: []string{"agent"}, N: 100, Lease: time.Hour}
	for i := range queue.MaxSkip {
		req.SkipTenants = append(req.SkipTenants, fmt.Sprintf("tenant-%06d", i))
	}
	for b.Loop() {
		claims, err := q.Claim(ctx, req)
		if err != nil || len(claims) != req.N {
			b.Fatalf("claimed %d, %v", len(claims), err)
		}
		if err := q.Release(ctx, claims, 0); err != nil {
			b.Fatal(err)
		}
	}
}
