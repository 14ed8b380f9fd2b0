//go:build !linux

package localprovider

import (
	"context"

	"github.com/freshet-dev/freshet/provider"
)

// Provider does nothing on this system: each call returns provider.ErrUnsupported.
type Provider struct{}

var _ provider.Provider = (*Provider)(nil)

// New returns a Provider that supports nothing.
func New(Config) *Provider { return &Provider{} }

// Close does nothing.
func (*Provider) Close() error { return nil }

// Scope is not supported.
func (*Provider) Scope(context.Context) (string, error) { return "", provider.ErrUnsupported }

// Capabilities has none.
func (*Provider) Capabilities() provider.Capabilities { return provider.Capabilities{} }

// Create is not supported.
func (*Provider) Create(context.Context, provider.CreateRequest) (provider.Workspace, error) {
	return provider.Workspace{}, provider.ErrUnsupported
}

// Get is not supported.
func (*Provider) Get(context.Context, string) (provider.Workspace, error) {
	return provider.Workspace{}, provider.ErrUnsupported
}

// Delete is not supported.
func (*Provider) Delete(context.Context, string) error { return provider.ErrUnsupported }

// StartProcess is not supported.
func (*Provider) StartProcess(context.Context, string, string, provider.Cmd) (provider.Process, error) {
	return nil, provider.ErrUnsupported
}
