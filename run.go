package freshet

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"strconv"
	"strings"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// Run is what a handler is given: one try at a task, in a workspace of its own. Its methods may be called from several
// goroutines, as long as the handler has not returned.
type Run struct {
	ID      string // task and fence; for what must not happen twice further down
	Task    Task
	Attempt int // from 1

	run *liveRun
	env map[string]string // agent's, secrets, FRESHET_*
}

// newRun asks for the secrets, and finds what an earlier run has left.
func (r *liveRun) newRun(ctx context.Context) (*Run, error) {
	for _, load := range []func(context.Context) error{r.log.load, r.loadCheckpoint, r.loadReached} {
		if err := r.insist(ctx, load); err != nil {
			return nil, err
		}
	}
	public := &Run{ID: fmt.Sprintf("%s-%d", r.task.ID, r.lease.Fence), Task: taskOf(&r.task), Attempt: r.task.Attempt, run: r}
	if len(r.agent.Env) > 0 || r.agent.Secrets != nil {
		public.env = maps.Clone(r.agent.Env)
	}
	if r.agent.Secrets != nil {
		secrets, err := r.agent.Secrets(ctx, public.Task)
		if err != nil {
			return nil, fmt.Errorf("secrets: %w", err)
		}
		if public.env == nil {
			public.env = map[string]string{}
		}
		maps.Copy(public.env, secrets)
	}
	return public, nil
}

// Resumed says whether an earlier run of this task had reached its handler, in this process or another, and gives the
// state of the last checkpoint that is whole; nil: none. Where Exec finds its processes again, the workspace is the same.
func (r *Run) Resumed() (state []byte, ok bool) {
	r.run.mu.Lock()
	defer r.run.mu.Unlock()
	if c := r.run.kept; c != nil {
		return c.state, true
	}
	return nil, r.run.resumed
}

