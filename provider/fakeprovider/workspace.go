package fakeprovider

import (
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
