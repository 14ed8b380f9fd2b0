package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Setenv("OBLIEN_CLIENT_ID", "")
	var out bytes.Buffer
	err := run(t.Context(), 20, &out)
	if err != nil || !strings.HasSuffix(out.String(), "\ntasks=20 succeeded=20 workspaces_left=0\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
