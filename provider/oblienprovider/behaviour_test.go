package oblienprovider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/oblienprovider"
	"github.com/freshet-dev/freshet/provider/oblienprovider/obliensim/sim"
	"github.com/freshet-dev/freshet/provider/providertest"
)

// call is a request of somebody else than the provider: another client of the account.
func call(t *testing.T, url, method, path, body string) (status int, answer map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Client-ID", "oblien_sim")
	req.Header.Set("X-Client-Secret", "sk_sim")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// eventually asks until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func boot(t *testing.T, p provider.Provider, token string) provider.Workspace {
	t.Helper()
	req := request
	req.Token = token
	w, err := p.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the workspace is ready", func() bool {
		w, err = p.Get(t.Context(), w.ID)
		if err != nil {
			t.Fatal(err)
		}
		return w.Ready
	})
	return w
}

func TestLostAnswerOfCreate(t *testing.T) {
	s, url := serve(t, sim.Config{})
	p := open(t, url)
	for i, drop := range []string{"before", "after"} {
		req := request
		req.Token = fmt.Sprint("lost", i)
		s.AddFault(sim.Fault{Method: http.MethodPost, Path: "/workspace$", Times: 1, Drop: drop})
		if _, err := p.Create(t.Context(), req); !errors.Is(err, provider.ErrAmbiguous) {
			t.Errorf("Create, the answer dropped %s: %v", drop, err)
		}
		_, err := p.Find(t.Context(), req.Owner, req.Token)
		if found := err == nil; found != (drop == "after") {
			t.Errorf("Find, the answer dropped %s: %v", drop, err)
		}
		w, err := p.Create(t.Context(), req)
		if err != nil || s.Workspaces() != i+1 {
			t.Errorf("Create again: %+v, %v, %d workspaces", w, err, s.Workspaces())
		}
	}
}

func TestLimitsOfTheAccount(t *testing.T) {
	for _, limits := range []sim.Limits{
		{Workspaces: 1}, {Workspaces: 1, LegacyStatus: true}, {PoolMemoryMB: 600}, {Running: 1}, {Running: 1, RunningStatus: 409},
	} {
		_, url := serve(t, sim.Config{Limits: limits})
		p := open(t, url)
		boot(t, p, "first")
		req := request
		req.Token = "second"
		if _, err := p.Create(t.Context(), req); !errors.Is(err, provider.ErrQuota) {
			t.Errorf("Create beyond %+v: %v", limits, err)
		}
		if _, err := p.Find(t.Context(), req.Owner, req.Token); !errors.Is(err, provider.ErrNotFound) {
			t.Errorf("Find of what was refused: %v", err)
		}
	}
}

func TestResumeBeyondTheQuota(t *testing.T) {
	_, url := serve(t, sim.Config{Limits: sim.Limits{Running: 1}})
	p := open(t, url)
	w := boot(t, p, "first")
	for _, kind := range p.Capabilities().PauseKinds {
		if err := p.Pause(t.Context(), w.ID, kind); err != nil {
			t.Fatal(err)
		}
		other := boot(t, p, "other"+string(kind))
		if _, err := p.Resume(t.Context(), w.ID); !errors.Is(err, provider.ErrQuota) {
			t.Errorf("Resume after %s: %v", kind, err)
		}
		if err := p.Delete(t.Context(), other.ID); err != nil {
			t.Fatal(err)
		}
		eventually(t, "there is room again", func() bool {
			_, err := p.Resume(t.Context(), w.ID)
			return err == nil
		})
	}
}

