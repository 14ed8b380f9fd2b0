// Package queuetest is the suite that every implementation of queue.Queue passes.
//
// An implementation calls it from a test of its own:
//
//	func TestQueue(t *testing.T) {
//		queuetest.Run(t, queuetest.Harness{New: func(tb testing.TB) queue.Queue { return open(tb) }})
//	}
//
// Each case is one rule of the contract, and a failure prints the rule. The suite works with real servers: it assumes
// neither that calls are fast nor that times are exact, and what it calls too early is too early by any clock. It needs
// about thirty times the harness's Lease.
package queuetest

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/queue"
)

// Harness is what the suite needs to know of an implementation. Only New is required.
type Harness struct {
	// New returns an empty queue that nobody else uses, and frees it by tb.Cleanup. It is called once for each case.
	New func(tb testing.TB) queue.Queue

	// Peer returns another handle on q's line, as another process has one. nil: q itself.
	Peer func(tb testing.TB, q queue.Queue) queue.Queue

	// Settle waits until everything that was pushed to q can be claimed. nil: it can when Push returns.
	Settle func(tb testing.TB, q queue.Queue)

	// Lease is a short lease: long enough for some calls, and not below what the queue's clock can tell. 0: a second.
	Lease time.Duration

	// Wait lets time pass for the queue. It may be called from many goroutines. nil: time.Sleep.
	Wait func(d time.Duration)

	// Around runs a case. A queue in memory passes synctest.Test. nil: the case is just called.
	Around func(t *testing.T, run func(t *testing.T))
}

// Run checks every rule, each in a subtest. The rules about Notifier and Placer are for queues that have them.
func Run(t *testing.T, h Harness) {
	if h.Peer == nil {
		h.Peer = func(_ testing.TB, q queue.Queue) queue.Queue { return q }
	}
	if h.Settle == nil {
		h.Settle = func(testing.TB, queue.Queue) {}
	}
	if h.Lease == 0 {
		h.Lease = time.Second
	}
	if h.Wait == nil {
		h.Wait = time.Sleep
	}
	if h.Around == nil {
		h.Around = func(t *testing.T, run func(t *testing.T)) { run(t) }
	}
	for _, r := range slices.Concat(basics(), leases(), orders(), shares(), races(), abilities()) {
		t.Run(r.name, func(t *testing.T) {
			h.Around(t, func(t *testing.T) { r.verify(t, h) })
		})
	}
}

// rule is one rule of the contract and its check.
type rule struct {
	name  string
	text  string
	check func(s *suite)
}

func (r rule) verify(t *testing.T, h Harness) {
	q := h.New(t)
	s := &suite{T: t, h: h, q: q, peer: h.Peer(t, q)}
	defer func() {
		if t.Failed() {
			t.Logf("the rule: %s", r.text)
		}
	}()
	r.check(s)
}

// suite is what a check works with.
type suite struct {
	*testing.T
	h       Harness
	q, peer queue.Queue  // two handles on one line
	skipped atomic.Int64 // nanoseconds that Wait let pass on the queue's clock alone
}

// long is a lease that does not end during a case.
const long = time.Hour

// patience is how long the suite waits for what must happen at last.
func (s *suite) patience() time.Duration { return 30*time.Second + 10*s.h.Lease }

// now is the time on the queue's clock, as far as the suite can tell.
func (s *suite) now() time.Time { return time.Now().Add(time.Duration(s.skipped.Load())) }

func (s *suite) wait(d time.Duration) {
	start := time.Now()
	s.h.Wait(d)
	if rest := d - time.Since(start); rest > 0 {
		s.skipped.Add(int64(rest))
	}
}

// eventually calls ok until it is true, and fails the case when it stays false.
func (s *suite) eventually(what string, ok func() bool) {
	s.Helper()
	for end := s.now().Add(s.patience()); !ok(); s.wait(s.h.Lease / 4) {
		if s.now().After(end) {
			s.Fatalf("waited %v: %s", s.patience(), what)
		}
	}
}

// ticket is the first generation of a task, for agent x, of the tenant with the task's first letter.
func ticket(task string) queue.Ticket {
	return queue.Ticket{Task: task, Generation: 1, Agent: "x", Tenant: task[:1]}
}

// tickets makes one of each name in a list.
func tickets(list string) []queue.Ticket {
	var ts []queue.Ticket
	for _, task := range strings.Fields(list) {
		ts = append(ts, ticket(task))
	}
	return ts
}

// push pushes tickets one after the other.
func (s *suite) push(ts ...queue.Ticket) {
	s.Helper()
	for i := range ts {
		s.pushAll(ts[i : i+1])
	}
}

// pushAll pushes tickets in one call.
func (s *suite) pushAll(ts []queue.Ticket) {
	s.Helper()
	if err := s.q.Push(s.Context(), ts); err != nil {
		s.Fatalf("Push: %v", err)
	}
	s.h.Settle(s.T, s.q)
}

// request is a claim of at most n tickets of the agents x, y and z.
func request(n int, lease time.Duration) queue.ClaimRequest {
	return queue.ClaimRequest{Agents: []string{"x", "y", "z"}, N: n, Lease: lease}
}

func (s *suite) claim(q queue.Queue, req queue.ClaimRequest) []queue.Claim {
	s.Helper()
	claims, err := q.Claim(s.Context(), req)
	if err != nil {
		s.Fatalf("Claim: %v", err)
	}
	if len(claims) > max(req.N, 0) {
		s.Fatalf("Claim gave %d tickets; at most %d were asked for", len(claims), req.N)
	}
	return claims
}

// take claims at most n tickets for long.
func (s *suite) take(n int) []queue.Claim {
	s.Helper()
	return s.claim(s.q, request(n, long))
}

func (s *suite) done(q queue.Queue, claims ...queue.Claim) {
	s.Helper()
	if err := q.Done(s.Context(), claims); err != nil {
		s.Fatalf("Done: %v", err)
	}
}

func (s *suite) release(q queue.Queue, after time.Duration, claims ...queue.Claim) {
	s.Helper()
	if err := q.Release(s.Context(), claims, after); err != nil {
		s.Fatalf("Release: %v", err)
	}
}

// lapse lets a lease that was given just now, of the harness's length, run out.
func (s *suite) lapse() { s.wait(s.h.Lease + s.h.Lease/2) }

func (s *suite) queued(want int) {
	s.Helper()
	stats, err := s.q.Stats(s.Context())
	if err != nil {
		s.Fatalf("Stats: %v", err)
	}
	if stats.Queued != want {
		s.Errorf("Stats counts %d tickets, want %d", stats.Queued, want)
	}
}

// tasks lists the tasks of claims.
func tasks(claims []queue.Claim) string {
	var names []string
	for _, c := range claims {
		names = append(names, c.Ticket.Task)
	}
	return strings.Join(names, " ")
}

// want checks what was claimed, in order.
func (s *suite) want(claims []queue.Claim, list string) {
	s.Helper()
	if got := tasks(claims); got != list {
		s.Errorf("claimed %q, want %q", got, list)
	}
}

// wantSet checks what was claimed, in any order.
func (s *suite) wantSet(claims []queue.Claim, list string) {
	s.Helper()
	got, want := strings.Fields(tasks(claims)), strings.Fields(list)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.Errorf("claimed %v, want %v in any order", got, want)
	}
}
