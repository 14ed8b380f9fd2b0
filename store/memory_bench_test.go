package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// benchmark drives a Memory with tasks of one agent.
type benchmark struct {
	*testing.B
	m      *store.Memory
	limits store.Limits
	tokens int
}

func (b *benchmark) submit(id, tenant int) {
	_, err := b.m.Submit(b.Context(), store.SubmitRequest{Limits: &b.limits, Tasks: []store.Task{{
		ID: fmt.Sprintf("task-%09d", id), Agent: "agent", Tenant: fmt.Sprintf("tenant-%06d", tenant), Digest: "digest", Payload: []byte("payload"),
	}}})
	if err != nil {
		b.Fatal(err)
	}
}

// claim claims exactly n tasks, and tells how long that took.
func (b *benchmark) claim(n int) ([]store.Begun, time.Duration) {
	a := store.Admission{
		Runner: "runner", Lease: time.Hour, Owner: "owner", Scope: "scope", Limits: &b.limits,
		Plans: []store.Plan{{
			Agent: "agent", Spec: "spec", Resources: provider.Resources{CPU: 1, MemoryMB: 512},
			Paths: []store.Path{store.PathKept, store.PathWarm, store.PathPaused, store.PathCold},
		}},
	}
	for range n {
		b.tokens++
		a.Tokens = append(a.Tokens, fmt.Sprintf("workspace-%09d", b.tokens))
	}
	start := time.Now()
	claimed, err := b.m.ClaimBegin(b.Context(), a, n)
	spent := time.Since(start)
	if err != nil || len(claimed.Begun) != n {
		b.Fatalf("claimed %d of %d, error %v", len(claimed.Begun), n, err)
	}
	return claimed.Begun, spent
}

func (b *benchmark) finish(run store.Begun, state store.State, d store.Disposition) store.Workspace {
	done, err := b.m.Finish(b.Context(), []store.Outcome{{Lease: run.Lease, State: state, Count: store.CountAttempt, Workspace: d}})
	if err != nil || done[0].Err != nil {
		b.Fatal(err, done[0].Err)
	}
	return done[0].Workspace
}

// BenchmarkRoundTrip is one task from Submit until its workspace is gone, in a Store that limits everything.
func BenchmarkRoundTrip(tb *testing.B) {
	b := &benchmark{B: tb, m: store.NewMemory(), limits: store.Limits{
		Workspaces: 100, CPU: 100, MemoryMB: 100_000, Queued: 100, PerSecond: 1e9,
		Tenant: store.TenantLimits{Concurrent: 5, CPU: 50, MemoryMB: 50_000, PerHour: 1e9, Queued: 10},
	}}
	var finished []string
	for id := 0; b.Loop(); id++ {
		b.submit(id, id%1000)
		runs, _ := b.claim(1)
		w := b.finish(runs[0], store.StateSucceeded, store.DisposeDelete)
		w.State = store.WorkspaceGone
		if _, err := b.m.PutWorkspace(b.Context(), store.Lease{}, nil, w); err != nil {
			b.Fatal(err)
		}
		if finished = append(finished, runs[0].Task.ID); len(finished) == 1000 {
			b.StopTimer()
			if err := b.m.Remove(b.Context(), finished); err != nil {
				b.Fatal(err)
			}
			finished = finished[:0]
			b.StartTimer()
		}
	}
	b.ReportMetric(10_000, "goal-ns/op")
}

// BenchmarkClaimBegin claims from lines of several sizes that stay full, a hundred tasks at a time. The capped tenants have
// tasks in line too, and may start none.
func BenchmarkClaimBegin(tb *testing.B) {
	for _, size := range []struct{ queued, tenants, capped int }{
		{1_000, 10, 0}, {100_000, 1_000, 0}, {1_000_000, 10_000, 0}, {1_000, 10, 10_000},
	} {
		tb.Run(fmt.Sprintf("queued=%d/tenants=%d/capped=%d", size.queued, size.tenants, size.capped), func(tb *testing.B) {
			b := &benchmark{B: tb, m: store.NewMemory(), limits: store.Limits{Tenant: store.TenantLimits{Concurrent: 100}}}
			for id := range size.capped {
				b.submit(id, id)
			}
			if size.capped > 0 {
				b.claim(size.capped)
				b.limits.Tenant.Concurrent = 1
				for id := range size.capped {
					b.submit(size.capped+id, id)
				}
			}
			for i := range size.tenants {
				own := fmt.Sprintf("tenant-%06d", size.capped+i)
				if err := b.m.SetTenantLimits(b.Context(), own, &store.TenantLimits{Concurrent: 100}); err != nil {
					b.Fatal(err)
				}
			}
			for i := range size.queued {
				b.submit(2*size.capped+i, size.capped+i%size.tenants)
			}
			b.claimed(b.claim(100)) // parks the capped ones
			var spent time.Duration
			n := 0
			for b.Loop() {
				runs, took := b.claim(100)
				spent += took
				n += len(runs)
				b.claimed(runs, 0)
			}
			b.ReportMetric(float64(spent)/float64(n), "ns/claim")
			b.ReportMetric(10_000, "goal-ns/claim")
		})
	}
}

// claimed puts what was claimed back in line.
func (b *benchmark) claimed(runs []store.Begun, _ time.Duration) {
	for _, run := range runs {
		b.finish(run, store.StateQueued, store.DisposeGone)
	}
}
