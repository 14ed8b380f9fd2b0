//go:build linux

package localprovider

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func TestRootFolder(t *testing.T) {
	b := plain(t)
	dir := t.TempDir()
	b.must(os.Mkdir(filepath.Join(dir, "real"), 0o700))
	b.must(os.Symlink("real", filepath.Join(dir, "link")))
	b.must(os.Mkdir(filepath.Join(dir, "open"), 0o700))
	b.must(os.Chmod(filepath.Join(dir, "open"), 0o777))
	b.must(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))

	scope := func(dir string) string {
		s, err := New(Config{Dir: dir}).Scope(b.ctx())
		b.must(err)
		return s
	}
	real := scope(filepath.Join(dir, "real"))
	if real != scope(filepath.Join(dir, "link")) || real != scope(filepath.Join(dir, "open", "..", "real")) {
		t.Error("one folder has several scopes")
	}
	if real == scope(filepath.Join(dir, "other", "folder")) {
		t.Error("two folders have one scope")
	}
	_, err := New(Config{Dir: filepath.Join(dir, "open")}).Scope(b.ctx())
	b.want(err, provider.ErrUnauthorized)
	if _, err = New(Config{Dir: filepath.Join(dir, "file")}).Scope(b.ctx()); err == nil {
		t.Error("a file is a root folder")
	}
}

