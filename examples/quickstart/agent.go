package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// This file is the agent: a program that knows nothing of Freshet. It starts in its workspace, finds the files that were
// put there for it, prints what it does, and leaves its result and an artifact in the folder that it was told of.

// agentArg makes this program the agent.
const agentArg = "agent"

// sources is the folder of the workspace in which the agent finds its package.
const sources = "src"

// report is what an agent finds out about a package.
type report struct {
	Package      string
	Files        int
	Lines        int
	Imports      int // different ones
	Todos        int // comments that ask for work
	Undocumented int // exported functions and types without a comment
	Broken       int // files that do not parse

	Functions int
	Longest   function
	Branchy   function // the one with the most paths through it
}

// function is a function worth a look.
type function struct {
	Name  string
	At    string // file:line
	Lines int
	Paths int // cyclomatic complexity: one, and one more for each branch
}

// agent analyses the package in the folder sources.
func agent(out io.Writer) error {
	name, err := io.ReadAll(os.Stdin) // the payload
	if err != nil {
		return err
	}
	r, functions, err := analyse(string(name), os.DirFS(sources), out)
	if err != nil {
		return err
	}
	dir := os.Getenv("FRESHET_DIR")
	var list bytes.Buffer
	w := tabwriter.NewWriter(&list, 0, 0, 2, ' ', 0)
	for _, f := range functions {
		fmt.Fprintf(w, "%s\t%d lines\t%d paths\t%s\n", f.Name, f.Lines, f.Paths, f.At)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "artifacts", "functions.txt"), list.Bytes(), 0o644); err != nil {
		return err
	}
	result, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "result"), result, 0o644)
}

// analyse reads all Go files of a folder. It also returns the functions, the most complex first.
func analyse(name string, files fs.FS, out io.Writer) (report, []function, error) {
	r := report{Package: name}
	names, err := fs.Glob(files, "*.go")
	if err != nil {
		return r, nil, err
	}
	var functions []function
	imports := map[string]bool{}
	for _, name := range names {
		source, err := fs.ReadFile(files, name)
		if err != nil {
			return r, nil, err
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			fmt.Fprintln(out, err)
			r.Broken++
			continue
		}
		lines := bytes.Count(source, []byte("\n"))
		found := functionsOf(fset, syntax)
		functions = append(functions, found...)
		r.Files++
		r.Lines += lines
		r.Todos += todos(syntax)
		r.Undocumented += undocumented(syntax)
		for _, spec := range syntax.Imports {
			imports[spec.Path.Value] = true
		}
		fmt.Fprintf(out, "%s: %d lines, %d functions\n", name, lines, len(found))
	}
	r.Imports = len(imports)
	r.Functions = len(functions)
	if len(functions) > 0 {
		r.Longest = slices.MaxFunc(functions, func(a, b function) int { return cmp.Compare(a.Lines, b.Lines) })
		slices.SortStableFunc(functions, func(a, b function) int { return cmp.Compare(b.Paths, a.Paths) })
		r.Branchy = functions[0]
	}
	return r, functions, nil
}

func functionsOf(fset *token.FileSet, file *ast.File) []function {
	var all []function
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		at := fset.Position(f.Pos())
		all = append(all, function{
			Name:  nameOf(f),
			At:    fmt.Sprintf("%s:%d", at.Filename, at.Line),
			Lines: fset.Position(f.End()).Line - at.Line + 1,
			Paths: paths(f.Body),
		})
	}
	return all
}

// nameOf is a function's name, with that of its receiver's type.
func nameOf(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	t := f.Recv.List[0].Type
	for {
		switch of := t.(type) {
		case *ast.StarExpr:
			t = of.X
		case *ast.IndexExpr:
			t = of.X
		case *ast.IndexListExpr:
			t = of.X
		case *ast.Ident:
			return of.Name + "." + f.Name.Name
		default:
			return f.Name.Name
		}
	}
}

// paths counts the branches of a function. Those of the functions within it are its own too.
func paths(body *ast.BlockStmt) int {
	n := 1
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if node.List != nil { // default is no branch of its own
				n++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

func todos(file *ast.File) int {
	n := 0
	for _, group := range file.Comments {
		for _, c := range group.List {
			if strings.Contains(c.Text, "TODO") || strings.Contains(c.Text, "FIXME") {
				n++
			}
		}
	}
	return n
}

// undocumented counts the exported functions and types that have no comment.
func undocumented(file *ast.File) int {
	n := 0
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name, method, found := strings.Cut(nameOf(d), ".")
			if d.Doc == nil && ast.IsExported(name) && (!found || ast.IsExported(method)) {
				n++
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if t, ok := s.(*ast.TypeSpec); ok && d.Doc == nil && t.Doc == nil && t.Comment == nil && t.Name.IsExported() {
					n++
				}
			}
		}
	}
	return n
}
