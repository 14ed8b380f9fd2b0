package fakeprovider

import (
	"container/heap"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// gone is the state of a workspace that no longer exists.
const gone provider.State = "gone"

// workspace is a workspace; its cloud's mutex protects it, but for files and cpu.
type workspace struct {
	provider.Workspace
	cloud  *cloud
	spec   provider.Spec
	number int64      // in the order of creation
	twin   *workspace // the next one of the same token

	then   provider.State // where it is on its way to, when at is not zero; gone: it is being deleted
	at     time.Time
	reason string // its Message when then is Failed
	index  int    // in dueHeap; -1: not there

	paused    provider.PauseKind // while paused or on the way
	warm      bool               // of the last resume
	changed   chan struct{}      // closed at the next change; nil: nobody waits
	processes map[string]*process

	files files
	cpu   atomic.Int64 // nanoseconds
}

// due is when it has to be looked at next; zero: never.
func (w *workspace) due() time.Time {
	if w.at.IsZero() || !w.Expires.IsZero() && w.Expires.Before(w.at) {
		return w.Expires
	}
	return w.at
}

// changedLocked is closed when the workspace changes.
func (w *workspace) changedLocked() <-chan struct{} {
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

func sameSpec(a, b provider.Spec) bool {
	return a.Image == b.Image && a.Resources == b.Resources && a.Snapshot == b.Snapshot && reflect.DeepEqual(a.Options, b.Options)
}

// dueHeap holds the workspaces that have something due, the next one first.
type dueHeap []*workspace

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due().Before(h[j].due()) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// place puts a workspace where it belongs, or takes it out when it has nothing due.
func (h *dueHeap) place(w *workspace) {
	switch {
	case w.due().IsZero() && w.index >= 0:
		heap.Remove(h, w.index)
	case w.due().IsZero():
	case w.index >= 0:
		heap.Fix(h, w.index)
	default:
		heap.Push(h, w)
	}
}

func (h *dueHeap) Push(x any) {
	w := x.(*workspace)
	w.index = len(*h)
	*h = append(*h, w)
}

func (h *dueHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.index = -1
	return w
}

// tokens finds workspaces by their tokens: the oldest of each; the others follow it as twins.
type tokens map[tokenKey]*workspace

type tokenKey struct{ owner, token string }

func (t tokens) add(w *workspace) {
	key := tokenKey{w.Owner, w.Token}
	last := t[key]
	if last == nil {
		t[key] = w
		return
	}
	for last.twin != nil {
		last = last.twin
	}
	last.twin = w
}

func (t tokens) remove(w *workspace) {
	key := tokenKey{w.Owner, w.Token}
	before := t[key]
	if before == w {
		if w.twin == nil {
			delete(t, key)
		} else {
			t[key] = w.twin
		}
		return
	}
	for before.twin != w {
		before = before.twin
	}
	before.twin = w.twin
}

// pace is the rate at which creates are accepted.
type pace struct {
	each  time.Duration // the price of one; 0: nothing
	saved time.Duration // how far ahead of now they may be paid for later
	paid  time.Time     // when all so far are paid for
}

func newPace(cfg Config) pace {
	if cfg.CreatesPerSecond <= 0 {
		return pace{}
	}
	each := time.Duration(float64(time.Second) / cfg.CreatesPerSecond)
	return pace{each: each, saved: each * time.Duration(max(1, cfg.CreateBurst)-1)}
}

// take accepts one create, or says how long to wait for it.
func (p *pace) take(now time.Time) (wait time.Duration) {
	if p.paid.Before(now) {
		p.paid = now
	}
	if wait := p.paid.Sub(now) - p.saved; wait > 0 {
		return wait
	}
	p.paid = p.paid.Add(p.each)
	return 0
}
