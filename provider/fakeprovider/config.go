package fakeprovider

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Config says how the provider behaves. Its zero value has no limits and no delays, and its processes exit with 0 at
// once. The functions may be called from many goroutines.
type Config struct {
	// Main is what every process does; what it returns is the exit code. ctx ends when the process has to: at Kill, at
	// Term unless Process.Term was called before, and when the workspace ends. nil: it exits with 0 at once.
	Main func(ctx context.Context, p *Process) int

	// How long it takes to boot a workspace, to pause, resume and delete one. nil: no time.
	Boot, Pause, Resume, Delete func() time.Duration

	Capacity         int     // workspaces that may exist at once; more are ErrQuota; 0: no limit
	CreatesPerSecond float64 // more are ErrRateLimited, with RetryAfter; 0: no limit
	CreateBurst      int     // creates at once before CreatesPerSecond counts; 0: 1

	// Fault is asked at each call whether something goes wrong; see Chaos. nil: nothing does.
	Fault func(Call) Fault

	// Capabilities changes what the provider says of itself, and does: Idempotent, Attach, all kinds of pause, paused
	// workspaces that do not count, no end of life. nil: as said.
	Capabilities func(*provider.Capabilities)
}

func (cfg Config) capabilities() provider.Capabilities {
	caps := provider.Capabilities{
		Create:           provider.Idempotent,
		Attach:           true,
		PauseKinds:       []provider.PauseKind{provider.Frozen, provider.Hibernated, provider.DiskOnly},
		CreatesPerSecond: cfg.CreatesPerSecond,
		CreateBurst:      cfg.CreateBurst,
	}
	if cfg.CreatesPerSecond > 0 {
		caps.CreateBurst = max(1, cfg.CreateBurst)
	}
	if cfg.Capabilities != nil {
		cfg.Capabilities(&caps)
	}
	return caps
}

// Fixed always takes d.
func Fixed(d time.Duration) func() time.Duration {
	return func() time.Duration { return d }
}

// Uniform takes between lo and hi, all equally likely. The same seed gives the same sequence.
func Uniform(lo, hi time.Duration, seed uint64) func() time.Duration {
	return draw(seed, func(r *rand.Rand) time.Duration { return lo + time.Duration(r.Float64()*float64(hi-lo)) })
}

// LogNormal takes p50 or less in half of all cases and p99 or less in 99 of 100, with a long tail, as real boots do.
// Both are above 0. The same seed gives the same sequence.
func LogNormal(p50, p99 time.Duration, seed uint64) func() time.Duration {
	const z99 = 2.3263478740408408 // 99 % of a normal distribution lie below this many standard deviations
	sigma := math.Log(float64(p99)/float64(p50)) / z99
	return draw(seed, func(r *rand.Rand) time.Duration {
		return time.Duration(float64(p50) * math.Exp(sigma*r.NormFloat64()))
	})
}

func draw(seed uint64, next func(*rand.Rand) time.Duration) func() time.Duration {
	var mu sync.Mutex // protects r
	r := rand.New(rand.NewPCG(seed, seed))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return next(r)
	}
}

func sample(latency func() time.Duration) time.Duration {
	if latency == nil {
		return 0
	}
	return max(0, latency())
}
