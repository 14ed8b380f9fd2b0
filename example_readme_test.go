package freshet_test

import (
	"os"
	"strings"
	"testing"
)

// The first program that a reader sees is the one that ExampleNew runs.
func TestReadmeProgramRuns(t *testing.T) {
	between := func(file, begin, end string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), begin)
		code, _, ended := strings.Cut(rest, end)
		if !found || !ended {
			t.Fatalf("%s has no %q", file, begin)
		}
		return code
	}
	readme := between("README.md", "func main() {\n", "}\n```")
	example := between("example_linux_test.go", "func ExampleNew() {\n", "\t// Output:")
	if readme != example {
		t.Errorf("README.md has\n%s\nExampleNew has\n%s", readme, example)
	}
}
