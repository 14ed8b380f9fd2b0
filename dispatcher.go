package freshet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-dev/freshet/internal/run"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// Limits bound the fleet, TenantLimits one tenant. Zero fields limit nothing.
type (
	Limits       = store.Limits
	TenantLimits = store.TenantLimits
)

// Config is what New needs. The zero value of every field but Agents is usable.
type Config struct {
	Name     string            // the fleet's name, which marks its workspaces: 1 to 26 bytes [a-z0-9-]; "": the Store's own id, or the provider's
	Provider provider.Provider // nil: this process only submits and asks; Start refuses
	Store    store.Store       // nil: in memory, for this process alone
	Queue    queue.Queue       // nil: the Store's own line where it has one, else in memory, rebuilt from the Store
	Blobs    store.Blobs       // nil: the Store's own where it has them, else in memory
	Agents   []Agent           // that this process runs; a client may leave them out
	Limits   Limits            // the defaults of the fleet; see SetLimits
	Price    Price

	// OnFinish is called at least once for each task that ends, whichever process ran it and also after a crash; if
	// it returns an error, again later. Calls for different tasks may overlap.
	OnFinish func(ctx context.Context, s Status) error

	Logger          *slog.Logger  // nil: discard
	Retention       time.Duration // of finished tasks; 0: 7 days
	ShutdownTimeout time.Duration // used by Run, and the longest that Shutdown lets handlers go on; 0: 30 s
	KeepOrphans     bool          // report workspaces that the Store does not know, delete none
}

// Dispatcher runs agents. It is made by New; its methods may be called from many goroutines. One that is never started is
// a client: it submits, asks, waits and cancels, with no goroutine and no Provider.
type Dispatcher struct {
	*core

	mu      sync.Mutex // protects the fields below
	phase   phase
	outcome error         // of Shutdown
	over    chan struct{} // closed when Shutdown has done what it can
}

type phase int

const (
	phaseNew phase = iota
	phaseStarting
	phaseStarted
	phaseClosed
)

// core is what the parts of a dispatcher share. Its fields are set by New and Start, and not changed while goroutines run.
type core struct {
	cfg    Config
	log    *slog.Logger
	agents map[string]*agent
	runner string // this dispatcher's id

	store    store.Store
	queue    queue.Queue // nil: the store keeps the line
	blobs    store.Blobs
	provider provider.Provider
	caps     provider.Capabilities

	info  store.Info
	owner string
	scope string

	opened openOnce
	hub    *hub
	live   *liveRuns
	meter  *meter
	closed chan struct{} // closed when Shutdown has begun

	// Set by Start, before started.
	started  atomic.Bool
	claims   *run.Group // what begins new work; ends first
	work     *run.Group // runs, and what they leave to do
	loops    *run.Group // what serves them; ends last
	admit    *admitter
	finish   *finisher
	watch    *watcher
	pace     *pacer
	maker    *maker
	reap     *reaper
	pool     *keeper
	sweep    *sweeper
	unlockID func() // gives back the owner's name
}

var fleetName = regexp.MustCompile(`^[a-z0-9-]{1,26}$`)

// New checks all of cfg and returns every fault, joined, each wrapping ErrInvalid. It does no I/O and starts nothing.
func New(cfg Config) (*Dispatcher, error) {
	faults := []error{cfg.validate()}
	c := &core{
		cfg: cfg, log: cfg.Logger, agents: map[string]*agent{}, runner: newID(time.Now()),
		store: cfg.Store, queue: cfg.Queue, blobs: cfg.Blobs, provider: cfg.Provider,
		hub: newHub(), live: newLiveRuns(), closed: make(chan struct{}),
	}
	pauses := false
	if c.provider != nil {
		c.caps = c.provider.Capabilities()
		_, pauses = provider.As[provider.Pauser](c.provider)
		pauses = pauses && len(c.caps.PauseKinds) > 0
	}
	for _, a := range cfg.Agents {
		compiled, err := compile(a, c.caps, pauses || c.provider == nil)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if c.agents[a.Name] != nil {
			faults = append(faults, invalid("agent %q is there twice", a.Name))
		}
		c.agents[a.Name] = compiled
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.cfg.Retention = orDefault(cfg.Retention, defaultRetention)
	c.cfg.ShutdownTimeout = orDefault(cfg.ShutdownTimeout, defaultShutdown)
	if c.store == nil {
		c.store = store.NewMemory()
	}
	if _, lines := c.store.(store.Liner); c.queue == nil && !lines {
		c.queue = queue.NewMemory()
	}
	if c.blobs == nil {
		if b, ok := c.store.(store.Blobs); ok {
			c.blobs = b
		} else {
			c.blobs = store.NewMemory()
		}
	}
	c.meter = newMeter(c.cfg.Price)
	return &Dispatcher{core: c, over: make(chan struct{})}, nil
}

func (cfg *Config) validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, invalid(format, args...)) }
	if cfg.Name != "" && !fleetName.MatchString(cfg.Name) {
		bad("Name must be 1 to 26 bytes of lower-case letters, digits and '-'")
	}
	if cfg.Queue != nil && cfg.Store == nil {
		bad("a Queue without a Store would be a line of forgotten tasks; pass store.NewMemory() if that is meant")
	}
	_, inMemory := cfg.Store.(*store.Memory)
	if cfg.Provider != nil && cfg.Name == "" && (cfg.Store == nil || inMemory) {
		if _, ok := provider.As[provider.Namer](cfg.Provider); !ok {
			bad("Name is needed: the Store is in memory, and this provider keeps no name for what an earlier process left")
		}
	}
	if cfg.Retention < 0 || cfg.ShutdownTimeout < 0 {
		bad("Retention and ShutdownTimeout must not be negative")
	}
	if cfg.Retention > 0 && cfg.Retention < time.Hour {
		bad("Retention must be at least an hour: hourly limits count the records")
	}
	faults = append(faults, checkLimits(&cfg.Limits), cfg.Price.validate())
	return errors.Join(faults...)
}

