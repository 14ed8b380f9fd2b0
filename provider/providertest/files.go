package providertest

import (
	"archive/tar"
	"errors"
	"io"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

func fileCases() []conformance {
	filer := ability[provider.Filer]("a Filer")
	return []conformance{
		{
			name:  "files/upload",
			rule:  "Upload unpacks files, folders and links below dir, which it makes with the folders that are missing; processes see them. What is there is replaced, what is not in the archive stays.",
			needs: []need{filer},
			run:   upload,
		},
		{
			name:  "files/download",
			rule:  "Download packs a file or a folder, names relative to path's parent, as processes have left it; what does not exist is ErrNotFound.",
			needs: []need{filer},
			run:   download,
		},
		{
			name:  "files/large",
			rule:  "A file of megabytes and a thousand small ones come back as they were sent.",
			needs: []need{filer},
			run:   largeFiles,
		},
	}
}

func uploadTo(e *env, id, dir string, entries ...entry) {
	e.t.Helper()
	a, _ := provider.As[provider.Filer](e.p)
	e.must("Upload", a.Upload(e.ctx(), id, dir, archive(entries...)))
}

func downloadFrom(e *env, id, path string) (map[string]entry, error) {
	e.t.Helper()
	a, _ := provider.As[provider.Filer](e.p)
	stream, err := a.Download(e.ctx(), id, path)
	if err != nil {
		return nil, err
	}
	found, err := unpack(stream)
	return found, errors.Join(err, stream.Close())
}

// reads checks what a process finds in a file.
func reads(e *env, id, path, want string) {
	e.t.Helper()
	if got, ok := e.file(id, path); !ok || got != want {
		e.t.Errorf("%s reads %q, %v; want %q", path, got, ok, want)
	}
}

func upload(e *env) {
	w := e.boot()
	long := strings.Repeat("long folder/", 12) + "Größe $x 'y'.txt"
	uploadTo(e, w.ID, "in/put",
		file("a.txt", "a"), folder("sub"), file("sub/b.txt", "b"), folder("empty"), file("./dot.txt", "dot"),
		file("no/such/folder/c.txt", "c"), symlink("link.txt", "a.txt"), symlink("sub/up.txt", "../a.txt"),
		hardlink("hard.txt", "sub/b.txt"), file(long, "long"))
	for path, want := range map[string]string{
		"a.txt": "a", "sub/b.txt": "b", "dot.txt": "dot", "no/such/folder/c.txt": "c", "link.txt": "a", "sub/up.txt": "a",
		"hard.txt": "b", long: "long",
	} {
		reads(e, w.ID, "in/put/"+path, want)
	}

	uploadTo(e, w.ID, "in/put", file("a.txt", "again"), file("new.txt", "new"))
	reads(e, w.ID, "in/put/a.txt", "again")
	reads(e, w.ID, "in/put/new.txt", "new")
	reads(e, w.ID, "in/put/sub/b.txt", "b")

	uploadTo(e, w.ID, "", file("top.txt", "top"))
	reads(e, w.ID, "top.txt", "top")
	uploadTo(e, w.ID, ".", file("dotted.txt", "dotted"))
	reads(e, w.ID, "dotted.txt", "dotted")

	uploadTo(e, w.ID, "nothing/in/it")
	if _, err := downloadFrom(e, w.ID, "nothing/in/it"); err != nil {
		e.t.Errorf("Download of a folder made by an empty archive: %v", err)
	}
}

func download(e *env) {
	w := e.boot()
	program := file("run.sh", "#!/bin/sh\n")
	program.header.Mode = 0o755
	uploadTo(e, w.ID, "in/put", file("a.txt", "a"), file("sub/b.txt", "b"), folder("empty"), symlink("link.txt", "a.txt"), program)
	e.run(w.ID, Action{Verb: Write, Path: "in/put/made.txt", Text: "by a process"})

	found, err := downloadFrom(e, w.ID, "in/put")
	e.must("Download", err)
	for name, want := range map[string]string{"put/a.txt": "a", "put/sub/b.txt": "b", "put/made.txt": "by a process", "put/run.sh": "#!/bin/sh\n"} {
		if got, ok := found[name]; !ok || got.header.Typeflag != tar.TypeReg || got.data != want {
			e.t.Errorf("%s in the archive is %q, %v; want %q", name, got.data, ok, want)
		}
	}
	if found["put/empty"].header.Typeflag != tar.TypeDir {
		e.t.Error("an empty folder is not in the archive")
	}
	if h := found["put/link.txt"].header; h.Typeflag != tar.TypeSymlink || h.Linkname != "a.txt" {
		e.t.Errorf("a link in the archive is of type %q to %q", h.Typeflag, h.Linkname)
	}
	if h := found["put/run.sh"].header; h.Mode&0o100 == 0 {
		e.t.Errorf("a program in the archive has mode %o", h.Mode)
	}
	for name := range found {
		if name != "put" && !strings.HasPrefix(name, "put/") {
			e.t.Errorf("%s in the archive of in/put", name)
		}
	}

	found, err = downloadFrom(e, w.ID, "in/put/a.txt")
	e.must("Download of a file", err)
	if len(found) != 1 || found["a.txt"].data != "a" {
		e.t.Errorf("the archive of a file holds %v", found)
	}
	for _, missing := range []string{"missing", "in/missing.txt", "in/put/a.txt/below"} {
		_, err := downloadFrom(e, w.ID, missing)
		e.want("Download of "+missing, err, provider.ErrNotFound)
	}

	a, _ := provider.As[provider.Filer](e.p)
	stream, err := a.Download(e.ctx(), w.ID, "in")
	e.must("Download", err)
	if _, err := stream.Read(make([]byte, 1)); err != nil && err != io.EOF {
		e.t.Errorf("Read: %v", err)
	}
	e.must("Close before the end", stream.Close())
}

func largeFiles(e *env) {
	w := e.boot()
	entries := []entry{file("large.bin", string(flood(250_000)))}
	for i := range 1000 {
		entries = append(entries, file("small/"+strings.Repeat("x", i%50+1)+"/"+random()+".txt", random()))
	}
	uploadTo(e, w.ID, "many", entries...)
	found, err := downloadFrom(e, w.ID, "many")
	e.must("Download", err)
	for _, want := range entries {
		if got := found["many/"+want.header.Name]; got.data != want.data {
			e.t.Errorf("%s: %d bytes, want %d, or others", want.header.Name, len(got.data), len(want.data))
		}
	}
}
