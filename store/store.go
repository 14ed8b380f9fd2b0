// Package store is the contract of the truth: tasks and their runs, leases and fences, workspaces, limits, events; and
// the Store in memory.
//
// Every method is one atomic step. Three rules hold everything together:
//
//   - Fence. Every admitted run gets a fence, a number that only grows within the Store. Whatever is written for a run
//     names its Lease; if the run's fence is no longer the task's current one, the write is refused with ErrLeaseLost
//     and changes nothing.
//   - Slot. A row of Workspaces is a slot: it holds the account's limits from its insertion until it is removed, and
//     its tenant's and agent's limits as long as it names a Task. The end of a lease makes a run adoptable; it never
//     frees a slot.
//   - Version. Every recorded change of a task is an Event with the task's next Version, so that a reader in any
//     process can follow a task with a cursor.
//
// # Rules for implementers
//
//   - All methods may be called from many goroutines and, unless the Store says that it is in memory, many processes.
//   - Leases, delays and times are judged by one clock, that of the store's server where it has one.
//   - The dispatcher retries; a Store returns the raw error. An error that is none of this package's means: it may or
//     may not have happened. Every method may be repeated then, and says what a repetition does.
//   - Slices and maps that a caller passes are not kept, those that are returned belong to the caller.
//
// Package storetest holds the suite that every implementation passes.
package store

import (
	"context"
	"io"
	"time"
)

// Store is all of the contract. It is cut in five by who needs what.
type Store interface {
	// Open is the first call of every dispatcher and client; it makes what the Store needs once.
	Open(ctx context.Context) (Info, error)

	// Acquire takes or renews the named short lease for holder, for ttl, and gives it back with ttl 0. It answers
	// whether holder has it now. Called by sweepers and pool keepers every few seconds; losing one is harmless.
	Acquire(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)

	Tasks
	Runs
	Workspaces
	Limiter
}

// Tasks is what a client of a fleet needs: no run, no lease.
type Tasks interface {
	// Submit records tasks as queued, all or none, and where the Store has a line of its own (Liner) puts them in
	// it. The ids are the tasks' own, except that a task whose tenant and Key are known already yields the id of
	// the one recorded first and is not recorded again. Refused, with nothing recorded: *LimitError (a rate or a
	// length of line; submissions that yield a known id count for none), ErrKeyConflict (same tenant and key, other
	// Digest), ErrExists (same ID, other Digest). The same ID and Digest again are a repetition: no effect.
	Submit(ctx context.Context, req SubmitRequest) (ids []string, err error)

	// QueryTasks returns tasks, newest first unless the query says otherwise, without their Payload and Result
	// unless asked for. Unknown ids are left out.
	QueryTasks(ctx context.Context, q TaskQuery) ([]Task, error)

	// Events returns a task's recorded changes with a Version above after, in order, at most n. A Store keeps at
	// least the last MaxEvents of a task. ErrNotFound when there is no such task.
	Events(ctx context.Context, task string, after int64, n int) ([]Event, error)

	// End finishes a task from outside. Without a live run it is finished at once as the Ending says, and no run
	// begins any more. With one, and if the Ending is a cancel, a durable flag is set (which the run sees at its next
	// Renew) that bars any later Begin, with the Ending's Reason and Code and an Event, and the run's Finish decides;
	// any other Ending leaves a live run alone and is ErrConflict. A repetition has no effect. ErrFinished when the
	// task has finished, ErrNotFound when there is none.
	End(ctx context.Context, task string, e Ending) error

	// Acknowledge records that the end of these tasks was delivered. Unknown ids are passed over.
	Acknowledge(ctx context.Context, tasks []string) error

	// Remove deletes the records of these finished tasks, their events and entries; others are passed over.
	Remove(ctx context.Context, tasks []string) error
}

