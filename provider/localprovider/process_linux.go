package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// process is a process that was started, by whichever host process.
type process struct {
	claim
	supervisor supervisor
	workspace  *workspace // as it was found with the process
}

var _ provider.Process = (*process)(nil)

// Wait waits for the end of the supervisor and reads what it has recorded.
func (p *process) Wait(ctx context.Context) (provider.Exit, error) {
	exit, err := p.wait(ctx)
	return exit, fail("wait", err)
}

func (p *process) wait(ctx context.Context) (provider.Exit, error) {
	if err := ctx.Err(); err != nil {
		return provider.Exit{}, err
	}
	r, err := p.report()
	if err == nil && !r.ended {
		if err = p.waitEnd(ctx); err == nil {
			r, err = p.report()
		}
	}
	switch {
	case err != nil:
		return provider.Exit{}, err
	case !r.begun:
		return provider.Exit{}, refuse(provider.ErrLost, "the host process died before the process could run")
	case !r.ended:
		// What runs on must not: nobody could say any more how it ends.
		if err := p.deliver(ctx, syscall.SIGKILL); err != nil {
			return provider.Exit{}, err
		}
		return provider.Exit{}, refuse(provider.ErrLost, "the supervisor was killed")
	}
	exit := r.exit()
	exit.OOM = r.code != 0 && p.workspace.Groups.oomKills() > p.supervisor.oomKills
	return exit, nil
}

// waitEnd waits until the supervisor has ended.
func (p *process) waitEnd(ctx context.Context) error {
	root := p.workspace.root
	t, err := root.watcher.track(p.dir, p.supervisor, root.boot)
	if err != nil {
		return err
	}
	return root.watcher.wait(ctx, t)
}

// report reads what the supervisor has recorded; ErrNotFound when the workspace is gone.
func (p *process) report() (report, error) {
	r, err := readReport(p.file(exitFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = p.workspace.root.gone()
	}
	return r, err
}

// Signal signals the process and what descends from it. The supervisor is spared, and records the end. Without control
// groups a descendant is missed that has begun a session of its own and has lost its parents.
func (p *process) Signal(ctx context.Context, sig provider.Signal) error {
	if sig <= 0 || sig > 64 {
		return fail("signal", refuse(provider.ErrInvalid, "there is no signal %d", sig))
	}
	return fail("signal", p.deliver(ctx, syscall.Signal(sig)))
}

// deliver signals until the signal has reached somebody, since the supervisor may be about to start the process. A kill
// goes on until nobody is left, unless they are paused and end when they are resumed.
func (p *process) deliver(ctx context.Context, sig syscall.Signal) error {
	reached := false
	for pause := newPause(); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := p.report()
		if err != nil {
			return err
		}
		ended := r.ended || !p.supervisor.alive(p.workspace.root.boot)
		n, err := p.signal(ctx, sig)
		if err != nil {
			return err
		}
		reached = reached || n > 0
		switch {
		case n == 0 && (reached || ended):
			return nil
		case n > 0 && (sig != syscall.SIGKILL || p.workspace.state() == provider.Paused):
			return nil
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// signal signals once, and says how many it has reached.
func (p *process) signal(ctx context.Context, sig syscall.Signal) (int, error) {
	groups, spare := p.workspace.Groups, p.supervisor.pid
	if !groups.has(p.leaf) {
		f := p.workspace.processes().family([]supervisor{p.supervisor})
		f.whole = false
		if sig == syscall.SIGKILL {
			return f.kill(spare)
		}
		members, err := f.signal(sig, spare)
		return len(members), err
	}
	if sig == syscall.SIGKILL {
		return groups.kill(ctx, p.leaf, spare), nil
	}
	pids := others(groupPIDs(p.leaf), spare)
	for _, pid := range pids {
		syscall.Kill(pid, sig)
	}
	return len(pids), nil
}
