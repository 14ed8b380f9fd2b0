package oblienprovider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// The public addresses of Oblien.
const (
	DefaultControlURL = "https://api.oblien.com"
	DefaultRuntimeURL = "https://workspace.oblien.com"
)

// Config says which account to use. ClientID and ClientSecret, or Token and Account, are needed.
type Config struct {
	ClientID     string
	ClientSecret string

	// Token returns a bearer token, instead of ClientID and ClientSecret. It is called for each request, also from many
	// goroutines at once, and should keep its answer until it expires.
	Token func(ctx context.Context) (string, error)

	// Account names the account in Scope. It must be the same for all keys of one account, and set where keys are
	// replaced while workspaces live. "": the ClientID.
	Account string

	Namespace string // of the workspaces; it must exist. "": the account's own

	ControlURL string // "": DefaultControlURL
	RuntimeURL string // "": DefaultRuntimeURL

	// TTL is the time-out of a new workspace until the first KeepAlive: longer than it takes to boot and set up one.
	// 0: 1 h.
	TTL time.Duration

	// Transport sends the requests. It must not repeat any. nil: one of its own, which Close ends.
	Transport http.RoundTripper
}

// Options are the provider's own part of a Spec.
type Options struct {
	// Config is added to the "config" of Oblien's create call: settings that Spec has no field for, such as
	// network_config, enable_kvm or ssh_access. Those that Spec or this package decides are refused.
	Config map[string]any `json:"config,omitempty"`
}

// Provider makes workspaces at Oblien. Its methods may be called from many goroutines.
type Provider struct {
	cfg      Config
	control  string
	runtime  string
	http     *http.Client
	own      *http.Transport // nil: the transport is the caller's
	doorways doorways
	verified verified
	secrets  []string // never in a message
}

var (
	_ provider.Provider   = (*Provider)(nil)
	_ provider.Attacher   = (*Provider)(nil)
	_ provider.Checker    = (*Provider)(nil)
	_ provider.Filer      = (*Provider)(nil)
	_ provider.Finder     = (*Provider)(nil)
	_ provider.KeepAliver = (*Provider)(nil)
	_ provider.Lister     = (*Provider)(nil)
	_ provider.Meter      = (*Provider)(nil)
	_ provider.Pauser     = (*Provider)(nil)
	_ provider.Quotaer    = (*Provider)(nil)
	_ provider.Resizer    = (*Provider)(nil)
)

// verified remembers what needs to be seen once.
type verified struct {
	mu        sync.Mutex      // protects the fields below
	namespace bool            // what was created in the namespace can be found by its id
	switches  map[string]bool // by workspace: the dead man's switch was read back
}

// New returns a Provider. It does no I/O.
func New(cfg Config) *Provider {
	if cfg.TTL <= 0 {
		cfg.TTL = time.Hour
	}
	p := &Provider{
		cfg:      cfg,
		control:  strings.TrimRight(orElse(cfg.ControlURL, DefaultControlURL), "/"),
		runtime:  strings.TrimRight(orElse(cfg.RuntimeURL, DefaultRuntimeURL), "/"),
		doorways: doorways{byID: map[string]*doorway{}},
		verified: verified{switches: map[string]bool{}},
	}
	if cfg.ClientSecret != "" {
		p.secrets = append(p.secrets, cfg.ClientSecret)
	}
	transport := cfg.Transport
	if transport == nil {
		p.own = http.DefaultTransport.(*http.Transport).Clone()
		p.own.MaxIdleConns, p.own.MaxIdleConnsPerHost = 0, 256 // hundreds of agents talk to two hosts
		p.own.DisableCompression = true                        // archives are compressed already, and read as they are
		transport = p.own
	}
	// A redirect would carry the client's secret, which is in a header of Oblien's own, to wherever it points.
	p.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return p
}

// Close ends the connections that are kept open; workspaces and processes stay. The Provider can still be used.
func (p *Provider) Close() error {
	if p.own != nil {
		p.own.CloseIdleConnections()
	}
	return nil
}

// Scope is made of the control plane's address, the account and the namespace; it does no I/O. ErrInvalid when the
// configuration says too little.
func (p *Provider) Scope(context.Context) (string, error) {
	account := orElse(p.cfg.Account, p.cfg.ClientID)
	var fault error
	switch {
	case p.cfg.Token == nil && (p.cfg.ClientID == "" || p.cfg.ClientSecret == ""):
		fault = errors.New("neither ClientID and ClientSecret nor Token are set")
	case p.cfg.Token != nil && p.cfg.ClientID != "":
		fault = errors.New("both ClientID and Token are set")
	case account == "":
		fault = errors.New("with Token, Account must be set")
	}
	for _, base := range []string{p.control, p.runtime} {
		u, err := url.Parse(base)
		if fault == nil && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http") {
			fault = errors.New("an address needs https or http, a host and no user")
		}
	}
	if fault != nil {
		return "", &provider.Error{Op: "scope", Class: provider.ErrInvalid, Err: fault}
	}
	sum := sha256.Sum256([]byte(p.control + "\x00" + account + "\x00" + p.cfg.Namespace))
	return "oblien-" + hex.EncodeToString(sum[:8]), nil
}

// Capabilities: a create may be repeated, processes outlive the host process. A pause frees no quota: stopped and paused
// workspaces are owned too.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		Create:       provider.Idempotent,
		Attach:       true,
		PauseKinds:   []provider.PauseKind{provider.Frozen, provider.Hibernated, provider.DiskOnly},
		PausedCounts: true,
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