// The default folder is in one that anybody may write to.
func TestDefaultRootFolder(t *testing.T) {
	b := plain(t)
	name := fmt.Sprintf("freshet-%d", os.Geteuid())
	for what, prepare := range map[string]func(dir string) error{
		"a link": func(dir string) error {
			return errors.Join(os.Mkdir(dir+".real", 0o700), os.Symlink(dir+".real", dir))
		},
		"open to others": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)) },
	} {
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		b.must(prepare(filepath.Join(tmp, name)))
		if _, err := New(Config{}).Scope(b.ctx()); !errors.Is(err, provider.ErrUnauthorized) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if os.Geteuid() == 0 {
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		b.must(os.Mkdir(filepath.Join(tmp, name), 0o700))
		b.must(os.Chown(filepath.Join(tmp, name), 12345, 12345))
		_, err := New(Config{}).Scope(b.ctx())
		b.want(err, provider.ErrUnauthorized)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	_, err := New(Config{}).Scope(b.ctx())
	b.must(err)
	info, err := os.Stat(filepath.Join(tmp, name))
	b.must(err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the root folder is %v", info.Mode())
	}
}

// A root folder that is missing, like a volume that is not mounted, says nothing of the workspaces in it.
func TestRootFolderThatIsMissing(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	b.must(os.Rename(b.cfg.Dir, b.cfg.Dir+".away"))
	_, err := b.Get(b.ctx(), w.ID)
	b.want(err, provider.ErrUnavailable)
	_, err = b.Get(b.ctx(), token())
	b.want(err, provider.ErrUnavailable)
	b.want(b.Delete(b.ctx(), w.ID), provider.ErrUnavailable)
	for _, err := range b.List(b.ctx(), "tests") {
		b.want(err, provider.ErrUnavailable)
	}
	_, err = b.Create(b.ctx(), provider.CreateRequest{Token: token()})
	b.want(err, provider.ErrUnavailable)
	b.must(os.Rename(b.cfg.Dir+".away", b.cfg.Dir))
	_, err = b.Get(b.ctx(), w.ID)
	b.must(err)
}

func TestBadRequests(t *testing.T) {
	b := plain(t)
	for _, req := range []provider.CreateRequest{
		{Token: ""},
		{Token: "../x"},
		{Token: "UPPER"},
		{Token: strings.Repeat("x", 27)},
		{Token: "t", Owner: "a_b"},
		{Token: "t", Owner: strings.Repeat("x", 27)},
		{Token: "t", Agent: "a/b"},
		{Token: "t", Agent: strings.Repeat("x", 41)},
		{Token: "t", Spec: provider.Spec{Resources: provider.Resources{MemoryMB: -1}}},
		{Token: "t", Spec: provider.Spec{Resources: provider.Resources{CPU: -1}}},
		{Token: "t", Spec: provider.Spec{Options: map[string]string{}}},
		{Token: "t", Spec: provider.Spec{Image: "/no/such/folder"}},
		{Token: "t", Spec: provider.Spec{Image: "relative"}},
		{Token: "t", Spec: provider.Spec{Image: "/dev/null"}},
		{Token: "t", Spec: provider.Spec{Snapshot: "snap-unknown"}},
		{Token: "t", Spec: provider.Spec{Snapshot: "../work"}},
	} {
		_, err := b.Create(b.ctx(), req)
		if !errors.Is(err, provider.ErrInvalid) {
			t.Errorf("%+v: %v", req, err)
		}
	}
	for _, id := range []string{"", "..", "../work", "a/b", "UPPER"} {
		_, err := b.Get(b.ctx(), id)
		b.want(err, provider.ErrNotFound)
		b.must(b.Delete(b.ctx(), id))
	}
}

func TestSameToken(t *testing.T) {
	b := plain(t)
	req := provider.CreateRequest{Token: token(), Owner: "tests", Agent: "agent"}
	hosts := []*Provider{b.Provider, b.another(t), b.another(t)}
	var all sync.WaitGroup
	ctx := b.ctx()
	for i := range 24 {
		all.Go(func() {
			if w, err := hosts[i%3].Create(ctx, req); err != nil || w.ID != req.Token || !w.Ready {
				t.Errorf("%+v, %v", w, err)
			}
		})
	}
	all.Wait()
	for _, change := range []func(*provider.CreateRequest){
		func(r *provider.CreateRequest) { r.Owner = "other" },
		func(r *provider.CreateRequest) { r.Agent = "other" },
		func(r *provider.CreateRequest) { r.Spec.Resources.DiskMB = 1 },
	} {
		other := req
		change(&other)
		_, err := b.Create(b.ctx(), other)
		b.want(err, provider.ErrExists)
	}
	b.must(b.Delete(b.ctx(), req.Token))
	w, err := b.Create(b.ctx(), req) // another workspace: the token is free again
	b.must(err)
	b.must(b.Delete(b.ctx(), w.ID))
}

// image makes a folder with all kinds of files in it.
func image(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "image")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "bin"), 0o755),
		os.Mkdir(filepath.Join(dir, "closed"), 0o700),
		os.WriteFile(filepath.Join(dir, "file"), []byte("of the image"), 0o640),
		os.WriteFile(filepath.Join(dir, "bin", "program"), []byte("#!/bin/sh\necho program\n"), 0o755),
		os.WriteFile(filepath.Join(dir, "closed", "file"), []byte("closed"), 0o400),
		os.Chmod(filepath.Join(dir, "closed"), 0o500),
		os.Symlink("../file", filepath.Join(dir, "bin", "inside")),
		os.Symlink("../../file", filepath.Join(dir, "bin", "outside")),
		os.Symlink("inside/../../..", filepath.Join(dir, "bin", "devious")),
		os.Symlink("/bin/sh", filepath.Join(dir, "bin", "absolute")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "closed"), 0o700) })
	return dir
}

