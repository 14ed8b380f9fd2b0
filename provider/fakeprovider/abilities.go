package fakeprovider

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// abilities is the part of a Provider that not every provider has; archive.go holds the rest.
type abilities struct{ c *client }

// Attach implements provider.Attacher. Where Capabilities.Attach is false it finds what this Provider has started.
func (p abilities) Attach(ctx context.Context, id, name string) (provider.Process, error) {
	return do(ctx, p.c, Call{Op: "attach", ID: id, Name: name}, func(Fault) (provider.Process, error) {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.getLocked("attach", id)
		if err != nil {
			return nil, err
		}
		proc := w.processes[name]
		if proc == nil || !c.caps.Attach && proc.starter != p.c {
			return nil, failure("attach", provider.ErrNotFound, "there is no process %q", name)
		}
		return handle{p.c, proc}, nil
	})
}

// List implements provider.Lister.
func (p abilities) List(ctx context.Context, owner string) iter.Seq2[provider.Workspace, error] {
	return func(yield func(provider.Workspace, error) bool) {
		call := Call{Op: "list", Owner: owner}
		f, err := p.c.begin(ctx, call)
		if err != nil {
			yield(provider.Workspace{}, err)
			return
		}
		c := p.c.cloud
		c.lock()
		mine := c.owners[owner]
		all := make([]*workspace, 0, len(mine))
		for w := range mine {
			all = append(all, w)
		}
		found, closed := observedLocked(all), c.closed
		c.unlock()
		if closed {
			yield(provider.Workspace{}, failure("list", provider.ErrUnavailable, "the provider is closed"))
			return
		}
		if len(found) > 0 {
			found[len(found)/2] = seen(found[len(found)/2], f)
		}
		err = p.c.answer(ctx, call, f)
		if err != nil {
			found = found[:len(found)/2]
		}
		for _, w := range found {
			if !yield(w, nil) {
				return
			}
		}
		if err != nil {
			yield(provider.Workspace{}, err)
		}
	}
}

// Find implements provider.Finder.
func (p abilities) Find(ctx context.Context, owner, token string) (provider.Workspace, error) {
	return do(ctx, p.c, Call{Op: "find", Owner: owner, Token: token}, func(f Fault) (provider.Workspace, error) {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		if w := c.tokens[tokenKey{owner, token}]; w != nil {
			return seen(w.Workspace, f), nil
		}
		return provider.Workspace{}, &provider.Error{Op: "find", Class: provider.ErrNotFound}
	})
}

// Pause implements provider.Pauser. A pause that is under way goes on when ctx ends.
func (p abilities) Pause(ctx context.Context, id string, kind provider.PauseKind) error {
	return act(ctx, p.c, Call{Op: "pause", ID: id}, func(Fault) error {
		c := p.c.cloud
		if !slices.Contains(c.caps.PauseKinds, kind) {
			return failure("pause", provider.ErrInvalid, "kind %q", kind)
		}
		latency := sample(c.cfg.Pause)
		c.lock()
		w, err := c.pauseLocked(id, kind, latency)
		c.unlock()
		if err != nil {
			return err
		}
		return p.c.settled(ctx, "pause", w, provider.Paused)
	})
}

func (c *cloud) pauseLocked(id string, kind provider.PauseKind, latency time.Duration) (*workspace, error) {
	w, err := c.getLocked("pause", id)
	switch {
	case err != nil:
		return nil, err
	case w.paused == kind && (w.State == provider.Paused || w.then == provider.Paused):
		return w, nil
	case w.State != provider.Running:
		return nil, failure("pause", provider.ErrConflict, "workspace is %s", w.State)
	}
	for _, proc := range w.processes {
		if kind == provider.DiskOnly {
			proc.kill(provider.Exit{Signal: "SIGKILL"})
		} else {
			proc.pause()
		}
	}
	w.paused = kind
	c.moveLocked(w, provider.Changing, provider.Paused, time.Now().Add(latency))
	if latency <= 0 {
		c.settleLocked(w)
	}
	return w, nil
}

// Resume implements provider.Pauser. A resume that is under way goes on when ctx ends.
func (p abilities) Resume(ctx context.Context, id string) (warm bool, err error) {
	return do(ctx, p.c, Call{Op: "resume", ID: id}, func(f Fault) (bool, error) {
		c := p.c.cloud
		latency := sample(c.cfg.Resume)
		c.lock()
		w, err := c.resumeLocked(id, f.Cold, latency)
		if err != nil {
			c.unlock()
			return false, err
		}
		warm := w.warm
		c.unlock()
		return warm, p.c.settled(ctx, "resume", w, provider.Running)
	})
}

func (c *cloud) resumeLocked(id string, cold bool, latency time.Duration) (*workspace, error) {
	w, err := c.getLocked("resume", id)
	switch {
	case err != nil:
		return nil, err
	case w.State == provider.Running || w.State == provider.Changing && w.then == provider.Running:
		return w, nil
	case w.State != provider.Paused:
		return nil, failure("resume", provider.ErrConflict, "workspace is %s", w.State)
	case !c.counts(provider.Paused) && c.fullLocked():
		return nil, failure("resume", provider.ErrQuota, "%d workspaces exist", c.inUse)
	}
	w.warm = w.paused != provider.DiskOnly && !cold
	if !w.warm {
		for _, proc := range w.processes {
			proc.kill(provider.Exit{Signal: "SIGKILL"})
		}
	}
	c.moveLocked(w, provider.Changing, provider.Running, time.Now().Add(latency))
	if latency <= 0 {
		c.settleLocked(w)
	}
	return w, nil
}

