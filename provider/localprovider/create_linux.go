package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Create makes the workspace before it returns, with a copy of the image or snapshot: it is Ready then. When ctx ends
// before that, nothing was made. Spec.Options must be nil.
func (p *Provider) Create(ctx context.Context, req provider.CreateRequest) (provider.Workspace, error) {
	r, err := p.use(ctx)
	if err == nil {
		err = check(req)
	}
	if err != nil {
		return provider.Workspace{}, fail("create", err)
	}
	r.sweepStagingIfDue()
	w, err := r.create(ctx, req)
	if err != nil {
		return provider.Workspace{}, fail("create", err)
	}
	return w.view(), nil
}

func check(req provider.CreateRequest) error {
	const small = "abcdefghijklmnopqrstuvwxyz0123456789"
	const large = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	switch {
	case !isToken(req.Token):
		return refuse(provider.ErrInvalid, "token %q: want 1 to 26 of [a-z0-9]", req.Token)
	case len(req.Owner) > 26 || strings.Trim(req.Owner, small+"-") != "":
		return refuse(provider.ErrInvalid, "owner %q: want at most 26 of [a-z0-9-]", req.Owner)
	case len(req.Agent) > 40 || strings.Trim(req.Agent, small+large+"._-") != "":
		return refuse(provider.ErrInvalid, "agent %q: want at most 40 of [a-zA-Z0-9._-]", req.Agent)
	case req.Spec.Options != nil:
		return refuse(provider.ErrInvalid, "there are no options")
	}
	return checkResources(req.Spec.Resources)
}

func checkResources(want provider.Resources) error {
	if !(want.CPU >= 0 && want.CPU <= 1e6) || want.MemoryMB < 0 || want.MemoryMB > 1<<40 || want.DiskMB < 0 {
		return refuse(provider.ErrInvalid, "resources %+v", want)
	}
	return nil
}

// create makes a workspace, or returns the one that was made with this token.
func (r *root) create(ctx context.Context, req provider.CreateRequest) (*workspace, error) {
	for {
		w, err := r.find(req.Token)
		if err == nil {
			if w.Owner != req.Owner || w.Agent != req.Agent || w.Spec != req.Spec {
				return nil, refuse(provider.ErrExists, "token %q has been used for another request", req.Token)
			}
			return w, nil
		}
		if !errors.Is(err, provider.ErrNotFound) {
			return nil, err
		}
		w, err = r.make(ctx, req)
		if !errors.Is(err, fs.ErrExist) { // otherwise another Create of this token was quicker
			return w, err
		}
	}
}

// make makes a workspace in staging and puts it in its place; fs.ErrExist when the place is taken. The control groups
// come after the folder, and go before it, so that none is left without a workspace.
func (r *root) make(ctx context.Context, req provider.CreateRequest) (*workspace, error) {
	dir, release, err := r.stage(req.Token)
	if err != nil {
		return nil, err
	}
	defer release()
	w := &workspace{root: r, dir: dir, record: record{
		Token:     req.Token,
		Owner:     req.Owner,
		Agent:     req.Agent,
		Spec:      req.Spec,
		Resources: req.Spec.Resources,
		Created:   time.Now(),
		Groups:    r.planGroups(req.Token, req.Spec.Resources),
	}}
	for _, folder := range []string{homeFolder, tmpFolder, procFolder} {
		if err := os.Mkdir(w.file(folder), 0o700); err != nil {
			return nil, err
		}
	}
	if err := r.fill(ctx, req.Spec, w.file(homeFolder)); err != nil {
		return nil, err
	}
	if err := w.save(); err != nil {
		return nil, err
	}
	w.dir = r.path(workFolder, req.Token)
	if err := os.Rename(dir, w.dir); err != nil {
		return nil, err
	}
	if err := syncFolder(r.path(workFolder)); err != nil {
		return nil, &provider.Error{Class: provider.ErrAmbiguous, Err: err}
	}
	w.Groups.make()
	w.Groups.limit(w.Resources, r.cfg.Processes) // where the system allows
	return w, nil
}

// fill copies what a spec boots from into the home.
func (r *root) fill(ctx context.Context, spec provider.Spec, home string) error {
	var from *os.Root
	var err error
	switch {
	case spec.Snapshot != "":
		from, err = r.openSnapshot(spec.Snapshot)
	case spec.Image == "":
		return nil
	case r.cfg.Images != "":
		var images *os.Root
		if images, err = os.OpenRoot(r.cfg.Images); err != nil {
			return err
		}
		defer images.Close()
		from, err = images.OpenRoot(spec.Image)
	case !filepath.IsAbs(spec.Image):
		return refuse(provider.ErrInvalid, "image %q is not an absolute path", spec.Image)
	default:
		from, err = os.OpenRoot(spec.Image)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || outside(err) {
		return &provider.Error{Class: provider.ErrInvalid, Err: err}
	}
	if err != nil {
		return err
	}
	defer from.Close()
	return copyTree(ctx, from, home)
}

// Get observes a workspace. One whose time is over is deleted by it.
func (p *Provider) Get(ctx context.Context, id string) (provider.Workspace, error) {
	r, err := p.open()
	if err != nil {
		return provider.Workspace{}, fail("get", err)
	}
	w, err := r.observe(ctx, id)
	if err != nil {
		return provider.Workspace{}, fail("get", err)
	}
	return w.view(), nil
}

// Find is Get, since the token is the id.
func (p *Provider) Find(ctx context.Context, owner, token string) (provider.Workspace, error) {
	w, err := p.Get(ctx, token)
	if err == nil && w.Owner != owner {
		err = &provider.Error{Op: "find", Class: provider.ErrNotFound}
	}
	if err != nil {
		return provider.Workspace{}, err
	}
	return w, nil
}

// List yields the workspaces of an owner. It also ends, for all owners, what is past its time, goes on with deletions
// that a process which died has begun, and removes what such a process has left half-made.
func (p *Provider) List(ctx context.Context, owner string) iter.Seq2[provider.Workspace, error] {
	return func(yield func(provider.Workspace, error) bool) {
		r, err := p.open()
		if err != nil {
			yield(provider.Workspace{}, fail("list", err))
			return
		}
		r.sweepStaging()
		r.sweepGroups(ctx)
		seen := make(map[string]bool)
		for _, folder := range []string{workFolder, trashFolder} { // a workspace moves from the first to the second
			entries, err := os.ReadDir(r.path(folder))
			if err != nil {
				yield(provider.Workspace{}, fail("list", err))
				return
			}
			for _, e := range entries {
				if seen[e.Name()] {
					continue
				}
				seen[e.Name()] = true
				w, err := r.observe(ctx, e.Name())
				switch {
				case errors.Is(err, provider.ErrNotFound) || err == nil && w.Owner != owner:
				case err != nil:
					yield(provider.Workspace{}, fail("list", err))
					return
				case !yield(w.view(), nil):
					return
				}
			}
		}
	}
}

// observe reads a workspace, after it has done what is due: the deletion of one that has expired, that nobody can know for
// his own, or that a process which died has begun to delete.
func (r *root) observe(ctx context.Context, token string) (*workspace, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := r.find(token)
	if err != nil || !w.due() {
		return w, err
	}
	ctx, cancel := context.WithTimeout(ctx, observePatience)
	defer cancel()
	w.sweep(ctx)
	return r.find(token)
}

// observePatience bounds what an observation spends on a deletion that is due. The next one goes on.
const observePatience = 2 * time.Second
