package oblienprovider

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

// spool holds bytes that are sent, and sent again with a new token: a few in memory, more in a temporary file.
type spool struct {
	memory bytes.Buffer
	file   *os.File // nil: all is in memory
	size   int64
	err    error // of a write
}

const maxInMemory = 1 << 20

// Write implements io.Writer.
func (s *spool) Write(b []byte) (n int, err error) {
	defer func() { s.err = errors.Join(s.err, err) }()
	if s.file == nil && s.memory.Len()+len(b) > maxInMemory {
		if s.file, err = os.CreateTemp("", "freshet-upload-*"); err != nil { // readable by this user alone
			return 0, err
		}
		if _, err := s.memory.WriteTo(s.file); err != nil {
			return 0, err
		}
	}
	if s.file != nil {
		n, err = s.file.Write(b)
	} else {
		n, err = s.memory.Write(b)
	}
	s.size += int64(n)
	return n, err
}

// reader reads all of it; there may be several at once.
func (s *spool) reader() io.Reader {
	if s.file != nil {
		return io.NewSectionReader(s.file, 0, s.size)
	}
	return bytes.NewReader(s.memory.Bytes())
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name())
	}
}

// pack reads an archive to its end, checks it, and packs it anew with all names below prefix. What is checked as a whole
// is sent as a whole: a bad archive never reaches the workspace.
func pack(ctx context.Context, from io.Reader, prefix string) (*spool, error) {
	s := &spool{}
	if err := packInto(ctx, s, from, prefix); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func packInto(ctx context.Context, to *spool, from io.Reader, prefix string) error {
	gz, _ := gzip.NewWriterLevel(to, gzip.BestSpeed)
	w := tar.NewWriter(gz)
	source := &watched{from: from}
	r := tar.NewReader(source)
	tree := tree{".": tar.TypeDir}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: prefix + "/", Mode: 0o700}); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil && h.Typeflag != tar.TypeXGlobalHeader {
			err = copyEntry(w, r, h, tree, prefix)
		}
		if broken := errors.Join(source.err, to.err); broken != nil { // not the archive's fault
			return fmt.Errorf("oblienprovider: upload: %w", broken)
		}
		if err != nil {
			return fail("upload", provider.ErrInvalid, "the archive: %w", err)
		}
	}
	return errors.Join(w.Close(), gz.Close())
}

// watched remembers an error of a reader.
type watched struct {
	from io.Reader
	err  error
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.from.Read(b)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

func copyEntry(w *tar.Writer, r io.Reader, h *tar.Header, tree tree, prefix string) error {
	name, link, err := tree.add(h)
	if err != nil || name == "." {
		return err
	}
	out := tar.Header{Typeflag: h.Typeflag, Name: prefix + "/" + name, Linkname: link, Mode: h.Mode & 0o777, Size: h.Size, ModTime: h.ModTime}
	switch h.Typeflag {
	case tar.TypeDir:
		out.Name += "/"
		out.Mode |= 0o700
	case tar.TypeLink:
		out.Linkname = prefix + "/" + link
	}
	if err := w.WriteHeader(&out); err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

// tree is what an archive has held so far: the kinds of its entries by their clean names.
type tree map[string]byte

var errOutside = errors.New("an entry leads outside")

// add checks an entry. No entry passes through a link, and no link leads out of the archive's own folder.
func (t tree) add(h *tar.Header) (name, link string, err error) {
	if strings.ContainsRune(h.Name, 0) || path.IsAbs(h.Name) || h.Name == "" {
		return "", "", errOutside
	}
	name = path.Clean(h.Name)
	if outside(name) {
		return "", "", errOutside
	}
	kind, known := t[name]
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		switch k, ok := t[dir]; {
		case !ok:
			t[dir] = tar.TypeDir
		case k != tar.TypeDir:
			return "", "", errors.New("an entry passes through a link or a file")
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
		if known && kind != h.Typeflag {
			return "", "", errors.New("an entry replaces another of another kind")
		}
	case tar.TypeSymlink:
		link = h.Linkname
		if known || !inward(name, link) {
			return "", "", errOutside
		}
	case tar.TypeLink:
		link = path.Clean(h.Linkname)
		if known || h.Linkname == "" || t[link] != tar.TypeReg {
			return "", "", errors.New("a hard link to what is no file of the archive")
		}
		t[name] = tar.TypeReg
		return name, link, nil
	default:
		return "", "", errors.New("an entry is neither file, folder nor link")
	}
	t[name] = h.Typeflag
	return name, link, nil
}

// inward says whether a symbolic link stays within the archive. Steps up are allowed at its beginning only: there they
// leave folders that are none, while later ones might leave a link.
func inward(name, link string) bool {
	if link == "" || path.IsAbs(link) || strings.ContainsRune(link, 0) || outside(path.Join(path.Dir(name), link)) {
		return false
	}
	down := false
	for step := range strings.SplitSeq(link, "/") {
		if step == ".." && down {
			return false
		}
		down = down || step != ".." && step != "." && step != ""
	}
	return true
}

func outside(clean string) bool {
	return path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../")
}
