// Package promise checks the eight promises of docs/ARCHITECTURE.md. It is the one checker that the tests of the
// dispatcher, the crash tests and the chaos suite share, over whatever store and provider.
//
// A Checker looks at a fleet from three sides: it stands between the dispatchers and their store (Wrap), handlers and
// programs tell it when they run and that they work (Enter, Sign), and in the end it compares what it has seen with what
// store, provider and dispatchers say (Check).
package promise

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// Promise is one of the eight.
type Promise string

const (
	Lost      Promise = "nothing is lost"
	Owner     Promise = "one owner"
	Leak      Promise = "no leak"
	Limits    Promise = "exact limits"
	Zero      Promise = "zero is zero"
	Starved   Promise = "nobody starves"
	Silence   Promise = "silence is not death"
	Explained Promise = "it explains itself"
)

// Violation is a promise that was broken.
type Violation struct {
	Promise Promise
	What    string
}

// String says which promise it was, and how it was broken.
func (v Violation) String() string { return string(v.Promise) + ": " + v.What }

// Config is what the fleet was told.
type Config struct {
	Limits store.Limits     // as in the dispatchers' Config; what is set at run time is seen by Wrap
	Agents map[string]Agent // by name; an agent that is not here has no limits of its own
}

// Agent is what is promised of one agent.
type Agent struct {
	Concurrent  int
	IdleTimeout time.Duration // as the dispatcher applies it; 0: its silence is not judged
}

// Checker collects what it sees of one fleet. It is made by New; its methods may be called from many goroutines.
type Checker struct {
	agents map[string]Agent

	mu       sync.Mutex // protects the fields below
	broken   []Violation
	tasks    map[string]*task
	fence    int64             // the highest one seen
	tenants  map[string]string // by token of a workspace: who it has served
	admitted []string          // tenants, in the order of their admissions
	inside   map[*inside]struct{}
	rules    []rules // all that were in force, in order
	changing int     // changes of rules that are under way
	settled  int     // index of the rules before the first of them
}

// task is what is known of a task.
type task struct {
	submitted bool // its Submit was answered with nil
	removed   bool
	fence     int64 // of its newest run
	ended     int64 // the highest fence under which a run was finished
	sign      time.Time
}

// inside is a handler or a program that runs.
type inside struct {
	Run
	ctx context.Context // of the handler or the program: it is done when that has been told to end
}

// New returns a Checker that has seen nothing.
func New(cfg Config) *Checker {
	return &Checker{
		agents: cfg.Agents, tasks: map[string]*task{}, tenants: map[string]string{}, inside: map[*inside]struct{}{},
		rules: []rules{{account: cfg.Limits}},
	}
}

// Run is what enters: the handler of a run, or the program that it has started.
type Run struct {
	Task, Agent, Tenant string
	Fence               int64
	Program             bool // the agent's program in its workspace; the handler otherwise
}

// Enter says that a handler or a program begins, and gives what says that it has returned. ctx is the one that it was
// given: a run that was told to end owns nothing any more, however long it takes.
func (c *Checker) Enter(ctx context.Context, r Run) (leave func()) {
	in := &inside{Run: r, ctx: ctx}
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.inside {
		if other.Task == r.Task && other.Program == r.Program && other.ctx.Err() == nil {
			c.breakLocked(Owner, "task %s: %s enters under fence %d while that of fence %d is inside", r.Task, r.kind(), r.Fence, other.Fence)
		}
	}
	c.inside[in] = struct{}{}
	c.taskLocked(r.Task).sign = time.Now()
	if !r.Program {
		c.checkInsideLocked(r)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.broken = append(c.broken, c.checkStuckLocked(in)...)
		delete(c.inside, in)
	}
}

func (r Run) kind() string {
	if r.Program {
		return "a program"
	}
	return "a handler"
}

// checkInsideLocked compares the handlers that run at this instant with the limits.
func (c *Checker) checkInsideLocked(r Run) {
	held := amounts{}
	for in := range c.inside {
		if !in.Program && in.ctx.Err() == nil {
			held.add(in.Tenant, in.Agent, provider.Resources{})
		}
	}
	c.compareLocked(held, c.sinceLocked(), "handlers at once")
}

// Sign says that the agent of a task has just shown that it works: by output, a note, a changed checkpoint folder, or CPU
// time within the rounds for which that counts.
func (c *Checker) Sign(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taskLocked(id).sign = time.Now()
}

// idleCode is the Code of a task that was ended because its agent showed no progress.
const idleCode = "idle"

// checkIdleLocked judges the end of a task for want of progress. CPU time is sampled twice in an idle time-out, so work
// that ended before the last sample is not seen: an agent that has worked since must not be ended.
func (c *Checker) checkIdleLocked(id, agent string) {
	silent := time.Since(c.taskLocked(id).sign)
	if limit := c.agents[agent].IdleTimeout; limit > 0 && silent < limit/2 {
		c.breakLocked(Silence, "task %s was ended as idle %v after its agent has shown that it works, time-out %v", id, silent, limit)
	}
}

// stuckMargin is how long it may take to end an agent that was found stuck: its work is kept, it has its grace.
const stuckMargin = 2 * time.Minute

// checkStuckLocked judges how long a run was left without a sign.
func (c *Checker) checkStuckLocked(in *inside) []Violation {
	silent := time.Since(c.taskLocked(in.Task).sign)
	limit := c.agents[in.Agent].IdleTimeout
	if limit == 0 || in.ctx.Err() != nil || silent <= 2*limit+stuckMargin {
		return nil
	}
	return []Violation{{Silence, fmt.Sprintf("task %s was left running %v after the last sign of its agent, time-out %v", in.Task, silent, limit)}}
}

func (c *Checker) taskLocked(id string) *task {
	t := c.tasks[id]
	if t == nil {
		t = &task{}
		c.tasks[id] = t
	}
	return t
}

func (c *Checker) breakLocked(p Promise, format string, args ...any) {
	c.broken = append(c.broken, Violation{p, fmt.Sprintf(format, args...)})
}
