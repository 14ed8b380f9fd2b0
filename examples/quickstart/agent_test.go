package main

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

const code = `package p

import (
	"fmt"
	"os"
)

// Documented is.
type Documented struct{}

type Bare struct{}

func (Bare) Exported(a, b bool) int {
	for range 3 {
		if a && b { // TODO: why?
			return 1
		}
	}
	switch {
	case a:
		fmt.Println()
	default:
		os.Exit(1)
	}
	return 0
}

func small() {}
`

func TestAnalyse(t *testing.T) {
	var log strings.Builder
	got, functions, err := analyse("p", fstest.MapFS{
		"p.go":      {Data: []byte(code)},
		"broken.go": {Data: []byte("package")},
		"data.txt":  {Data: []byte("TODO")},
	}, &log)
	if err != nil {
		t.Fatal(err)
	}
	exported := function{Name: "Bare.Exported", At: "p.go:13", Lines: 14, Paths: 5}
	want := report{
		Package: "p", Files: 1, Lines: 28, Imports: 2, Todos: 1, Undocumented: 2, Broken: 1,
		Functions: 2, Longest: exported, Branchy: exported,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(functions) != 2 || functions[0] != exported {
		t.Errorf("functions: %+v", functions)
	}
	if !strings.Contains(log.String(), "p.go: 28 lines, 2 functions\n") {
		t.Errorf("log: %q", log.String())
	}
}

func TestFindPackages(t *testing.T) {
	tree := fstest.MapFS{}
	for _, name := range []string{
		"b/c/c.go", "b/b.go", "a/a.go", "a/a_test.go", "tests/x_test.go", "z.go", "d/testdata/t.go", "vendor/v.go", ".x/x.go", "e/readme",
	} {
		tree[name] = &fstest.MapFile{}
	}
	for n, want := range map[int][]string{9: {".", "a", "b", "b/c"}, 2: {".", "a"}} {
		got, err := findPackages(tree, n)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("at most %d: %q, %v; want %q", n, got, err, want)
		}
	}
	if _, err := findPackages(fstest.MapFS{}, 1); err == nil {
		t.Error("no error without packages")
	}
	files, err := goPackage{tree}.ReadDir("a")
	if err != nil || len(files) != 1 || files[0].Name() != "a.go" {
		t.Errorf("files of a: %v, %v", files, err)
	}
}
