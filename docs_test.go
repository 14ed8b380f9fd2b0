package freshet_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/freshet-dev/freshet/internal/policy"
)

// The drawing of a task's states shows the edges that the code knows, and no others.
func TestLifecycleIsDrawnAsItIs(t *testing.T) {
	text, err := os.ReadFile("docs/lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	drawing := regexp.MustCompile("(?s)## A task\n\n```mermaid\n(.*?)```").FindSubmatch(text)
	if drawing == nil {
		t.Fatal("docs/lifecycle.md has no drawing of a task")
	}
	var drawn, known []string
	for _, edge := range regexp.MustCompile(`(?m)^ *(\w+) --> (\w+):`).FindAllSubmatch(drawing[1], -1) {
		drawn = append(drawn, string(edge[1])+" --> "+string(edge[2]))
	}
	for from, to := range policy.TaskEdges() {
		for _, s := range to {
			known = append(known, string(from)+" --> "+string(s))
		}
	}
	slices.Sort(drawn)
	slices.Sort(known)
	if !slices.Equal(drawn, known) {
		t.Errorf("drawn:\n%v\nknown:\n%v", drawn, known)
	}
}