// Runs is what a dispatcher does with admitted runs.
type Runs interface {
	// Begin admits queued tasks, in the order given, each on its own: the generation is current, the task due and
	// neither finished, held nor cancelled; no limit is exceeded; the fence is taken from the Store's counter; a
	// workspace is taken or reserved along the Plan's Paths. With a workspace that is ready the task is running at once,
	// otherwise starting. There is one Begun for each request, and its Verdict says which. A queued task whose NotAfter
	// has passed is finished as expired by the way.
	//
	// A repetition of a request that was admitted answers NotYours: its run is found by Adopt when the lease ends.
	Begin(ctx context.Context, a Admission, reqs []BeginRequest) ([]Begun, error)

	// Adopt gives the caller at most n runs whose lease has ended, of agents it has Plans for and workspaces in its
	// Scope: fence, lease and workspace pass to it. A run that was detached counts an interruption, any other a
	// crash. All Begun are Admitted. Cancelled tasks are adopted too: somebody must end their workspace.
	Adopt(ctx context.Context, a Admission, n int) ([]Begun, error)

	// Renew extends leases by ttl from now and answers for each whether it is still held and whether a cancel is
	// wanted. A lease that has ended but was not adopted is renewed. Called for all runs of a process at once.
	Renew(ctx context.Context, leases []Lease, ttl time.Duration) ([]LeaseState, error)

	// Detach ends leases now, so that the runs can be adopted at once as interrupted. Lost leases are passed over.
	Detach(ctx context.Context, leases []Lease) error

	// Save records what a run has come to: a change of its status, entries, its workspace. All or nothing.
	// ErrLeaseLost, ErrConflict (the workspace's Version). Entries replace those of the same kind and name.
	Save(ctx context.Context, l Lease, s Save) error

	// Entries returns what Save kept for a task, over all its runs, ordered by kind and name. Kind "": all kinds.
	Entries(ctx context.Context, task string, kind EntryKind) ([]Entry, error)

	// Finish ends runs, each on its own: the task finishes or goes back in line as the next generation, the lease
	// ends, the workspace goes where the Outcome says. A task that is to go back in line but has its cancel flag set
	// finishes as canceled, and keeps its Reason and Code. One Finished for each outcome; its Err is nil or
	// ErrLeaseLost. A repetition is ErrLeaseLost: ask QueryTasks what was recorded.
	Finish(ctx context.Context, outs []Outcome) ([]Finished, error)
}

// Workspaces is the ledger of everything that exists, or may exist, at the provider.
type Workspaces interface {
	// PutWorkspace inserts (Version 0) or replaces the row of w.Token if its Version is still w.Version, and returns
	// the new Version. State Gone removes it, and frees its slot; again it has no effect. A row that names a Task is
	// written under that task's current lease: l; for a row without one, and for a row whose Intent is to delete, l is
	// the zero Lease, which can neither take Task nor Intent from it. ErrConflict when Version is another; ErrLeaseLost;
	// *LimitError when an insert, or a paused row that is Uncounted no more, would exceed the account's limits.
	PutWorkspace(ctx context.Context, l Lease, limits *Limits, w Workspace) (version int64, err error)

	// QueryWorkspaces returns rows, oldest first.
	QueryWorkspaces(ctx context.Context, q WorkspaceQuery) ([]Workspace, error)
}

// Limiter holds what operators set at run time, and counts what is in use. The limits of Config are the caller's own
// defaults and travel with its calls; what is set here wins over them, for every process, until it is set to nil.
type Limiter interface {
	// SetLimits sets the account's limits; nil goes back to each caller's defaults.
	SetLimits(ctx context.Context, l *Limits) error

	// SetTenantLimits sets one tenant's limits; nil goes back to the Tenant of the account's limits.
	SetTenantLimits(ctx context.Context, tenant string, l *TenantLimits) error

	// SetHold stops admissions of an agent, a tenant, of one agent for one tenant, or (both "") of all, until it is
	// lifted with an empty Reason or Until has passed. Running ones go on.
	SetHold(ctx context.Context, h Hold) error

	// Usage tells what one tenant and one agent hold and are allowed, with the caller's defaults; for explaining a
	// place in the line.
	Usage(ctx context.Context, defaults *Limits, tenant, agent string) (Usage, error)

	// Counts counts the whole fleet, by agent.
	Counts(ctx context.Context) (map[string]Counts, error)
}

// Liner is a Store with a line of its own: Submit, Finish and Adopt keep it, and ClaimBegin claims and begins in one
// step. Such a Store may also be a queue.Notifier and queue.Placer.
//
// Without it the dispatcher keeps the line in a Queue.
type Liner interface {
	// ClaimBegin admits at most n tasks of the agents in a.Plans, in the line's order, passing over whatever is at a
	// limit, held or not due. All Begun are Admitted.
	ClaimBegin(ctx context.Context, a Admission, n int) (Claimed, error)
}

// Watcher calls wake with the id of each task that may have changed, until ctx ends or it returns an error. It is a
// hint: changes may be missed. wake is quick and safe to call from several goroutines.
//
// Without it the dispatcher polls.
type Watcher interface {
	WatchTasks(ctx context.Context, wake func(task string)) error
}

// Blobs keeps bytes that are too large for a row: logs, checkpoints, artifacts. A key is written once, by the run whose
// fence is in it, and becomes visible only when a record in the Store names it; so a torn or late Put harms nobody.
type Blobs interface {
	// Put stores all of r under key, or nothing.
	Put(ctx context.Context, key string, r io.Reader) error
	// Get opens what Put stored; ErrNotFound. The caller closes it.
	Get(ctx context.Context, key string) (io.ReadCloser, error)
	// Delete removes keys; those that do not exist are passed over.
	Delete(ctx context.Context, keys ...string) error
}
