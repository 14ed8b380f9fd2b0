package fakeprovider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/freshet-dev/freshet/provider"
)

// Upload implements provider.Filer. Names and links of the archive must stay within dir.
func (p abilities) Upload(ctx context.Context, id, dir string, tar io.Reader) error {
	return act(ctx, p.c, Call{Op: "upload", ID: id}, func(Fault) error {
		w, err := p.ready("upload", id)
		if err != nil {
			return err
		}
		if err := w.files.unpack(dir, tar); err != nil {
			return &provider.Error{Op: "upload", Class: provider.ErrInvalid, Err: err}
		}
		return nil
	})
}

// Download implements provider.Filer.
func (p abilities) Download(ctx context.Context, id, path string) (tar io.ReadCloser, err error) {
	return do(ctx, p.c, Call{Op: "download", ID: id}, func(Fault) (io.ReadCloser, error) {
		w, err := p.ready("download", id)
		if err != nil {
			return nil, err
		}
		var packed bytes.Buffer
		if err := w.files.pack(path, &packed); err != nil {
			class := provider.ErrInvalid
			if errors.Is(err, errNoFile) {
				class = provider.ErrNotFound
			}
			return nil, &provider.Error{Op: "download", Class: class, Err: err}
		}
		return io.NopCloser(&packed), nil
	})
}

// Snapshot implements provider.Snapshotter. It keeps the files.
func (p abilities) Snapshot(ctx context.Context, id string) (snapshot string, err error) {
	return do(ctx, p.c, Call{Op: "snapshot", ID: id}, func(Fault) (string, error) {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		w, err := c.readyLocked("snapshot", id)
		if err != nil {
			return "", err
		}
		c.shot++
		name := "snap-" + strconv.FormatInt(c.shot, 10)
		c.snapshots[name] = w.files.copy()
		return name, nil
	})
}

// DeleteSnapshot implements provider.Snapshotter.
func (p abilities) DeleteSnapshot(ctx context.Context, snapshot string) error {
	return act(ctx, p.c, Call{Op: "deletesnapshot"}, func(Fault) error {
		c := p.c.cloud
		c.lock()
		defer c.unlock()
		delete(c.snapshots, snapshot)
		return nil
	})
}

// ready finds a workspace that is running. What is done with its files then needs no lock of the cloud.
func (p abilities) ready(op, id string) (*workspace, error) {
	c := p.c.cloud
	c.lock()
	defer c.unlock()
	return c.readyLocked(op, id)
}
