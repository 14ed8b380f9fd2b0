// Package storetest is the suite that every implementation of package store passes.
//
// An implementation calls Run, and RunBlobs if it keeps blobs, from a test of its own:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Harness{New: func(t *testing.T) store.Store { ... }})
//	}
//
// No case assumes that a call is fast: what must not end during a case ends an hour later, and what must end is waited
// for with Harness.Wait.
package storetest

import (
	"testing"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// Harness is what the suite needs to know of a Store.
type Harness struct {
	// New returns an empty Store for one case, and lets t.Cleanup close it. Its ids are the Store's own: several may be
	// in use at the same time.
	New func(t *testing.T) store.Store

	// Second returns another connection to the data of a Store that New returned. nil: the Store is in memory and is
	// used itself.
	Second func(t *testing.T, first store.Store) store.Store

	// Bubble runs one case; nil: it is just called. A Store without I/O gives synctest.Test.
	Bubble func(t *testing.T, test func(t *testing.T))

	// Unit is a time in which the suite lets leases run out. It is well above the clock's and the Store's precision.
	// 0: 1 s.
	Unit time.Duration

	// Wait lets d pass by the Store's clock; nil: time.Sleep.
	Wait func(d time.Duration)

	// Virtual says that Wait takes no time, so that cases may wait for hours too.
	Virtual bool
}

// Run runs all cases against the Stores of h; those of a Liner, a Watcher, a queue.Notifier and a queue.Placer only if
// the Store is one. Each case has a Store of its own.
func Run(t *testing.T, h Harness) {
	if h.Bubble == nil {
		h.Bubble = func(t *testing.T, test func(t *testing.T)) { test(t) }
	}
	if h.Unit == 0 {
		h.Unit = time.Second
	}
	if h.Wait == nil {
		h.Wait = time.Sleep
	}
	for _, area := range []struct {
		name  string
		rules []rule
	}{
		{"Open", openRules()},
		{"Submit", submitRules()},
		{"Query", queryRules()},
		{"End", endRules()},
		{"Begin", beginRules()},
		{"Lease", leaseRules()},
		{"Save", saveRules()},
		{"Finish", finishRules()},
		{"Workspace", workspaceRules()},
		{"Member", memberRules()},
		{"Evict", evictRules()},
		{"Limit", limitRules()},
		{"Rate", rateRules()},
		{"Operator", operatorRules()},
		{"Claim", claimRules()},
		{"Hint", hintRules()},
		{"Race", raceRules()},
		{"Hostile", hostileRules()},
	} {
		t.Run(area.name, func(t *testing.T) {
			for _, r := range area.rules {
				t.Run(r.name, func(t *testing.T) { h.check(t, r) })
			}
		})
	}
}

// rule is one case.
type rule struct {
	name string
	says string // what the contract asks for; shown when the case fails
	test func(f *fixture)
}

// check runs one case.
func (h Harness) check(t *testing.T, r rule) {
	h.Bubble(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("the rule: %s", r.says)
			}
		}()
		f := &fixture{T: t, h: h, s: h.New(t)}
		f.second = f.s
		if h.Second != nil {
			f.second = h.Second(t, f.s)
		}
		for _, s := range []store.Store{f.s, f.second} {
			if _, err := s.Open(f.Context()); err != nil {
				t.Fatalf("Open: %v", err)
			}
		}
		r.test(f)
	})
}