func (b *bench) checkImage(home string) {
	b.Helper()
	for name, want := range map[string]struct {
		mode    fs.FileMode
		content string
	}{
		"file":         {0o640, "of the image"},
		"bin/program":  {0o755, "#!/bin/sh\necho program\n"},
		"closed":       {0o500 | fs.ModeDir, ""},
		"closed/file":  {0o400, "closed"},
		"bin/inside":   {fs.ModeSymlink, "../file"},
		"bin/absolute": {fs.ModeSymlink, "/bin/sh"},
	} {
		path := filepath.Join(home, name)
		info, err := os.Lstat(path)
		b.must(err)
		var content []byte
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			target, _ := os.Readlink(path)
			content = []byte(target)
		case 0:
			content, err = os.ReadFile(path)
			b.must(err)
		}
		if info.Mode().Type() != want.mode.Type() || info.Mode().Type() != fs.ModeSymlink && info.Mode() != want.mode || string(content) != want.content {
			b.Errorf("%s is %v %q, want %+v", name, info.Mode(), content, want)
		}
	}
	for _, name := range []string{"bin/outside", "bin/devious", "pipe"} {
		if _, err := os.Lstat(filepath.Join(home, name)); err == nil {
			b.Errorf("%s was copied", name)
		}
	}
}

func TestImage(t *testing.T) {
	b := plain(t)
	from := image(t)
	w := b.make(provider.Spec{Image: from})
	b.checkImage(w.Home)
	if out := b.output(w.ID, "bin/program; echo changed >file"); out != "program\n" {
		t.Errorf("output %q", out)
	}
	if got, _ := os.ReadFile(filepath.Join(from, "file")); string(got) != "of the image" {
		t.Errorf("the image reads %q now", got)
	}

	within := newBench(t, system{}, Config{Images: filepath.Dir(from)})
	within.checkImage(within.make(provider.Spec{Image: "image"}).Home)
	b.must(os.Symlink("/etc", filepath.Join(filepath.Dir(from), "link")))
	for _, name := range []string{"missing", "..", "../..", "/etc", from, "link", "image/file"} {
		_, err := within.Create(b.ctx(), provider.CreateRequest{Token: token(), Spec: provider.Spec{Image: name}})
		if !errors.Is(err, provider.ErrInvalid) {
			t.Errorf("image %q: %v", name, err)
		}
	}
}

func TestCreateThatIsBrokenOff(t *testing.T) {
	b := plain(t)
	ctx, cancel := context.WithCancel(b.ctx())
	from, err := os.OpenRoot(image(t))
	b.must(err)
	defer from.Close()
	cancel()
	b.want(copyTree(ctx, from, t.TempDir()), context.Canceled)
}

func TestSnapshot(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{Image: image(t)})
	snapshot, err := b.Snapshot(b.ctx(), w.ID)
	b.must(err)
	b.output(w.ID, "echo changed >file; chmod 0700 closed; rm -f closed/file")
	b.must(b.Delete(b.ctx(), w.ID))
	copied := b.make(provider.Spec{Snapshot: snapshot})
	b.checkImage(copied.Home)
	b.must(b.DeleteSnapshot(b.ctx(), snapshot))
	b.must(b.DeleteSnapshot(b.ctx(), snapshot))
	b.must(b.DeleteSnapshot(b.ctx(), "../work/"+copied.ID))
	_, err = b.Create(b.ctx(), provider.CreateRequest{Token: token(), Spec: provider.Spec{Snapshot: snapshot}})
	b.want(err, provider.ErrInvalid)
	b.checkImage(copied.Home)
}

