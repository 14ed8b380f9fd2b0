package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The agent is this program again, and in a test that is the test.
func TestMain(m *testing.M) {
	if isAgent() {
		main()
		return
	}
	os.Exit(m.Run())
}

// quickstart runs it with real processes over n small packages, and returns what it prints.
func quickstart(t *testing.T, ctx context.Context, n int) (string, error) {
	t.Helper()
	folder := t.TempDir()
	for i := range n {
		dir := filepath.Join(folder, fmt.Sprint("p", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(code), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	runErr := run(ctx, options{folder: folder, n: n, tenants: 2, limit: 2, warm: 1}, out)
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text), runErr
}

func TestEveryPackageIsAnalysedAndNothingIsLeft(t *testing.T) {
	out, err := quickstart(t, t.Context(), 8)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	last := regexp.MustCompile(`\ntasks=8 succeeded=8 failed=0 peak=[1-5] workspaces_left=0 processes_left=0\n$`)
	if !last.MatchString(out) || !strings.Contains(out, "8 artifacts") || !strings.Contains(out, "Bare.Exported") {
		t.Errorf("%s", out)
	}
}

func TestNothingIsLeftAfterAnInterruption(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // sooner or later than the end: all the same
	defer cancel()
	if out, _ := quickstart(t, ctx, 30); !strings.HasSuffix(out, " workspaces_left=0 processes_left=0\n") {
		t.Errorf("%s", out)
	}
}
