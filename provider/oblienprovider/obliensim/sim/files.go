package sim

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

// inHome opens the home folder of a machine and gives the place of an absolute path in it. Nothing else is shown.
func (s *Server) inHome(c *call, absolute string) (*os.Root, string, error) {
	s.mu.Lock()
	home := c.m.home
	s.mu.Unlock()
	rel, err := filepath.Rel(home, path.Clean("/"+absolute))
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil, "", refuse(http.StatusForbidden, "forbidden", "The test server shows files below %s alone", home)
	}
	root, err := os.OpenRoot(home)
	return root, rel, err
}

// fileError is the answer to a failed call to the file system.
func fileError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "not_found", "No such file")
	}
	return refuse(http.StatusBadRequest, "bad_request", "%v", err)
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symlink"
	}
	return "file"
}

func (s *Server) entries(c *call) (dir string, all []object, err error) {
	dir = c.URL.Query().Get("path")
	root, rel, err := s.inHome(c, dir)
	if err != nil {
		return "", nil, err
	}
	defer root.Close()
	nested := c.URL.Query().Get("nested") == "true"
	all = []object{}
	err = fs.WalkDir(root.FS(), rel, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == rel {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		inner, _ := filepath.Rel(rel, name)
		all = append(all, object{"name": d.Name(), "path": path.Join(dir, inner), "type": kindOf(d.Type()), "size": info.Size(), "modified": stamp(info.ModTime())})
		if d.IsDir() && !nested {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return "", nil, fileError(err)
	}
	return dir, all, nil
}

func (s *Server) listFiles(c *call) (any, error) {
	dir, all, err := s.entries(c)
	if err != nil {
		return nil, err
	}
	return object{"success": true, "path": dir, "entries": all, "count": len(all)}, nil
}

func (s *Server) streamFiles(c *call) (any, error) {
	_, all, err := s.entries(c)
	if err != nil {
		return nil, err
	}
	c.w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(c.w)
	_ = enc.Encode(object{"event": "start"})
	for _, o := range all {
		_ = enc.Encode(o)
	}
	_ = enc.Encode(object{"event": "done", "count": len(all)})
	return streamed{}, nil
}

func (s *Server) readFile(c *call) (any, error) {
	name := c.URL.Query().Get("path")
	root, rel, err := s.inHome(c, name)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b, err := root.ReadFile(rel)
	if err != nil {
		return nil, fileError(err)
	}
	return object{"success": true, "path": name, "content": strings.ToValidUTF8(string(b), "\uFFFD"), "size": len(b), "lines": strings.Count(string(b), "\n")}, nil
}

func (s *Server) statFile(c *call) (any, error) {
	name := c.URL.Query().Get("path")
	root, rel, err := s.inHome(c, name)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Lstat(rel)
	if err != nil {
		return nil, fileError(err)
	}
	return object{"success": true, "path": name, "name": info.Name(), "type": kindOf(info.Mode()), "size": info.Size(),
		"modified": stamp(info.ModTime()), "permissions": fmt.Sprintf("%04o", info.Mode().Perm()), "is_code": false}, nil
}

type fileBody struct {
	Path    string `json:"path"`
	Content string `json:"content"`
	Dirs    bool   `json:"create_dirs"`
	Append  bool   `json:"append"`
}

// change does something with a path of the body.
func (s *Server) changeFile(c *call, do func(root *os.Root, rel string, body fileBody) error) (any, error) {
	var body fileBody
	if err := c.into(&body); err != nil {
		return nil, err
	}
	root, rel, err := s.inHome(c, body.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := do(root, rel, body); err != nil {
		return nil, fileError(err)
	}
	return object{"success": true, "path": body.Path, "size": len(body.Content)}, nil
}

func (s *Server) writeFile(c *call) (any, error) {
	return s.changeFile(c, func(root *os.Root, rel string, body fileBody) error {
		if body.Dirs {
			if err := root.MkdirAll(path.Dir(rel), 0o755); err != nil {
				return err
			}
		}
		how := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if body.Append {
			how = os.O_WRONLY | os.O_CREATE | os.O_APPEND
		}
		f, err := root.OpenFile(rel, how, 0o644)
		if err != nil {
			return err
		}
		_, err = f.WriteString(body.Content)
		return errors.Join(err, f.Close())
	})
}

func (s *Server) makeFolder(c *call) (any, error) {
	return s.changeFile(c, func(root *os.Root, rel string, _ fileBody) error { return root.MkdirAll(rel, 0o755) })
}

func (s *Server) deleteFile(c *call) (any, error) {
	return s.changeFile(c, func(root *os.Root, rel string, _ fileBody) error {
		if _, err := root.Lstat(rel); err != nil {
			return err
		}
		return root.RemoveAll(rel)
	})
}

// upload unpacks an archive.
func (s *Server) upload(c *call) (any, error) {
	dest := c.URL.Query().Get("dest")
	root, rel, err := s.inHome(c, dest)
	if err != nil {
		return nil, err
	}
	root.Close()
	gz, err := gzip.NewReader(c.Body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "bad_request", "The body is no tar.gz")
	}
	archive, err := io.ReadAll(gz)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "bad_request", "The body is no tar.gz")
	}
	if err := s.host.Upload(c.Context(), c.m.token, rel, bytes.NewReader(archive)); err != nil {
		if errors.Is(err, provider.ErrInvalid) {
			return nil, refuse(http.StatusBadRequest, "bad_request", "%v", err)
		}
		return nil, refuse(http.StatusServiceUnavailable, "VM_UNAVAILABLE", "%v", err)
	}
	files := 0
	for r := tar.NewReader(bytes.NewReader(archive)); ; files++ {
		if _, err := r.Next(); err != nil {
			break
		}
	}
	return object{"success": true, "dest": dest, "files_extracted": files}, nil
}

