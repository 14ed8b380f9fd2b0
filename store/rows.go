package store

import (
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Info is what Open tells.
type Info struct {
	Owner   string // an id made once, [a-z0-9], at most 26 bytes
	Epoch   int64  // changes when data may have been lost
	Durable bool   // survives the death of this process
}

// State of a task.
type State string

// A task is queued, starting, running, and at last in one of the finished states, which it never leaves. A run that is
// to be tried again puts it back to queued.
const (
	StateQueued    State = "queued"
	StateStarting  State = "starting" // admitted; its workspace is being made ready
	StateRunning   State = "running"
	StateSucceeded State = "succeeded"
	StateFailed    State = "failed"
	StateCanceled  State = "canceled"
	StateExpired   State = "expired" // its NotAfter passed before it could start
)

// Finished says whether a task in this state has ended.
func (s State) Finished() bool {
	switch s {
	case StateSucceeded, StateFailed, StateCanceled, StateExpired:
		return true
	}
	return false
}

// Live says whether a task in this state has a run.
func (s State) Live() bool { return s == StateStarting || s == StateRunning }

// Path is where a run's workspace came from.
type Path string

const (
	PathKept   Path = "kept"   // its tenant's own, kept from an earlier run
	PathWarm   Path = "warm"   // a running spare
	PathPaused Path = "paused" // a paused spare
	PathCold   Path = "cold"   // made for it
)

// Task is the record of one task.
type Task struct {
	// The request. Written by Submit, never changed.
	ID        string // sorts by time of submission
	Agent     string
	Tenant    string
	Key       string // idempotency key; "": none
	Digest    string // of the request; tells a repetition from another request
	Parent    string // the task that this one repeats; "": none
	Payload   []byte
	Priority  int
	NotBefore time.Time
	NotAfter  time.Time

	// Where it stands. Written by the Store as its methods say; Submit ignores them.
	State         State
	Version       int64 // of the last Event
	Generation    int64 // counts the times it was put in line, from 1
	Fence         int64 // of the present or last run; 0: none yet
	Attempt       int   // of the present or last run, from 1; 0: none yet
	Spent         int   // attempts that counted
	Crashes       int   // leases that ran out under it
	Interruptions int   // runs ended or handed over by a shutdown
	Cancel        bool  // a cancel is wanted
	Runner        string
	LeaseEnd      time.Time
	Workspace     string // token of the run's workspace
	Path          Path
	Reason        string // why it is in this state, in words
	Code          string // the same, for programs
	Note          string // the agent's last word on its progress
	LogSize       int64
	Cost          float64 // of its finished runs
	Result        []byte
	Acknowledged  bool

	Created  time.Time
	Due      time.Time // when the queued task may start: NotBefore, or the end of a retry's delay
	Started  time.Time // of the present or last run's first StateRunning
	Finished time.Time
	Changed  time.Time // of the last Event
}

// Event is a recorded change of a task.
type Event struct {
	Task    string
	Version int64
	At      time.Time
	State   State
	Reason  string
	Code    string
	Note    string
	Attempt int
	Path    Path
}

// MaxEvents is how many events of a task a Store keeps at least.
const MaxEvents = 1000

// SubmitRequest is the argument of Submit.
type SubmitRequest struct {
	Limits *Limits // the caller's defaults; nil: none
	Tasks  []Task
}

// TaskQuery selects tasks; what is zero does not restrict.
type TaskQuery struct {
	IDs            []string
	Agent, Tenant  string
	States         []State
	Unacknowledged bool      // finished, and not yet acknowledged
	ChangedBefore  time.Time // last event before then
	ExpiredBefore  time.Time // has a NotAfter, before then
	Before         string    // ids that sort before this one: where a page ended
	N              int       // at most; 0: 100
	OldestFirst    bool
	Payload        bool // with Payload
	Result         bool // with Result
}

// Ending finishes a task from outside.
type Ending struct {
	State  State // StateCanceled, StateExpired or StateFailed
	Reason string
	Code   string
}

// Lease is the right to write for one run.
type Lease struct {
	Task  string
	Fence int64
}

// LeaseState answers Renew, in the order of the leases.
type LeaseState struct {
	Held   bool // false: another run has the task, or it has finished
	Cancel bool // a cancel is wanted
}

// Admission is what a dispatcher offers the runs it would begin.
type Admission struct {
	Runner string        // the dispatcher's id
	Lease  time.Duration // of each run
	Owner  string
	Scope  string
	Limits *Limits  // the caller's defaults; nil: none
	Plans  []Plan   // one for each agent
	Tokens []string // for new workspaces, unused before; at least one for each run asked for
}

// Plan is how runs of one agent are begun.
type Plan struct {
	Agent      string
	Spec       string // hash; only members of this spec are taken
	Resources  provider.Resources
	Concurrent int    // runs at once, all tenants; 0: no limit
	Paths      []Path // in order of preference; the first that has a member and room is taken. PathCold reserves a new one
}

// BeginRequest names a task to begin.
type BeginRequest struct {
	Task       string
	Generation int64
}

// Verdict is the outcome of one BeginRequest.
type Verdict string

const (
	Admitted Verdict = "admitted"
	Limited  Verdict = "limited"   // Begun.Limit says by what
	Held     Verdict = "held"      // Begun.Hold says why
	NotDue   Verdict = "not due"   // Begun.Task.Due says until when
	NotYours Verdict = "not yours" // finished, cancelled, running, superseded, unknown, without a Plan: drop the ticket
)

// Begun answers a BeginRequest.
type Begun struct {
	Verdict   Verdict
	Task      Task      // as it stands now; with its Payload when Admitted
	Lease     Lease     // when Admitted
	Workspace Workspace // when Admitted. Ready: use it; Paused: resume it; New: create it; its Intent says so already
	Limit     *LimitError
	Hold      *Hold
	Evicted   *Workspace // when Limited by the account: a spare whose Intent is now to delete, to make room
}

// Claimed answers ClaimBegin.
type Claimed struct {
	Begun   []Begun
	Evicted []Workspace // spares whose Intent is now to delete, to make room
	Next    time.Time   // when the next task becomes due or a hold ends; zero: unknown or none
}

// Save is what a run records. Zero fields leave things as they are.
type Save struct {
	Status    *Change    // nil: no Event
	LogSize   int64      // total bytes of log so far
	Workspace *Workspace // as PutWorkspace
	Entries   []Entry
	Drop      []EntryKey
}

// Change is a change of a task's status. Empty fields stay as they are; State is StateRunning or "".
type Change struct {
	State  State
	Reason string
	Code   string
	Note   string
}

// EntryKind says what an Entry is.
type EntryKind string

const (
	EntryStep       EntryKind = "step"       // a Step's value
	EntryProcess    EntryKind = "process"    // a process that was started, and how far its output is in the log
	EntryCheckpoint EntryKind = "checkpoint" // what to resume from
	EntryLog        EntryKind = "log"        // a piece of the log
	EntryArtifact   EntryKind = "artifact"   // what the agent left
)

// EntryKey names an entry of a task.
type EntryKey struct {
	Kind EntryKind
	Name string
}

// Entry is a small record of a run, or the name of a blob.
type Entry struct {
	Kind  EntryKind
	Name  string
	Data  []byte    // at most 1 MiB
	Blob  string    // key in Blobs; "": none
	Size  int64     // of the blob
	Fence int64     // of the run that saved it; set by the Store
	At    time.Time // set by the Store
}

// Count is what the end of a run counts as.
type Count string

const (
	CountAttempt      Count = "attempt"
	CountInterruption Count = "interruption"
	CountCrash        Count = "crash"
	CountNothing      Count = "" // as if it had not been: its Attempt number is used again
)

// Disposition says what becomes of a run's workspace.
type Disposition string

const (
	DisposeDelete Disposition = "delete" // Intent delete; keeps its slot until PutWorkspace says Gone
	DisposeKeep   Disposition = "keep"   // idle, for its tenant alone, until KeepUntil
	DisposePool   Disposition = "pool"   // idle, for anybody
	DisposeGone   Disposition = "gone"   // confirmed gone: the row is removed
)

// Outcome is the end of a run.
type Outcome struct {
	Lease     Lease
	State     State     // finished; or StateQueued: back in line
	Due       time.Time // with StateQueued: not to start before
	Count     Count
	Reason    string
	Code      string
	Result    []byte // with a finished state: the result, or of a failed task its failure as the caller encodes it
	Cost      float64
	LogSize   int64
	Workspace Disposition
	KeepUntil time.Time
}

// Finished answers an Outcome.
type Finished struct {
	Task      Task      // as it stands now
	Workspace Workspace // as it stands now; zero when its row is gone
	Err       error     // nil or ErrLeaseLost
}

// WorkspaceState is what the ledger knows of a workspace.
type WorkspaceState string

const (
	WorkspaceNew    WorkspaceState = "new" // reserved: it may exist, find it by its token
	WorkspaceReady  WorkspaceState = "ready"
	WorkspacePaused WorkspaceState = "paused"
	WorkspaceGone   WorkspaceState = "gone" // only written, never read: removes the row
)

// Intent is what is about to be done, or being done, to a workspace. It is recorded before the provider is called.
type Intent string

const (
	IntentNone   Intent = ""
	IntentCreate Intent = "create"
	IntentPause  Intent = "pause"
	IntentResume Intent = "resume"
	IntentResize Intent = "resize"
	IntentDelete Intent = "delete"
)

// Workspace is the record of one workspace. It can be handed out when it names no Task, has no Intent, is Ready or
// Paused, and has no Tenant or the right one and KeepUntil has not passed.
type Workspace struct {
	Token     string
	ID        string // the provider's; "": not known yet
	Scope     string
	Owner     string
	Agent     string
	Spec      string
	Resources provider.Resources
	State     WorkspaceState
	Intent    Intent
	Task      string // holds the slot of this task's tenant and agent; "": a spare
	Fence     int64  // of the run that holds it
	Tenant    string // who has used it; "": nobody yet
	KeepUntil time.Time
	Uncounted bool // paused, and the provider's quota leaves paused ones out; a run that takes it ends that
	Home      string
	Failures  int       // checks failed, or creates, one after the other
	Created   time.Time // set by the Store at insertion
	Since     time.Time // of State, Intent and Task; set by the Store
	Ready     time.Time // when it first became ready; zero: never
	Checked   time.Time // last found well
	Version   int64     // grows by one with each write
}

// WorkspaceQuery selects workspaces; what is zero does not restrict.
type WorkspaceQuery struct {
	Tokens       []string
	Owner, Scope string
	Agent, Spec  string
	Intents      []Intent
	Spare        bool      // names no Task
	SinceBefore  time.Time // Since before then
	N            int       // at most; 0: all
}
