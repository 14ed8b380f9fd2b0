package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/freshet-dev/freshet"
)

const (
	maxBody = 1 << 20
	guess   = 10 * time.Second // when to come back where nobody knows, as with a line that is full
)

// server turns requests into tasks.
type server struct {
	d *freshet.Dispatcher
}

// newServer is all that the service answers, over any Dispatcher.
func newServer(d *freshet.Dispatcher) http.Handler {
	s := &server{d}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /tasks", s.submit)
	mux.HandleFunc("GET /tasks/{id}", s.owned(s.show))
	mux.HandleFunc("GET /tasks/{id}/events", s.owned(s.events))
	mux.HandleFunc("GET /tasks/{id}/log", s.owned(s.log))
	mux.HandleFunc("DELETE /tasks/{id}", s.owned(s.cancel))
	return mux
}

// tenant says for whom a request is made. A real service takes it from its own authentication.
func tenant(r *http.Request) string { return r.Header.Get("X-User") }

// order is the body of POST /tasks. The agent gets the input as its payload.
type order struct {
	Agent string `json:"agent"`
	Input string `json:"input"`
}

func (s *server) submit(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&o); err != nil {
		http.Error(w, "the body must be JSON such as {\"agent\": \"count\", \"input\": \"…\"}", http.StatusBadRequest)
		return
	}
	id, err := s.d.Submit(r.Context(), freshet.Task{
		Agent: o.Agent, Tenant: tenant(r), Key: r.Header.Get("Idempotency-Key"), Payload: []byte(o.Input),
	})
	if err != nil {
		fail(w, err)
		return
	}
	st, err := s.d.Status(r.Context(), id)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Location", "/tasks/"+id)
	answer(w, http.StatusAccepted, view(st))
}

// owned calls next with a task that belongs to whoever asks. To everybody else it does not exist.
func (s *server) owned(next func(http.ResponseWriter, *http.Request, freshet.Status)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		st, err := s.d.Status(r.Context(), r.PathValue("id"))
		if err == nil && st.Task.Tenant != tenant(r) {
			err = freshet.ErrNotFound
		}
		if err != nil {
			fail(w, err)
			return
		}
		next(w, r, st)
	}
}

func (s *server) show(w http.ResponseWriter, r *http.Request, st freshet.Status) {
	v := view(st)
	if st.State == freshet.StateSucceeded {
		result, err := s.d.Wait(r.Context(), st.ID) // which has nothing to wait for
		if err != nil {
			fail(w, err)
			return
		}
		v.Result = string(result)
	}
	answer(w, http.StatusOK, v)
}

// events streams each change of a task as a server-sent event. A browser that was cut off goes on where it left off.
func (s *server) events(w http.ResponseWriter, r *http.Request, st freshet.Status) {
	after, err := number(r.Header.Get("Last-Event-ID"))
	if err != nil {
		fail(w, err)
		return
	}
	if st.State.Finished() && after >= st.Version {
		w.WriteHeader(http.StatusNoContent) // there is no more: an EventSource does not come back after this
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	stream := http.NewResponseController(w)
	for st, err := range s.d.Watch(r.Context(), st.ID, after) {
		if err != nil {
			return // cut off: the browser comes back with what it has seen
		}
		data, err := json.Marshal(view(st))
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", st.Version, data); err != nil {
			return
		}
		if err := stream.Flush(); err != nil {
			return
		}
	}
}

// log follows what the agent prints, from a byte on, until its task has finished.
func (s *server) log(w http.ResponseWriter, r *http.Request, st freshet.Status) {
	offset, err := number(r.FormValue("offset"))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff") // an agent may print anything
	if _, err := s.d.FollowLogs(r.Context(), st.ID, offset, flusher{w, http.NewResponseController(w)}); err != nil {
		slog.Debug("log cut off", "task", st.ID, "err", err)
	}
}

// flusher sends at once what is written.
type flusher struct {
	io.Writer
	stream *http.ResponseController
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.stream.Flush()
	}
	return n, err
}

func (s *server) cancel(w http.ResponseWriter, r *http.Request, st freshet.Status) {
	if err := s.d.Cancel(r.Context(), st.ID); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// task is what a user sees of a task.
type task struct {
	ID            string        `json:"id"`
	Agent         string        `json:"agent"`
	State         freshet.State `json:"state"`
	Reason        string        `json:"reason,omitempty"`
	Note          string        `json:"note,omitempty"`
	Position      int           `json:"position,omitempty"`
	ExpectedStart time.Time     `json:"expected_start,omitzero"`
	Attempt       int           `json:"attempt,omitempty"`
	Created       time.Time     `json:"created"`
	Started       time.Time     `json:"started,omitzero"`
	Finished      time.Time     `json:"finished,omitzero"`
	Result        string        `json:"result,omitempty"`
}

func view(s freshet.Status) task {
	return task{
		ID: s.ID, Agent: s.Task.Agent, State: s.State, Reason: s.Reason, Note: s.Note, Position: s.Position,
		ExpectedStart: s.ExpectedStart, Attempt: s.Attempt, Created: s.Created, Started: s.Started, Finished: s.Finished,
	}
}

// errBadNumber is the answer to a header or parameter that is no offset.
var errBadNumber = fmt.Errorf("%w: a number that is not negative is needed", freshet.ErrInvalid)

func number(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, errBadNumber
	}
	return n, nil
}

// fail answers with the status that an error of the Dispatcher means.
func fail(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable // not known whether it had its effect: repeat, with the same key
	var limit *freshet.LimitError
	switch {
	case errors.As(err, &limit):
		code = http.StatusTooManyRequests
		after := cmp.Or(limit.RetryAfter, guess)
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	case errors.Is(err, freshet.ErrInvalid):
		code = http.StatusBadRequest
	case errors.Is(err, freshet.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, freshet.ErrKeyConflict), errors.Is(err, freshet.ErrFinished):
		code = http.StatusConflict
	}
	http.Error(w, err.Error(), code)
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Debug("answer not sent", "err", err)
	}
}
