// Package run owns goroutines. It is the one place of the core with a go statement, so that every goroutine has a group
// that can end it and that waits for it.
package run

import (
	"context"
	"sync"
)

// Group is a set of goroutines with one context. It is made by New; its methods may be called from many goroutines.
type Group struct {
	// The context is what makes the goroutines a group: it is born and cancelled with it, and handed to each.
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu     sync.Mutex // protects the fields below
	n      int
	closed bool
	idle   chan struct{} // closed when n falls to zero after Close
}

// New returns an empty group whose context ends with Stop.
func New() *Group {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Group{ctx: ctx, cancel: cancel, idle: make(chan struct{})}
}

// Go runs fn in a goroutine of the group. After Close it does not, and says false.
func (g *Group) Go(fn func(ctx context.Context)) bool {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return false
	}
	g.n++
	g.mu.Unlock()
	go g.do(fn)
	return true
}

func (g *Group) do(fn func(ctx context.Context)) {
	defer g.leave()
	fn(g.ctx)
}

func (g *Group) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.n == 0 && g.closed {
		close(g.idle)
	}
}

// Len counts the goroutines.
func (g *Group) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

// Stop cancels the context of the group with cause. Later causes are ignored.
func (g *Group) Stop(cause error) { g.cancel(cause) }

// Done is closed when the group was stopped.
func (g *Group) Done() <-chan struct{} { return g.ctx.Done() }

// Close takes no more goroutines. It does not end those that run.
func (g *Group) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	if g.n == 0 {
		close(g.idle)
	}
}

// Wait waits until the group is closed and its last goroutine has ended, or ctx ends.
func (g *Group) Wait(ctx context.Context) error {
	select {
	case <-g.idle:
		return nil
	default:
	}
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
