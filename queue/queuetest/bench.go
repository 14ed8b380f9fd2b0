package queuetest

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/queue"
)

// Bench measures what a dispatcher does all the time. One operation is one ticket pushed, claimed and done; the line
// holds 1000 others. Only New, Peer and Settle of the harness are used.
func Bench(b *testing.B, h Harness) {
	for _, batch := range []int{1, 50} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			q := h.full(b)
			cycle := cycler(b, q, batch, "bench")
			b.ResetTimer()
			for n := 0; n < b.N; n += batch {
				cycle()
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		q := h.full(b)
		var clients atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			mine := q
			id := clients.Add(1)
			if h.Peer != nil && id%2 == 0 {
				mine = h.Peer(b, q)
			}
			cycle := cycler(b, mine, 1, fmt.Sprint("bench", id, "-"))
			for pb.Next() {
				cycle()
			}
		})
	})
}

// full returns a queue with 1000 tickets of 100 tenants.
func (h Harness) full(b *testing.B) queue.Queue {
	q := h.New(b)
	ts := make([]queue.Ticket, 1000)
	for i := range ts {
		ts[i] = queue.Ticket{Task: fmt.Sprint("waiting", i), Generation: 1, Agent: "x", Tenant: fmt.Sprint("tenant", i%100)}
	}
	if err := q.Push(b.Context(), ts); err != nil {
		b.Fatal(err)
	}
	if h.Settle != nil {
		h.Settle(b, q)
	}
	return q
}

// cycler returns a function that pushes, claims and finishes as many tickets as batch says. Their names begin with prefix.
func cycler(b *testing.B, q queue.Queue, batch int, prefix string) func() {
	next := 0
	ts := make([]queue.Ticket, batch)
	req := queue.ClaimRequest{Agents: []string{"x"}, N: batch, Lease: time.Minute}
	return func() {
		for i := range ts {
			ts[i] = queue.Ticket{Task: fmt.Sprint(prefix, next), Generation: 1, Agent: "x", Tenant: fmt.Sprint("tenant", next%100)}
			next++
		}
		if err := q.Push(b.Context(), ts); err != nil {
			b.Error(err)
		}
		claims, err := q.Claim(b.Context(), req)
		if err != nil || len(claims) == 0 {
			b.Errorf("claimed %d tickets, %v", len(claims), err)
		}
		if err := q.Done(b.Context(), claims); err != nil {
			b.Error(err)
		}
	}
}
