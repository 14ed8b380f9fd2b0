package freshet

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/freshet-dev/freshet/store"
)

// Task is one request to run an agent for one tenant.
type Task struct {
	Agent     string
	Tenant    string    // 1 to 256 bytes of UTF-8 without control characters
	Payload   []byte    // at most 256 KiB
	Key       string    // idempotency key, within the tenant; the same again gives the first task's id; "": none
	Priority  int       // higher first; -1000 to 1000
	NotBefore time.Time // zero: at once
	NotAfter  time.Time // latest start: past it the task expires; zero: none
}

// State is where a task stands.
type State = store.State

// The states of a task. The last four are final.
const (
	StateQueued    = store.StateQueued
	StateStarting  = store.StateStarting
	StateRunning   = store.StateRunning
	StateSucceeded = store.StateSucceeded
	StateFailed    = store.StateFailed
	StateCanceled  = store.StateCanceled
	StateExpired   = store.StateExpired
)

// Status is what is known of a task at one moment.
type Status struct {
	ID            string
	Parent        string // the task that this one repeats; "": none
	Task          Task   // without its Payload
	State         State
	Reason        string    // why it is in this state, in words that may be shown to its user
	Code          string    // the same for programs; "": nothing special
	Note          string    // the agent's last word on its progress
	Position      int       // in line, 1 is next; 0: not queued, or unknown
	ExpectedStart time.Time // of a queued task; zero: unknown
	Attempt       int       // of the present or last run, from 1; 0: none yet
	Path          string    // where its workspace came from: kept, warm, paused or cold
	Cost          float64   // of its finished runs, in the currency of Config.Price
	LogSize       int64     // bytes written so far
	Created       time.Time
	Started       time.Time // of the present or last run's handler; zero: not yet
	Finished      time.Time // zero: not yet
	Version       int64     // grows with each recorded change; what Watch takes
}

// Filter selects tasks; empty fields do not restrict.
type Filter struct {
	Agent, Tenant string
	States        []State
}

// check refuses a task that no dispatcher could run.
func (t Task) check(now time.Time) error {
	switch {
	case !agentName.MatchString(t.Agent):
		return invalid("Task.Agent must be 1 to 40 bytes of letters, digits, '.', '_' and '-'")
	case t.Tenant == "":
		return invalid("Task.Tenant is empty")
	case len(t.Payload) > maxPayload:
		return invalid("Task.Payload has %d bytes, more than %d", len(t.Payload), maxPayload)
	case t.Priority < -maxPriority || t.Priority > maxPriority:
		return invalid("Task.Priority must be between %d and %d", -maxPriority, maxPriority)
	case !t.NotAfter.IsZero() && !t.NotAfter.After(now):
		return invalid("Task.NotAfter has passed")
	case !t.NotAfter.IsZero() && !t.NotAfter.After(t.NotBefore):
		return invalid("Task.NotAfter is not after Task.NotBefore")
	}
	if err := checkName("Task.Tenant", t.Tenant, maxTenant); err != nil {
		return err
	}
	return checkName("Task.Key", t.Key, maxKey)
}

// checkName refuses names that would cost memory, or garble a log or a screen.
func checkName(what, s string, most int) error {
	if len(s) > most {
		return invalid("%s has %d bytes, more than %d", what, len(s), most)
	}
	if !utf8.ValidString(s) {
		return invalid("%s is not UTF-8", what)
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return invalid("%s has a control character", what)
		}
	}
	return nil
}

// record is the row that Submit writes.
func (t Task) record(id, parent string) store.Task {
	return store.Task{
		ID: id, Parent: parent, Agent: t.Agent, Tenant: t.Tenant, Key: t.Key, Digest: t.digest(parent), Payload: t.Payload,
		Priority: t.Priority, NotBefore: t.NotBefore, NotAfter: t.NotAfter,
	}
}

// digest tells a repeated request from another one under the same key.
func (t Task) digest(parent string) string {
	b := make([]byte, 0, 512)
	for _, text := range []string{t.Agent, t.Tenant, parent} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	b = binary.AppendVarint(b, int64(t.Priority))
	b = binary.AppendVarint(b, stamp(t.NotBefore))
	b = binary.AppendVarint(b, stamp(t.NotAfter))
	payload := sha256.Sum256(t.Payload)
	sum := sha256.Sum256(append(b, payload[:]...))
	return hex.EncodeToString(sum[:16])
}

func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// taskOf gives back the request of a record.
func taskOf(r *store.Task) Task {
	return Task{
		Agent: r.Agent, Tenant: r.Tenant, Payload: r.Payload, Key: r.Key, Priority: r.Priority,
		NotBefore: r.NotBefore, NotAfter: r.NotAfter,
	}
}

// statusOf is the part of a Status that the record alone tells.
func statusOf(r *store.Task) Status {
	t := taskOf(r)
	t.Payload = nil
	return Status{
		ID: r.ID, Parent: r.Parent, Task: t, State: r.State, Reason: r.Reason, Code: r.Code, Note: r.Note, Attempt: r.Attempt,
		Path: string(r.Path), Cost: r.Cost, LogSize: r.LogSize, Created: r.Created, Started: r.Started,
		Finished: r.Finished, Version: r.Version,
	}
}

// apply goes back to what an event recorded. What only the present record tells is left out of those before it.
func (s *Status) apply(e *store.Event) {
	if e.Version < s.Version {
		s.Started, s.Finished, s.Cost, s.LogSize = time.Time{}, time.Time{}, 0, 0
	}
	s.State, s.Reason, s.Code, s.Note = e.State, e.Reason, e.Code, e.Note
	s.Attempt, s.Path, s.Version = e.Attempt, string(e.Path), e.Version
	s.Position, s.ExpectedStart = 0, time.Time{}
}
