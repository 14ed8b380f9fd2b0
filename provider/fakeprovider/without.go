package fakeprovider

import "github.com/freshet-dev/freshet/provider"

// Without returns p without the ability T, which provider.As then does not find. p itself stays as it is. It returns p
// when T is no ability of package provider. Capabilities fits: without Attacher its Attach is false, without Pauser it has
// no PauseKinds.
//
// It hides one ability; to hide several, name those that stay: struct{ provider.Provider; provider.Lister }{p, p}.
func Without[T any](p *Provider) provider.Provider {
	// A method that a struct gets from two embedded fields at the same depth is a method of neither, so it does not have
	// it. Provider gets its methods from a field of its own, hence the one field more around the ability.
	switch any((*T)(nil)).(type) {
	case *provider.Attacher:
		return withoutAttacher{Provider: p}
	case *provider.Lister:
		type hidden struct{ provider.Lister }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Finder:
		type hidden struct{ provider.Finder }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Pauser:
		return withoutPauser{Provider: p}
	case *provider.Snapshotter:
		type hidden struct{ provider.Snapshotter }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Filer:
		type hidden struct{ provider.Filer }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Checker:
		type hidden struct{ provider.Checker }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Resizer:
		type hidden struct{ provider.Resizer }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Watcher:
		type hidden struct{ provider.Watcher }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.KeepAliver:
		type hidden struct{ provider.KeepAliver }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Meter:
		type hidden struct{ provider.Meter }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Quotaer:
		type hidden struct{ provider.Quotaer }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	case *provider.Namer:
		type hidden struct{ provider.Namer }
		return struct {
			*Provider
			hidden
		}{Provider: p}
	}
	return p
}

type (
	hiddenAttacher  struct{ provider.Attacher }
	withoutAttacher struct {
		*Provider
		hiddenAttacher
	}
	hiddenPauser  struct{ provider.Pauser }
	withoutPauser struct {
		*Provider
		hiddenPauser
	}
)

// Capabilities implements provider.Provider.
func (p withoutAttacher) Capabilities() provider.Capabilities {
	caps := p.Provider.Capabilities()
	caps.Attach = false
	return caps
}

// Capabilities implements provider.Provider.
func (p withoutPauser) Capabilities() provider.Capabilities {
	caps := p.Provider.Capabilities()
	caps.PauseKinds = nil
	return caps
}
