// Quickstart runs an agent for each Go package of a folder, for several tenants at once: each is a process of its own in a
// workspace of its own on this machine. At the end nothing of them is left, and it measures that.
//
//	go run ./examples/quickstart [flags] [folder]
//
// The folder is the source of the standard library unless another one is named.
package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/localprovider"
)

type options struct {
	folder         string
	n              int // packages at most
	tenants, limit int
	warm           int
	plain          bool
}

func main() {
	if isAgent() {
		if err := agent(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.n, "n", 300, "analyse at most this many packages")
	flag.IntVar(&o.tenants, "tenants", 5, "for this many tenants")
	flag.IntVar(&o.limit, "limit", 3, "agents that each tenant may have at once")
	flag.IntVar(&o.warm, "warm", 2, "spare workspaces that wait for work")
	flag.BoolVar(&o.plain, "plain", false, "plain lines instead of a progress bar")
	flag.Parse()
	o.folder = flag.Arg(0)
	if o.n < 1 || o.tenants < 1 || o.limit < 1 || o.warm < 0 || flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// isAgent says whether this process was started by analysis, in a workspace.
func isAgent() bool {
	return len(os.Args) == 2 && os.Args[1] == agentArg && os.Getenv("FRESHET_DIR") != ""
}

// fleetName marks our workspaces at the provider.
const fleetName = "quickstart"

// fleet is a dispatcher, with what is measured beside it.
type fleet struct {
	d        *freshet.Dispatcher
	provider provider.Provider
	root     string // the folder in which all workspaces are
	tasks    []string
	peak     int // workspaces at once

	mu   sync.Mutex // protects ends
	ends map[string]freshet.Status
}

// run does it all. It returns nil if every agent succeeded, no limit was exceeded and nothing is left.
func run(ctx context.Context, o options, out *os.File) error {
	if o.folder == "" {
		var err error
		if o.folder, err = goTree(); err != nil {
			return err
		}
	}
	tree := os.DirFS(o.folder)
	packages, err := findPackages(tree, o.n)
	if err != nil {
		return fmt.Errorf("%s: %w", o.folder, err)
	}
	f, err := newFleet(tree, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d packages of %s, %d tenants with at most %d agents at once each\n\n", len(packages), o.folder, o.tenants, o.limit)
	err = f.d.Start(ctx)
	if err == nil {
		err = f.work(ctx, packages, o.tenants, newScreen(out, o.plain))
	}
	if err == nil {
		err = f.tell(ctx, out)
	}
	return f.end(out, o, err)
}

// newFleet makes a dispatcher over a provider whose root folder is new, so that whatever is found in it later is ours.
func newFleet(tree fs.FS, o options) (*fleet, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "freshet-"+fleetName+"-")
	if err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil { // as the table of processes will name it
		return nil, err
	}
	f := &fleet{root: root, provider: localprovider.New(localprovider.Config{Dir: root}), ends: map[string]freshet.Status{}}
	f.d, err = freshet.New(freshet.Config{
		Name:     fleetName,
		Provider: f.provider,
		Agents: []freshet.Agent{{
			Name:      "code-analysis",
			Handler:   analysis(tree, self),
			Resources: freshet.Resources{CPU: 1, MemoryMB: 512},
			Timeout:   time.Minute,
			Pool:      freshet.Pool{Warm: o.warm},
		}},
		Limits:   freshet.Limits{Tenant: freshet.TenantLimits{Concurrent: o.limit}},
		Price:    freshet.Price{CPUSecond: 0.000014, MemoryGBSecond: 0.0000045},
		OnFinish: f.ended,
	})
	return f, err
}

// analysis puts a package into the workspace and runs the agent there.
func analysis(tree fs.FS, self string) freshet.Handler {
	agent := freshet.Command(self, agentArg)
	return func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		files, err := fs.Sub(tree, string(run.Task.Payload))
		if err != nil {
			return nil, err
		}
		if err := run.Upload(ctx, sources, goPackage{files}); err != nil {
			return nil, err
		}
		return agent(ctx, run)
	}
}

// ended hears of each task that has ended, at least once.
func (f *fleet) ended(_ context.Context, s freshet.Status) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends[s.ID] = s
	return nil
}

