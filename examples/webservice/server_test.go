package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// service is the service over workspaces in memory, for a test in a bubble: time is virtual.
type service struct {
	t       *testing.T
	handler http.Handler
	d       *freshet.Dispatcher
}

// start starts the service with an agent that takes a minute.
func start(t *testing.T, limits freshet.Limits) *service {
	t.Helper()
	fake := fakeprovider.New(fakeprovider.Config{
		Boot: fakeprovider.Fixed(2 * time.Second),
		Main: func(_ context.Context, p *fakeprovider.Process) int {
			fmt.Fprintln(p.Stdout, "begun")
			if p.Sleep(time.Minute) != nil {
				return 1
			}
			fmt.Fprintln(p.Stdout, "done")
			if p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/result", p.Cmd.Stdin) != nil {
				return 1
			}
			return 0
		},
	})
	d, err := freshet.New(freshet.Config{
		Provider: fake,
		Limits:   limits,
		Agents:   []freshet.Agent{{Name: "echo", Handler: freshet.Command("agent"), Expected: time.Minute}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &service{t, newServer(d), d}
}

// stop shuts down; what still runs is cancelled first.
func (s *service) stop() {
	s.t.Helper()
	for st, err := range s.d.List(s.t.Context(), freshet.Filter{}) {
		if err != nil {
			s.t.Fatal(err)
		}
		if !st.State.Finished() {
			s.do("DELETE", "/tasks/"+st.ID, "", "X-User", st.Task.Tenant)
		}
	}
	if err := s.d.Shutdown(s.t.Context()); err != nil {
		s.t.Error(err)
	}
}

// do makes a request as ann, unless a header says otherwise.
func (s *service) do(method, path, body string, header ...string) *httptest.ResponseRecorder {
	return s.doContext(s.t.Context(), method, path, body, header...)
}

func (s *service) doContext(ctx context.Context, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	r.Header.Set("X-User", "ann")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// submit starts an agent and returns its path.
func (s *service) submit(header ...string) string {
	s.t.Helper()
	w := s.do("POST", "/tasks", `{"agent": "echo", "input": "hello"}`, header...)
	if w.Code != http.StatusAccepted {
		s.t.Fatalf("POST: %d %s", w.Code, w.Body)
	}
	return w.Header().Get("Location")
}

// show asks for a task.
func (s *service) show(path string, header ...string) task {
	s.t.Helper()
	w := s.do("GET", path, "", header...)
	var v task
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != http.StatusOK {
		s.t.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
	}
	return v
}

func TestTaskFromRequestToResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{})
		path := s.submit()
		if v := s.show(path); v.Agent != "echo" || "/tasks/"+v.ID != path || v.State.Finished() {
			t.Errorf("at first: %+v", v)
		}
		log := s.do("GET", path+"/log", "")
		if got := log.Body.String(); got != "begun\ndone\n" || !log.Flushed {
			t.Errorf("log: %q, flushed %t", got, log.Flushed)
		}
		if got := s.do("GET", path+"/log?offset=6", "").Body.String(); got != "done\n" {
			t.Errorf("log from byte 6: %q", got)
		}
		if v := s.show(path); v.State != freshet.StateSucceeded || v.Result != "hello" || v.Finished.IsZero() {
			t.Errorf("at last: %+v", v)
		}
		s.stop()
	})
}

var eventID = regexp.MustCompile(`(?m)^id: (\d+)$`)

func TestEventsGoOnWhereTheyLeftOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{})
		path := s.submit()

		brief, cancel := context.WithTimeout(t.Context(), 30*time.Second) // the agent has begun, and is not done
		defer cancel()
		first := s.doContext(brief, "GET", path+"/events", "")
		if got := first.Header().Get("Content-Type"); got != "text/event-stream" || !first.Flushed {
			t.Errorf("Content-Type %q, flushed %t", got, first.Flushed)
		}
		seen := states(t, first)
		if got := fmt.Sprint(seen); got != "[queued starting running]" {
			t.Errorf("first: %s", got)
		}
		ids := eventID.FindAllStringSubmatch(first.Body.String(), -1)
		if len(ids) != len(seen) {
			t.Fatalf("%d ids of %d events", len(ids), len(seen))
		}
		last := ids[len(ids)-1][1]
		second := s.do("GET", path+"/events", "", "Last-Event-ID", last)
		if got := fmt.Sprint(states(t, second)); got != "[succeeded]" {
			t.Errorf("second: %s", got)
		}
		last = eventID.FindStringSubmatch(second.Body.String())[1]
		if w := s.do("GET", path+"/events", "", "Last-Event-ID", last); w.Code != http.StatusNoContent {
			t.Errorf("after the end: %d %s", w.Code, w.Body)
		}
		s.stop()
	})
}

