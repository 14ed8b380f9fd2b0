package freshet

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// checkpoint is one that is whole: its record names bytes that are there.
type checkpoint struct {
	n     int64
	name  string
	state []byte
	blob  string // of the folder; "": none was kept
	size  int64
}

// Checkpoint saves state (at most 1 MiB) and the folder checkpoint/ of the workspace (at most 1 GiB). When it returns nil,
// a later run of the task finds both. ErrLeaseLost: another process has the task; return.
func (r *Run) Checkpoint(ctx context.Context, state []byte) error {
	if len(state) > maxState {
		return invalid("checkpoint state has %d bytes, more than %d", len(state), maxState)
	}
	r.run.sign()
	return r.run.save(ctx, append([]byte(nil), state...), true)
}

// save writes the next checkpoint. The record is written last, so one that is torn is never seen; the one before it is
// kept until then, and one more in case its bytes were damaged. Without setState the last state stays.
func (r *liveRun) save(ctx context.Context, state []byte, setState bool) error {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	if !r.log.beginWrite(ctx) {
		return context.Cause(ctx)
	}
	defer r.log.endWrite()
	r.mu.Lock()
	last := r.kept
	r.mu.Unlock()
	next := &checkpoint{n: 1, state: state}
	if last != nil {
		next.n = last.n + 1
		if !setState {
			next.state = last.state
		}
	}
	next.name = fmt.Sprintf("%012d", next.n)
	if err := r.saveFolder(ctx, next); err != nil {
		return err
	}
	var drop []store.EntryKey
	var blobs []string
	var entries []store.Entry
	err := bounded(ctx, func(ctx context.Context) (err error) {
		entries, err = r.store.Entries(ctx, r.task.ID, store.EntryCheckpoint)
		return err
	})
	if err != nil {
		return err
	}
	for i := 0; i < len(entries)-1; i++ {
		drop = append(drop, store.EntryKey{Kind: store.EntryCheckpoint, Name: entries[i].Name})
		if entries[i].Blob != "" {
			blobs = append(blobs, entries[i].Blob)
		}
	}
	err = bounded(ctx, func(ctx context.Context) error {
		return r.store.Save(ctx, r.lease, store.Save{Drop: drop, Entries: []store.Entry{
			{Kind: store.EntryCheckpoint, Name: next.name, Data: next.state, Blob: next.blob, Size: next.size},
		}})
	})
	if err != nil {
		if errors.Is(err, store.ErrLeaseLost) {
			r.stop(ErrLeaseLost)
		}
		return err
	}
	r.mu.Lock()
	r.kept = next
	r.mu.Unlock()
	if len(blobs) > 0 {
		if err := r.blobs.Delete(ctx, blobs...); err != nil {
			r.core.log.Warn("old checkpoints not deleted", "task", r.task.ID, "err", err)
		}
	}
	return nil
}

