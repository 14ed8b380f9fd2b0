package fakeprovider

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Provider is a provider.Provider with all abilities, and what a test needs to look at it and to disturb it. Its methods
// may be called from many goroutines.
type Provider struct {
	core
	abilities
	client *client
}

var (
	_ provider.Provider    = (*Provider)(nil)
	_ provider.Attacher    = (*Provider)(nil)
	_ provider.Lister      = (*Provider)(nil)
	_ provider.Finder      = (*Provider)(nil)
	_ provider.Pauser      = (*Provider)(nil)
	_ provider.Snapshotter = (*Provider)(nil)
	_ provider.Filer       = (*Provider)(nil)
	_ provider.Checker     = (*Provider)(nil)
	_ provider.Resizer     = (*Provider)(nil)
	_ provider.Watcher     = (*Provider)(nil)
	_ provider.KeepAliver  = (*Provider)(nil)
	_ provider.Meter       = (*Provider)(nil)
	_ provider.Quotaer     = (*Provider)(nil)
	_ provider.Namer       = (*Provider)(nil)
)

// New returns a provider without workspaces, in a scope of its own.
func New(cfg Config) *Provider {
	return connect(newCloud(cfg), cfg.Fault)
}

func connect(c *cloud, fault func(Call) Fault) *Provider {
	cl := newClient(c, fault)
	return &Provider{core: core{cl}, abilities: abilities{cl}, client: cl}
}

// Sibling returns another Provider of the same scope: the one that a second host process would have. It sees the same
// workspaces and processes; outages, faults and counts of calls are its own, and it starts with none.
func (p *Provider) Sibling() *Provider { return connect(p.client.cloud, nil) }

// Close ends all workspaces of the scope and waits until every Main has returned. All calls fail after it, those of
// siblings too.
func (p *Provider) Close() { p.client.cloud.close() }

// Workspaces returns all workspaces that exist now, in whatever state, the oldest first.
func (p *Provider) Workspaces() []provider.Workspace {
	c := p.client.cloud
	c.lock()
	defer c.unlock()
	all := make([]*workspace, 0, len(c.workspaces))
	for _, w := range c.workspaces {
		all = append(all, w)
	}
	return observedLocked(all)
}

// InUse is how many workspaces count against the capacity now.
func (p *Provider) InUse() int {
	c := p.client.cloud
	c.lock()
	defer c.unlock()
	return c.inUse
}

// Peak is the most that InUse ever was.
func (p *Provider) Peak() int {
	c := p.client.cloud
	c.lock()
	defer c.unlock()
	return c.peak
}

// Vanish ends a workspace as if its machine had disappeared: it is not found any more, and its processes are killed.
func (p *Provider) Vanish(id string) { p.client.cloud.vanish(id) }

// Fail makes a workspace Failed. Its processes are lost.
func (p *Provider) Fail(id string) { p.client.cloud.fail(id) }

// Calls counts the calls by Call.Op, those that failed included.
func (p *Provider) Calls() map[string]int { return p.client.counts() }

// SetFault replaces Config.Fault for this Provider; nil: nothing goes wrong any more.
func (p *Provider) SetFault(fault func(Call) Fault) { p.client.setFault(fault) }

// SetDown is an outage of the control plane: every call returns err, and so do those that wait, such as Wait and Watch.
// Workspaces and processes go on. nil ends it.
func (p *Provider) SetDown(err error) { p.client.setDown(err, false) }

// Crash is the death of the host process that uses this Provider: all its calls fail, its owner's names are free, and
// where Capabilities.Attach is false the processes that it started are lost. A Sibling goes on.
func (p *Provider) Crash() {
	p.client.setDown(provider.ErrUnavailable, true)
	c := p.client.cloud
	c.lock()
	defer c.unlock()
	for name, l := range c.names {
		if l.holder == p.client {
			delete(c.names, name)
		}
	}
	if c.caps.Attach {
		return
	}
	for _, w := range c.workspaces {
		for _, proc := range w.processes {
			if proc.starter == p.client {
				proc.lose()
			}
		}
	}
}

func observedLocked(all []*workspace) []provider.Workspace {
	slices.SortFunc(all, func(a, b *workspace) int { return int(a.number - b.number) })
	found := make([]provider.Workspace, len(all))
	for i, w := range all {
		found[i] = w.Workspace
	}
	return found
}

// core is the part of a Provider that every provider has.
type core struct{ c *client }

// Scope implements provider.Provider.
func (p core) Scope(ctx context.Context) (string, error) {
	return do(ctx, p.c, Call{Op: "scope"}, func(Fault) (string, error) { return p.c.cloud.scope, nil })
}

