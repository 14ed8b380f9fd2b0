package localprovider

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// Download packs files, folders and links. Left out are sockets, pipes and devices, what disappears while it works, and
// links that lead out of the home, so that Upload takes what Download gives. A file that shrinks while it is read is
// filled up with zeros.
func (f files) Download(ctx context.Context, id, name string) (io.ReadCloser, error) {
	r, err := f.use(ctx)
	if err != nil {
		return nil, fail("download", err)
	}
	stream, err := download(ctx, r, id, name)
	if err != nil {
		return nil, fail("download", err)
	}
	return stream, nil
}

func download(ctx context.Context, r *root, id, name string) (io.ReadCloser, error) {
	name, err := below(name)
	if err != nil {
		return nil, err
	}
	w, err := r.find(id)
	if err == nil {
		err = w.whole()
	}
	if err != nil {
		return nil, err
	}
	home, err := w.openHome()
	if err != nil {
		return nil, err
	}
	info, err := home.Stat(name)
	if err == nil && info.Mode().Type()&^fs.ModeDir != 0 {
		err = refuse(provider.ErrInvalid, "%q is neither a file nor a folder", name)
	}
	if err != nil {
		home.Close()
		if errors.Is(err, syscall.ENOTDIR) {
			return nil, &provider.Error{Class: provider.ErrNotFound, Err: err}
		}
		return nil, badPath(err)
	}
	return newPulled(func(to io.Writer) error {
		return pack(ctx, home, name, info, to)
	}, home.Close), nil
}

// pack writes the archive of a file or folder of the home.
func pack(ctx context.Context, home *os.Root, name string, info fs.FileInfo, to io.Writer) error {
	t := tar.NewWriter(to)
	p := packing{ctx: ctx, to: t}
	var err error
	if info.IsDir() {
		err = p.folder(home, name, path.Base(name), depthOf(name), info)
	} else {
		err = p.file(home, name, path.Base(name))
	}
	if err != nil {
		return err
	}
	return t.Close()
}

type packing struct {
	ctx context.Context
	to  *tar.Writer
}

// folder packs the folder name of in, under a name of its own; depth is its depth in the home.
func (p packing) folder(in *os.Root, name, as string, depth int, info fs.FileInfo) error {
	folder, err := in.OpenRoot(name)
	if err != nil {
		return err
	}
	defer folder.Close()
	if as != "." {
		if err := p.header(tar.TypeDir, as+"/", "", info); err != nil {
			return err
		}
	}
	entries, err := readDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		err := p.entry(folder, e.Name(), path.Join(as, e.Name()), depth)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (p packing) entry(in *os.Root, name, as string, depth int) error {
	info, err := in.Lstat(name)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		return p.file(in, name, as)
	case fs.ModeDir:
		return p.folder(in, name, as, depth+1, info)
	case fs.ModeSymlink:
		target, err := in.Readlink(name)
		if err != nil || path.IsAbs(target) || climb(target) > depth {
			return err
		}
		return p.header(tar.TypeSymlink, as, target, info)
	}
	return nil
}

func (p packing) file(in *os.Root, name, as string) error {
	f, err := in.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // not blocking, should it have become a pipe
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := p.header(tar.TypeReg, as, "", info); err != nil {
		return err
	}
	n, err := io.Copy(p.to, io.LimitReader(reader{p.ctx, f}, info.Size()))
	if err == nil && n < info.Size() {
		_, err = io.CopyN(p.to, zeros{}, info.Size()-n)
	}
	return err
}

func (p packing) header(kind byte, name, target string, info fs.FileInfo) error {
	h := &tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX}
	if kind == tar.TypeReg {
		h.Size = info.Size()
	}
	return p.to.WriteHeader(h)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// pulled is a stream of what a function writes, which runs only while it is read.
type pulled struct {
	mu      sync.Mutex // held while the function runs: of Read and Close, one waits for the other
	next    func() ([]byte, error, bool)
	stop    func()
	release func() error
	rest    []byte
	err     error
}

var errStopped = errors.New("the reader has closed the stream")

func newPulled(write func(io.Writer) error, release func() error) *pulled {
	p := &pulled{release: release}
	p.next, p.stop = iter.Pull2(func(yield func([]byte, error) bool) {
		to := bufio.NewWriterSize(yielding(func(b []byte) bool { return yield(b, nil) }), chunkSize)
		err := write(to)
		if err == nil {
			err = to.Flush()
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	})
	return p
}

// yielding is a writer that gives away what is written to it.
type yielding func([]byte) bool

func (y yielding) Write(b []byte) (int, error) {
	if !y(b) {
		return 0, errStopped
	}
	return len(b), nil
}

func (p *pulled) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.rest) == 0 && p.err == nil {
		rest, err, more := p.next()
		p.rest, p.err = rest, fail("download", err)
		if !more {
			p.err = io.EOF
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	if n == 0 && len(b) > 0 {
		return 0, p.err
	}
	return n, nil
}

// Close ends the stream. It may be called more than once.
func (p *pulled) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	p.rest, p.err = nil, fs.ErrClosed
	return p.release()
}
