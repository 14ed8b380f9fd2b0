package fakeprovider

import (
	"container/heap"
	"crypto/rand"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

const home = "/home/agent"

// cloud is where workspaces live: what the Providers of one scope share.
//
// Nothing in it runs by itself but one timer, which is set for the next workspace that has something due. Whoever looks
// first, the timer or a call, moves the workspace on; so a workspace costs no goroutine, and no call sees a stale state.
type cloud struct {
	cfg   Config
	caps  provider.Capabilities
	scope string
	mains sync.WaitGroup // the goroutines of processes
	ended chan struct{}  // closed by close

	mu         sync.Mutex // protects the fields below and all workspaces
	closed     bool
	made       int64 // workspaces so far
	shot       int64 // snapshots so far
	workspaces map[string]*workspace
	tokens     tokens
	owners     map[string]map[*workspace]struct{}
	snapshots  map[string]map[string]node
	watchers   map[*watcher]struct{}
	names      map[string]*lease // owner's names in use
	due        dueHeap
	timer      *time.Timer // nil until the first is due
	timerAt    time.Time   // zero: not set
	inUse      int         // workspaces that count against the capacity
	peak       int
	pace       pace
}

// lease is one holding of an owner's name.
type lease struct{ holder *client }

func newCloud(cfg Config) *cloud {
	return &cloud{
		cfg: cfg, caps: cfg.capabilities(),
		scope:      "fake-" + strings.ToLower(rand.Text()[:8]),
		ended:      make(chan struct{}),
		workspaces: make(map[string]*workspace),
		tokens:     make(tokens),
		pace:       newPace(cfg),
		owners:     make(map[string]map[*workspace]struct{}),
		snapshots:  make(map[string]map[string]node),
		watchers:   make(map[*watcher]struct{}),
		names:      make(map[string]*lease),
	}
}

// lock locks the cloud and brings it up to now.
func (c *cloud) lock() {
	c.mu.Lock()
	if len(c.due) > 0 {
		c.advanceLocked(time.Now())
	}
}

// unlock sets the timer for what is due next.
func (c *cloud) unlock() {
	defer c.mu.Unlock()
	if len(c.due) == 0 {
		if !c.timerAt.IsZero() {
			c.timer.Stop()
			c.timerAt = time.Time{}
		}
		return
	}
	at := c.due[0].due()
	if at.Equal(c.timerAt) {
		return
	}
	c.timerAt = at
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(at), c.tick)
		return
	}
	c.timer.Reset(time.Until(at))
}

func (c *cloud) tick() {
	c.lock()
	c.timerAt = time.Time{}
	c.unlock()
}

func (c *cloud) advanceLocked(now time.Time) {
	for len(c.due) > 0 {
		w := c.due[0]
		switch {
		case w.due().After(now):
			return
		case w.then == gone || !w.Expires.IsZero() && !w.Expires.After(now):
			c.removeLocked(w)
		default:
			c.settleLocked(w)
		}
	}
}

// getLocked finds a workspace that exists.
func (c *cloud) getLocked(op, id string) (*workspace, error) {
	if c.closed {
		return nil, failure(op, provider.ErrUnavailable, "the provider is closed")
	}
	w, ok := c.workspaces[id]
	if !ok {
		return nil, &provider.Error{Op: op, Class: provider.ErrNotFound}
	}
	return w, nil
}

// readyLocked finds a workspace that is running.
func (c *cloud) readyLocked(op, id string) (*workspace, error) {
	w, err := c.getLocked(op, id)
	if err == nil && !w.Ready {
		return nil, failure(op, provider.ErrConflict, "workspace is %s", w.State)
	}
	return w, err
}