// loadReached finds out whether an earlier run of the task had reached its handler.
func (r *liveRun) loadReached(ctx context.Context) error {
	resumed := r.reached
	if !resumed && r.task.Attempt > 1 {
		events, err := r.store.Events(ctx, r.task.ID, 0, store.MaxEvents)
		if err != nil {
			return err
		}
		for i := range events {
			resumed = resumed || events[i].State == store.StateRunning && events[i].Attempt < r.task.Attempt
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumed = resumed
	return nil
}

// Progress is a sign of life, and a note of at most 1 KiB in the user's status.
func (r *Run) Progress(note string) { r.run.note(note) }

// Stopping is closed when this process has begun to shut down: now is the time for a checkpoint. The context of the
// handler ends later.
func (r *Run) Stopping() <-chan struct{} { return r.run.stopping }

// Logger is the dispatcher's, with the task, agent, tenant and attempt.
func (r *Run) Logger() *slog.Logger {
	t := r.run.task
	return r.run.core.log.With("task", t.ID, "agent", t.Agent, "tenant", t.Tenant, "attempt", t.Attempt)
}

// Upload copies files into the workspace, below dir, a slash-separated path relative to its home. It needs a provider
// that moves files (provider.ErrUnsupported). While the provider is away it waits; a workspace that is gone is
// ErrWorkspaceLost.
func (r *Run) Upload(ctx context.Context, dir string, files fs.FS) error {
	if err := checkPath(dir); err != nil {
		return err
	}
	var unread error // the fault of files, which no repetition mends
	err := r.run.persist(ctx, func() error {
		reader, writer := io.Pipe()
		read := make(chan error, 1)
		if !r.run.work.Go(func(context.Context) {
			w := tar.NewWriter(writer)
			err := w.AddFS(files)
			if err == nil {
				err = w.Close()
			}
			read <- err
			writer.CloseWithError(err)
		}) {
			return ErrClosed
		}
		err := r.run.upload(ctx, dir, reader)
		_ = reader.CloseWithError(errUploaded) // ends the writer, should it still run
		if readErr := <-read; err != nil && readErr != nil && !errors.Is(readErr, errUploaded) {
			unread = readErr
			return nil
		}
		return err
	})
	r.run.sign()
	return errors.Join(err, unread)
}

// errUploaded ends the packing of files that nobody reads any more.
var errUploaded = errors.New("freshet: upload has ended")

// Download opens a tar of a file or folder in the workspace, names relative to its parent. The caller closes it.
// provider.ErrNotFound if there is none, ErrWorkspaceLost if the workspace is gone. While the provider is away it waits.
func (r *Run) Download(ctx context.Context, path string) (files io.ReadCloser, err error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	filer, ok := provider.As[provider.Filer](r.run.provider)
	if !ok {
		return nil, provider.ErrUnsupported
	}
	var missing error
	err = r.run.persist(ctx, func() (err error) {
		files, err = filer.Download(ctx, r.run.workspace().ID, path)
		if errors.Is(err, provider.ErrNotFound) { // the path, or the workspace
			absent := err
			if _, err = r.run.provider.Get(ctx, r.run.workspace().ID); err == nil {
				missing = absent
			}
		}
		return err
	})
	r.run.sign()
	return files, errors.Join(err, missing)
}

func (r *liveRun) upload(ctx context.Context, dir string, files io.Reader) error {
	filer, ok := provider.As[provider.Filer](r.provider)
	if !ok {
		return provider.ErrUnsupported
	}
	err := filer.Upload(ctx, r.workspace().ID, dir, files)
	if err == nil {
		r.touch()
	}
	return err
}

// persist repeats a transfer of files through any silence of the provider.
func (r *liveRun) persist(ctx context.Context, transfer func() error) error {
	for failures := 0; ; failures++ {
		err := transfer()
		if err == nil {
			return nil
		}
		if fault := r.maker.fault(ctx, r.workspace().ID, err); fault != nil {
			return fault
		}
		if !r.maker.again(ctx, err, failures) {
			return orCause(ctx, err)
		}
	}
}

// checkPath refuses paths that lead out of a workspace's home.
func checkPath(p string) error {
	clean := path.Clean(p)
	if p == "" || path.IsAbs(p) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(p, 0) {
		return invalid("path %q must be relative, below the workspace's home", clip(p, 128))
	}
	return nil
}

// dir is the task's own folder in its workspace, relative to the home.
func (r *liveRun) dir() string { return ".freshet/" + r.task.ID }

func (r *liveRun) hasDir() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dirMade
}

// makeDir makes the task's folder: checkpoint/ as last saved, artifacts/, and last the payload, which marks the folder as
// whole. In a workspace that an earlier owner of this run has used, it may be there.
func (r *liveRun) makeDir(ctx context.Context) error {
	if _, ok := provider.As[provider.Filer](r.provider); !ok || r.hasDir() {
		return nil
	}
	made := false
	if r.adopted {
		err := r.persist(ctx, func() (err error) { made, err = r.dirThere(ctx); return err })
		if err != nil {
			return err
		}
	}
	if !made {
		for _, fill := range []func(context.Context) error{r.restore, r.seed} {
			if err := r.persist(ctx, func() error { return fill(ctx) }); err != nil {
				return err
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirMade = true
	return nil
}

// dirThere says whether the task's folder is there, and whole.
func (r *liveRun) dirThere(ctx context.Context) (bool, error) {
	filer, ok := provider.As[provider.Filer](r.provider)
	if !ok {
		return false, nil
	}
	files, err := filer.Download(ctx, r.workspace().ID, r.dir()+"/payload")
	if err != nil {
		if errors.Is(err, provider.ErrNotFound) { // the file, or the workspace
			_, err = r.provider.Get(ctx, r.workspace().ID)
		}
		return false, err
	}
	return true, files.Close()
}

// environ is what a process of this run finds in its environment; cmd's own wins.
func (r *Run) environ(cmd Cmd) map[string]string {
	l := r.run
	env := make(map[string]string, len(r.env)+len(cmd.Env)+5)
	maps.Copy(env, r.env)
	env["FRESHET_TASK_ID"] = l.task.ID
	env["FRESHET_RUN_ID"] = r.ID
	env["FRESHET_TENANT"] = l.task.Tenant
	env["FRESHET_ATTEMPT"] = strconv.Itoa(r.Attempt)
	if l.hasDir() {
		env["FRESHET_DIR"] = path.Join(l.workspace().Home, l.dir())
	}
	maps.Copy(env, cmd.Env)
	return env
}