func TestNamespace(t *testing.T) {
	_, url := serve(t, sim.Config{HideNamespaced: true})
	call(t, url, http.MethodPost, "/namespaces", `{"name":"team"}`)
	cfg := oblienprovider.Config{ClientID: "oblien_sim", ClientSecret: "sk_sim", Namespace: "team", ControlURL: url, RuntimeURL: url}
	if _, err := oblienprovider.New(cfg).Create(t.Context(), request); !errors.Is(err, provider.ErrUnauthorized) {
		t.Errorf("Create with credentials that do not find what they make: %v", err)
	}

	var refreshed sync.Mutex
	cfg.ClientID, cfg.ClientSecret, cfg.Account = "", "", "sim"
	cfg.Token = func(context.Context) (string, error) {
		refreshed.Lock()
		defer refreshed.Unlock()
		_, answer := call(t, url, http.MethodPost, "/tokens", `{"scope":"namespace","namespace":"team"}`)
		return answer["token"].(string), nil
	}
	p := oblienprovider.New(cfg)
	req := request
	req.Token = "scoped"
	w, err := p.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	call(t, url, http.MethodPost, "/workspace", `{"slug":"freshet-owner-foreign"}`) // of the account, with a slug like ours
	n := 0
	for seen, err := range p.List(t.Context(), "owner") {
		if n++; err != nil || seen.ID != w.ID && seen.Token != request.Token {
			t.Errorf("List: %+v, %v", seen, err)
		}
	}
	cfg.Namespace = "nobody"
	if _, err := oblienprovider.New(cfg).Create(t.Context(), request); !errors.Is(err, provider.ErrInvalid) && !errors.Is(err, provider.ErrUnauthorized) {
		t.Errorf("Create in a namespace that is not there: %v", err)
	}
	call(t, url, http.MethodPost, "/namespaces/team/suspend", "")
	cfg.Namespace = "team"
	req.Token = "suspended"
	if _, err := oblienprovider.New(cfg).Create(t.Context(), req); !errors.Is(err, provider.ErrSuspended) {
		t.Errorf("Create in a suspended namespace: %v", err)
	}
	if err := p.Delete(t.Context(), w.ID); err != nil {
		t.Errorf("Delete in a suspended namespace: %v", err)
	}
}

func TestWhatOthersDo(t *testing.T) {
	_, url := serve(t, sim.Config{})
	p := open(t, url)
	w := boot(t, p, "busy")
	proc, err := p.StartProcess(t.Context(), w.ID, "main", providertest.Shell(providertest.Action{Verb: providertest.Hang}))
	if err != nil {
		t.Fatal(err)
	}
	at := "/workspace/" + w.ID
	call(t, url, http.MethodPost, at+"/pause", "")
	if got, err := p.Get(t.Context(), w.ID); err != nil || got.State != provider.Paused {
		t.Errorf("Get of what somebody paused: %+v, %v", got, err)
	}
	if _, err := proc.Wait(t.Context()); !errors.Is(err, provider.ErrConflict) {
		t.Errorf("Wait in what somebody paused: %v", err)
	}
	if warm, err := p.Resume(t.Context(), w.ID); err != nil || !warm {
		t.Errorf("Resume: %v, %v", warm, err)
	}
	call(t, url, http.MethodPost, at+"/snapshot", `{"after":"stop"}`)
	if warm, err := p.Resume(t.Context(), w.ID); err != nil || !warm {
		t.Errorf("Resume of what somebody suspended: %v, %v", warm, err)
	}
	call(t, url, http.MethodPost, at+"/stop", "")
	if warm, err := p.Resume(t.Context(), w.ID); err != nil || warm {
		t.Errorf("Resume of what somebody stopped: %v, %v", warm, err)
	}
	if _, err := proc.Wait(t.Context()); !errors.Is(err, provider.ErrLost) {
		t.Errorf("Wait after a cold start: %v", err)
	}
	if warm, err := p.Resume(t.Context(), w.ID); err != nil || warm {
		t.Errorf("Resume of what runs, with a process that was lost: %v, %v", warm, err)
	}
}

