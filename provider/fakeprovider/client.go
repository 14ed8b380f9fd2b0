package fakeprovider

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// client is one connection to a cloud: all calls pass it, and may be counted, delayed, spoiled and refused by it.
type client struct {
	cloud *cloud

	mu      sync.Mutex // protects the fields below
	calls   map[string]int
	fault   func(Call) Fault
	down    error         // every call fails with it; nil: up
	downed  chan struct{} // closed while down
	crashed bool          // down for good
}

func newClient(c *cloud, fault func(Call) Fault) *client {
	return &client{cloud: c, calls: make(map[string]int), fault: fault, downed: make(chan struct{})}
}

// do makes one call: fn is its effect at the cloud.
func do[T any](ctx context.Context, c *client, call Call, fn func(Fault) (T, error)) (T, error) {
	var none T
	f, err := c.begin(ctx, call)
	if err != nil {
		return none, err
	}
	v, err := fn(f)
	if err != nil {
		return none, err
	}
	if err := c.answer(ctx, call, f); err != nil {
		return none, err
	}
	return v, nil
}

// act is do for calls that answer with an error alone.
func act(ctx context.Context, c *client, call Call, fn func(Fault) error) error {
	_, err := do(ctx, c, call, func(f Fault) (struct{}, error) { return struct{}{}, fn(f) })
	return err
}

// begin is all that can happen to a call before its effect.
func (c *client) begin(ctx context.Context, call Call) (Fault, error) {
	if err := ctx.Err(); err != nil {
		return Fault{}, err
	}
	c.mu.Lock()
	c.calls[call.Op]++
	call.N = c.calls[call.Op]
	down, fault := c.down, c.fault
	c.mu.Unlock()
	if down != nil {
		return Fault{}, classed(call.Op, down)
	}
	if fault == nil {
		return Fault{}, nil
	}
	f := fault(call)
	if f.Delay > 0 {
		if err := c.pause(ctx, call.Op, f.Delay); err != nil {
			return Fault{}, err
		}
	}
	if f.Vanish {
		c.cloud.vanish(call.ID)
	}
	if f.Fail && call.ID != "" {
		c.cloud.fail(call.ID)
	}
	if f.Before != nil {
		return Fault{}, classed(call.Op, f.Before)
	}
	return f, nil
}

// answer is all that can happen to a call between its effect and its answer.
func (c *client) answer(ctx context.Context, call Call, f Fault) error {
	if f.AnswerDelay > 0 {
		if err := c.pause(ctx, call.Op, f.AnswerDelay); err != nil {
			return interrupted(call.Op, err)
		}
	}
	if f.After != nil {
		return classed(call.Op, f.After)
	}
	return nil
}

// pause waits for d, unless ctx ends or the connection breaks before.
func (c *client) pause(ctx context.Context, op string, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	return await(ctx, c, op, t.C)
}

// await waits until ch delivers, ctx ends or the connection breaks.
func await[T any](ctx context.Context, c *client, op string, ch <-chan T) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.broken():
		return c.outage(op)
	}
}

func (c *client) broken() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.downed
}

// outage is the error of a call that was under way when the connection broke.
func (c *client) outage(op string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down == nil { // up again meanwhile
		return classed(op, provider.ErrUnavailable)
	}
	return classed(op, c.down)
}

func (c *client) setDown(err error, forGood bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return
	}
	c.crashed = forGood
	if c.down != nil {
		c.downed = make(chan struct{})
	}
	c.down = err
	if err != nil {
		close(c.downed)
	}
}

func (c *client) setFault(fault func(Call) Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = fault
}

func (c *client) counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.calls)
}

// failure is an error of a class with a cause.
func failure(op string, class error, format string, args ...any) error {
	return &provider.Error{Op: op, Class: class, Err: fmt.Errorf(format, args...)}
}

// classed wraps a bare class; every other error stays as it is.
func classed(op string, err error) error {
	if isClass(err) {
		return &provider.Error{Op: op, Class: err}
	}
	return err
}

func isClass(err error) bool {
	switch err {
	case provider.ErrNotFound, provider.ErrConflict, provider.ErrExists, provider.ErrQuota, provider.ErrNoCapacity,
		provider.ErrRateLimited, provider.ErrUnavailable, provider.ErrAmbiguous, provider.ErrSuspended,
		provider.ErrUnauthorized, provider.ErrInvalid, provider.ErrLost:
		return true
	}
	return false
}

// interrupted is the error of a call that was cut off after its effect, by err.
func interrupted(op string, err error) error {
	if !changes(op) {
		return err
	}
	return &provider.Error{Op: op, Class: provider.ErrAmbiguous, Err: err}
}
