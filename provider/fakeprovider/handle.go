package fakeprovider

import (
	"context"
	"iter"

	"github.com/freshet-dev/freshet/provider"
)

// handle is a process as a Provider gives it to its caller.
type handle struct {
	c *client
	p *process
}

func (h handle) call(op string) Call {
	return Call{Op: op, ID: h.p.w.ID, Name: h.p.name}
}

// Output implements provider.Process.
func (h handle) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	return func(yield func(provider.Chunk, error) bool) {
		f, err := h.c.begin(ctx, h.call("output"))
		if err != nil {
			yield(provider.Chunk{}, err)
			return
		}
		for {
			chunk, changed, err := h.p.read(from)
			switch {
			case err != nil:
				yield(provider.Chunk{}, err)
				return
			case chunk.Stream != 0:
				if !yield(chunk, nil) {
					return
				}
				from = chunk.Next
				if f.After == nil && f.AnswerDelay == 0 {
					continue
				}
				if err := h.c.answer(ctx, h.call("output"), f); err != nil {
					yield(provider.Chunk{}, err)
					return
				}
			case changed == nil:
				return
			default:
				if err := await(ctx, h.c, "output", changed); err != nil {
					yield(provider.Chunk{}, err)
					return
				}
			}
		}
	}
}

// Wait implements provider.Process.
func (h handle) Wait(ctx context.Context) (provider.Exit, error) {
	return do(ctx, h.c, h.call("wait"), func(Fault) (provider.Exit, error) {
		if err := await(ctx, h.c, "wait", h.p.done); err != nil {
			return provider.Exit{}, err
		}
		return h.p.result()
	})
}

// Signal implements provider.Process.
func (h handle) Signal(ctx context.Context, sig provider.Signal) error {
	return act(ctx, h.c, h.call("signal"), func(Fault) error {
		c := h.p.w.cloud
		c.lock() // so that a workspace that has just expired is gone
		defer c.unlock()
		return h.p.signal(sig)
	})
}

func (p *process) result() (provider.Exit, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.gone:
		return provider.Exit{}, &provider.Error{Op: "wait", Class: provider.ErrNotFound}
	case p.lost:
		return provider.Exit{}, &provider.Error{Op: "wait", Class: provider.ErrLost}
	}
	return p.exit, nil
}

// read returns the next piece of output after from; without one, a channel that is closed when there may be more; and
// nil when there will be none.
func (p *process) read(from provider.Offset) (provider.Chunk, <-chan struct{}, error) {
	const most = 64 << 10
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return provider.Chunk{}, nil, &provider.Error{Op: "output", Class: provider.ErrNotFound}
	}
	if from.Stdout < 0 || from.Stderr < 0 {
		return provider.Chunk{}, nil, failure("output", provider.ErrInvalid, "negative offset")
	}
	if n := int64(len(p.out[0])); n > from.Stdout {
		end := min(n, from.Stdout+most)
		next := provider.Offset{Stdout: end, Stderr: from.Stderr}
		return provider.Chunk{Stream: provider.Stdout, Data: p.out[0][from.Stdout:end:end], Next: next}, nil, nil
	}
	if n := int64(len(p.out[1])); n > from.Stderr {
		end := min(n, from.Stderr+most)
		next := provider.Offset{Stdout: from.Stdout, Stderr: end}
		return provider.Chunk{Stream: provider.Stderr, Data: p.out[1][from.Stderr:end:end], Next: next}, nil, nil
	}
	if p.ended {
		return provider.Chunk{}, nil, nil
	}
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return provider.Chunk{}, p.changed, nil
}