// What a host process that died has left half-made goes with the next look.
func TestLeftovers(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		r, err := b.open()
		b.must(err)

		half := r.path(stagingFolder, "half") // the lock has gone with the process
		b.must(os.MkdirAll(filepath.Join(half, homeFolder, "sub"), 0o700))
		b.must(os.Chmod(filepath.Join(half, homeFolder), 0o500))
		making, release, err := r.stage("making")
		b.must(err)

		deleting := b.make(provider.Spec{})
		p := b.sh(deleting.ID, "main", "echo up; while :; do sleep 1; done")
		b.await(p, "up")
		b.must(os.Rename(r.path(workFolder, deleting.ID), r.path(trashFolder, deleting.ID)))

		nameless := b.make(provider.Spec{})
		p = b.sh(nameless.ID, "main", "echo up; while :; do sleep 1; done")
		b.await(p, "up")
		b.must(os.WriteFile(b.found(nameless.ID).file(recordFile), []byte("{"), 0o600))

		lost := b.make(provider.Spec{})
		g := b.found(lost.ID).Groups
		if g.has(g.Tree) { // without groups nobody can find what runs there
			p = b.sh(lost.ID, "main", "echo up; while :; do sleep 1; done")
			b.await(p, "up")
		}
		b.must(os.RemoveAll(r.path(workFolder, lost.ID)))

		for w, err := range b.another(t).List(b.ctx(), "tests") {
			t.Errorf("List: %+v, %v", w, err)
		}
		if _, err := os.Stat(half); err == nil {
			t.Error("a half-made folder is left")
		}
		if _, err := os.Stat(making); err != nil {
			t.Error("a folder was removed that is being made")
		}
		release()
		b.until("the deleted processes are reaped", func() bool {
			b.watcher.mu.Lock()
			defer b.watcher.mu.Unlock()
			return len(b.watcher.watched) == 0
		})
	})
}

func TestDeleteReadOnlyFolders(t *testing.T) {
	b := plain(t)
	outside := filepath.Join(t.TempDir(), "outside")
	b.must(os.MkdirAll(filepath.Join(outside, "sub"), 0o700))
	b.must(os.WriteFile(filepath.Join(outside, "sub", "file"), nil, 0o400))
	b.must(os.Chmod(filepath.Join(outside, "sub"), 0o500))
	w := b.make(provider.Spec{})
	b.output(w.ID, "mkdir -p a/b/c; touch a/b/c/file; ln -s "+outside+" a/link; chmod 0 a/b/c; chmod 0500 a/b; chmod 0 a")
	b.must(b.Delete(b.ctx(), w.ID))
	info, err := os.Stat(filepath.Join(outside, "sub"))
	b.must(err)
	if _, err := os.Stat(filepath.Join(outside, "sub", "file")); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("Delete has followed a link: %v, %v", info.Mode(), err)
	}
	b.must(os.Chmod(filepath.Join(outside, "sub"), 0o700))
}

// A Delete that is broken off leaves a workspace that is Deleting, and is gone on with.
func TestDeleteThatIsBrokenOff(t *testing.T) {
	b := plain(t)
	w := b.make(provider.Spec{})
	_, held, err := b.found(w.ID).lock(b.ctx(), syscall.LOCK_SH)
	b.must(err)
	short, cancel := context.WithTimeout(b.ctx(), 10*time.Millisecond)
	defer cancel()
	b.want(b.Delete(short, w.ID), context.DeadlineExceeded)
	held.Close()

	r, err := b.open()
	b.must(err)
	b.must(os.Rename(r.path(workFolder, w.ID), r.path(trashFolder, w.ID)))
	_, busy, err := b.found(w.ID).lock(b.ctx(), syscall.LOCK_EX) // by whoever deletes it now
	b.must(err)
	got, err := b.Get(b.ctx(), w.ID)
	if err != nil || got.State != provider.Deleting || got.Ready {
		t.Errorf("Get: %+v, %v", got, err)
	}
	listed := 0
	for w, err := range b.List(b.ctx(), "tests") {
		b.must(err)
		if listed++; w.State != provider.Deleting {
			t.Errorf("List: %+v", w)
		}
	}
	if listed != 1 {
		t.Errorf("List yields %d", listed)
	}
	_, err = b.StartProcess(b.ctx(), w.ID, "late", provider.Cmd{Args: []string{"true"}})
	b.want(err, provider.ErrConflict)
	b.want(b.Check(b.ctx(), w.ID), provider.ErrLost)
	_, err = b.Create(b.ctx(), provider.CreateRequest{Token: w.ID, Owner: "tests", Agent: "agent"})
	b.must(err) // it is still the one of this token
	busy.Close()
	_, err = b.Get(b.ctx(), w.ID)
	b.want(err, provider.ErrNotFound)
}