// Capabilities implements provider.Provider.
func (p core) Capabilities() provider.Capabilities {
	caps := p.c.cloud.caps
	caps.PauseKinds = slices.Clone(caps.PauseKinds)
	return caps
}

// Create implements provider.Provider.
func (p core) Create(ctx context.Context, req provider.CreateRequest) (provider.Workspace, error) {
	call := Call{Op: "create", Owner: req.Owner, Token: req.Token}
	return do(ctx, p.c, call, func(f Fault) (provider.Workspace, error) {
		if req.Token == "" || len(req.Token) > 26 || req.Owner == "" || len(req.Owner) > 26 || len(req.Agent) > 40 {
			return provider.Workspace{}, failure("create", provider.ErrInvalid, "a label is missing or too long")
		}
		c := p.c.cloud
		boot := sample(c.cfg.Boot)
		c.lock()
		defer c.unlock()
		w, err := c.createLocked(req, boot, f.Fail)
		if err != nil {
			return provider.Workspace{}, err
		}
		return seen(w.Workspace, f), nil
	})
}

func (c *cloud) createLocked(req provider.CreateRequest, boot time.Duration, fails bool) (*workspace, error) {
	if c.closed {
		return nil, failure("create", provider.ErrUnavailable, "the provider is closed")
	}
	if wait := c.pace.take(time.Now()); wait > 0 {
		return nil, &provider.Error{Op: "create", Class: provider.ErrRateLimited, RetryAfter: wait}
	}
	if w := c.tokens[tokenKey{req.Owner, req.Token}]; w != nil && c.caps.Create == provider.Idempotent {
		if !sameSpec(w.spec, req.Spec) {
			return nil, failure("create", provider.ErrExists, "the token was used with another spec")
		}
		return w, nil
	}
	if _, ok := c.snapshots[req.Spec.Snapshot]; req.Spec.Snapshot != "" && !ok {
		return nil, failure("create", provider.ErrInvalid, "there is no snapshot %q", req.Spec.Snapshot)
	}
	if c.fullLocked() {
		return nil, failure("create", provider.ErrQuota, "%d workspaces exist", c.inUse)
	}
	return c.addLocked(req, boot, fails), nil
}

// Get implements provider.Provider.
func (p core) Get(ctx context.Context, id string) (provider.Workspace, error) {
	return do(ctx, p.c, Call{Op: "get", ID: id}, func(f Fault) (provider.Workspace, error) {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.getLocked("get", id)
		if err != nil {
			return provider.Workspace{}, err
		}
		return seen(w.Workspace, f), nil
	})
}

// Delete implements provider.Provider.
func (p core) Delete(ctx context.Context, id string) error {
	return act(ctx, p.c, Call{Op: "delete", ID: id}, func(Fault) error {
		c := p.c.cloud
		latency := sample(c.cfg.Delete)
		c.lock()
		defer c.unlock()
		w, err := c.getLocked("delete", id)
		switch {
		case errors.Is(err, provider.ErrNotFound):
			return nil
		case err != nil:
			return err
		case w.State == provider.Deleting:
		case latency <= 0:
			c.removeLocked(w)
		default:
			for _, proc := range w.processes {
				proc.kill(provider.Exit{Signal: "SIGKILL"})
			}
			c.moveLocked(w, provider.Deleting, gone, time.Now().Add(latency))
		}
		return nil
	})
}

// StartProcess implements provider.Provider.
func (p core) StartProcess(ctx context.Context, id, name string, cmd provider.Cmd) (provider.Process, error) {
	call := Call{Op: "start", ID: id, Name: name}
	return do(ctx, p.c, call, func(Fault) (provider.Process, error) {
		if !validName(name) || len(cmd.Args) == 0 {
			return nil, failure("start", provider.ErrInvalid, "a process needs arguments and a name of 1 to 128 bytes [a-zA-Z0-9._-]")
		}
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.readyLocked("start", id)
		if err != nil {
			return nil, err
		}
		if w.processes[name] != nil {
			return nil, &provider.Error{Op: "start", Class: provider.ErrExists}
		}
		if w.processes == nil {
			w.processes = make(map[string]*process)
		}
		proc := newProcess(w, p.c, name, cmd)
		w.processes[name] = proc
		return handle{p.c, proc}, nil
	})
}

func validName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return name != "" && len(name) <= 128 && strings.Trim(name, allowed) == ""
}

// seen is a workspace as a call with this fault sees it.
func seen(w provider.Workspace, f Fault) provider.Workspace {
	if f.State != "" {
		w.State, w.Ready = f.State, f.State == provider.Running
	}
	return w
}
