// Command testsum reads the output of go test -json from standard input and prints what go test says without that flag:
// the line of each package, and all that a failed test wrote. Its last line counts the tests, subtests included, as
// "12 passed, 0 failed". A package that fails without a failed test counts as one failure.
//
// With FRESHET_REQUIRE_SERVICES=1 a skipped test counts as failed: a suite that should have run did not. A skipped
// subtest does not, since conformance suites skip what an implementation says it cannot do.
//
// The exit status is 1 when a test failed or none passed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	if !sum(os.Stdin, os.Stdout, os.Getenv("FRESHET_REQUIRE_SERVICES") == "1") {
		os.Exit(1)
	}
}

// sum reports whether all is well.
func sum(in io.Reader, out io.Writer, strict bool) bool {
	s := summary{out: out, strict: strict, tests: map[string]map[string]*strings.Builder{}, failedIn: map[string]int{}}
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadString('\n')
		if e := (event{}); json.Unmarshal([]byte(line), &e) == nil {
			s.add(e)
		} else {
			fmt.Fprint(out, line) // the go command speaks plainly when it cannot begin
		}
		if err != nil {
			break
		}
	}
	if s.skipped > 0 {
		fmt.Fprintf(out, "%d skipped\n", s.skipped)
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", s.passed, s.failed)
	return s.failed == 0 && s.passed > 0
}

// event is a line of go test -json; see go doc test2json. Test is empty for what concerns a whole package.
type event struct {
	Action, Package, Test, Output string
}

type summary struct {
	out                     io.Writer
	strict                  bool
	passed, failed, skipped int
	tests                   map[string]map[string]*strings.Builder // what unfinished tests wrote, by package and test
	failedIn                map[string]int                         // failed tests, by package
}

func (s *summary) add(e event) {
	if s.tests[e.Package] == nil {
		s.tests[e.Package] = map[string]*strings.Builder{}
	}
	tests := s.tests[e.Package]
	if tests[e.Test] == nil {
		tests[e.Test] = &strings.Builder{}
	}
	wrote := tests[e.Test]

	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") {
			wrote.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		delete(tests, e.Test)
		if e.Test == "" {
			s.endPackage(e, wrote.String())
		} else {
			s.endTest(e, wrote.String())
		}
	}
}

func (s *summary) endTest(e event, wrote string) {
	switch {
	case e.Action == "pass":
		s.passed++
	case e.Action == "skip" && (!s.strict || strings.Contains(e.Test, "/")):
		s.skipped++
	default:
		s.failed++
		s.failedIn[e.Package]++
		if e.Action == "skip" {
			fmt.Fprintf(s.out, "did not run: %s in %s\n", e.Test, e.Package)
		}
		fmt.Fprint(s.out, wrote)
	}
}

func (s *summary) endPackage(e event, wrote string) {
	if e.Action != "fail" {
		for line := range strings.Lines(wrote) {
			if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") {
				fmt.Fprint(s.out, line)
			}
		}
		return
	}
	// A panic or a time-out ends the package while tests are still running.
	for _, test := range slices.Sorted(maps.Keys(s.tests[e.Package])) {
		s.failed++
		s.failedIn[e.Package]++
		fmt.Fprintf(s.out, "did not end: %s in %s\n%s", test, e.Package, s.tests[e.Package][test])
	}
	if s.failedIn[e.Package] == 0 {
		s.failed++
	}
	fmt.Fprint(s.out, wrote)
}