func TestRefusedTokenIsReplaced(t *testing.T) {
	s, url := serve(t, sim.Config{})
	p := open(t, url)
	w := boot(t, p, "token1")
	s.RevokeTokens()
	if err := p.Check(t.Context(), w.ID); err != nil {
		t.Errorf("Check: %v", err)
	}
	s.RevokeTokens()
	proc, err := p.StartProcess(t.Context(), w.ID, "main", provider.Cmd{Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	s.RevokeTokens()
	if exit, err := proc.Wait(t.Context()); err != nil || exit.Code != 0 {
		t.Errorf("Wait: %+v, %v", exit, err)
	}
	s.AddFault(sim.Fault{Path: "/health", Status: http.StatusUnauthorized, Code: "unauthorized"})
	if err := p.Check(t.Context(), w.ID); !errors.Is(err, provider.ErrUnauthorized) {
		t.Errorf("Check, refused for ever: %v", err)
	}
}

func TestSwitchIsSetAgain(t *testing.T) {
	_, url := serve(t, sim.Config{})
	p := open(t, url)
	w := boot(t, p, "token1")
	if left := time.Until(w.Expires); left < 50*time.Minute || left > time.Hour {
		t.Errorf("a new workspace expires in %v", left)
	}
	call(t, url, http.MethodPost, "/workspace/"+w.ID+"/lifecycle/permanent", "{}") // as a build did that lost the ttl
	if err := p.KeepAlive(t.Context(), w.ID, 15*time.Minute); err != nil {
		t.Fatal(err)
	}
	_, l := call(t, url, http.MethodGet, "/workspace/"+w.ID+"/lifecycle", "")
	if got, _ := p.Get(t.Context(), w.ID); l["ttl_action"] != "remove" || time.Until(got.Expires) < 14*time.Minute {
		t.Errorf("lifecycle %v, expires %v", l, got.Expires)
	}
}

func TestResizeWhileStopped(t *testing.T) {
	_, url := serve(t, sim.Config{Limits: sim.Limits{MaxMemoryMB: 2048}})
	p := open(t, url)
	w := boot(t, p, "token1")
	size := provider.Resources{MemoryMB: 1024}
	for kind, want := range map[provider.PauseKind]error{provider.Frozen: provider.ErrConflict, provider.DiskOnly: nil} {
		if err := p.Pause(t.Context(), w.ID, kind); err != nil {
			t.Fatal(err)
		}
		if err := p.Resize(t.Context(), w.ID, size); !errors.Is(err, want) {
			t.Errorf("Resize while paused as %s: %v", kind, err)
		}
		if kind == provider.DiskOnly {
			if err := p.Resize(t.Context(), w.ID, provider.Resources{MemoryMB: 4096}); !errors.Is(err, provider.ErrInvalid) {
				t.Errorf("Resize beyond the plan: %v", err)
			}
		}
		if _, err := p.Resume(t.Context(), w.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, got := call(t, url, http.MethodGet, "/workspace/"+w.ID+"/resources", ""); got["memory_mb"] != 1024.0 {
		t.Errorf("resources %v", got)
	}
}

// recorder keeps what is sent, but for archives.
type recorder struct {
	mu   sync.Mutex // protects sent
	sent bytes.Buffer
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	fmt.Fprintln(&r.sent, req.Method, req.URL)
	if req.Body != nil && req.Header.Get("Content-Type") != "application/gzip" {
		b, _ := io.ReadAll(req.Body)
		r.sent.Write(b)
		req.Body = io.NopCloser(bytes.NewReader(b))
	}
	r.mu.Unlock()
	return http.DefaultTransport.RoundTrip(req)
}

// TestSecretsStayInArchives: a command line and a request's JSON are in Oblien's list of tasks, and in logs.
func TestSecretsStayInArchives(t *testing.T) {
	_, url := serve(t, sim.Config{})
	var rec recorder
	p := oblienprovider.New(oblienprovider.Config{ClientID: "oblien_sim", ClientSecret: "sk_sim", ControlURL: url, RuntimeURL: url, Transport: &rec})
	w := boot(t, p, "token1")
	cmd := providertest.Shell(providertest.Action{Verb: providertest.Env, Text: "KEY"}, providertest.Action{Verb: providertest.Cat})
	cmd.Args = append(cmd.Args, "hidden-argument")
	cmd.Env, cmd.Stdin = map[string]string{"KEY": "hidden-value"}, []byte("hidden-input")
	proc, err := p.StartProcess(t.Context(), w.ID, "hidden-name", cmd)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for c, err := range proc.Output(t.Context(), provider.Offset{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c.Data...)
	}
	if string(out) != "hidden-value\nhidden-input" {
		t.Errorf("output %q", out)
	}
	if strings.Contains(rec.sent.String(), "hidden") {
		t.Error("a secret was sent outside an archive")
	}
	left, err := p.StartProcess(t.Context(), w.ID, "look", provider.Cmd{Args: []string{"grep", "-r", "hidden-", ".freshet", "--include=cmd", "--include=stdin"}})
	if err != nil {
		t.Fatal(err)
	}
	for c := range left.Output(t.Context(), provider.Offset{}) {
		if strings.Contains(string(c.Data), "hidden-value") || strings.Contains(string(c.Data), "hidden-input") {
			t.Errorf("left in the workspace: %s", c.Data)
		}
	}
}

func TestOptions(t *testing.T) {
	_, url := serve(t, sim.Config{})
	p := open(t, url)
	req := request
	for _, bad := range []any{"text", map[string]any{"unknown": 1}, oblienprovider.Options{Config: map[string]any{"ttl": 5}}} {
		req.Spec = provider.Spec{Options: bad}
		if _, err := p.Create(t.Context(), req); !errors.Is(err, provider.ErrInvalid) {
			t.Errorf("Create with options %v: %v", bad, err)
		}
	}
	for _, spec := range []provider.Spec{{Snapshot: "s"}, {Image: "missing"}, {Resources: provider.Resources{CPU: -1}}} {
		req.Spec = spec
		if _, err := p.Create(t.Context(), req); !errors.Is(err, provider.ErrInvalid) {
			t.Errorf("Create of %+v: %v", spec, err)
		}
	}
	req.Spec = provider.Spec{Options: oblienprovider.Options{Config: map[string]any{"network_config": map[string]bool{"allow_internet": false}}}}
	w, err := p.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	req.Spec.Options = map[string]any{"config": map[string]any{"network_config": map[string]any{"allow_internet": false}}} // from a store
	again, err := p.Create(t.Context(), req)
	if err != nil || again.ID != w.ID {
		t.Errorf("Create with the same options, decoded: %+v, %v", again, err)
	}
	_, got := call(t, url, http.MethodGet, "/workspace/"+w.ID, "")
	config := got["workspace"].(map[string]any)["config"].(map[string]any)
	if network, _ := config["network_config"].(map[string]any); network["allow_internet"] != false {
		t.Errorf("config %v", config)
	}
	_, meta := call(t, url, http.MethodGet, "/workspace/"+w.ID+"/metadata", "")
	if meta["freshet_owner"] != "owner" || meta["freshet_token"] != "token1" || meta["freshet_agent"] != "Agent.1" {
		t.Errorf("metadata %v", meta)
	}
}

func TestFailedCreation(t *testing.T) {
	_, url := serve(t, sim.Config{})
	p := open(t, url)
	req := request
	req.Spec.Image = "sim/broken"
	w, err := p.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the workspace has failed", func() bool {
		w, err = p.Get(t.Context(), w.ID)
		return err == nil && w.State == provider.Failed
	})
	if !strings.Contains(w.Message, "CREATE_FAILED") {
		t.Errorf("message %q", w.Message)
	}
}

// TestHundreds: the lists come in pages of 100 while workspaces come and go.
func TestHundreds(t *testing.T) {
	const n = 300
	s, url := serve(t, sim.Config{Boot: 100 * time.Millisecond})
	p := open(t, url)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			req := request
			req.Token = fmt.Sprint("t", i)
			if _, err := p.Create(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ids := map[string]bool{}
	eventually(t, "all are ready", func() bool {
		ready := 0
		for w, err := range p.List(t.Context(), "owner") {
			if err != nil {
				t.Fatal(err)
			}
			ids[w.ID] = true
			if w.Ready {
				ready++
			}
		}
		return ready == n
	})
	for id := range ids {
		all.Go(func() {
			if err := p.Delete(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	eventually(t, "none is left", func() bool { return s.Workspaces() == 0 })
	if len(ids) != n {
		t.Errorf("%d workspaces were seen", len(ids))
	}
}
