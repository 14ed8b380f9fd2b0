package localprovider

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// maxDepth bounds how deep the folders of an archive may be.
const maxDepth = 200

// unpacking is an archive on its way into a folder of its own.
type unpacking struct {
	to        *os.Root
	depth     int   // of the folder in the home that it is for
	bytesLeft int64 // what may still be unpacked
	filesLeft int
	folders   map[string]folder // that were made, by path
	climb     int               // how many folders above its own the links lead
}

// folder is what a folder gets when everything is in it.
type folder struct {
	listed bool // the archive has an entry for it
	mode   fs.FileMode
	time   time.Time
}

func newUnpacking(to *os.Root, depth int, cfg Config) *unpacking {
	u := &unpacking{
		to:        to,
		depth:     depth,
		bytesLeft: cmp.Or(cfg.MaxUploadBytes, defaultUploadBytes),
		filesLeft: cmp.Or(cfg.MaxUploadFiles, defaultUploadFiles),
		folders:   map[string]folder{".": {}},
	}
	if u.bytesLeft < 0 {
		u.bytesLeft = math.MaxInt64 - 1
	}
	if u.filesLeft < 0 {
		u.filesLeft = math.MaxInt
	}
	return u
}

// unpack unpacks an archive.
func (u *unpacking) unpack(ctx context.Context, archive io.Reader) error {
	t := tar.NewReader(reader{ctx, archive})
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = u.entry(h, t)
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &provider.Error{Class: provider.ErrInvalid, Err: err}
		}
		if err != nil {
			return err
		}
	}
}

// reader reads until ctx ends.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// entry unpacks one entry.
func (u *unpacking) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := strings.TrimSuffix(h.Name, "/")
	if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return refuse(provider.ErrInvalid, "%q leads out of the folder", h.Name)
	}
	name = path.Clean(name)
	if depthOf(name) > maxDepth {
		return refuse(provider.ErrInvalid, "%.100q… is too deep", name)
	}
	if h.Typeflag == tar.TypeDir {
		return u.folder(name, folder{true, fs.FileMode(h.Mode).Perm(), h.ModTime})
	}
	if err := u.clear(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(name, h, content)
	case tar.TypeSymlink:
		return u.symlink(name, h.Linkname)
	case tar.TypeLink:
		return u.link(name, h.Linkname)
	}
	return refuse(provider.ErrInvalid, "%q is neither a file nor a folder nor a link", h.Name)
}

// one counts a file, folder or link.
func (u *unpacking) one() error {
	u.filesLeft--
	if u.filesLeft < 0 {
		return refuse(provider.ErrInvalid, "the archive holds too many files")
	}
	return nil
}

// folder makes a folder and those above it. What is there must be a folder: a link could lead anywhere.
func (u *unpacking) folder(name string, as folder) error {
	if _, made := u.folders[name]; made {
		if as.listed {
			u.folders[name] = as
		}
		return nil
	}
	if err := u.folder(path.Dir(name), folder{}); err != nil {
		return err
	}
	if err := u.one(); err != nil {
		return err
	}
	if err := u.to.Mkdir(name, 0o755); errors.Is(err, fs.ErrExist) {
		return refuse(provider.ErrInvalid, "%q is not a folder", name)
	} else if err != nil {
		return err
	}
	u.folders[name] = as
	return nil
}

// clear makes room for an entry: the last one of a name counts.
func (u *unpacking) clear(name string) error {
	if _, made := u.folders[name]; made {
		return refuse(provider.ErrInvalid, "%q is a folder", name)
	}
	if err := u.folder(path.Dir(name), folder{}); err != nil {
		return err
	}
	if err := u.one(); err != nil {
		return err
	}
	if err := u.to.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u *unpacking) file(name string, h *tar.Header, content io.Reader) error {
	if h.Size > u.bytesLeft {
		return refuse(provider.ErrInvalid, "the archive is too big")
	}
	f, err := u.to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(content, u.bytesLeft+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if u.bytesLeft -= n; u.bytesLeft < 0 {
		return refuse(provider.ErrInvalid, "the archive is too big")
	}
	if err := u.to.Chtimes(name, h.ModTime, h.ModTime); err != nil {
		return err
	}
	return u.to.Chmod(name, fs.FileMode(h.Mode).Perm())
}

// symlink makes a symbolic link that stays in the home. Since each does, and each lies in a real folder, no chain of them
// leads out.
func (u *unpacking) symlink(name, target string) error {
	up := climb(target) - (depthOf(name) - 1)
	if target == "" || path.IsAbs(target) || up > u.depth {
		return refuse(provider.ErrInvalid, "link %q leads out of the home", name)
	}
	u.climb = max(u.climb, up)
	return u.to.Symlink(target, name)
}

// link makes a hard link to a file that was unpacked before.
func (u *unpacking) link(name, target string) error {
	if !filepath.IsLocal(target) {
		return refuse(provider.ErrInvalid, "link %q leads out of the folder", name)
	}
	target = path.Clean(target)
	info, err := u.to.Lstat(target)
	if _, inFolder := u.folders[path.Dir(target)]; err != nil || !inFolder || !info.Mode().IsRegular() {
		return refuse(provider.ErrInvalid, "link %q leads to no file of the archive", name)
	}
	return u.to.Link(target, name)
}

// fits says whether what was unpacked can go below a folder of the home. No folder of the archive may have a link in its
// place, which a process has put there. If the path has links of its own, the folder may be higher up than it looks, and
// links that lead above it may lead out of the home.
func (u *unpacking) fits(home *os.Root, dir string) error {
	for at := dir; u.climb > 0 && at != "."; at = path.Dir(at) {
		if isLink(home, at) {
			return refuse(provider.ErrInvalid, "%q is a link, and the archive has links that lead above it", at)
		}
	}
	for name := range u.folders {
		if at := path.Join(dir, name); name != "." && isLink(home, at) {
			return refuse(provider.ErrInvalid, "%q is a link and no folder", at)
		}
	}
	return nil
}

func isLink(in *os.Root, name string) bool {
	info, err := in.Lstat(name)
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}

// dressFolders gives the folders their permissions and times, now that everything is in its place: the inner ones first.
func (u *unpacking) dressFolders(in *os.Root) error {
	names := make([]string, 0, len(u.folders))
	for name, f := range u.folders {
		if f.listed {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(b, a) })
	for _, name := range names {
		f := u.folders[name]
		if err := in.Chtimes(name, f.time, f.time); err != nil {
			return err
		}
		if err := in.Chmod(name, f.mode); err != nil {
			return err
		}
	}
	return nil
}
