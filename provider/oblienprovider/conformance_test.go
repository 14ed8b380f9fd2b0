package oblienprovider_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/oblienprovider"
	"github.com/freshet-dev/freshet/provider/oblienprovider/obliensim/sim"
	"github.com/freshet-dev/freshet/provider/providertest"
)

// serve starts a test server.
func serve(t *testing.T, cfg sim.Config) (s *sim.Server, url string) {
	t.Helper()
	s, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("sim: %v", err)
		}
	})
	url, err = s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return s, url
}

func open(t *testing.T, url string) *oblienprovider.Provider {
	t.Helper()
	p := oblienprovider.New(oblienprovider.Config{ClientID: "oblien_sim", ClientSecret: "sk_sim", ControlURL: url, RuntimeURL: url})
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func harness(s *sim.Server, url string) providertest.Harness {
	return providertest.Harness{
		New:      func(t *testing.T) provider.Provider { return open(t, url) },
		Spec:     provider.Spec{Image: "oblien/ubuntu:24.04", Resources: provider.Resources{CPU: 1, MemoryMB: 256}},
		Cmd:      providertest.Shell,
		Reopen:   func(t *testing.T, _ provider.Provider) provider.Provider { return open(t, url) },
		Fail:     func(_ *testing.T, _ provider.Provider, id string) { s.Fail(id) },
		Vanish:   func(_ *testing.T, _ provider.Provider, id string) { s.Vanish(id) },
		Parallel: true,
		Patience: 2 * time.Minute,
	}
}

func TestConformance(t *testing.T) {
	s, url := serve(t, sim.Config{})
	providertest.Run(t, harness(s, url))
}

// TestConformanceWithFaults: what a provider has to put up with by itself. Runtimes answer late and closed, their tokens
// expire, creates are refused for their rate, changes of state take a while, lists come in small pages, archives have other
// names, and answers are slow.
func TestConformanceWithFaults(t *testing.T) {
	var n atomic.Int64
	s, url := serve(t, sim.Config{
		Boot: 100 * time.Millisecond, RuntimeLag: 150 * time.Millisecond, Power: 50 * time.Millisecond, TokenLife: 3 * time.Second,
		CreateGap: 10 * time.Millisecond, PageMax: 3, AbsoluteNames: true,
		Fault: func(r *http.Request) *sim.Fault {
			switch i := n.Add(1); {
			case i%11 == 0 && r.Method == http.MethodPost && r.URL.Path == "/workspace":
				return &sim.Fault{Status: http.StatusTooManyRequests, Code: "rate_limited", RetryAfter: 20 * time.Millisecond}
			case i%13 == 0 && (strings.HasPrefix(r.URL.Path, "/exec") || strings.HasPrefix(r.URL.Path, "/files")) && r.Header.Get("Authorization") != "":
				return &sim.Fault{Delay: 20 * time.Millisecond}
			case i%7 == 0:
				return &sim.Fault{Delay: time.Duration(i%5) * 5 * time.Millisecond}
			}
			return nil
		},
	})
	h := harness(s, url)
	h.New = func(t *testing.T) provider.Provider { return patient{open(t, url)} }
	providertest.Run(t, h)
}

// patient asks for a workspace again when it asked too fast, as a dispatcher does.
type patient struct{ *oblienprovider.Provider }

func (p patient) Create(ctx context.Context, req provider.CreateRequest) (provider.Workspace, error) {
	for {
		w, err := p.Provider.Create(ctx, req)
		if !errors.Is(err, provider.ErrRateLimited) {
			return w, err
		}
		select {
		case <-time.After(provider.RetryAfter(err)):
		case <-ctx.Done():
			return w, ctx.Err()
		}
	}
}
