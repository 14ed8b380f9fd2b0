package localprovider

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

const (
	chunkSize = 64 << 10

	// gatherFor is how long output is left to gather after a notice of it, so that a process which writes byte by byte
	// is not read byte by byte.
	gatherFor = 5 * time.Millisecond
)

// Output reads the files that the process writes to, and follows them until its end. What descendants write after that
// is not in it.
func (p *process) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	return func(yield func(provider.Chunk, error) bool) {
		goesOn := true
		err := p.follow(ctx, from, func(c provider.Chunk) bool {
			goesOn = yield(c, nil)
			return goesOn
		})
		if err != nil && goesOn {
			yield(provider.Chunk{}, fail("output", err))
		}
	}
}

func (p *process) follow(ctx context.Context, from provider.Offset, yield func(provider.Chunk) bool) error {
	if from.Stdout < 0 || from.Stderr < 0 {
		return refuse(provider.ErrInvalid, "offset %+v", from)
	}
	out := output{next: from, buffer: make([]byte, chunkSize)}
	for i, name := range []string{stdoutFile, stderrFile} {
		f, err := os.Open(p.file(name))
		if errors.Is(err, fs.ErrNotExist) {
			return p.workspace.root.gone()
		}
		if err != nil {
			return err
		}
		defer f.Close()
		out.files[i] = f
	}
	watcher := p.workspace.root.watcher
	t, err := watcher.track(p.dir, p.supervisor, p.workspace.root.boot)
	if err != nil {
		return err
	}
	for {
		// Both are asked before the reading: what comes after that is noticed.
		ended := t.hasEnded()
		grown := watcher.growth(t)
		if goesOn, err := out.read(ctx, ended, yield); err != nil || !goesOn {
			return err
		}
		if ended {
			_, err := p.report() // not found when the workspace has gone with it
			return err
		}
		if err := watcher.waitGrowth(ctx, t, grown); err != nil {
			return err
		}
	}
}

// output is the reading of the output by one reader.
type output struct {
	files  [2]*os.File
	next   provider.Offset
	buffer []byte
}

// read reads what there is. At the end of the process that is a fixed amount, whoever goes on writing.
func (o *output) read(ctx context.Context, ended bool, yield func(provider.Chunk) bool) (goesOn bool, err error) {
	offsets := [2]*int64{&o.next.Stdout, &o.next.Stderr}
	limits := [2]int64{math.MaxInt64, math.MaxInt64}
	if ended {
		for i, f := range o.files {
			info, err := f.Stat()
			if err != nil {
				return false, err
			}
			limits[i] = info.Size()
		}
	}
	for more := true; more; {
		more = false
		for i, f := range o.files {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			room := min(int64(len(o.buffer)), limits[i]-*offsets[i])
			if room <= 0 {
				continue
			}
			n, err := f.ReadAt(o.buffer[:room], *offsets[i])
			if err != nil && err != io.EOF {
				return false, err
			}
			if n == 0 {
				continue
			}
			more = true
			*offsets[i] += int64(n)
			if !yield(provider.Chunk{Stream: provider.Stdout + provider.Stream(i), Data: o.buffer[:n], Next: o.next}) {
				return false, nil
			}
		}
	}
	return true, nil
}

// hasEnded says whether the supervisor has ended.
func (t *tracker) hasEnded() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// waitGrowth waits for more output, or the end of the supervisor.
func (w *watcher) waitGrowth(ctx context.Context, t *tracker, grown <-chan struct{}) error {
	select {
	case <-grown:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return errClosed
	}
	gather := time.NewTimer(gatherFor)
	defer gather.Stop()
	select {
	case <-gather.C:
		return nil
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return errClosed
	}
}