// download packs files and folders.
func (s *Server) download(c *call) (any, error) {
	var body struct {
		Paths   []string
		Exclude []string `json:"exclude_patterns"`
	}
	if err := c.into(&body); err != nil {
		return nil, err
	}
	var streams []io.ReadCloser
	defer func() {
		for _, stream := range streams {
			stream.Close()
		}
	}()
	for _, name := range body.Paths {
		root, rel, err := s.inHome(c, name)
		if err != nil {
			return nil, err
		}
		root.Close()
		stream, err := s.host.Download(c.Context(), c.m.token, rel)
		if errors.Is(err, provider.ErrNotFound) {
			return nil, refuse(http.StatusNotFound, "not_found", "No such file")
		} else if err != nil {
			return nil, refuse(http.StatusBadRequest, "bad_request", "%v", err)
		}
		streams = append(streams, stream)
	}
	c.w.Header().Set("Content-Type", "application/gzip")
	c.w.WriteHeader(http.StatusOK)
	gz := gzip.NewWriter(c.w)
	out := tar.NewWriter(gz)
	for i, stream := range streams {
		prefix := ""
		if s.cfg.AbsoluteNames {
			prefix = strings.TrimPrefix(path.Dir(path.Clean(body.Paths[i])), "/") + "/"
		}
		if err := repack(out, stream, prefix, body.Exclude); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if err := errors.Join(out.Close(), gz.Close()); err != nil {
		panic(http.ErrAbortHandler)
	}
	return streamed{}, nil
}

func repack(out *tar.Writer, from io.Reader, prefix string, exclude []string) error {
	r := tar.NewReader(from)
next:
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, pattern := range exclude {
			for step := range strings.SplitSeq(h.Name, "/") {
				if ok, _ := path.Match(pattern, step); ok {
					continue next
				}
			}
		}
		h.Name = prefix + h.Name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = prefix + h.Linkname
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, r); err != nil {
			return err
		}
	}
}
