package providertest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

func archiveCases() []conformance {
	filer := ability[provider.Filer]("a Filer")
	return []conformance{
		{
			name:  "files/hostile-archives",
			rule:  "An archive that leads outside, by a name or a link, that holds a device, or that is broken is ErrInvalid and changes nothing, inside or outside.",
			needs: []need{filer},
			run:   hostileArchives,
		},
		{
			name:  "files/hostile-paths",
			rule:  "A path that leads outside is refused: ErrInvalid for Upload, ErrInvalid or ErrNotFound for Download.",
			needs: []need{filer},
			run:   hostilePaths,
		},
		{
			name:  "files/planted-links",
			rule:  "A link that a process has left in the workspace leads neither Upload nor Download outside.",
			needs: []need{filer},
			run:   plantedLinks,
		},
		{
			name:  "files/limits",
			rule:  "An archive that unpacks to more than the limit is ErrInvalid and leaves nothing behind.",
			needs: []need{filer, limitsUpload},
			run:   uploadLimits,
		},
	}
}

func hostileArchives(e *env) {
	w := e.boot()
	a, _ := provider.As[provider.Filer](e.p)
	outside := "pt-" + random() + ".txt"
	uploadTo(e, w.ID, "jail/in", file("kept.txt", "kept"))
	whole := pack(file("kept.txt", "changed"), file("new.txt", "new"), file("long.txt", string(flood(500))))
	for name, stream := range map[string]io.Reader{
		"a name that goes up":               hostile(file("../"+outside, "evil")),
		"a name that goes down and up":      hostile(file("sub/../../"+outside, "evil")),
		"an absolute name":                  hostile(file("/tmp/"+outside, "evil")),
		"a folder that goes up":             hostile(folder("../../../" + outside)),
		"a link that goes up":               hostile(symlink("link", "../../../..")),
		"a link to an absolute path":        hostile(symlink("link", "/etc/passwd")),
		"a file through a link up":          hostile(symlink("link", "../../.."), file("link/"+outside, "evil")),
		"a file through an absolute link":   hostile(symlink("link", "/tmp"), file("link/"+outside, "evil")),
		"a link through a link":             hostile(folder("sub"), symlink("one", "sub"), symlink("one/up", "../../../.."), file("one/up/"+outside, "evil")),
		"a folder replaced by a link":       hostile(folder("sub"), symlink("sub", "/tmp"), file("sub/"+outside, "evil")),
		"a link replaced by a file":         hostile(symlink("link", "/tmp/"+outside), file("link", "evil")),
		"a hard link that goes up":          hostile(hardlink("link", "../../../../../../etc/passwd")),
		"a hard link to an absolute path":   hostile(hardlink("link", "/etc/passwd")),
		"a hard link through a link":        hostile(symlink("link", "/etc"), hardlink("stolen", "link/passwd")),
		"a character device":                hostile(special("null", tar.TypeChar)),
		"a block device":                    hostile(special("disk", tar.TypeBlock)),
		"an archive that is cut off":        bytes.NewReader(whole[:len(whole)-4096]),
		"no archive":                        bytes.NewReader(bytes.Repeat([]byte("no archive "), 500)),
		"an archive whose reader is broken": io.MultiReader(bytes.NewReader(whole[:2048]), broken{}),
	} {
		err := a.Upload(e.ctx(), w.ID, "jail/in", stream)
		if name == "an archive whose reader is broken" {
			if err == nil {
				e.t.Errorf("%s: Upload is nil", name)
			}
		} else {
			e.want(name, err, provider.ErrInvalid)
		}
		found, err := downloadFrom(e, w.ID, "jail")
		e.must("Download", err)
		for path, got := range found {
			if path != "jail" && path != "jail/in" && path != "jail/in/kept.txt" {
				e.t.Errorf("%s: left %s behind", name, path)
			}
			if path == "jail/in/kept.txt" && got.data != "kept" {
				e.t.Errorf("%s: changed a file to %q", name, got.data)
			}
		}
		absent(e, w.ID, name, outside, "../"+outside, "/tmp/"+outside)
	}
}

