package obliensdk_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider/oblienprovider/obliensim/sim"
)

// TestOfficialClient: what the test server says is what Oblien's own client takes.
func TestOfficialClient(t *testing.T) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("FRESHET_REQUIRE_SERVICES") == "1" {
				t.Fatalf("%s is missing, and FRESHET_REQUIRE_SERVICES is 1", tool)
			}
			t.Skipf("not run: the official Oblien client, which needs %s", tool)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "client.test.mjs"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := sim.New(sim.Config{MaxTasks: 8, Limits: sim.Limits{Workspaces: 60, MaxMemoryMB: 64 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	url, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "OBLIENSIM_URL="+url)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		t.Logf("%s", out)
	}
	run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	run("node", "--test", "client.test.mjs")
}