// addLocked makes a workspace that is Running after boot, or Failed.
func (c *cloud) addLocked(req provider.CreateRequest, boot time.Duration, fails bool) *workspace {
	now := time.Now()
	c.made++
	w := &workspace{
		Workspace: provider.Workspace{
			ID: "ws-" + strconv.FormatInt(c.made, 10), Token: req.Token, Owner: req.Owner, Agent: req.Agent,
			State: provider.Creating, Home: home, Created: now,
		},
		cloud: c, spec: req.Spec, number: c.made, index: -1, warm: true,
		then: provider.Running, at: now.Add(boot),
	}
	if c.caps.MaxLifetime > 0 {
		w.Expires = now.Add(c.caps.MaxLifetime)
	}
	if fails {
		w.then, w.reason = provider.Failed, "boot failed"
	}
	w.files.nodes = maps.Clone(c.snapshots[req.Spec.Snapshot])
	c.workspaces[w.ID] = w
	if c.owners[w.Owner] == nil {
		c.owners[w.Owner] = make(map[*workspace]struct{})
	}
	c.owners[w.Owner][w] = struct{}{}
	c.tokens.add(w)
	c.countLocked(+1)
	if boot > 0 {
		c.due.place(w)
		c.wakeLocked(w)
	} else {
		c.settleLocked(w)
	}
	return w
}

// removeLocked is the end of a workspace, in whatever state.
func (c *cloud) removeLocked(w *workspace) {
	if c.counts(w.State) {
		c.countLocked(-1)
	}
	if w.index >= 0 {
		heap.Remove(&c.due, w.index)
	}
	delete(c.workspaces, w.ID)
	if mine := c.owners[w.Owner]; len(mine) == 1 {
		delete(c.owners, w.Owner)
	} else {
		delete(mine, w)
	}
	c.tokens.remove(w)
	for _, p := range w.processes {
		p.vanish()
	}
	w.State, w.Ready = gone, false
	c.wakeLocked(w)
}

// moveLocked puts a workspace in a state in which it stays until then, if at is not zero.
func (c *cloud) moveLocked(w *workspace, s, then provider.State, at time.Time) {
	if c.counts(w.State) != c.counts(s) {
		if c.counts(s) {
			c.countLocked(+1)
		} else {
			c.countLocked(-1)
		}
	}
	w.State, w.Ready = s, s == provider.Running
	w.then, w.at = then, at
	c.due.place(w)
	c.wakeLocked(w)
}

// settleLocked is the arrival of a workspace in the state that it was on its way to.
func (c *cloud) settleLocked(w *workspace) {
	switch w.then {
	case provider.Failed:
		w.Message = w.reason
		for _, p := range w.processes {
			p.lose()
		}
	case provider.Running:
		for _, p := range w.processes {
			p.resume()
		}
	}
	c.moveLocked(w, w.then, "", time.Time{})
}

// wakeLocked tells watchers and waiting calls that a workspace has changed.
func (c *cloud) wakeLocked(w *workspace) {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
	for watch := range c.watchers {
		watch.noteLocked(w)
	}
}

// counts says whether a workspace in this state counts against the capacity.
func (c *cloud) counts(s provider.State) bool {
	return s != provider.Paused || c.caps.PausedCounts
}

func (c *cloud) countLocked(n int) {
	c.inUse += n
	c.peak = max(c.peak, c.inUse)
}

func (c *cloud) fullLocked() bool {
	return c.cfg.Capacity > 0 && c.inUse >= c.cfg.Capacity
}

func (c *cloud) vanish(id string) {
	c.lock()
	defer c.unlock()
	if w, ok := c.workspaces[id]; ok {
		c.removeLocked(w)
	}
}

func (c *cloud) fail(id string) {
	c.lock()
	defer c.unlock()
	if w, ok := c.workspaces[id]; ok && w.State != provider.Deleting {
		w.then, w.reason = provider.Failed, "failed by the test"
		c.settleLocked(w)
	}
}

func (c *cloud) close() {
	c.lock()
	if !c.closed {
		c.closed = true
		close(c.ended)
		for _, w := range c.workspaces {
			c.removeLocked(w)
		}
	}
	c.unlock()
	c.mains.Wait()
}
