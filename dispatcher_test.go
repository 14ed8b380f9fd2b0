package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// fleet is a started dispatcher over a fake provider, for a test in a synctest bubble.
func fleet(t *testing.T, cfg freshet.Config, fake fakeprovider.Config) (*freshet.Dispatcher, *fakeprovider.Provider) {
	t.Helper()
	p := fakeprovider.New(fake)
	cfg.Provider = p
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	d, err := freshet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, p
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// done shuts down, and checks that nothing is left.
func done(t *testing.T, d *freshet.Dispatcher, p *fakeprovider.Provider) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if left := p.Workspaces(); len(left) != 0 {
		t.Errorf("workspaces left: %v", left)
	}
}

func submit(t *testing.T, d *freshet.Dispatcher, task freshet.Task) string {
	t.Helper()
	id, err := d.Submit(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func echo(ctx context.Context, p *fakeprovider.Process) int {
	fmt.Fprintf(p.Stdout, "%s", p.Cmd.Stdin)
	return 0
}

func TestCommandGivesItsOutputAsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := fleet(t, freshet.Config{Agents: []freshet.Agent{{Name: "echo", Handler: freshet.Command("cat")}}},
			fakeprovider.Config{Main: echo, Boot: fakeprovider.Fixed(2 * time.Second)})
		id := submit(t, d, freshet.Task{Agent: "echo", Tenant: "ann", Payload: []byte("to be or not to be")})
		out, err := d.Wait(t.Context(), id)
		if err != nil || string(out) != "to be or not to be" {
			t.Errorf("Wait: %q, %v", out, err)
		}
		s, err := d.Status(t.Context(), id)
		if err != nil || s.State != freshet.StateSucceeded || s.Attempt != 1 || s.Path != "cold" {
			t.Errorf("Status: %+v, %v", s, err)
		}
		done(t, d, p)
	})
}

func TestStuckAgentIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := fleet(t, freshet.Config{Agents: []freshet.Agent{{
			Name: "a", Handler: freshet.Command("agent"), IdleTimeout: 5 * time.Minute,
		}}}, fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
			fmt.Fprintln(p.Stdout, "thinking")
			<-ctx.Done()
			return 1
		}})
		began := time.Now()
		id := submit(t, d, freshet.Task{Agent: "a", Tenant: "ann"})
		if _, err := d.Wait(t.Context(), id); !errors.Is(err, freshet.ErrIdle) {
			t.Errorf("Wait: %v, want ErrIdle", err)
		}
		if took := time.Since(began); took < 5*time.Minute || took > 6*time.Minute {
			t.Errorf("ended after %v", took)
		}
		done(t, d, p)
	})
}

func TestThousandAgentsFromZeroToZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := fleet(t, freshet.Config{
			Agents: []freshet.Agent{{Name: "echo", Handler: freshet.Command("cat")}},
			Limits: freshet.Limits{Workspaces: 100, Tenant: freshet.TenantLimits{Concurrent: 30}},
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		}, fakeprovider.Config{Main: echo, Boot: fakeprovider.LogNormal(time.Second, 10*time.Second, 1), Delete: fakeprovider.Fixed(time.Second)})
		var ids []string
		for i := range 1000 {
			ids = append(ids, submit(t, d, freshet.Task{Agent: "echo", Tenant: fmt.Sprint("tenant-", i%5), Payload: fmt.Append(nil, i)}))
		}
		for i, id := range ids {
			if out, err := d.Wait(t.Context(), id); err != nil || string(out) != fmt.Sprint(i) {
				t.Fatalf("task %d: %q, %v", i, out, err)
			}
		}
		if p.Peak() > 100 {
			t.Errorf("%d workspaces at once, limit 100", p.Peak())
		}
		done(t, d, p)
	})
}
