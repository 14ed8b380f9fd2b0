package localprovider

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// copyTree copies what is in a folder into an empty one: files with their permissions and times, folders and symbolic
// links; devices, sockets and pipes are left out, and so is what disappears while it works. Nothing is shared between
// the two, but for blocks that the file system copies on write. Links are not followed. An absolute one stays as it is;
// a relative one that leads out of the folder, and would mean something else in the new place, is left out.
func copyTree(ctx context.Context, from *os.Root, dir string) error {
	to, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	return copyFolder(ctx, from, to, 0)
}

func copyFolder(ctx context.Context, from, to *os.Root, depth int) error {
	entries, err := readDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := copyEntry(ctx, from, to, e.Name(), depth)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func copyEntry(ctx context.Context, from, to *os.Root, name string, depth int) error {
	info, err := from.Lstat(name)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		return copyFile(from, to, name)
	case fs.ModeSymlink:
		target, err := from.Readlink(name)
		if err != nil || !path.IsAbs(target) && climb(target) > depth {
			return err
		}
		return to.Symlink(target, name)
	case fs.ModeDir:
		inner, err := from.OpenRoot(name)
		if err != nil {
			return err
		}
		defer inner.Close()
		if err := to.Mkdir(name, 0o700); err != nil {
			return err
		}
		made, err := to.OpenRoot(name)
		if err != nil {
			return err
		}
		defer made.Close()
		if err := copyFolder(ctx, inner, made, depth+1); err != nil {
			return err
		}
		return dress(to, name, info)
	}
	return nil
}

func copyFile(from, to *os.Root, name string) error {
	// Not blocking, should it have become a pipe.
	src, err := from.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	dst, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	return dress(to, name, info)
}

// dress gives a file or folder the permissions and the time of another.
func dress(in *os.Root, name string, like fs.FileInfo) error {
	if err := in.Chtimes(name, like.ModTime(), like.ModTime()); err != nil {
		return err
	}
	return in.Chmod(name, like.Mode().Perm())
}

// climb is how many folders a relative target of a link leads up before it leads down. A target that leads up later on
// counts as leading out of everything, since what it passes may be a link itself.
func climb(target string) int {
	up, down := 0, false
	for _, part := range strings.Split(target, "/") {
		switch {
		case part == "" || part == ".":
		case part != "..":
			down = true
		case down:
			return 1 << 30
		default:
			up++
		}
	}
	return up
}
