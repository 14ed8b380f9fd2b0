package freshet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// Resources are what a workspace is asked for, and what limits and prices count.
type Resources = provider.Resources

// Cmd is a process to run in a workspace.
type Cmd = provider.Cmd

// Agent is a kind of agent: what its workspaces are, how its runs go, and what handles them. It is part of Config and
// not changed after New.
type Agent struct {
	Name      string // 1 to 40 bytes [a-zA-Z0-9._-], unique in Config
	Image     string // what its workspaces boot; the provider says what it names
	Resources Resources
	Options   any // the provider's own settings, e.g. dockerprovider.Options; must encode as JSON
	Handler   Handler

	Env     map[string]string                                            // of every process in its workspaces
	Secrets func(ctx context.Context, t Task) (map[string]string, error) // more Env, asked for at each run; never stored or logged
	Setup   []Cmd                                                        // run in each new workspace before its first task; one that fails fails the workspace

	Timeout     time.Duration // of one attempt, from the handler's start; 0: none
	IdleTimeout time.Duration // without progress; 0: 5 min, negative: never
	Grace       time.Duration // between SIGTERM and SIGKILL; 0: 10 s
	Expected    time.Duration // usual duration, until enough are measured; 0: unknown
	Checkpoint  time.Duration // interval at which the folder checkpoint/ is saved; 0: on demand only

	Concurrent int // runs at once, all tenants; 0: no limit
	Retry      Retry
	Idempotent bool // may start again from nothing after its workspace was lost; others need a checkpoint
	Pool       Pool
	KeepFor    time.Duration // keeps the workspace for the same tenant's next task; 0: delete at once
}

// Pool is the spare workspaces of one agent. The zero Pool keeps none.
type Pool struct {
	Warm   int                // running and idle
	Paused int                // paused; New refuses it where the provider cannot pause
	Kind   provider.PauseKind // "": the provider's first
}

// Retry says how often and when an attempt that failed is followed by another. Which failures are followed at all: the
// library's own (a create that failed, a lost workspace), errors that wrap ErrRetry, exit status 75, and those for
// which If says so.
type Retry struct {
	Attempts int           // in all; 0: 3, 1: never again
	MinDelay time.Duration // before the second; doubles from there, with full jitter; 0: 1 s
	MaxDelay time.Duration // 0: 1 min
	If       func(error) bool
}

// Price is what workspaces cost, in any currency, by the second that they exist. Zero costs nothing.
type Price struct {
	CPUSecond, MemoryGBSecond, DiskGBSecond float64 // 1 GB = 1<<30 bytes
}

// agent is an Agent as New has checked and completed it.
type agent struct {
	Agent
	spec provider.Spec
	hash string // of spec and set-up: members of another hash are not used
	plan store.Plan
}

var agentName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,40}$`)

// compile checks an agent and fills in its defaults.
func compile(a Agent, caps provider.Capabilities, pauses bool) (*agent, error) {
	var faults []error
	bad := func(format string, args ...any) {
		faults = append(faults, invalid("agent %q: "+format, append([]any{clip(a.Name, 64)}, args...)...))
	}
	if !agentName.MatchString(a.Name) {
		bad("Name must be 1 to 40 bytes of letters, digits, '.', '_' and '-'")
	}
	if a.Handler == nil {
		bad("Handler is nil")
	}
	checkResources(a.Resources, bad)
	options, err := json.Marshal(a.Options)
	if err != nil {
		bad("Options do not encode as JSON: %v", err)
	}
	for k, v := range a.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			bad("Env has an empty name, a name with '=' or a NUL")
		}
	}
	for i, c := range a.Setup {
		if len(c.Args) == 0 || c.Args[0] == "" {
			bad("Setup[%d] has no program", i)
		}
	}
	for name, d := range map[string]time.Duration{
		"Timeout": a.Timeout, "Grace": a.Grace, "Expected": a.Expected, "Checkpoint": a.Checkpoint, "KeepFor": a.KeepFor,
		"Retry.MinDelay": a.Retry.MinDelay, "Retry.MaxDelay": a.Retry.MaxDelay,
	} {
		if d < 0 {
			bad("%s is negative", name)
		}
	}
	for name, n := range map[string]int{
		"Concurrent": a.Concurrent, "Retry.Attempts": a.Retry.Attempts, "Pool.Warm": a.Pool.Warm, "Pool.Paused": a.Pool.Paused,
	} {
		if n < 0 {
			bad("%s is negative", name)
		}
	}
	if a.Retry.MaxDelay > 0 && a.Retry.MinDelay > a.Retry.MaxDelay {
		bad("Retry.MinDelay is above Retry.MaxDelay")
	}
	checkPool(a.Pool, caps, pauses, bad)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}

	a.IdleTimeout = orDefault(a.IdleTimeout, defaultIdleTimeout)
	a.Grace = orDefault(a.Grace, defaultGrace)
	a.Retry.Attempts = orDefault(a.Retry.Attempts, defaultAttempts)
	a.Retry.MinDelay = orDefault(a.Retry.MinDelay, defaultMinDelay)
	a.Retry.MaxDelay = max(orDefault(a.Retry.MaxDelay, defaultMaxDelay), a.Retry.MinDelay)
	c := &agent{Agent: a}
	c.spec = provider.Spec{Image: a.Image, Resources: a.Resources, Options: a.Options}
	c.hash = hashSpec(c.spec, options, a.Setup)
	c.plan = store.Plan{
		Agent: a.Name, Spec: c.hash, Resources: a.Resources, Concurrent: a.Concurrent,
		Paths: []store.Path{store.PathKept, store.PathWarm, store.PathPaused, store.PathCold},
	}
	return c, nil
}

func checkResources(r Resources, bad func(string, ...any)) {
	const most = 1 << 30
	if !(r.CPU >= 0 && r.CPU <= 4096) {
		bad("Resources.CPU must be between 0 and 4096 cores")
	}
	if r.MemoryMB < 0 || r.MemoryMB > most || r.DiskMB < 0 || r.DiskMB > most {
		bad("Resources.MemoryMB and DiskMB must be between 0 and %d", most)
	}
}

func checkPool(p Pool, caps provider.Capabilities, pauses bool, bad func(string, ...any)) {
	if p.Paused > 0 && !pauses {
		bad("Pool.Paused needs a provider that can pause")
		return
	}
	if p.Kind == "" {
		return
	}
	for _, k := range caps.PauseKinds {
		if k == p.Kind {
			return
		}
	}
	bad("Pool.Kind %q is none of the provider's %v", p.Kind, caps.PauseKinds)
}

// hashSpec is the identity of a spec: members of a pool are interchangeable only within it.
func hashSpec(s provider.Spec, options []byte, setup []Cmd) string {
	b, err := json.Marshal(struct {
		Image     string
		Resources Resources
		Options   json.RawMessage
		Setup     []Cmd
	}{s.Image, s.Resources, options, setup})
	if err != nil { // every field has been encoded before, or is plain
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// perSecond is the price of a workspace for each second.
func (p Price) perSecond(r Resources) float64 {
	return p.CPUSecond*r.CPU + p.MemoryGBSecond*float64(r.MemoryMB)/1024 + p.DiskGBSecond*float64(r.DiskMB)/1024
}

func (p Price) validate() error {
	for _, v := range []float64{p.CPUSecond, p.MemoryGBSecond, p.DiskGBSecond} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return invalid("Price must not be negative")
		}
	}
	return nil
}