// Start opens the Store and the Provider, deletes what an earlier process with an in-memory Store left behind, and
// begins to take tasks. ctx bounds the start alone. It may be called again only if it failed; ErrClosed otherwise.
func (d *Dispatcher) Start(ctx context.Context) error {
	if d.provider == nil {
		return invalid("Start needs Config.Provider; without one a Dispatcher is a client")
	}
	d.mu.Lock()
	if d.phase != phaseNew {
		d.mu.Unlock()
		return ErrClosed
	}
	d.phase = phaseStarting
	d.mu.Unlock()

	err := d.begin(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.phase = phaseNew
		return fmt.Errorf("freshet: start: %w", err)
	}
	d.phase = phaseStarted
	return nil
}

// begin does what may fail first, and starts goroutines last.
func (c *core) begin(ctx context.Context) (err error) {
	if err := c.open(ctx); err != nil {
		return err
	}
	if c.scope, err = c.provider.Scope(ctx); err != nil {
		return err
	}
	c.unlockID = func() {}
	switch namer, ok := provider.As[provider.Namer](c.provider); {
	case c.cfg.Name != "":
		c.owner = c.cfg.Name
	case ok && !c.info.Durable:
		if c.owner, c.unlockID, err = namer.OwnerName(ctx); err != nil {
			return err
		}
	default:
		c.owner = c.info.Owner
	}
	c.claims, c.work, c.loops = run.New(), run.New(), run.New()
	c.finish, c.watch, c.pace = newFinisher(c), newWatcher(c), newPacer(c)
	c.maker, c.reap, c.pool, c.sweep = &maker{c}, newReaper(c), newKeeper(c), newSweeper(c)
	c.admit = newAdmitter(c)
	if !c.info.Durable {
		if err := c.reap.leftovers(ctx); err != nil {
			c.unlockID()
			return err
		}
	}
	c.loops.Go(c.finish.loop)
	c.loops.Go(c.watch.loop)
	c.loops.Go(c.live.renewLoop(c))
	c.claims.Go(c.sweep.loop)
	c.claims.Go(c.pool.loop)
	c.claims.Go(c.admit.loop)
	c.startHints()
	c.started.Store(true)
	c.log.Info("started", "runner", c.runner, "owner", c.owner, "scope", c.scope)
	return nil
}

// startHints listens to whatever can tell sooner than a poll.
func (c *core) startHints() {
	var lineHint queue.Notifier
	if c.queue != nil {
		lineHint, _ = c.queue.(queue.Notifier)
	} else {
		lineHint, _ = c.store.(queue.Notifier)
	}
	if lineHint != nil {
		c.claims.Go(c.hint("line", func(ctx context.Context) error { return lineHint.Notify(ctx, c.admit.hinted) }))
	}
	if w, ok := c.store.(store.Watcher); ok {
		c.loops.Go(c.hint("tasks", func(ctx context.Context) error { return w.WatchTasks(ctx, c.taskChanged) }))
	}
	if w, ok := provider.As[provider.Watcher](c.provider); ok {
		c.loops.Go(c.hint("workspaces", func(ctx context.Context) error { return w.Watch(ctx, c.owner, c.watch.wake) }))
	}
}

// hint keeps a source of hints open. That it fails costs no more than a poll interval.
func (c *core) hint(name string, listen func(context.Context) error) func(context.Context) {
	return func(ctx context.Context) {
		for failures := 0; ctx.Err() == nil; failures++ {
			if err := listen(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("hints interrupted", "source", name, "err", err)
			}
			wait(ctx, time.Second<<min(failures, 5))
		}
	}
}

// taskChanged is called with every hint that a task may have changed.
func (c *core) taskChanged(task string) {
	c.hub.wake(task)
	if c.started.Load() && c.live.has(task) {
		c.live.renewSoon()
	}
}

// Run starts, waits for ctx to end, and shuts down within Config.ShutdownTimeout. nil after a clean end.
func (d *Dispatcher) Run(ctx context.Context) error {
	if err := d.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.ShutdownTimeout)
	defer cancel()
	return d.Shutdown(ctx)
}

// openOnce opens the Store at the first call that needs it.
type openOnce struct {
	mu   sync.Mutex // protects done; taken without blocking calls inside
	done bool
}

func (c *core) open(ctx context.Context) error {
	c.opened.mu.Lock()
	done := c.opened.done
	c.opened.mu.Unlock()
	if done {
		return nil
	}
	info, err := c.store.Open(ctx)
	if err != nil {
		return err
	}
	c.opened.mu.Lock()
	defer c.opened.mu.Unlock()
	if !c.opened.done {
		c.info, c.opened.done = info, true
	}
	return nil
}

// ready is the door of every public method: not after Shutdown, and not before the Store is open.
func (c *core) ready(ctx context.Context) error {
	select {
	case <-c.closed:
		return ErrClosed
	default:
	}
	return c.open(ctx)
}

// wait waits for d or the end of ctx, and says whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
