package queue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/queue/queuetest"
)

func TestMemoryConforms(t *testing.T) {
	queuetest.Run(t, queuetest.Harness{
		New:    func(testing.TB) queue.Queue { return queue.NewMemory() },
		Around: synctest.Test,
	})
}

func ticket(task string) queue.Ticket {
	return queue.Ticket{Task: task, Generation: 1, Agent: "x", Tenant: task[:1]}
}

func push(t *testing.T, q queue.Queue, tickets ...queue.Ticket) {
	t.Helper()
	if err := q.Push(t.Context(), tickets); err != nil {
		t.Fatal(err)
	}
}

func claim(t *testing.T, q queue.Queue, lease time.Duration) []queue.Claim {
	t.Helper()
	claims, err := q.Claim(t.Context(), queue.ClaimRequest{Agents: []string{"x"}, N: 10, Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// Notify wakes at the moment at which something becomes claimable, and at no other.
func TestMemoryNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		var wakes atomic.Int64
		ended := make(chan error, 1)
		go func() { ended <- q.Notify(ctx, func() { wakes.Add(1) }) }()
		want := func(n int64, when string) {
			t.Helper()
			synctest.Wait()
			if got := wakes.Swap(0); got != n {
				t.Errorf("%s: %d wakes, want %d", when, got, n)
			}
		}
		want(1, "at first")

		delayed := ticket("b1")
		delayed.NotBefore = time.Now().Add(time.Minute)
		push(t, q, ticket("a1"), delayed)
		want(1, "after a push")
		push(t, q)
		want(0, "after a push of nothing")
		time.Sleep(59 * time.Second)
		want(0, "before the delay ends")
		time.Sleep(time.Second)
		want(1, "when the delay ends")
		time.Sleep(time.Hour)
		want(0, "when nothing happens")

		claims := claim(t, q, time.Minute)
		if len(claims) != 2 {
			t.Fatalf("claimed %v, want two", claims)
		}
		want(0, "after a claim")
		if err := q.Release(t.Context(), claims[:1], 10*time.Second); err != nil {
			t.Fatal(err)
		}
		want(1, "after a release")
		time.Sleep(10 * time.Second)
		want(1, "when the delay of the release ends")
		time.Sleep(50 * time.Second)
		want(1, "when the lease ends")
		claims = claim(t, q, time.Minute)
		if err := q.Done(t.Context(), claims); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		want(0, "after all is done")

		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Notify ended with %v, want %v", err, context.Canceled)
		}
	})
}

// A push that comes while wake runs is not missed.
func TestMemoryNotifyDuringWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		claimed, pushed := 0, 0
		err := q.Notify(ctx, func() {
			claimed += len(claim(t, q, time.Hour))
			if pushed < 100 {
				pushed++
				push(t, q, ticket(fmt.Sprint("a", pushed)))
			}
			if claimed == 100 {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) || claimed != 100 {
			t.Errorf("claimed %d of 100, %v", claimed, err)
		}
	})
}

func TestMemoryContextDone(t *testing.T) {
	q := queue.NewMemory()
	push(t, q, ticket("a1"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	claims := []queue.Claim{{Ticket: ticket("a1"), Token: "1"}}
	calls := map[string]error{
		"Push":    q.Push(ctx, []queue.Ticket{ticket("a2")}),
		"Done":    q.Done(ctx, claims),
		"Release": q.Release(ctx, claims, 0),
		"Notify":  q.Notify(ctx, func() {}),
	}
	_, calls["Claim"] = q.Claim(ctx, queue.ClaimRequest{Agents: []string{"x"}, N: 1, Lease: time.Minute})
	_, calls["Stats"] = q.Stats(ctx)
	_, calls["Place"] = q.Place(ctx, "a1")
	for call, err := range calls {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want %v", call, err, context.Canceled)
		}
	}
	if got := claim(t, q, time.Minute); len(got) != 1 || got[0].Ticket.Task != "a1" {
		t.Errorf("claimed %v, want a1: calls that failed changed something", got)
	}
}

// A release after the lease ran out still delays the ticket, if nobody has claimed it since.
func TestMemoryLateRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.NewMemory()
		push(t, q, ticket("a1"))
		late := claim(t, q, time.Second)
		time.Sleep(2 * time.Second)
		if place, err := q.Place(t.Context(), "a1"); place != 1 || err != nil {
			t.Errorf("place %d, %v after the lease ran out; want 1", place, err)
		}
		if err := q.Release(t.Context(), late, time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := claim(t, q, time.Second); len(got) != 0 {
			t.Errorf("claimed %v during the delay", got)
		}
		time.Sleep(time.Minute)
		if got := claim(t, q, time.Second); len(got) != 1 {
			t.Errorf("claimed %v after the delay, want a1", got)
		}
	})
}

// Tenants that come once, whatever becomes of their ticket, leave nothing behind.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.NewMemory()
		for i := range 100 {
			other := ticket(fmt.Sprint("waiting", i))
			other.Agent = "y"
			push(t, q, other)
		}
		once := func(i int) {
			name := fmt.Sprint("once", i)
			first := ticket(name)
			first.Tenant, first.Priority = name, 1+i%100
			push(t, q, first)
			claims := claim(t, q, time.Second)
			switch i % 4 {
			case 0:
				time.Sleep(2 * time.Second)
			case 1:
				if err := q.Release(t.Context(), claims, 0); err != nil {
					t.Fatal(err)
				}
				claims = claim(t, q, time.Second)
			case 2:
				first.Generation = 2
				push(t, q, first)
				claims = append(claims, claim(t, q, time.Second)...)
			}
			if err := q.Done(t.Context(), claims); err != nil {
				t.Fatal(err)
			}
		}
		const few, many = 1_000, 20_000
		for i := range few {
			once(i)
		}
		before := heapInUse()
		for i := range many {
			once(few + i)
		}
		if grown := heapInUse() - before; grown > 50*many {
			t.Errorf("the heap grew by %d bytes for %d tenants that came once", grown, many)
		}
		runtime.KeepAlive(q)
	})
}

func heapInUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
