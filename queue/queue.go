// Package queue is the contract of the waiting line, and the line in memory.
//
// A Queue orders tickets and nothing more: the Store holds the truth about a task, so a ticket may be given out twice,
// or late, without harm. Order is by priority, then by weighted fair share over tenants, then first come, first served.
// A Queue keeps each pushed ticket until Done; what it loses is pushed again by the dispatcher's sweep of the Store.
//
// # Rules for implementers
//
//   - All methods may be called from many goroutines and many processes.
//   - Leases and delays are judged by one clock, that of the queue's server where it has one.
//   - The dispatcher retries; a Queue returns the raw error. An error means: it may or may not have happened.
//   - Tenants, agents and task ids are data of up to 256 bytes, any UTF-8.
//
// Package queuetest holds the suite that every implementation passes.
package queue

import (
	"context"
	"time"
)

// Queue is the waiting line.
type Queue interface {
	// Push adds tickets, all or none. A ticket whose task and generation are in the line already, claimed or not,
	// has no effect. Called at each submit and retry, and by the sweep. The slice is not kept.
	Push(ctx context.Context, tickets []Ticket) error

	// Claim takes at most N due tickets of the given agents, in order, passing over the tenants and agents to skip.
	// Nobody else is given them until Lease has run out; then they are back in their old place. It does not wait:
	// none is an empty slice. Called by one goroutine of each dispatcher, whenever it has room and work may be there.
	Claim(ctx context.Context, req ClaimRequest) ([]Claim, error)

	// Done removes claimed tickets. A claim whose lease ran out and that somebody else holds, or that is gone, is
	// passed over without an error.
	Done(ctx context.Context, claims []Claim) error

	// Release puts claimed tickets back in their old place, not to be claimed before after has passed; tickets that
	// somebody else holds are passed over as by Done. A release costs the tenant nothing of its share.
	Release(ctx context.Context, claims []Claim, after time.Duration) error

	// Stats counts the line.
	Stats(ctx context.Context) (Stats, error)
}

// Ticket is one place in the line.
type Ticket struct {
	Task       string
	Generation int64 // counts the times that the task was put in line; a newer one supersedes
	Agent      string
	Tenant     string
	Priority   int       // higher first
	Weight     int       // the tenant's share; 0: 1. The newest ticket's weight counts for its tenant
	NotBefore  time.Time // zero: at once
}

// ClaimRequest says what a dispatcher can take.
type ClaimRequest struct {
	Agents      []string // only tickets of these
	N           int
	Lease       time.Duration
	SkipTenants []string // at a limit; at most MaxSkip
	SkipAgents  []string // at most MaxSkip
}

// MaxSkip bounds each list of a ClaimRequest.
const MaxSkip = 1000

// Claim is a claimed ticket.
type Claim struct {
	Ticket Ticket
	Token  string // of this claim; another claim of the same ticket has another
}

// Stats counts the line.
type Stats struct {
	Queued int       // tickets not Done, claimed and delayed ones included
	Oldest time.Time // when the oldest of them was pushed; zero: the line is empty
}

// Notifier calls wake when tickets may have become claimable, until ctx ends or it returns an error. It is a hint: wakes
// may be missed or spurious. wake is quick and safe to call from several goroutines.
//
// Without it a dispatcher that did not push a ticket itself finds it at its next poll.
type Notifier interface {
	Notify(ctx context.Context, wake func()) error
}

// Placer tells a queued task's place in the line: 1 is next. It counts what would be served before it if nothing were at
// a limit and nothing new came. 0 when the task is not in line.
//
// Without it a Status has no Position.
type Placer interface {
	Place(ctx context.Context, task string) (int, error)
}
