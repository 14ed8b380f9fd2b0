package fakeprovider

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	errNoFile  = fmt.Errorf("no such file: %w", fs.ErrNotExist)
	errOutside = fmt.Errorf("path leads outside: %w", fs.ErrPermission)
)

// node is a file, a folder or a symbolic link. Its data never change; a write makes a new node.
type node struct {
	mode fs.FileMode // type and permissions
	data []byte
	link string // target, of a symbolic link
}

// files are the files of a workspace, by clean paths relative to its home.
type files struct {
	mu    sync.Mutex      // protects nodes
	nodes map[string]node // made at the first write
}

func (f *files) copy() map[string]node {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes == nil {
		return make(map[string]node)
	}
	return maps.Clone(f.nodes)
}

func (f *files) size() (bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.nodes {
		bytes += int64(len(n.data))
	}
	return bytes
}

func (f *files) read(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, err := tree{nodes: f.nodes}.resolve(name, true)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	n, ok := f.nodes[at]
	if !ok || !n.mode.IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errNoFile}
	}
	return bytes.Clone(n.data), nil
}

func (f *files) write(name string, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes == nil {
		f.nodes = make(map[string]node)
	}
	t := tree{nodes: f.nodes}
	at, err := t.resolve(name, true)
	if err == nil {
		err = t.put(at, node{mode: 0o644, data: bytes.Clone(data)})
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

// unpack adds an archive below dir: all of it, or nothing.
func (f *files) unpack(dir string, archive io.Reader) error {
	type entry struct {
		tar.Header
		data []byte
	}
	var entries []entry
	for r := tar.NewReader(archive); ; { // reading may block, so it is not done under the mutex
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		entries = append(entries, entry{*h, data})
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	t := tree{nodes: maps.Clone(f.nodes)}
	if t.nodes == nil {
		t.nodes = make(map[string]node)
	}
	root, err := t.resolve(dir, true)
	if err == nil {
		err = t.mkdir(root)
	}
	if err != nil {
		return err
	}
	t.root = root
	for _, e := range entries {
		if err := t.unpack(&e.Header, e.data); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
	}
	f.nodes = t.nodes
	return nil
}

// pack writes a file, or a folder with all that is in it, as an archive.
func (f *files) pack(name string, to io.Writer) error {
	t := tree{nodes: f.copy()}
	at, err := t.resolve(name, true)
	if err != nil {
		return err
	}
	top, ok := t.nodes[at]
	if !ok && at != "" {
		return errNoFile
	}
	w := tar.NewWriter(to)
	if at != "" {
		if err := packNode(w, path.Base(path.Clean(name)), top); err != nil {
			return err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(t.nodes)) {
		inner, ok := strings.CutPrefix(p, at+"/")
		switch {
		case at == "":
			inner = p
		case !ok:
			continue
		default:
			inner = path.Base(path.Clean(name)) + "/" + inner
		}
		if err := packNode(w, inner, t.nodes[p]); err != nil {
			return err
		}
	}
	return w.Close()
}

func packNode(w *tar.Writer, name string, n node) error {
	h := &tar.Header{Name: name, Mode: int64(n.mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case n.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case n.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.link
	default:
		h.Typeflag, h.Size = tar.TypeReg, int64(len(n.data))
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(n.data)
	return err
}

// tree is a set of nodes in which paths lead nowhere above root. The zero root is the workspace's home.
type tree struct {
	nodes map[string]node
	root  string
}

// resolve follows the symbolic links of a path that begins in root, also that of its last part if last. What it
// returns need not exist.
func (t tree) resolve(name string, last bool) (string, error) {
	if path.IsAbs(name) {
		return "", errOutside
	}
	at, rest := t.root, name
	for links := 0; rest != ""; {
		var head string
		head, rest, _ = strings.Cut(rest, "/")
		switch head {
		case "", ".":
			continue
		case "..":
			if at == t.root {
				return "", errOutside
			}
			at = parent(at)
			continue
		}
		next := path.Join(at, head)
		n, ok := t.nodes[next]
		switch {
		case ok && n.mode&fs.ModeSymlink != 0 && (rest != "" || last):
			if links++; links > 40 || path.IsAbs(n.link) {
				return "", errOutside
			}
			rest = n.link + "/" + rest
		case ok && rest != "" && !n.mode.IsDir():
			return "", errNoFile
		default:
			at = next
		}
	}
	return at, nil
}

// mkdir makes a folder and those above it. at has no symbolic links.
func (t tree) mkdir(at string) error {
	if at == "" {
		return nil
	}
	if n, ok := t.nodes[at]; ok {
		if !n.mode.IsDir() {
			return fmt.Errorf("not a folder: %w", fs.ErrExist)
		}
		return nil
	}
	if err := t.mkdir(parent(at)); err != nil {
		return err
	}
	t.nodes[at] = node{mode: fs.ModeDir | 0o755}
	return nil
}

// put makes or replaces what is no folder.
func (t tree) put(at string, n node) error {
	if at == t.root || t.nodes[at].mode.IsDir() {
		return fmt.Errorf("a folder: %w", fs.ErrExist)
	}
	if err := t.mkdir(parent(at)); err != nil {
		return err
	}
	t.nodes[at] = n
	return nil
}

func (t tree) unpack(h *tar.Header, data []byte) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	at, err := t.resolve(h.Name, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	perm := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return t.mkdir(at)
	case tar.TypeReg:
		return t.put(at, node{mode: perm, data: data})
	case tar.TypeSymlink:
		if err := t.checkLink(at, h.Linkname); err != nil {
			return err
		}
		return t.put(at, node{mode: fs.ModeSymlink | perm, link: h.Linkname})
	case tar.TypeLink:
		from, err := t.resolve(h.Linkname, true)
		if err != nil {
			return err
		}
		if n, ok := t.nodes[from]; ok && n.mode.IsRegular() {
			return t.put(at, n)
		}
		return errNoFile
	}
	return fmt.Errorf("entry of type %q", h.Typeflag)
}

// checkLink refuses a symbolic link at a path that leads outside. One that leads outside only because of what comes after
// it in the archive does no harm: resolve refuses it.
func (t tree) checkLink(at, target string) error {
	if at == t.root || path.IsAbs(target) {
		return errOutside
	}
	if t.root != "" {
		at = strings.TrimPrefix(at, t.root+"/")
	}
	if dir := parent(at); dir != "" {
		target = dir + "/" + target
	}
	_, err := t.resolve(target, true)
	return err
}

func parent(at string) string {
	if i := strings.LastIndexByte(at, '/'); i >= 0 {
		return at[:i]
	}
	return ""
}