// saveFolder keeps the folder checkpoint/, if there is one.
func (r *liveRun) saveFolder(ctx context.Context, next *checkpoint) error {
	filer, ok := provider.As[provider.Filer](r.provider)
	if !ok || !r.hasDir() {
		return nil
	}
	files, err := filer.Download(ctx, r.workspace().ID, r.dir()+"/checkpoint")
	if errors.Is(err, provider.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer files.Close()
	counted := &counter{r: files, most: maxBlob}
	next.blob = blobKey(r.lease, "checkpoint", next.name)
	err = r.blobs.Put(ctx, next.blob, counted)
	next.size = counted.n
	return err
}

// counter counts what is read, and refuses to read more than most.
type counter struct {
	r       io.Reader
	n, most int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.n > c.most {
		return n, invalid("more than %d bytes to keep", c.most)
	}
	return n, err
}

// loadCheckpoint finds the newest checkpoint that is whole, of this task or of the one that it repeats.
func (r *liveRun) loadCheckpoint(ctx context.Context) error {
	if !r.adopted && r.task.Attempt <= 1 && r.task.Parent == "" && r.task.Interruptions == 0 {
		return nil // nothing can be there, and a warm start is to be quick
	}
	for _, task := range []string{r.task.ID, r.task.Parent} {
		if task == "" {
			continue
		}
		entries, err := r.store.Entries(ctx, task, store.EntryCheckpoint)
		if err != nil {
			return err
		}
		for i := len(entries) - 1; i >= 0; i-- {
			c := &checkpoint{name: entries[i].Name, state: entries[i].Data, blob: entries[i].Blob, size: entries[i].Size}
			if whole, err := r.whole(ctx, c); err != nil {
				return err
			} else if !whole {
				r.core.log.Warn("checkpoint is torn", "task", task, "checkpoint", c.name)
				continue
			}
			if task == r.task.ID {
				_, _ = fmt.Sscanf(c.name, "%d", &c.n)
			}
			r.mu.Lock()
			r.kept = c
			r.mu.Unlock()
			return nil
		}
	}
	return nil
}

// whole reads a checkpoint's folder through: all its bytes are there.
func (r *liveRun) whole(ctx context.Context, c *checkpoint) (bool, error) {
	if c.blob == "" {
		return true, nil
	}
	b, err := r.blobs.Get(ctx, c.blob)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer b.Close()
	n, err := io.Copy(io.Discard, b)
	return err == nil && n == c.size, nil
}

// restore puts the folder checkpoint/ of the last checkpoint into a new workspace.
func (r *liveRun) restore(ctx context.Context) error {
	r.mu.Lock()
	c := r.kept
	r.mu.Unlock()
	if c == nil || c.blob == "" {
		return nil
	}
	files, err := r.blobs.Get(ctx, c.blob)
	if err != nil {
		return err
	}
	defer files.Close()
	return r.upload(ctx, r.dir(), files)
}

// watchCheckpoint saves the folder at the agent's interval.
func (r *liveRun) watchCheckpoint() {
	if r.agent.Checkpoint <= 0 {
		return
	}
	r.after(r.agent.Checkpoint, func(ctx context.Context) {
		if !r.handlingNow() {
			return
		}
		r.saveQuietly(ctx)
		r.watchCheckpoint()
	})
}

// keepWork saves what can be saved before a run is ended by force, if its workspace still answers.
func (r *liveRun) keepWork(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	r.saveQuietly(ctx)
	r.log.flush(ctx)
}

const keepTimeout = 30 * time.Second

func (r *liveRun) saveQuietly(ctx context.Context) {
	if !r.hasDir() {
		return
	}
	if err := r.save(ctx, nil, false); err != nil && ctx.Err() == nil {
		r.core.log.Warn("checkpoint not saved", "task", r.task.ID, "err", err)
	}
}

// checkpointed says whether a later run would have something to go on from.
func (r *liveRun) checkpointed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept != nil
}

// collect keeps what the agent left in artifacts/, before the workspace goes.
func (r *liveRun) collect(ctx context.Context) {
	filer, ok := provider.As[provider.Filer](r.provider)
	if !ok || !r.hasDir() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	if err := r.collectFrom(ctx, filer); err != nil {
		r.core.log.Warn("artifacts not kept", "task", r.task.ID, "err", err)
	}
}

func (r *liveRun) collectFrom(ctx context.Context, filer provider.Filer) error {
	files, err := filer.Download(ctx, r.workspace().ID, r.dir()+"/artifacts")
	if errors.Is(err, provider.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer files.Close()
	head, some, err := peekFiles(files)
	if err != nil || !some {
		return err
	}
	counted := &counter{r: io.MultiReader(head, files), most: maxBlob}
	key := blobKey(r.lease, "artifacts", "tar")
	if err := r.blobs.Put(ctx, key, counted); err != nil {
		return err
	}
	return r.saveEntries(ctx, store.Entry{Kind: store.EntryArtifact, Name: fmt.Sprintf("%012d", r.lease.Fence), Blob: key, Size: counted.n})
}

// peekFiles says whether a tar holds anything but folders. head is what was read of it to find out.
func peekFiles(files io.Reader) (head io.Reader, some bool, err error) {
	var seen bytes.Buffer
	t := tar.NewReader(io.TeeReader(files, &seen))
	for {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, false, nil
		case err != nil:
			return nil, false, err
		case h.Typeflag != tar.TypeDir:
			return &seen, true, nil
		}
	}
}
