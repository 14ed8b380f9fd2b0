package freshet_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The direction of imports and the list of dependencies are promises to whoever imports Freshet; these tests hold them.

const root = "github.com/freshet-dev/freshet"

// TestRequirements holds what a user's go.mod inherits.
func TestRequirements(t *testing.T) {
	direct := []string{
		"github.com/cenkalti/backoff/v4",
		"github.com/stretchr/testify",
		"golang.org/x/sync",
		"golang.org/x/time",
	}
	ofTestify := []string{
		"github.com/davecgh/go-spew",
		"github.com/pmezard/go-difflib",
		"gopkg.in/yaml.v3",
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []json.RawMessage
	}
	if err := json.Unmarshal(goCommand(t, "mod", "edit", "-json", "go.mod"), &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !slices.Contains(direct, r.Path) && !(r.Indirect && slices.Contains(ofTestify, r.Path)) {
			t.Errorf("go.mod requires %s (indirect: %v)", r.Path, r.Indirect)
		}
	}
	if len(mod.Replace) > 0 {
		t.Error("go.mod has a replace, which users of the module do not get")
	}
}

// TestWorkspace: a module that go.work does not list is a module that nobody tests.
func TestWorkspace(t *testing.T) {
	var work struct {
		Use []struct{ DiskPath string }
	}
	if err := json.Unmarshal(goCommand(t, "work", "edit", "-json", "go.work"), &work); err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, u := range work.Use {
		listed = append(listed, path.Clean(u.DiskPath))
	}
	slices.Sort(listed)
	var found []string
	walk(t, func(name string) {
		if path.Base(name) == "go.mod" {
			found = append(found, path.Dir(name))
		}
	})
	slices.Sort(found)
	if !slices.Equal(listed, found) {
		t.Errorf("go.work lists %q, the tree has %q", listed, found)
	}
}

// TestBuildsWithoutTestHelpers: testing brings its flags into a program, testify a tree of modules.
func TestBuildsWithoutTestHelpers(t *testing.T) {
	packages := map[string]*listedPackage{}
	dec := json.NewDecoder(strings.NewReader(string(goCommand(t, "list", "-deps", "-json=ImportPath,Deps,Standard", "./..."))))
	for {
		p := new(listedPackage)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	if packages[root] == nil {
		t.Fatalf("go list does not know %s", root)
	}
	for name, p := range packages {
		if !inModule(name) {
			continue
		}
		for _, dep := range p.Deps {
			switch d := packages[dep]; {
			case isSuite(name) && !d.Standard && !inModule(dep):
				t.Errorf("%s imports %s: authors of adapters would inherit it", name, dep)
			case !isSuite(name) && (isTesting(dep) || strings.HasPrefix(dep, "github.com/stretchr/")):
				t.Errorf("%s imports %s outside its tests", name, dep)
			}
		}
	}
	for _, f := range sources(t) { // those of other platforms and modules too
		for _, imp := range f.imports() {
			if isTesting(imp) && !f.suite {
				t.Errorf("%s imports %s", f.name, imp)
			}
		}
	}
}

// TestImports holds the arrows: leaves know nothing of the root, and each knows only the leaves below it.
func TestImports(t *testing.T) {
	const (
		std      = "std"
		provider = root + "/provider"
		queue    = root + "/queue"
		store    = root + "/store"
		line     = root + "/internal/line"
		run      = root + "/internal/run"
	)
	// What a package of the core may import directly, beside an internal package of its own. Keys are patterns for its
	// folder; a folder without a rule has its parent's.
	rules := map[string][]string{
		"provider":              {std},
		"provider/providertest": {std, provider},
		"provider/*provider":    {std, provider, run},
		// A test server, which runs real processes.
		"provider/oblienprovider/obliensim": {std, provider, root + "/provider/localprovider", root + "/provider/oblienprovider/obliensim/sim"},
		"queue":                             {std, line},
		"queue/queuetest":                   {std, queue},
		"store":                             {std, provider, queue, line},
		"store/storetest":                   {std, provider, queue, store},
		"internal/line":                     {std},
		"internal/policy":                   {std, provider, queue, store},
	}
	ruleFor := func(folder string) (dir string, allowed []string) {
		for dir = folder; dir != "."; dir = path.Dir(dir) {
			for pattern, allowed := range rules {
				if ok, _ := path.Match(pattern, dir); ok {
					return dir, allowed
				}
			}
		}
		return "", nil
	}
	for _, f := range sources(t) {
		folder := path.Dir(f.name)
		for _, imp := range f.imports() {
			if imp == root && mayNotImportRoot(folder) {
				t.Errorf("%s imports the root package", f.name)
			}
			if f.nested {
				continue
			}
			kind := imp
			if isStd(imp) {
				kind = std
			}
			dir, allowed := ruleFor(folder)
			if dir != "" && !slices.Contains(allowed, kind) && !strings.HasPrefix(imp, root+"/"+dir+"/internal/") {
				t.Errorf("%s imports %s; %s may import %q", f.name, imp, dir, allowed)
			}
		}
	}
}

// mayNotImportRoot: only the host's side of the tree does.
func mayNotImportRoot(folder string) bool {
	top, _, _ := strings.Cut(folder, "/")
	return !slices.Contains([]string{"examples", "benchmarks", "tests"}, top)
}

// TestPurePackages: what internal/policy and internal/line decide depends on their arguments alone.
func TestPurePackages(t *testing.T) {
	impure := []string{"context", "database", "io/fs", "log", "net", "os", "runtime", "sync", "syscall"}
	clock := []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}
	for _, f := range sources(t) {
		if folder := path.Dir(f.name); folder != "internal/policy" && folder != "internal/line" {
			continue
		}
		for _, imp := range f.imports() {
			for _, i := range impure {
				if imp == i || strings.HasPrefix(imp, i+"/") {
					t.Errorf("%s imports %s", f.name, imp)
				}
			}
		}
		for _, use := range f.uses("time", clock...) {
			t.Errorf("%s uses the clock", use)
		}
	}
}

