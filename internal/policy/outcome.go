package policy

import (
	"time"

	"github.com/freshet-dev/freshet/store"
)

// EndKind is how a try at a task ended.
type EndKind int

const (
	EndSuccess     EndKind = iota
	EndError               // the handler's error, final unless the agent's policy asks for more
	EndRetry               // the handler asked for another attempt
	EndTimeout             // Agent.Timeout
	EndIdle                // no progress
	EndCanceled            // by the user
	EndNotStarted          // the workspace could not be had; the provider says that it may be later
	EndImpossible          // the workspace can never be had: the request is invalid
	EndDeadSpare           // a spare turned out dead before the handler began
	EndLost                // the workspace vanished or failed
	EndInterrupted         // this process is shutting down, and the run could not be left to another
)

// End is all that decides what follows a try.
type End struct {
	Kind        EndKind
	Retryable   bool // EndError: Agent.Retry.If says so
	Spent       int  // attempts that counted before this one
	Attempts    int  // the most that may count
	Crashes     int  // leases that ran out under the task so far
	MaxCrashes  int
	Reached     bool // the handler had begun, in this try or an earlier one
	Idempotent  bool // may begin again from nothing
	Checkpoint  bool // there is one to go on from
	MinDelay    time.Duration
	MaxDelay    time.Duration
	RetryAfter  time.Duration // what the provider asked for
	Consecutive int           // tries in a row that could not get a workspace
	Random      float64       // in [0,1)
}

// Next is what follows.
type Next struct {
	State State
	Count store.Count
	Delay time.Duration // with StateQueued
	// Stranded: it would be tried again, but has no checkpoint and may not begin from nothing.
	Stranded bool
	// Exhausted: it would be tried again, but has had its attempts.
	Exhausted bool
}

// State is the state of a task.
type State = store.State

// After decides what follows a try.
func After(e End) Next {
	switch e.Kind {
	case EndSuccess:
		return Next{State: store.StateSucceeded, Count: store.CountAttempt}
	case EndCanceled:
		return Next{State: store.StateCanceled, Count: store.CountAttempt}
	case EndTimeout, EndIdle:
		if e.Retryable {
			return e.again()
		}
		return Next{State: store.StateFailed, Count: store.CountAttempt}
	case EndError:
		if e.Retryable {
			return e.again()
		}
		return Next{State: store.StateFailed, Count: store.CountAttempt}
	case EndRetry:
		return e.again()
	case EndImpossible:
		return Next{State: store.StateFailed, Count: store.CountAttempt}
	case EndDeadSpare:
		return Next{State: store.StateQueued, Count: store.CountNothing}
	case EndNotStarted:
		return Next{State: store.StateQueued, Count: store.CountNothing, Delay: max(e.RetryAfter, Delay(e.Consecutive, e.MinDelay, e.MaxDelay, e.Random))}
	case EndInterrupted:
		if e.stranded() {
			return Next{State: store.StateFailed, Count: store.CountInterruption, Stranded: true}
		}
		return Next{State: store.StateQueued, Count: store.CountInterruption}
	case EndLost:
		if e.stranded() {
			return Next{State: store.StateFailed, Count: store.CountAttempt, Stranded: true}
		}
		return e.again()
	}
	return Next{State: store.StateFailed, Count: store.CountAttempt}
}

func (e End) stranded() bool { return e.Reached && !e.Idempotent && !e.Checkpoint }

// again is another attempt, if there is one left.
func (e End) again() Next {
	if e.Spent+1 >= e.Attempts {
		return Next{State: store.StateFailed, Count: store.CountAttempt, Exhausted: true}
	}
	return Next{State: store.StateQueued, Count: store.CountAttempt, Delay: Delay(e.Spent, e.MinDelay, e.MaxDelay, e.Random)}
}

// Poisoned says whether a task has brought down so many of its owners that it must not get another.
func Poisoned(crashes, most int) bool { return crashes >= most }

// Delay is exponential back-off with full jitter: uniform between 0 and min·2ⁿ, at most max. ("Exponential Backoff And
// Jitter", AWS Architecture Blog, 2015.)
func Delay(n int, least, most time.Duration, random float64) time.Duration {
	ceiling := most
	if n < 40 && least<<n < most && least<<n > 0 {
		ceiling = least << n
	}
	return time.Duration(random * float64(ceiling))
}
