package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Attacher finds a process that was started before, by this host process or an earlier one, running or ended.
// ErrNotFound when the workspace is gone or no process of that name was ever started in it.
//
// Without it the processes of a host that dies are lost: their runs start again in a new workspace.
type Attacher interface {
	Attach(ctx context.Context, id, name string) (Process, error)
}

// Lister yields all workspaces of an owner, in every state, page by page. An error is yielded once, last; what came
// before it is then not all there is. Called every few seconds while workspaces exist.
//
// Without it each workspace is observed with a Get of its own, and nothing can be swept that the Store does not know.
type Lister interface {
	List(ctx context.Context, owner string) iter.Seq2[Workspace, error]
}

// Finder finds what a Create with this token made; ErrNotFound when it made nothing, or it is gone. Called after
// ErrAmbiguous and after a crash.
//
// Without it Find looks through Lister.
type Finder interface {
	Find(ctx context.Context, owner, token string) (Workspace, error)
}

// Pauser stops a workspace in a way that Resume undoes. Both return when it is done, which may take minutes, and
// succeed when the workspace is in that state already. Pause of a kind that Capabilities does not list is ErrInvalid.
// Resume may be refused (ErrQuota, ErrNoCapacity) and may come back cold: warm is false when processes and memory did
// not survive.
//
// Without it nothing is paused: a pool's Paused is refused by New, a kept workspace is kept running.
type Pauser interface {
	Pause(ctx context.Context, id string, kind PauseKind) error
	Resume(ctx context.Context, id string) (warm bool, err error)
}

// PauseKind is what a pause keeps, and what it frees.
type PauseKind string

const (
	Frozen     PauseKind = "frozen"     // processes and memory kept where they are; CPU freed
	Hibernated PauseKind = "hibernated" // processes and memory kept on disk; CPU and memory freed
	DiskOnly   PauseKind = "disk"       // files kept; processes end
)

// Snapshotter makes an image of a workspace from which Spec.Snapshot boots. The workspace goes on. Deleting what is
// gone succeeds.
//
// Without it Agent.Setup runs in each new workspace.
type Snapshotter interface {
	Snapshot(ctx context.Context, id string) (snapshot string, err error)
	DeleteSnapshot(ctx context.Context, snapshot string) error
}

// Filer moves files as tar streams (no compression). Paths are slash-separated and relative to the workspace's home.
// Upload unpacks below dir, which it makes; an archive that leads outside is ErrInvalid and leaves nothing behind.
// Download packs a file or a folder, names relative to path's parent; ErrNotFound when there is no such path. The
// stream of Download is closed by the caller.
//
// Without it a task's payload comes by standard input alone, its result is its standard output, and the folders
// artifacts/ and checkpoint/ are not kept.
type Filer interface {
	Upload(ctx context.Context, id, dir string, tar io.Reader) error
	Download(ctx context.Context, id, path string) (tar io.ReadCloser, err error)
}

// Checker asks the workspace itself whether it is well. nil: it answers. ErrNotFound and ErrLost count against the
// workspace, any other error against the provider.
//
// Without it Check looks at Get.
type Checker interface {
	Check(ctx context.Context, id string) error
}

// Resizer changes the resources of a running workspace; ErrInvalid when that takes a new one.
//
// Without it a workspace keeps the size that it was made with.
type Resizer interface {
	Resize(ctx context.Context, id string, r Resources) error
}

// Watcher calls wake with the id of each workspace of owner that may have changed, until ctx ends or it returns an
// error; wake is quick and may be called from several goroutines. It is a hint: changes may be missed.
//
// Without it, and whenever it is silent, the dispatcher polls.
type Watcher interface {
	Watch(ctx context.Context, owner string, wake func(id string)) error
}

// KeepAliver sets the provider's own time-out of a workspace to ttl from now: the dead man's switch that ends a
// workspace when every dispatcher is gone. Called for each workspace about every third of ttl.
//
// Without it a workspace whose fleet never comes back stays until somebody deletes it.
type KeepAliver interface {
	KeepAlive(ctx context.Context, id string, ttl time.Duration) error
}

// Meter measures what a workspace has used since it was made.
//
// Without it CPU time is no sign of progress, and costs count what was asked for.
type Meter interface {
	Usage(ctx context.Context, id string) (Usage, error)
}

// Usage is what a workspace has used.
type Usage struct {
	CPUTime  time.Duration // of all its processes, also those that ended
	MemoryMB int           // now
	DiskMB   int           // now
}

// Quotaer tells the account's quota.
//
// Without it the quota is learnt from ErrQuota.
type Quotaer interface {
	Quota(ctx context.Context) (Quota, error)
}

// Quota of the account in the provider's Scope; 0: no limit.
type Quota struct {
	Workspaces, InUse int
}

// Namer keeps an owner's name for its Scope: the same one at each start, held by one live process at a time, so that
// what a process with an in-memory Store left behind is found again by the next one. release gives the name back.
//
// Without it a Dispatcher whose Store is in memory needs Config.Name.
type Namer interface {
	OwnerName(ctx context.Context) (name string, release func(), err error)
}

// ErrUnsupported is returned by the helpers of this package when p has no way to answer.
var ErrUnsupported = errors.New("provider: not supported by this provider")

// Find returns the workspace of owner that was made with token: by Finder, else by looking through Lister. ErrNotFound
// when there is none, ErrUnsupported when p has neither ability.
func Find(ctx context.Context, p Provider, owner, token string) (Workspace, error) {
	if f, ok := As[Finder](p); ok {
		return f.Find(ctx, owner, token)
	}
	l, ok := As[Lister](p)
	if !ok {
		return Workspace{}, ErrUnsupported
	}
	for w, err := range l.List(ctx, owner) {
		if err != nil {
			return Workspace{}, err
		}
		if w.Token == token {
			return w, nil
		}
	}
	return Workspace{}, &Error{Op: "find", Class: ErrNotFound}
}

// Check returns nil when the workspace answers: by Checker, else when Get shows it ready. A workspace that Get shows
// failed or on its way out is ErrLost; one that is paused or changing is ErrConflict.
func Check(ctx context.Context, p Provider, id string) error {
	if c, ok := As[Checker](p); ok {
		return c.Check(ctx, id)
	}
	w, err := p.Get(ctx, id)
	switch {
	case err != nil:
		return err
	case w.Ready:
		return nil
	case w.State == Failed || w.State == Deleting:
		return &Error{Op: "check", Class: ErrLost, Err: fmt.Errorf("workspace is %s", w.State)}
	}
	return &Error{Op: "check", Class: ErrConflict, Err: fmt.Errorf("workspace is %s", w.State)}
}
