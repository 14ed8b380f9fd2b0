package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// Pause freezes the processes of a workspace where they are, by its control group. Without one they are sent SIGSTOP,
// which their parents may notice.
func (p *Provider) Pause(ctx context.Context, id string, kind provider.PauseKind) error {
	if kind != provider.Frozen {
		return fail("pause", refuse(provider.ErrInvalid, "cannot pause in the kind %q", kind))
	}
	return fail("pause", p.change(ctx, id, func(w *workspace) error {
		err := os.WriteFile(w.file(pausedFile), []byte(w.root.boot), 0o600)
		if err == nil {
			err = w.processes().freeze(ctx)
		}
		if err != nil {
			w.processes().thaw()
			os.Remove(w.file(pausedFile))
		}
		return err
	}))
}

// Resume lets the processes of a workspace go on. It comes back cold when the machine has been started anew since.
func (p *Provider) Resume(ctx context.Context, id string) (warm bool, err error) {
	err = p.change(ctx, id, func(w *workspace) error {
		boot, err := os.ReadFile(w.file(pausedFile))
		if errors.Is(err, fs.ErrNotExist) {
			warm = true
			return nil
		}
		if err != nil {
			return err
		}
		warm = string(boot) == w.root.boot
		if err := w.processes().thaw(); err != nil {
			return err
		}
		return os.Remove(w.file(pausedFile))
	})
	return warm && err == nil, fail("resume", err)
}

// Resize changes the limits of a workspace where control groups keep them. A limit that the workspace was made without
// may need a group that it does not have, and so a new workspace: ErrInvalid. ErrConflict when it holds more memory than
// it is to have. DiskMB is not limited, so it only changes what is written down.
func (p *Provider) Resize(ctx context.Context, id string, want provider.Resources) error {
	if err := checkResources(want); err != nil {
		return fail("resize", err)
	}
	return fail("resize", p.change(ctx, id, func(w *workspace) error {
		if want.MemoryMB != w.Resources.MemoryMB && !w.Groups.limits("memory") || want.CPU != w.Resources.CPU && !w.Groups.limits("cpu") {
			return refuse(provider.ErrInvalid, "the workspace has no control group for this limit")
		}
		if held, ok := w.Groups.memory(); ok && want.MemoryMB > 0 && held > int64(want.MemoryMB)<<20 {
			return refuse(provider.ErrConflict, "the workspace holds %d MB", held>>20)
		}
		if err := w.Groups.limit(want, w.root.cfg.Processes); err != nil {
			w.Groups.limit(w.Resources, w.root.cfg.Processes)
			if errors.Is(err, syscall.EBUSY) {
				return &provider.Error{Class: provider.ErrConflict, Err: err}
			}
			return err
		}
		w.Resources = want
		return w.save()
	}))
}

// change changes the state of a workspace that is not being deleted, while nobody else does.
func (o *opener) change(ctx context.Context, id string, do func(*workspace) error) error {
	r, err := o.use(ctx)
	if err != nil {
		return err
	}
	w, err := r.find(id)
	if err != nil {
		return err
	}
	if err := w.whole(); err != nil {
		return err
	}
	w, lock, err := w.lock(ctx, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock(lock)
	if err := w.whole(); err != nil {
		return err
	}
	return do(w)
}
