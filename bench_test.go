package freshet_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// goal prints a figure beside what it should be.
func goal(b *testing.B, what, want string, got any) {
	b.Helper()
	b.Logf("%s: goal=%s measured=%v", what, want, got)
}

func benchFleet(b *testing.B, a freshet.Agent, fake fakeprovider.Config) (*freshet.Dispatcher, *fakeprovider.Provider) {
	b.Helper()
	p := fakeprovider.New(fake)
	d, err := freshet.New(freshet.Config{Provider: p, Agents: []freshet.Agent{a}})
	if err != nil {
		b.Fatal(err)
	}
	if err := d.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			b.Error(err)
		}
	})
	return d, p
}

// untilWarm waits until a pool has its members.
func untilWarm(b *testing.B, d *freshet.Dispatcher, n int) {
	b.Helper()
	for {
		s, err := d.Stats(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if s.Total.Warm >= n && s.Total.Running+s.Total.Deleting == 0 {
			return
		}
		runtime.Gosched()
	}
}

// BenchmarkWarmStart measures from Submit to the handler's first line, one at a time, with a warm workspace there.
func BenchmarkWarmStart(b *testing.B) {
	started := make(chan time.Time, 1)
	d, _ := benchFleet(b, freshet.Agent{
		Name: "a", Pool: freshet.Pool{Warm: 2},
		Handler: func(context.Context, *freshet.Run) ([]byte, error) {
			started <- time.Now()
			return nil, nil
		},
	}, fakeprovider.Config{})
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		untilWarm(b, d, 2)
		at := time.Now()
		if _, err := d.Submit(context.Background(), freshet.Task{Agent: "a", Tenant: "ann"}); err != nil {
			b.Fatal(err)
		}
		took = append(took, (<-started).Sub(at))
	}
	slices.Sort(took)
	goal(b, "submit to handler, warm, p50", "20µs", took[len(took)/2])
	goal(b, "submit to handler, warm, p99", "1ms", took[len(took)*99/100])
}

const crowd = 10_000

// BenchmarkFromZero measures how long 10,000 agents take from nothing to all running, when each boots for 100 ms, and
// what each costs in memory and goroutines while it lives.
func BenchmarkFromZero(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		var running sync.WaitGroup
		running.Add(crowd)
		end := make(chan struct{})
		d, p := benchFleet(b, freshet.Agent{
			Name: "a",
			Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
				running.Done()
				<-end
				return nil, nil
			},
		}, fakeprovider.Config{Boot: fakeprovider.Fixed(100 * time.Millisecond)})
		tasks := make([]freshet.Task, crowd)
		for i := range tasks {
			tasks[i] = freshet.Task{Agent: "a", Tenant: "ann"}
		}
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		b.StartTimer()
		at := time.Now()
		ids, err := d.SubmitMany(context.Background(), tasks)
		if err != nil {
			b.Fatal(err)
		}
		running.Wait()
		goal(b, "10,000 agents from zero to running, boot 100ms", "600ms", time.Since(at).Round(time.Millisecond))
		b.StopTimer()
		var after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&after)
		held := after.HeapAlloc + after.StackInuse - before.HeapAlloc - before.StackInuse
		goal(b, "memory per live agent, the fake provider's included", "12KiB", float64(held/crowd*10/1024)/10)
		goal(b, "goroutines per live agent", "2", float64(runtime.NumGoroutine()-goroutines)/crowd)
		close(end)
		for _, id := range ids {
			if _, err := d.Wait(context.Background(), id); err != nil {
				b.Fatal(err)
			}
		}
		runtime.KeepAlive(p)
		b.StartTimer()
	}
}
