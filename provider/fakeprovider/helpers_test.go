package fakeprovider_test

import (
	"context"
	"errors"
	"testing"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func request(token string) provider.CreateRequest {
	return provider.CreateRequest{Token: token, Owner: "test", Agent: "agent"}
}

func create(t *testing.T, p provider.Provider, token string) provider.Workspace {
	t.Helper()
	w, err := p.Create(t.Context(), request(token))
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return w
}

func start(t *testing.T, p provider.Provider, id, name string) provider.Process {
	t.Helper()
	proc, err := p.StartProcess(t.Context(), id, name, provider.Cmd{Args: []string{"any"}})
	if err != nil {
		t.Fatalf("StartProcess: %v", err)
	}
	return proc
}

func state(t *testing.T, p *fakeprovider.Provider, id string) provider.State {
	t.Helper()
	w, err := p.Get(t.Context(), id)
	if errors.Is(err, provider.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	return w.State
}

// text is the standard output of a process, to its end.
func text(t *testing.T, p provider.Process) string {
	t.Helper()
	var all []byte
	for c, err := range p.Output(t.Context(), provider.Offset{}) {
		if err != nil {
			t.Fatalf("Output: %v", err)
		}
		all = append(all, c.Data...)
	}
	return string(all)
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func wantErr(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: error is %v, want %v", what, err, class)
	}
}

// hang is a Main that ends when it has to.
func hang(ctx context.Context, _ *fakeprovider.Process) int {
	<-ctx.Done()
	return 0
}
