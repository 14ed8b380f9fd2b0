package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// countWorkspaces asks the provider for all workspaces of an owner, in whatever state.
func countWorkspaces(ctx context.Context, p provider.Provider, owner string) (int, error) {
	lister, ok := provider.As[provider.Lister](p)
	if !ok {
		return 0, errors.New("this provider cannot list its workspaces")
	}
	n := 0
	for _, err := range lister.List(ctx, owner) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// countProcesses looks through the table of processes for those that have to do with a folder: whose working folder or
// program is in it, or whose command line or environment names it. Every process in a workspace is started with HOME in
// the workspace's folder, and hands that on to its children. One that was killed may take a moment to leave the table: it
// is given a few seconds.
func countProcesses(ctx context.Context, folder string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := countProcessesNow(folder)
		if n == 0 || err != nil {
			return n, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n, nil
		}
	}
}

func countProcessesNow(folder string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("no table of processes: %w", err)
	}
	self := strconv.Itoa(os.Getpid())
	n := 0
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil && e.Name() != self && hasToDoWith(e.Name(), folder) {
			n++
		}
	}
	return n, nil
}

// hasToDoWith reads what it may: that of other users' processes stays hidden, and they are none of ours.
func hasToDoWith(pid, folder string) bool {
	for _, link := range []string{"cwd", "exe"} {
		if to, err := os.Readlink(filepath.Join("/proc", pid, link)); err == nil && strings.HasPrefix(to, folder) {
			return true
		}
	}
	for _, file := range []string{"cmdline", "environ"} {
		if b, err := os.ReadFile(filepath.Join("/proc", pid, file)); err == nil && bytes.Contains(b, []byte(folder)) {
			return true
		}
	}
	return false
}
