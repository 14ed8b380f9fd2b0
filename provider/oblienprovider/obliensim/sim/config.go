// Package sim is a test server that speaks Oblien's wire over loopback: the control plane and the runtime on one address.
// It is not Oblien, and not fit to serve anybody: whoever reaches it runs programs on this machine.
//
// Machines are workspaces of a localprovider, so their processes really run, on Linux alone. What a microVM has and they
// have not (a kernel, a network, an image) is left out: an image is a name, and absolute paths are those of this machine,
// of which the runtime shows the home folder alone. States, quotas, time-outs, idempotency keys, tokens and the wake rule
// are as the real service has them, as far as that is known.
package sim

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/localprovider"
)

// Config says how the server behaves. The zero value works.
type Config struct {
	Dir string // of the machines; "": a new one below os.TempDir(), removed by Close

	Env map[string]string // added to the environment of every process

	ClientID, ClientSecret string // "": "oblien_sim", "sk_sim"

	Boot       time.Duration // from create to ready; 0: 30 ms
	RuntimeLag time.Duration // from ready until the runtime answers
	Power      time.Duration // how long stop, pause and the like take
	TokenLife  time.Duration // of a token for the runtime; 0: 1 h
	CreateGap  time.Duration // creates that follow closer are refused as rate_limited; 0: none are
	PageMax    int           // largest page of a list; 0: 100
	MaxTasks   int           // of exec at once in one machine; 0: 50

	Limits Limits

	// HideNamespaced lets the account's own key create in a namespace, but not find what is there.
	HideNamespaced bool

	// AbsoluteNames packs downloads with names relative to the root, not to the parent of what was asked for.
	AbsoluteNames bool

	// Fault is asked before each request is served. It may be called from many goroutines. nil: no faults but those that
	// were asked for at /_sim/faults.
	Fault func(r *http.Request) *Fault
}

// Limits of the account; 0: none.
type Limits struct {
	Workspaces    int     // owned, in whatever state
	PoolMemoryMB  int     // of all owned
	Running       int     // at once
	MaxCPUs       float64 // of one
	MaxMemoryMB   int     // of one
	LegacyStatus  bool    // refuse with status 200, as older deployments do
	RunningStatus int     // of RUNNING_POOL_REACHED; 0: 402
}

// host is what machines are made of.
type host interface {
	provider.Provider
	provider.Filer
	provider.Meter
	provider.Pauser
	provider.Snapshotter
	Close() error
}

// Server is the server; it is an http.Handler.
type Server struct {
	cfg    Config
	mux    *http.ServeMux
	host   host
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // boots, deletions, time-outs, tasks
	tmp    string         // to be removed by Close
	http   *http.Server   // nil: nothing is served

	mu         sync.Mutex // protects the fields below and the machines
	closed     bool
	machines   map[string]*machine // by id
	order      []*machine          // oldest first
	keys       map[string]*used    // by idempotency key
	tokens     map[string]scope    // of POST /tokens
	passes     map[string]pass     // of the runtime
	namespaces map[string]*namespace
	faults     []*Fault
	lastCreate time.Time
	outage     bool
}

// New returns a server that serves nothing yet; Close must be called.
func New(cfg Config) (*Server, error) {
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(),
		machines: map[string]*machine{}, keys: map[string]*used{}, tokens: map[string]scope{}, passes: map[string]pass{},
		namespaces: map[string]*namespace{},
	}
	set(&s.cfg.ClientID, "oblien_sim")
	set(&s.cfg.ClientSecret, "sk_sim")
	set(&s.cfg.Boot, 30*time.Millisecond)
	set(&s.cfg.TokenLife, time.Hour)
	set(&s.cfg.PageMax, 100)
	set(&s.cfg.MaxTasks, 50)
	set(&s.cfg.Limits.RunningStatus, http.StatusPaymentRequired)
	if s.cfg.Dir == "" {
		dir, err := os.MkdirTemp("", "obliensim-")
		if err != nil {
			return nil, err
		}
		s.cfg.Dir, s.tmp = dir, dir
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	h, ok := any(localprovider.New(localprovider.Config{Dir: s.cfg.Dir, Env: s.cfg.Env})).(host)
	if !ok {
		return nil, errors.Join(errors.New("sim: machines need Linux"), os.RemoveAll(s.tmp))
	}
	s.host = h
	if _, err := s.host.Scope(s.ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.routes()
	return s, nil
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Listen serves on a TCP address, such as "127.0.0.1:0", until Close, and returns the server's URL. It is called once.
func (s *Server) Listen(address string) (url string, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	s.work.Go(func() { _ = s.http.Serve(l) })
	return "http://" + l.Addr().String(), nil
}

// Close ends the requests, deletes all machines and waits for what is under way.
func (s *Server) Close() error {
	if s.http != nil {
		_ = s.http.Close()
	}
	s.mu.Lock()
	s.closed = true
	var hosts []string
	for _, m := range s.machines {
		m.disarmLocked()
		m.cutLocked()
		hosts = append(hosts, m.token)
	}
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var faults []error
	for _, host := range hosts {
		faults = append(faults, s.host.Delete(ctx, host))
	}
	for _, host := range hosts {
		faults = append(faults, s.awaitGone(ctx, host))
	}
	faults = append(faults, s.host.Close())
	if s.tmp != "" {
		faults = append(faults, os.RemoveAll(s.tmp))
	}
	return errors.Join(faults...)
}

// awaitGone waits until a workspace of the host has ended.
func (s *Server) awaitGone(ctx context.Context, host string) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		_, err := s.host.Get(ctx, host)
		if errors.Is(err, provider.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// sleep lets time pass; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// goLocked runs fn in a goroutine that Close waits for.
func (s *Server) goLocked(fn func()) {
	if !s.closed {
		s.work.Go(fn)
	}
}
