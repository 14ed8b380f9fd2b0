package fakeprovider

import (
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Call is one call of a Provider or a process of it, as a Fault function sees it.
type Call struct {
	// Op is one of scope, create, get, delete, start, output, wait, signal, attach, list, find, pause, resume,
	// snapshot, deletesnapshot, upload, download, check, resize, watch, keepalive, usage, quota, ownername.
	Op string
	N  int // counts the calls of this Op at this Provider, from 1

	ID    string // of the workspace; "" where none is named, as with create and list
	Owner string // of create, find, list and watch
	Token string // of create and find
	Name  string // of the process: start, attach, output, wait and signal
}

// Fault is what goes wrong with one call. The fields may be combined; the zero Fault is none. An error that is one of
// package provider's classes is wrapped in a provider.Error.
type Fault struct {
	Delay  time.Duration // the call waits before it does anything
	Vanish bool          // the workspace has just vanished
	Fail   bool          // the workspace has just failed; with create: it fails instead of getting ready
	Before error         // the call returns this and does nothing

	// State replaces the state of the workspace in the answer (get, find, list, create), once; in a list it is that of
	// one workspace.
	State provider.State
	Cold  bool // resume: processes and memory have not survived

	AnswerDelay time.Duration // the call waits after it has done its work; a ctx that ends now makes it ErrAmbiguous
	After       error         // the call returns this although it has done its work; list and output stop half-way
}

// Chaos returns a Fault function by which a share rate of all calls, in [0,1], goes wrong, in all the ways there are. A
// call's fate depends on seed, Op and N alone.
//
// Errors before the effect are ErrUnavailable, ErrRateLimited and, for create and resume, ErrNoCapacity; errors after it
// ErrAmbiguous, or ErrUnavailable where there is no effect. A delay is at most 5 s. One fault in twenty ends the
// workspace.
func Chaos(seed uint64, rate float64) func(Call) Fault {
	return func(c Call) Fault {
		h := fnv.New64a()
		h.Write([]byte(c.Op))
		r := rand.New(rand.NewPCG(seed, h.Sum64()+uint64(c.N)))
		if r.Float64() >= rate {
			return Fault{}
		}
		if r.IntN(20) == 0 {
			end := r.IntN(2) == 0
			return Fault{Vanish: end, Fail: !end}
		}
		switch r.IntN(4) {
		case 0:
			refusals := []error{provider.ErrUnavailable, &provider.Error{Op: c.Op, Class: provider.ErrRateLimited, RetryAfter: time.Second}}
			if c.Op == "create" || c.Op == "resume" {
				refusals = append(refusals, provider.ErrNoCapacity)
			}
			return Fault{Before: refusals[r.IntN(len(refusals))]}
		case 1:
			if changes(c.Op) {
				return Fault{After: provider.ErrAmbiguous}
			}
			return Fault{After: provider.ErrUnavailable}
		case 2:
			if observes(c.Op) {
				stale := []provider.State{provider.Creating, provider.Changing, provider.Running}
				return Fault{State: stale[r.IntN(len(stale))]}
			}
		}
		return Fault{Delay: time.Duration(r.Int64N(int64(5 * time.Second)))}
	}
}

// changes says whether a call of op has an effect at the provider.
func changes(op string) bool {
	switch op {
	case "create", "delete", "start", "signal", "pause", "resume", "snapshot", "deletesnapshot", "upload", "resize", "keepalive":
		return true
	}
	return false
}

// observes says whether the answer to op is a workspace.
func observes(op string) bool {
	return op == "create" || op == "get" || op == "find" || op == "list"
}
