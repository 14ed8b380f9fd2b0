//go:build linux

package localprovider

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func benchmark(b *testing.B, res provider.Resources, run func(ctx context.Context, p *Provider, res provider.Resources) error) {
	for _, s := range systems() {
		if s.missing.pidfd {
			continue
		}
		b.Run(s.name, func(b *testing.B) {
			p := newBench(b, s, Config{}).Provider
			ctx := b.Context()
			for b.Loop() {
				if err := run(ctx, p, res); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTrue is the life of a workspace with the shortest process.
func BenchmarkTrue(b *testing.B) { benchmark(b, provider.Resources{}, runTrue) }

// BenchmarkTrueLimited is the same with limits.
func BenchmarkTrueLimited(b *testing.B) {
	benchmark(b, provider.Resources{CPU: 1, MemoryMB: 256}, runTrue)
}

func runTrue(ctx context.Context, p *Provider, res provider.Resources) error {
	w, err := p.Create(ctx, provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent", Spec: provider.Spec{Resources: res}})
	if err != nil {
		return err
	}
	started, err := p.StartProcess(ctx, w.ID, "main", provider.Cmd{Args: []string{"true"}})
	if err != nil {
		return err
	}
	if _, err := started.Wait(ctx); err != nil {
		return err
	}
	return p.Delete(ctx, w.ID)
}

// BenchmarkCreate is a workspace without a process.
func BenchmarkCreate(b *testing.B) {
	benchmark(b, provider.Resources{}, func(ctx context.Context, p *Provider, res provider.Resources) error {
		w, err := p.Create(ctx, provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent"})
		if err != nil {
			return err
		}
		return p.Delete(ctx, w.ID)
	})
}

// BenchmarkAgents300 is 300 agents at once, each of which writes a line and exits.
func BenchmarkAgents300(b *testing.B) {
	benchmark(b, provider.Resources{}, func(ctx context.Context, p *Provider, res provider.Resources) error {
		var all sync.WaitGroup
		errs := make(chan error, 300)
		for range cap(errs) {
			all.Go(func() { errs <- runTrue(ctx, p, res) })
		}
		all.Wait()
		for range cap(errs) {
			if err := <-errs; err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkOutputLatency is how long a line takes from a process to its reader.
func BenchmarkOutputLatency(b *testing.B) {
	for _, s := range systems() {
		b.Run(s.name, func(b *testing.B) {
			p := newBench(b, s, Config{}).Provider
			ctx := b.Context()
			w, err := p.Create(ctx, provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent"})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Delete(context.WithoutCancel(ctx), w.ID)
			started, err := p.StartProcess(ctx, w.ID, "main", provider.Cmd{Args: []string{"sh", "-c", "while :; do date +%s%N; sleep 0.05; done"}})
			if err != nil {
				b.Fatal(err)
			}
			var sum, worst time.Duration
			n := 0
			for c, err := range started.Output(ctx, provider.Offset{}) {
				if err != nil {
					b.Fatal(err)
				}
				took := time.Since(stamp(b, c.Data))
				sum += took
				worst = max(worst, took)
				if n++; n == 50 {
					break
				}
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(n), "µs/line")
			b.ReportMetric(float64(worst.Microseconds()), "µs/worst")
		})
	}
}

func stamp(b *testing.B, line []byte) time.Time {
	var n int64
	for _, c := range line {
		if c == '\n' {
			break
		}
		n = 10*n + int64(c-'0')
	}
	return time.Unix(0, n)
}