// TestGoroutines: internal/run is the one place that starts them, so that each has an owner who waits for it.
func TestGoroutines(t *testing.T) {
	for _, f := range sources(t) {
		folder := path.Dir(f.name)
		top, _, _ := strings.Cut(folder, "/")
		if f.nested || f.suite || folder == "internal/run" || folder != "." && !slices.Contains([]string{"internal", "queue", "store"}, top) {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a go statement outside internal/run", f.fset.Position(g.Pos()))
			}
			return true
		})
	}
}

// TestNoSleep: a sleep cannot be cancelled.
func TestNoSleep(t *testing.T) {
	for _, f := range sources(t) {
		if f.suite {
			continue // runs in synctest bubbles, where a sleep moves the clock
		}
		for _, use := range f.uses("time", "Sleep") {
			t.Errorf("%s sleeps", use)
		}
	}
}

// source is a Go file of the tree that is not a test, for whatever platform.
type source struct {
	name   string // relative to the root, with slashes
	nested bool   // of another module than the core
	suite  bool   // of a package that holds tests for others to run
	fset   *token.FileSet
	syntax *ast.File
}

// sources parses all modules of the tree.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	var modules []string
	walk(t, func(name string) {
		switch {
		case path.Base(name) == "go.mod" && name != "go.mod":
			modules = append(modules, path.Dir(name)+"/")
		case path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go"):
			fset := token.NewFileSet()
			syntax, err := parser.ParseFile(fset, filepath.FromSlash(name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, source{name: name, suite: isSuite(path.Dir(name)), fset: fset, syntax: syntax})
		}
	})
	if len(all) == 0 {
		t.Fatal("no Go files")
	}
	for i := range all {
		all[i].nested = slices.ContainsFunc(modules, func(m string) bool { return strings.HasPrefix(all[i].name, m) })
	}
	return all
}

func (f source) imports() []string {
	var paths []string
	for _, spec := range f.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// uses returns where the file mentions one of these names of a package, as "file:line:column: package.Name".
func (f source) uses(pkg string, names ...string) []string {
	local := ""
	for _, spec := range f.syntax.Imports {
		if spec.Path.Value == strconv.Quote(pkg) {
			local = path.Base(pkg)
			if spec.Name != nil {
				local = spec.Name.Name
			}
		}
	}
	var found []string
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, sel.Sel.Name) {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
				found = append(found, f.fset.Position(sel.Pos()).String()+": "+pkg+"."+sel.Sel.Name)
			}
		}
		return true
	})
	return found
}

// walk calls fn with each file of the tree in a folder where go looks for packages.
func walk(t *testing.T, fn func(name string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		switch hidden := name != "." && (base[0] == '.' || base[0] == '_'); {
		case d.IsDir() && (hidden || base == "testdata" || name == "bin"):
			return fs.SkipDir
		case !d.IsDir() && !hidden:
			fn(filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listedPackage is the part of go list's answer that is asked for.
type listedPackage struct {
	ImportPath string
	Deps       []string
	Standard   bool
}

func inModule(pkg string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") }

// isSuite says whether a package holds tests for others to run, such as providertest.
func isSuite(pkg string) bool { return strings.HasSuffix(pkg, "test") }

func isTesting(pkg string) bool { return pkg == "testing" || strings.HasPrefix(pkg, "testing/") }

func isStd(pkg string) bool {
	first, _, _ := strings.Cut(pkg, "/")
	return !strings.Contains(first, ".")
}

// goCommand runs the go command on the core module alone.
func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return out
}
