package obliensdk_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/oblienprovider"
	"github.com/freshet-dev/freshet/provider/oblienprovider/obliensim/sim"
)

// fleet is a dispatcher over a test server; both end with the test, and then nothing may be left.
func fleet(t *testing.T, cfg sim.Config, limits freshet.Limits, agents ...freshet.Agent) (*freshet.Dispatcher, *sim.Server) {
	t.Helper()
	s, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	url, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := oblienprovider.New(oblienprovider.Config{ClientID: "oblien_sim", ClientSecret: "sk_sim", ControlURL: url, RuntimeURL: url})
	d, err := freshet.New(freshet.Config{Name: "tests", Provider: p, Agents: agents, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		for w, err := range p.List(ctx, "tests") {
			if err != nil || w.State != provider.Deleting {
				t.Errorf("left: %+v, %v", w, err)
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, s
}

func submit(t *testing.T, d *freshet.Dispatcher, n int) []string {
	t.Helper()
	tasks := make([]freshet.Task, n)
	for i := range tasks {
		tasks[i] = freshet.Task{Agent: "echo", Tenant: fmt.Sprintf("user-%d", i), Payload: fmt.Append(nil, i)}
	}
	ids, err := d.SubmitMany(t.Context(), tasks)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func succeed(t *testing.T, d *freshet.Dispatcher, ids []string) {
	t.Helper()
	for i, id := range ids {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		out, err := d.Wait(ctx, id)
		cancel()
		if err != nil || string(out) != fmt.Sprint(i) {
			s, _ := d.Status(t.Context(), id)
			t.Fatalf("task %d: %q, %v; %+v", i, out, err, s)
		}
	}
}

var echo = freshet.Agent{Name: "echo", Image: "oblien/ubuntu:24.04", Handler: freshet.Command("cat")}

// TestOutage: while the control plane is away tasks wait and say why; when it is back the line drains.
func TestOutage(t *testing.T) {
	d, s := fleet(t, sim.Config{}, freshet.Limits{}, echo)
	s.SetOutage(true)
	ids := submit(t, d, 4)
	for said := 0; said < len(ids); {
		said = 0
		for _, id := range ids {
			st, err := d.Status(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if st.State == freshet.StateQueued && strings.Contains(st.Reason, "provider unavailable") {
				said++
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the tasks do not say why they wait")
		}
	}
	if n := s.Workspaces(); n != 0 {
		t.Errorf("%d workspaces were made meanwhile", n)
	}
	s.SetOutage(false)
	succeed(t, d, ids)
}

// TestOutageWhileAgentsWork: what runs goes on, and is finished when the control plane is back.
func TestOutageWhileAgentsWork(t *testing.T) {
	agent := echo
	agent.Handler = freshet.Command("sh", "-c", "cat; sleep 5")
	d, s := fleet(t, sim.Config{}, freshet.Limits{}, agent)
	ids := submit(t, d, 5)
	for _, id := range ids {
		for st := range d.Watch(t.Context(), id, 0) {
			if st.State == freshet.StateRunning {
				break
			}
		}
	}
	s.SetOutage(true)
	select {
	case <-time.After(2 * time.Second):
	case <-t.Context().Done():
	}
	s.SetOutage(false)
	succeed(t, d, ids)
	for _, id := range ids {
		if st, err := d.Status(t.Context(), id); err != nil || st.Attempt != 1 {
			t.Errorf("%+v, %v", st, err)
		}
	}
}

// TestQuotaAndRate: the account has room for few, and refuses who asks too fast. The pace of creates follows both.
func TestQuotaAndRate(t *testing.T) {
	creates, refused := make(chan struct{}, 10_000), make(chan struct{}, 10_000)
	d, _ := fleet(t, sim.Config{
		Limits: sim.Limits{Workspaces: 6}, CreateGap: 20 * time.Millisecond,
		Fault: func(r *http.Request) *sim.Fault {
			if r.Method == http.MethodPost && r.URL.Path == "/workspace" {
				creates <- struct{}{}
				if len(creates)%5 == 0 {
					refused <- struct{}{}
					return &sim.Fault{Status: http.StatusTooManyRequests, Code: "rate_limited", RetryAfter: 200 * time.Millisecond}
				}
			}
			return nil
		},
	}, freshet.Limits{}, echo)
	ids := submit(t, d, 30)
	succeed(t, d, ids)
	if n := len(creates); len(refused) == 0 || n > 40*len(ids) {
		t.Errorf("%d creates for %d tasks, %d refused for their rate", n, len(ids), len(refused))
	}
	t.Logf("%d creates for %d tasks", len(creates), len(ids))
}