// hostile is an archive whose first entries are good.
func hostile(bad ...entry) io.Reader {
	good := []entry{file("kept.txt", "changed"), file("new.txt", "new"), folder("newer"), file("newer/new.txt", "new")}
	return archive(append(good, bad...)...)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the reader is broken") }

// absent checks that processes find no such files.
func absent(e *env, id, what string, paths ...string) {
	e.t.Helper()
	var sizes []Action
	for _, path := range paths {
		sizes = append(sizes, Action{Verb: Size, Path: path})
	}
	if got := e.run(id, sizes...); strings.ReplaceAll(got, "0\n", "") != "" {
		e.t.Errorf("%s: wrote one of %v; their sizes are %q", what, paths, got)
	}
}

func hostilePaths(e *env) {
	w := e.boot()
	a, _ := provider.As[provider.Filer](e.p)
	outside := "pt-" + random()
	for _, dir := range []string{"..", "../" + outside, "sub/../../" + outside, "/tmp/" + outside} {
		e.want("Upload to "+dir, a.Upload(e.ctx(), w.ID, dir, archive(file("evil.txt", "evil"))), provider.ErrInvalid)
		absent(e, w.ID, dir, dir+"/evil.txt")
		_, err := downloadFrom(e, w.ID, dir)
		e.want("Download of "+dir, err, provider.ErrInvalid, provider.ErrNotFound)
	}
	_, err := downloadFrom(e, w.ID, "/etc/passwd")
	e.want("Download of an absolute path", err, provider.ErrInvalid, provider.ErrNotFound)
}

func plantedLinks(e *env) {
	w := e.boot()
	a, _ := provider.As[provider.Filer](e.p)
	outside := "pt-" + random() + ".txt"
	e.run(w.ID, Action{Verb: Link, Path: "absolute", Text: "/tmp"}, Action{Verb: Link, Path: "relative", Text: "../.."},
		Action{Verb: Link, Path: "secret", Text: "/etc/passwd"})
	for _, link := range []string{"absolute", "relative"} {
		evil := file(outside, "evil")
		e.want("Upload to a link", a.Upload(e.ctx(), w.ID, link, archive(evil)), provider.ErrInvalid)
		e.want("Upload below a link", a.Upload(e.ctx(), w.ID, link+"/"+outside, archive(evil)), provider.ErrInvalid)
		evil.header.Name = link + "/" + outside
		e.want("Upload through a link", a.Upload(e.ctx(), w.ID, "", archive(evil)), provider.ErrInvalid)
		absent(e, w.ID, link, "/tmp/"+outside, "../../"+outside, "/tmp/"+outside+"/"+outside)
	}
	for _, path := range []string{"absolute", "relative", "secret", "absolute/.", "relative/.."} {
		found, err := downloadFrom(e, w.ID, path)
		if err != nil {
			e.want("Download of a link", err, provider.ErrInvalid, provider.ErrNotFound)
		}
		for name, got := range found {
			if got.header.Typeflag != tar.TypeSymlink {
				e.t.Errorf("Download of a link to the outside holds %s", name)
			}
		}
	}
}

func uploadLimits(e *env) {
	w := e.boot()
	a, _ := provider.As[provider.Filer](e.p)
	if n := e.h.MaxUploadBytes; n > 0 {
		e.want("Upload of too many bytes", a.Upload(e.ctx(), w.ID, "in", zeros(n+1)), provider.ErrInvalid)
		absent(e, w.ID, "Upload of too many bytes", "in/zeros")
	}
	if n := e.h.MaxUploadFiles; n > 0 {
		entries := make([]entry, n+1)
		for i := range entries {
			entries[i] = file(strconv.Itoa(i), "x")
		}
		e.want("Upload of too many files", a.Upload(e.ctx(), w.ID, "in", archive(entries...)), provider.ErrInvalid)
		absent(e, w.ID, "Upload of too many files", "in/0", "in/"+strconv.Itoa(n/2))
	}
}
