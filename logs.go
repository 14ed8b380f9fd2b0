package freshet

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-dev/freshet/store"
)

// Logs copies what is kept of a task's log from offset on to w, and returns the offset to go on from. Beyond 10 MiB the
// oldest bytes are dropped; an offset among them begins at the oldest that is kept.
func (d *Dispatcher) Logs(ctx context.Context, id string, offset int64, w io.Writer) (int64, error) {
	if err := d.ready(ctx); err != nil {
		return offset, err
	}
	if _, err := d.task(ctx, store.TaskQuery{IDs: []string{id}}); err != nil {
		return offset, err
	}
	return d.copyLog(ctx, id, offset, w)
}

// FollowLogs does what Logs does, and goes on until the task has finished and all is copied.
func (d *Dispatcher) FollowLogs(ctx context.Context, id string, offset int64, w io.Writer) (int64, error) {
	err := d.follow(ctx, id, func() (bool, bool, error) {
		r, err := d.task(ctx, store.TaskQuery{IDs: []string{id}})
		if err != nil {
			return false, false, err
		}
		moved := false
		if r.LogSize > offset {
			next, err := d.copyLog(ctx, id, offset, w)
			moved, offset = next > offset, next
			if err != nil {
				return false, moved, err
			}
		}
		return r.State.Finished(), moved, nil
	})
	return offset, err
}

// copyLog copies segment by segment. One that was replaced between the look at the record and the read is looked up anew.
func (c *core) copyLog(ctx context.Context, id string, offset int64, w io.Writer) (int64, error) {
	for retries := 0; ; retries++ {
		segments, err := logSegments(ctx, c.store, id)
		if err != nil {
			return offset, err
		}
		offset, err = c.copySegments(ctx, segments, offset, w)
		if !errors.Is(err, store.ErrNotFound) || retries >= 10 {
			return offset, err
		}
	}
}

func (c *core) copySegments(ctx context.Context, segments []segment, offset int64, w io.Writer) (int64, error) {
	for _, s := range segments {
		if s.start+s.size <= offset {
			continue
		}
		offset = max(offset, s.start)
		r, err := c.blobs.Get(ctx, s.blob)
		if err != nil {
			return offset, err
		}
		_, err = io.CopyN(io.Discard, r, offset-s.start)
		var n int64
		if err == nil {
			n, err = io.Copy(w, r)
		}
		closeErr := r.Close()
		offset += n
		if err := errors.Join(err, closeErr); err != nil {
			return offset, fmt.Errorf("freshet: log segment %s: %w", s.blob, err)
		}
	}
	return offset, nil
}

// Artifacts opens the tar of what the task left in its folder artifacts/, names relative to that folder's parent. The
// caller closes it. ErrNotFound if there is no such task, or it left none.
func (d *Dispatcher) Artifacts(ctx context.Context, id string) (io.ReadCloser, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	entries, err := d.store.Entries(ctx, id, store.EntryArtifact)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, ErrNotFound
	}
	return d.blobs.Get(ctx, entries[len(entries)-1].Blob)
}