// settled waits until a workspace that was changing is in the state want.
func (cl *client) settled(ctx context.Context, op string, w *workspace, want provider.State) error {
	c := cl.cloud
	for {
		c.lock()
		state := w.State
		var changed <-chan struct{}
		if state == provider.Changing {
			changed = w.changedLocked()
		}
		c.unlock()
		switch state {
		case want:
			return nil
		case gone:
			return &provider.Error{Op: op, Class: provider.ErrNotFound}
		case provider.Changing:
			if err := await(ctx, cl, op, changed); err != nil {
				return interrupted(op, err)
			}
		default:
			return failure(op, provider.ErrConflict, "workspace is %s", state)
		}
	}
}

// Check implements provider.Checker.
func (p abilities) Check(ctx context.Context, id string) error {
	return act(ctx, p.c, Call{Op: "check", ID: id}, func(Fault) error {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.getLocked("check", id)
		switch {
		case err != nil:
			return err
		case w.State == provider.Failed || w.State == provider.Deleting:
			return failure("check", provider.ErrLost, "workspace is %s", w.State)
		case !w.Ready:
			return failure("check", provider.ErrConflict, "workspace is %s", w.State)
		}
		return nil
	})
}

// Resize implements provider.Resizer. It wakes watchers; nothing else can be seen of it.
func (p abilities) Resize(ctx context.Context, id string, r provider.Resources) error {
	return act(ctx, p.c, Call{Op: "resize", ID: id}, func(Fault) error {
		if r.CPU < 0 || r.MemoryMB < 0 || r.DiskMB < 0 {
			return failure("resize", provider.ErrInvalid, "negative resources")
		}
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.readyLocked("resize", id)
		if err != nil {
			return err
		}
		c.wakeLocked(w)
		return nil
	})
}

// watcher collects the ids of workspaces that have changed.
type watcher struct {
	owner string
	ids   map[string]struct{} // protected by the cloud's mutex
	some  chan struct{}       // holds one value when ids is not empty
}

func (w *watcher) noteLocked(changed *workspace) {
	if changed.Owner != w.owner {
		return
	}
	w.ids[changed.ID] = struct{}{}
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// Watch implements provider.Watcher.
func (p abilities) Watch(ctx context.Context, owner string, wake func(id string)) error {
	return act(ctx, p.c, Call{Op: "watch", Owner: owner}, func(Fault) error {
		c := p.c.cloud
		w := &watcher{owner: owner, ids: make(map[string]struct{}), some: make(chan struct{}, 1)}
		c.lock()
		c.watchers[w] = struct{}{}
		c.unlock()
		defer func() {
			c.lock()
			delete(c.watchers, w)
			c.unlock()
		}()
		for {
			select {
			case <-w.some:
			case <-ctx.Done():
				return ctx.Err()
			case <-p.c.broken():
				return p.c.outage("watch")
			case <-c.ended:
				return failure("watch", provider.ErrUnavailable, "the provider is closed")
			}
			c.lock()
			ids := w.ids
			w.ids = make(map[string]struct{})
			c.unlock()
			for id := range ids {
				wake(id)
			}
		}
	})
}

// KeepAlive implements provider.KeepAliver. A workspace that expires is gone.
func (p abilities) KeepAlive(ctx context.Context, id string, ttl time.Duration) error {
	return act(ctx, p.c, Call{Op: "keepalive", ID: id}, func(Fault) error {
		if ttl <= 0 {
			return failure("keepalive", provider.ErrInvalid, "time-out %v", ttl)
		}
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.getLocked("keepalive", id)
		if err != nil {
			return err
		}
		w.Expires = time.Now().Add(ttl)
		if end := w.Created.Add(c.caps.MaxLifetime); c.caps.MaxLifetime > 0 && w.Expires.After(end) {
			w.Expires = end
		}
		c.due.place(w)
		return nil
	})
}

// Usage implements provider.Meter. CPUTime is what the processes have burnt.
func (p abilities) Usage(ctx context.Context, id string) (provider.Usage, error) {
	return do(ctx, p.c, Call{Op: "usage", ID: id}, func(Fault) (provider.Usage, error) {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.getLocked("usage", id)
		if err != nil {
			return provider.Usage{}, err
		}
		return provider.Usage{CPUTime: time.Duration(w.cpu.Load()), DiskMB: int(w.files.size() >> 20)}, nil
	})
}

// Quota implements provider.Quotaer.
func (p abilities) Quota(ctx context.Context) (provider.Quota, error) {
	return do(ctx, p.c, Call{Op: "quota"}, func(Fault) (provider.Quota, error) {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		return provider.Quota{Workspaces: c.cfg.Capacity, InUse: c.inUse}, nil
	})
}

// OwnerName implements provider.Namer: "fake-1", or the next number that nobody holds.
func (p abilities) OwnerName(ctx context.Context) (name string, release func(), err error) {
	type held struct {
		name  string
		lease *lease
	}
	c := p.c.cloud
	h, err := do(ctx, p.c, Call{Op: "ownername"}, func(Fault) (held, error) {
		c.lock()
		defer c.unlock()
		h := held{lease: &lease{p.c}}
		for i := 1; h.name == ""; i++ {
			if free := "fake-" + strconv.Itoa(i); c.names[free] == nil {
				h.name = free
			}
		}
		c.names[h.name] = h.lease
		return h, nil
	})
	if err != nil {
		return "", nil, err
	}
	return h.name, func() {
		c.lock()
		defer c.unlock()
		if c.names[h.name] == h.lease {
			delete(c.names, h.name)
		}
	}, nil
}
