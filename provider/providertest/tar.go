package providertest

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
)

// entry is one of an archive.
type entry struct {
	header tar.Header
	data   string
}

func file(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

func folder(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, ""}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hardlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, ""}
}

func special(name string, kind byte) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
}

func archive(entries ...entry) io.Reader { return bytes.NewReader(pack(entries...)) }

func pack(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.header.Size = int64(len(e.data))
		err := w.WriteHeader(&e.header)
		if err == nil {
			_, err = io.WriteString(w, e.data)
		}
		if err != nil {
			panic("providertest: " + err.Error())
		}
	}
	if err := w.Close(); err != nil {
		panic("providertest: " + err.Error())
	}
	return b.Bytes()
}

// zeros is an archive of one file with size zero bytes, made while it is read.
func zeros(size int64) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: size}); err != nil {
		panic("providertest: " + err.Error())
	}
	const block = 512
	return io.MultiReader(&b, io.LimitReader(zero{}, (size+block-1)/block*block+2*block))
}

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// unpack reads an archive to its end: the entries by their names without a slash at the end.
func unpack(from io.Reader) (map[string]entry, error) {
	found := make(map[string]entry)
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return found, err
		}
		found[strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")] = entry{*h, string(data)}
	}
}