// work submits a task for each package, the tenants in turn, and waits for all to end.
func (f *fleet) work(ctx context.Context, packages []string, tenants int, s *screen) error {
	tasks := make([]freshet.Task, len(packages))
	for i, name := range packages {
		tasks[i] = freshet.Task{Agent: "code-analysis", Tenant: fmt.Sprint("tenant-", i%tenants+1), Payload: []byte(name)}
	}
	var err error
	if f.tasks, err = f.d.SubmitMany(ctx, tasks); err != nil {
		return err
	}
	defer s.end()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		stats, err := f.d.Stats(ctx)
		if err != nil {
			return err
		}
		workspaces, err := countWorkspaces(ctx, f.provider, fleetName)
		if err != nil {
			return err
		}
		f.peak = max(f.peak, workspaces)
		s.show(len(f.tasks), stats.Total)
		if t := stats.Total; t.Queued+t.Starting+t.Running == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
}

// tell collects what the agents have left, and prints the tables.
func (f *fleet) tell(ctx context.Context, out io.Writer) error {
	stats, err := f.d.Stats(ctx)
	if err != nil {
		return err
	}
	var reports []report
	var ends []freshet.Status
	var kept kept
	for _, id := range f.tasks {
		s, err := f.d.Status(ctx, id)
		if err != nil {
			return err
		}
		ends = append(ends, s)
		kept.log += s.LogSize
		result, err := f.d.Wait(ctx, id)
		if err != nil {
			fmt.Fprintln(out, err)
			var exit *freshet.ExitError
			if errors.As(err, &exit) {
				fmt.Fprintf(out, "%s\n", exit.Tail)
			}
			continue
		}
		var r report
		if err := json.Unmarshal(result, &r); err != nil {
			return err
		}
		reports = append(reports, r)
		if err := kept.addArtifacts(ctx, f.d, id); err != nil {
			return err
		}
	}
	printTenants(out, ends)
	printPaths(out, stats.Total)
	printFindings(out, reports)
	fmt.Fprintf(out, "kept of %d agents: %d artifacts (%d kB), logs of %d kB\n", len(ends), kept.artifacts, kept.bytes>>10, kept.log>>10)
	return nil
}

// kept counts what outlives the workspaces.
type kept struct {
	artifacts  int
	bytes, log int64
}

func (k *kept) addArtifacts(ctx context.Context, d *freshet.Dispatcher, task string) error {
	files, err := d.Artifacts(ctx, task)
	if err != nil {
		return err
	}
	defer files.Close()
	for t := tar.NewReader(files); ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case h.Typeflag == tar.TypeReg:
			k.artifacts++
			k.bytes += h.Size
		}
	}
}

// end shuts down, looks for what is left, and prints the line that sums it all up.
func (f *fleet) end(out *os.File, o options, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = errors.Join(err, f.d.Shutdown(ctx))
	workspaces, listErr := countWorkspaces(ctx, f.provider, fleetName)
	processes, procErr := countProcesses(ctx, f.root)
	err = errors.Join(err, listErr, procErr)
	if workspaces+processes == 0 {
		err = errors.Join(err, os.RemoveAll(f.root))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	succeeded, failed := 0, 0
	for _, s := range f.ends {
		if s.State == freshet.StateSucceeded {
			succeeded++
		} else {
			failed++
		}
	}
	fmt.Fprintf(out, "tasks=%d succeeded=%d failed=%d peak=%d workspaces_left=%d processes_left=%d\n",
		len(f.tasks), succeeded, failed, f.peak, workspaces, processes)
	most := o.tenants*o.limit + o.warm
	switch {
	case err != nil:
		return err
	case succeeded != len(f.tasks):
		return fmt.Errorf("%d of %d agents did not succeed", len(f.tasks)-succeeded, len(f.tasks))
	case f.peak > most:
		return fmt.Errorf("%d workspaces at once, %d were allowed", f.peak, most)
	case workspaces+processes > 0:
		return fmt.Errorf("left in %s: %d workspaces, %d processes", f.root, workspaces, processes)
	}
	return nil
}
