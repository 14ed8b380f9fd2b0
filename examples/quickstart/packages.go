package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// goTree is the source of the standard library of the Go that this machine has.
func goTree() (string, error) {
	cmd := exec.Command("go", "env", "GOROOT")
	cmd.Stderr = os.Stderr
	root, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w; name a folder with Go packages", err)
	}
	return filepath.Join(string(bytes.TrimSpace(root)), "src"), nil
}

// findPackages returns the folders of a tree that hold Go files, at most n, those near its root first.
func findPackages(tree fs.FS, n int) ([]string, error) {
	found := map[string]bool{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		base := path.Base(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_'):
			return fs.SkipDir
		case isSource(d):
			found[path.Dir(name)] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("no Go packages there")
	}
	var all []string
	for name := range found {
		all = append(all, name)
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, "/"), strings.Count(b, "/")), cmp.Compare(a, b))
	})
	return all[:min(n, len(all))], nil
}

func isSource(d fs.DirEntry) bool {
	return d.Type().IsRegular() && path.Ext(d.Name()) == ".go" && !strings.HasSuffix(d.Name(), "_test.go")
}

// goPackage is a folder in which nothing shows but the source of its package.
type goPackage struct{ fs.FS }

// ReadDir is that of the folder, without the rest.
func (p goPackage) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(p.FS, name)
	return slices.DeleteFunc(all, func(d fs.DirEntry) bool { return !isSource(d) }), err
}
