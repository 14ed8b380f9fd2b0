//go:build linux

package localprovider

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// packed makes an archive of headers; a regular file holds its name.
func packed(t testing.TB, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = h.Name
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }

func link(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func hard(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

func dir(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
}

// tree lists what is in a folder.
func tree(t testing.TB, root string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch e.Type() {
		case fs.ModeSymlink:
			target, _ := os.Readlink(path)
			name += "->" + target
		case 0:
			content, _ := os.ReadFile(path)
			name += "=" + string(content)
		}
		all = append(all, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestUploadMerges(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	b.output(w.ID, `mkdir -p in/folder in/becomes-file/x in/kept; echo -n old >in/file; echo -n old >in/kept/old; echo -n old >in/becomes-folder
echo -n outside >outside; ln -s ../outside in/link`)
	b.must(b.Upload(b.ctx(), w.ID, "in", packed(t,
		file("file"), file("folder/new"), file("becomes-file"), file("becomes-folder/new"), file("kept/new"), file("link"),
		link("folder/up", "../../outside"), hard("folder/hard", "file"), file("twice"), file("twice"))))
	want := "becomes-file=becomes-file becomes-folder becomes-folder/new=becomes-folder/new file=file folder folder/hard=file " +
		"folder/new=folder/new folder/up->../../outside kept kept/new=kept/new kept/old=old link=link twice=twice"
	if got := tree(t, filepath.Join(w.Home, "in")); got != want {
		t.Errorf("after Upload:\n%s, want\n%s", got, want)
	}
	if got, _ := os.ReadFile(filepath.Join(w.Home, "outside")); string(got) != "outside" {
		t.Errorf("what a link led to reads %q", got)
	}
}

func TestUploadModes(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	at := time.Unix(1_500_000_000, 0)
	closed := dir("closed", 0o500)
	closed.ModTime = at
	special := file("special")
	special.Mode = 0o4755
	special.ModTime = at
	secret := file("closed/secret")
	secret.Mode = 0o400
	b.must(b.Upload(b.ctx(), w.ID, "", packed(t, closed, dir("closed/sub", 0o555), secret, file("closed/sub/file"), special)))
	for name, want := range map[string]fs.FileMode{
		"closed":          fs.ModeDir | 0o500,
		"closed/sub":      fs.ModeDir | 0o555,
		"closed/secret":   0o400,
		"closed/sub/file": 0o644,
		"special":         0o755,
	} {
		info, err := os.Stat(filepath.Join(w.Home, name))
		b.must(err)
		if info.Mode() != want || (name == "closed" || name == "special") && !info.ModTime().Equal(at) {
			t.Errorf("%s: %v of %v, want %v", name, info.Mode(), info.ModTime(), want)
		}
	}
}

func TestUploadRefuses(t *testing.T) {
	b := newBench(t, system{}, Config{MaxUploadBytes: 1 << 20, MaxUploadFiles: 100})
	w := b.make(provider.Spec{})
	b.output(w.ID, "mkdir -p real/deep in/deep; ln -s ../real in/alias; ln -s deep in/shortcut; echo -n x >file")
	before := tree(t, w.Home)
	many := make([]tar.Header, 101)
	for i := range many {
		many[i] = file(strconv.Itoa(i))
	}
	fifo, pax := file("fifo"), file("zero")
	fifo.Typeflag = tar.TypeFifo
	pax.Name = "a/\x7f/../../../etc"
	for name, upload := range map[string]struct {
		dir     string
		archive io.Reader
	}{
		"a chain of links":                {"in", packed(t, dir("p/q", 0o755), link("p/q/top", "../../.."), link("t", "p/q/top/../x"), file("good"))},
		"a link above the home":           {"in", packed(t, link("up", "../.."))},
		"a link above, behind a link":     {"in/alias", packed(t, link("up", "../.."))},
		"a link with an empty target":     {"in", packed(t, link("up", ""))},
		"a file in the place of a folder": {"file", packed(t, file("good"))},
		"a file below a file":             {"in", packed(t, file("good"), file("good/below"))},
		"a folder over a file":            {"in", packed(t, file("good"), dir("good", 0o755))},
		"a file over a folder":            {"in", packed(t, dir("good", 0o755), file("good"))},
		"a hard link to a link":           {"in", packed(t, link("soft", "good"), hard("hard", "soft"))},
		"a hard link to a folder":         {"in", packed(t, dir("good", 0o755), hard("hard", "good"))},
		"a hard link to what is there":    {"", packed(t, hard("hard", "file"))},
		"a pipe":                          {"in", packed(t, fifo)},
		"a devious name":                  {"in", packed(t, pax)},
		"a folder in the place of a link": {"in", packed(t, file("shortcut/file"))},
		"too many files":                  {"in", packed(t, many...)},
		"too many folders":                {"in", packed(t, file(strings.Repeat("x/", 110)+"f"))},
		"too deep":                        {"in", packed(t, file(strings.Repeat("x/", 300)+"f"))},
		"too big, as it says":             {"in", sized(t, 1<<20+1)},
		"sparse and huge":                 {"in", sparse(t)},
	} {
		err := b.Upload(b.ctx(), w.ID, upload.dir, upload.archive)
		if !errors.Is(err, provider.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if after := tree(t, w.Home); after != before {
			t.Fatalf("%s: left behind:\n%s, before\n%s", name, after, before)
		}
	}
	b.must(b.Upload(b.ctx(), w.ID, "in", packed(t, many[:100]...)))
	b.must(b.Upload(b.ctx(), w.ID, "in", sized(t, 1<<20)))
}

// sized is an archive of one file of zeros.
func sized(t testing.TB, size int64) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "sized", Size: size, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return &b
}

// sparse is a small archive of one file of 1 TB that is all hole (GNU format 1.0).
func sparse(t testing.TB) io.Reader {
	t.Helper()
	var b bytes.Buffer
	pax := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.name=sparse\n37 GNU.sparse.realsize=1099511627776\n"
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: int64(len(pax)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, pax)
	w.Flush()
	header := b.Bytes()[:512]
	header[156] = tar.TypeXHeader
	checksum(header)
	content := "0\n" + strings.Repeat("\x00", 510)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "sparse", Size: int64(len(content)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, content)
	w.Close()
	return &b
}

// checksum corrects the sum of a changed header.
func checksum(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:156], strconv.FormatInt(int64(sum), 8)+"\x00 ")
}

func TestDownloadLeavesOut(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	b.output(w.ID, `mkdir -p in/sub; echo -n data >in/sub/file; ln in/sub/file in/hard; mkfifo in/pipe
ln -s sub/file in/inside; ln -s ../../.. in/above; ln -s /etc/passwd in/absolute; ln -s in alias; chmod 0500 in/sub`)
	for _, name := range []string{"in", "in/.", "alias"} {
		stream, err := b.Download(b.ctx(), w.ID, name)
		b.must(err)
		var names []string
		for r := tar.NewReader(stream); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			b.must(err)
			names = append(names, strings.TrimPrefix(h.Name, filepath.Base(filepath.Clean(name))+"/"))
		}
		b.must(stream.Close())
		b.must(stream.Close())
		if _, err := stream.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("Read after Close: %v", err)
		}
		got := strings.Join(names, " ")
		for _, want := range []string{"hard", "inside", "sub/", "sub/file"} {
			if !strings.Contains(" "+got+" ", " "+want+" ") {
				t.Errorf("%s: no %s in %s", name, want, got)
			}
		}
		if strings.Contains(got, "above") || strings.Contains(got, "absolute") || strings.Contains(got, "pipe") {
			t.Errorf("%s: %s", name, got)
		}
	}
	for name, class := range map[string]error{"../x": provider.ErrInvalid, "in/absolute": provider.ErrInvalid, "in/above": provider.ErrInvalid, "in/pipe": provider.ErrInvalid, "missing": provider.ErrNotFound, "in/hard/x": provider.ErrNotFound} {
		if _, err := b.Download(b.ctx(), w.ID, name); !errors.Is(err, class) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What Download gives, Upload takes.
func TestDownloadAndUpload(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{Image: image(t)})
	b.output(w.ID, "mkdir many; cd many; for i in $(seq 300); do echo $i >$i; done; head -c 3000000 /dev/urandom >large")
	stream, err := b.Download(b.ctx(), w.ID, ".")
	b.must(err)
	defer stream.Close()
	other := b.make(provider.Spec{})
	b.must(b.Upload(b.ctx(), other.ID, ".", stream))
	want := strings.ReplaceAll(tree(t, w.Home), " bin/absolute->/bin/sh", "") // which leads out
	if got := tree(t, other.Home); got != want {
		t.Error("what was packed and unpacked differs")
	}
	if info, err := os.Stat(filepath.Join(other.Home, "closed", "file")); err != nil || info.Mode() != 0o400 {
		t.Errorf("%v, %v", info, err)
	}
}

// A file that shrinks while it is packed does not spoil the archive.
func TestDownloadOfAFileThatShrinks(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	name := filepath.Join(w.Home, "file")
	b.must(os.WriteFile(name, bytes.Repeat([]byte("x"), 1<<20), 0o600))
	stream, err := b.Download(b.ctx(), w.ID, "file")
	b.must(err)
	defer stream.Close()
	r := tar.NewReader(stream)
	h, err := r.Next()
	b.must(err)
	b.must(os.Truncate(name, 1000))
	n, err := io.Copy(io.Discard, r)
	if err != nil || n != h.Size {
		t.Errorf("%d of %d bytes, %v", n, h.Size, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("the archive's end: %v", err)
	}
}
