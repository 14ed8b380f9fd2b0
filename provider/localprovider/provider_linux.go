package localprovider

import (
	"context"

	"github.com/freshet-dev/freshet/provider"
)

// Provider makes workspaces on this machine. It may be used from many goroutines.
type Provider struct {
	files // Upload and Download
	*opener
}

// New returns a Provider. It does no I/O: the root folder is made and checked at the first call.
func New(cfg Config) *Provider {
	o := &opener{cfg: cfg, watcher: newWatcher()}
	return &Provider{files: files{o}, opener: o}
}

// Close gives back what the Provider holds and waits for its goroutine; calls of Wait and Output end with
// ErrUnavailable. Workspaces and processes stay. It is needed only to stop watching processes that run: when none does,
// a Provider holds nothing. A process that ends after Close stays a zombie until the host process ends.
func (p *Provider) Close() error {
	p.watcher.close()
	return nil
}

// Scope is made of the machine's id and of an id that is kept in the root folder.
func (p *Provider) Scope(context.Context) (string, error) {
	r, err := p.open()
	if err != nil {
		return "", fail("scope", err)
	}
	return r.scope, nil
}

// Capabilities: a create may be repeated, processes outlive the host process, and workspaces can be frozen.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		Create:     provider.Idempotent,
		Attach:     true,
		PauseKinds: []provider.PauseKind{provider.Frozen},
	}
}

var (
	_ provider.Provider    = (*Provider)(nil)
	_ provider.Attacher    = (*Provider)(nil)
	_ provider.Checker     = (*Provider)(nil)
	_ provider.Filer       = (*Provider)(nil)
	_ provider.Finder      = (*Provider)(nil)
	_ provider.KeepAliver  = (*Provider)(nil)
	_ provider.Lister      = (*Provider)(nil)
	_ provider.Meter       = (*Provider)(nil)
	_ provider.Namer       = (*Provider)(nil)
	_ provider.Pauser      = (*Provider)(nil)
	_ provider.Resizer     = (*Provider)(nil)
	_ provider.Snapshotter = (*Provider)(nil)
)