// states are those that a stream of events has told.
func states(t *testing.T, w *httptest.ResponseRecorder) []freshet.State {
	t.Helper()
	var all []freshet.State
	for line := range strings.Lines(w.Body.String()) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var v task
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			all = append(all, v.State)
		}
	}
	return all
}

func TestWhoWaitsIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{Tenant: freshet.TenantLimits{Concurrent: 1}})
		s.submit()
		synctest.Wait()
		v := s.show(s.submit())
		if v.State != freshet.StateQueued || v.Position != 1 || v.Reason != "queued: 1st, your limit of 1 agent is in use" {
			t.Errorf("%+v", v)
		}
		if in := time.Until(v.ExpectedStart); in <= 0 || in > time.Minute {
			t.Errorf("expected to start in %v", in)
		}
		s.stop()
	})
}

func TestLimitsAnswer429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{Tenant: freshet.TenantLimits{PerHour: 1}})
		s.submit()
		time.Sleep(10 * time.Minute)
		w := s.do("POST", "/tasks", `{"agent": "echo"}`)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "3000" {
			t.Errorf("%d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
		}
		s.submit("X-User", "bob") // another tenant has a limit of its own
		s.stop()
	})
}

func TestFullLineAnswers429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{Queued: 1, Workspaces: 1})
		s.submit()
		synctest.Wait()
		s.submit()
		w := s.do("POST", "/tasks", `{"agent": "echo"}`)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
		}
		s.stop()
	})
}

func TestIdempotencyKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{Tenant: freshet.TenantLimits{PerHour: 1}}) // what is repeated does not count
		first := s.submit("Idempotency-Key", "k")
		if again := s.submit("Idempotency-Key", "k"); again != first {
			t.Errorf("the same key gave %s and %s", first, again)
		}
		w := s.do("POST", "/tasks", `{"agent": "echo", "input": "something else"}`, "Idempotency-Key", "k")
		if w.Code != http.StatusConflict {
			t.Errorf("another request under the same key: %d %s", w.Code, w.Body)
		}
		s.stop()
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{})
		path := s.submit()
		time.Sleep(10 * time.Second) // it runs
		if w := s.do("DELETE", path, ""); w.Code != http.StatusNoContent {
			t.Errorf("DELETE: %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		if v := s.show(path); v.State != freshet.StateCanceled {
			t.Errorf("%+v", v)
		}
		if w := s.do("DELETE", path, ""); w.Code != http.StatusConflict {
			t.Errorf("DELETE again: %d %s", w.Code, w.Body)
		}
		s.stop()
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, freshet.Limits{})
		path := s.submit()
		for _, c := range []struct {
			method, path, body string
			header             []string
			want               int
		}{
			{"POST", "/tasks", "{", nil, http.StatusBadRequest},
			{"POST", "/tasks", `{"agent": "unknown"}`, nil, http.StatusBadRequest},
			{"POST", "/tasks", `{"agent": "echo", "input": "` + strings.Repeat("x", 300<<10) + `"}`, nil, http.StatusBadRequest},
			{"POST", "/tasks", `{"agent": "echo"}`, []string{"X-User", ""}, http.StatusBadRequest},
			{"GET", path + "/events", "", []string{"Last-Event-ID", "x"}, http.StatusBadRequest},
			{"GET", path + "/log?offset=-1", "", nil, http.StatusBadRequest},
			{"GET", "/tasks/unknown", "", nil, http.StatusNotFound},
			{"GET", "/tasks/unknown/events", "", nil, http.StatusNotFound},
			{"GET", "/tasks/unknown/log", "", nil, http.StatusNotFound},
			{"DELETE", "/tasks/unknown", "", nil, http.StatusNotFound},
			{"GET", path, "", []string{"X-User", "bob"}, http.StatusNotFound},
			{"GET", path + "/events", "", []string{"X-User", "bob"}, http.StatusNotFound},
			{"GET", path + "/log", "", []string{"X-User", "bob"}, http.StatusNotFound},
			{"DELETE", path, "", []string{"X-User", "bob"}, http.StatusNotFound},
			{"PUT", path, "", nil, http.StatusMethodNotAllowed},
		} {
			if w := s.do(c.method, c.path, c.body, c.header...); w.Code != c.want {
				t.Errorf("%s %s: %d %s, want %d", c.method, c.path, w.Code, w.Body, c.want)
			}
		}
		s.stop()
		if w := s.do("POST", "/tasks", `{"agent": "echo"}`); w.Code != http.StatusServiceUnavailable {
			t.Errorf("after shutdown: %d %s", w.Code, w.Body)
		}
	})
}
