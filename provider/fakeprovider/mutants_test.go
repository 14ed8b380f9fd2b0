package fakeprovider_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/provider/providertest"
)

// mutant is a provider that breaks one rule, and the case of the suite that must find it.
type mutant struct {
	name  string
	finds string
	cfg   fakeprovider.Config
	wrap  func(*fakeprovider.Provider) provider.Provider
}

// The mutants' own methods stand above those of the fake.
type (
	forgetsSpec     struct{ *fakeprovider.Provider }
	keepsWorkspaces struct{ *fakeprovider.Provider }
	deletesOnce     struct{ *fakeprovider.Provider }
	hidesTheCause   struct{ *fakeprovider.Provider }
	ignoresNames    struct{ *fakeprovider.Provider }
	neverMade       struct{ *fakeprovider.Provider }
	dropsInput      struct{ *fakeprovider.Provider }
	wrapsProcesses  struct {
		*fakeprovider.Provider
		wrap func(provider.Process) provider.Process
	}
	listsAll        struct{ *fakeprovider.Provider }
	losesList       struct{ *fakeprovider.Provider }
	repairsArchives struct{ *fakeprovider.Provider }
	unpacksInPieces struct{ *fakeprovider.Provider }
	packsFullNames  struct{ *fakeprovider.Provider }
	pretendsToPause struct{ *fakeprovider.Provider }
	saysWarm        struct{ *fakeprovider.Provider }
	diesAlways      struct{ *fakeprovider.Provider }
	livesAlways     struct{ *fakeprovider.Provider }
	measuresNothing struct{ *fakeprovider.Provider }
	bootsImage      struct{ *fakeprovider.Provider }
	staysSilent     struct{ *fakeprovider.Provider }
	allIsWell       struct{ *fakeprovider.Provider }
	oneName         struct{ *fakeprovider.Provider }
	attachesNothing struct{ *fakeprovider.Provider }
)

func mutants() []mutant {
	processes := func(name, finds string, wrap func(provider.Process) provider.Process) mutant {
		return mutant{name: name, finds: finds, wrap: func(p *fakeprovider.Provider) provider.Provider { return wrapsProcesses{p, wrap} }}
	}
	search := fakeprovider.Config{Capabilities: func(c *provider.Capabilities) { c.Create = provider.Search }}
	claimsIdempotent := func(p *fakeprovider.Provider) provider.Provider { return idempotent{p} }
	return []mutant{
		{name: "makes a second workspace", finds: "create/same-token", cfg: search, wrap: claimsIdempotent},
		{name: "makes more at the same time", finds: "create/concurrent", cfg: search, wrap: claimsIdempotent},
		{name: "forgets the spec", finds: "create/same-token", wrap: func(p *fakeprovider.Provider) provider.Provider { return forgetsSpec{p} }},
		{name: "denies what it made", finds: "create/context", cfg: slowCreate(), wrap: func(p *fakeprovider.Provider) provider.Provider { return neverMade{p} }},
		{name: "keeps workspaces", finds: "delete/twice", wrap: func(p *fakeprovider.Provider) provider.Provider { return keepsWorkspaces{p} }},
		{name: "deletes only once", finds: "delete/twice", wrap: func(p *fakeprovider.Provider) provider.Provider { return deletesOnce{p} }},
		{name: "hides that it is gone", finds: "workspace/gone", wrap: func(p *fakeprovider.Provider) provider.Provider { return hidesTheCause{p} }},
		{name: "leaves something in the list", finds: "many", wrap: func(p *fakeprovider.Provider) provider.Provider { return losesList{p} }},
		{name: "starts a name twice", finds: "process/names", wrap: func(p *fakeprovider.Provider) provider.Provider { return ignoresNames{p} }},
		{name: "starts a name twice at once", finds: "process/names-concurrent", wrap: func(p *fakeprovider.Provider) provider.Provider { return ignoresNames{p} }},
		{name: "drops input", finds: "process/input", wrap: func(p *fakeprovider.Provider) provider.Provider { return dropsInput{p} }},
		{name: "attaches to nothing", finds: "attach/same", wrap: func(p *fakeprovider.Provider) provider.Provider { return attachesNothing{p} }},
		processes("forgets the code", "process/exit", func(p provider.Process) provider.Process { return exitsWell{p} }),
		processes("remembers after the end", "delete/processes", func(p provider.Process) provider.Process { return &remembers{Process: p} }),
		processes("doubles a byte", "output/offsets", func(p provider.Process) provider.Process { return doubles{p} }),
		processes("loses a byte", "output/offsets", func(p provider.Process) provider.Process { return loses{p} }),
		processes("starts again", "output/resumed", func(p provider.Process) provider.Process { return restarts{p} }),
		processes("never ends", "output/streams", func(p provider.Process) provider.Process { return endless{p} }),
		processes("shows all at the end", "output/follow", func(p provider.Process) provider.Process { return late{p} }),
		processes("is deaf", "signal/term", func(p provider.Process) provider.Process { return deaf{p} }),
		processes("kills at once", "signal/kill", func(p provider.Process) provider.Process { return brutal{p} }),
		{name: "lists all owners", finds: "list/owner", wrap: func(p *fakeprovider.Provider) provider.Provider { return listsAll{p} }},
		{name: "repairs hostile archives", finds: "files/hostile-archives", wrap: func(p *fakeprovider.Provider) provider.Provider { return repairsArchives{p} }},
		{name: "unpacks in pieces", finds: "files/hostile-archives", wrap: func(p *fakeprovider.Provider) provider.Provider { return unpacksInPieces{p} }},
		{name: "packs full names", finds: "files/download", wrap: func(p *fakeprovider.Provider) provider.Provider { return packsFullNames{p} }},
		{name: "pretends to pause", finds: "pause/frozen", wrap: func(p *fakeprovider.Provider) provider.Provider { return pretendsToPause{p} }},
		{name: "says warm", finds: "pause/disk", wrap: func(p *fakeprovider.Provider) provider.Provider { return saysWarm{p} }},
		{name: "never expires", finds: "keepalive", wrap: func(p *fakeprovider.Provider) provider.Provider { return livesAlways{p} }},
		{name: "always expires", finds: "keepalive", wrap: func(p *fakeprovider.Provider) provider.Provider { return diesAlways{p} }},
		{name: "measures nothing", finds: "usage", wrap: func(p *fakeprovider.Provider) provider.Provider { return measuresNothing{p} }},
		{name: "boots the image", finds: "snapshot", wrap: func(p *fakeprovider.Provider) provider.Provider { return bootsImage{p} }},
		{name: "stays silent", finds: "watch", wrap: func(p *fakeprovider.Provider) provider.Provider { return staysSilent{p} }},
		{name: "says that all is well", finds: "fault/failed", wrap: func(p *fakeprovider.Provider) provider.Provider { return allIsWell{p} }},
		{name: "has one name for two", finds: "ownername", wrap: func(p *fakeprovider.Provider) provider.Provider { return oneName{p} }},
	}
}

const mutantEnv = "FAKEPROVIDER_MUTANT"

// A suite that finds nothing is worth nothing: TestMutants runs, in a process of its own because a failed test cannot be
// undone, the suite with providers that break one rule each, and wants it to fail.
func TestMutants(t *testing.T) {
	if name := os.Getenv(mutantEnv); name != "" {
		for _, m := range mutants() {
			if m.name == name {
				m.run(t)
			}
		}
		return
	}
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			pattern := "^TestMutants$"
			for part := range strings.SplitSeq(m.finds, "/") {
				pattern += "/^" + part + "$"
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+pattern, "-test.timeout=1m")
			cmd.Env = append(os.Environ(), mutantEnv+"="+m.name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !bytes.Contains(out, []byte("--- FAIL: TestMutants/"+m.finds)) || bytes.Contains(out, []byte("panic:")) {
				t.Errorf("the suite has not found it: %v\n%s", err, out)
			}
		})
	}
}

func (m mutant) run(t *testing.T) {
	h := harness(m.cfg)
	fake := h.New
	h.New = func(t *testing.T) provider.Provider { return m.wrap(fake(t).(*fakeprovider.Provider)) }
	h.Reopen, h.Vanish, h.Many = nil, nil, 3
	h.Fail = func(_ *testing.T, p provider.Provider, id string) { p.(allIsWell).Fail(id) }
	providertest.Run(t, h)
}

type idempotent struct{ *fakeprovider.Provider }

func (p idempotent) Capabilities() provider.Capabilities {
	caps := p.Provider.Capabilities()
	caps.Create = provider.Idempotent
	return caps
}

func (p forgetsSpec) Create(ctx context.Context, req provider.CreateRequest) (provider.Workspace, error) {
	req.Spec = provider.Spec{}
	return p.Provider.Create(ctx, req)
}

func slowCreate() fakeprovider.Config {
	return fakeprovider.Config{Fault: func(c fakeprovider.Call) fakeprovider.Fault {
		if c.Op == "create" {
			return fakeprovider.Fault{AnswerDelay: 5 * time.Millisecond}
		}
		return fakeprovider.Fault{}
	}}
}

func (p neverMade) Create(ctx context.Context, req provider.CreateRequest) (provider.Workspace, error) {
	w, err := p.Provider.Create(ctx, req)
	if errors.Is(err, provider.ErrAmbiguous) {
		err = ctx.Err()
	}
	return w, err
}

func (p keepsWorkspaces) Delete(context.Context, string) error { return nil }

func (p deletesOnce) Delete(ctx context.Context, id string) error {
	if _, err := p.Get(ctx, id); err != nil {
		return err
	}
	return p.Provider.Delete(ctx, id)
}

func (p hidesTheCause) StartProcess(ctx context.Context, id, name string, cmd provider.Cmd) (provider.Process, error) {
	proc, err := p.Provider.StartProcess(ctx, id, name, cmd)
	if err != nil {
		err = &provider.Error{Op: "start", Class: provider.ErrUnavailable}
	}
	return proc, err
}

func (p losesList) List(ctx context.Context, owner string) iter.Seq2[provider.Workspace, error] {
	return func(yield func(provider.Workspace, error) bool) {
		yield(provider.Workspace{ID: "a ghost", Owner: owner, State: provider.Running}, nil)
	}
}

func (p ignoresNames) StartProcess(ctx context.Context, id, name string, cmd provider.Cmd) (provider.Process, error) {
	for {
		proc, err := p.Provider.StartProcess(ctx, id, name, cmd)
		if !errors.Is(err, provider.ErrExists) {
			return proc, err
		}
		name += "+"
	}
}

func (p dropsInput) StartProcess(ctx context.Context, id, name string, cmd provider.Cmd) (provider.Process, error) {
	cmd.Stdin = bytes.TrimSuffix(cmd.Stdin, []byte("d"))
	return p.Provider.StartProcess(ctx, id, name, cmd)
}

func (p attachesNothing) Attach(context.Context, string, string) (provider.Process, error) {
	return nil, &provider.Error{Class: provider.ErrNotFound}
}

func (p wrapsProcesses) StartProcess(ctx context.Context, id, name string, cmd provider.Cmd) (provider.Process, error) {
	proc, err := p.Provider.StartProcess(ctx, id, name, cmd)
	if err != nil {
		return nil, err
	}
	return p.wrap(proc), nil
}

type exitsWell struct{ provider.Process }

func (p exitsWell) Wait(ctx context.Context) (provider.Exit, error) {
	exit, err := p.Process.Wait(ctx)
	exit.Code = 0
	return exit, err
}

type remembers struct{ provider.Process }

func (p *remembers) Wait(ctx context.Context) (provider.Exit, error) {
	if _, err := p.Process.Wait(ctx); err != nil && ctx.Err() == nil {
		return provider.Exit{Signal: "SIGKILL"}, nil
	}
	return p.Process.Wait(ctx)
}

type doubles struct{ provider.Process }

func (p doubles) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	return shifted(p.Process, ctx, from, -1)
}

type loses struct{ provider.Process }

func (p loses) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	return shifted(p.Process, ctx, from, +1)
}

// shifted reads from a few bytes beside the offset, unless that is the beginning, and says what was asked for.
func shifted(p provider.Process, ctx context.Context, from provider.Offset, by int64) iter.Seq2[provider.Chunk, error] {
	if from.Stdout == 0 {
		by = 0
	}
	from.Stdout += by
	return func(yield func(provider.Chunk, error) bool) {
		for c, err := range p.Output(ctx, from) {
			c.Next.Stdout -= by
			if !yield(c, err) {
				return
			}
		}
	}
}

type restarts struct{ provider.Process }

func (p restarts) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	if from.Stdout > 60_000 {
		from.Stdout -= 16
	}
	return p.Process.Output(ctx, from)
}

type endless struct{ provider.Process }

func (p endless) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	return func(yield func(provider.Chunk, error) bool) {
		for c, err := range p.Process.Output(ctx, from) {
			if !yield(c, err) {
				return
			}
		}
		<-ctx.Done()
		yield(provider.Chunk{}, ctx.Err())
	}
}

type late struct{ provider.Process }

func (p late) Output(ctx context.Context, from provider.Offset) iter.Seq2[provider.Chunk, error] {
	return func(yield func(provider.Chunk, error) bool) {
		if _, err := p.Wait(ctx); err != nil {
			yield(provider.Chunk{}, err)
			return
		}
		p.Process.Output(ctx, from)(yield)
	}
}

type deaf struct{ provider.Process }

func (p deaf) Signal(context.Context, provider.Signal) error { return nil }

type brutal struct{ provider.Process }

func (p brutal) Signal(ctx context.Context, _ provider.Signal) error {
	return p.Process.Signal(ctx, provider.Kill)
}

func (p listsAll) List(context.Context, string) iter.Seq2[provider.Workspace, error] {
	return func(yield func(provider.Workspace, error) bool) {
		for _, w := range p.Workspaces() {
			if !yield(w, nil) {
				return
			}
		}
	}
}

// archives passes the entries of an archive on, each as an archive of its own.
func archives(from io.Reader, each func(*tar.Header, io.Reader) error) error {
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return &provider.Error{Class: provider.ErrInvalid, Err: err}
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return &provider.Error{Class: provider.ErrInvalid, Err: err}
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(h), write(w, data), w.Close()); err != nil {
			return err
		}
		if err := each(h, &b); err != nil {
			return err
		}
	}
}

func write(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

func (p repairsArchives) Upload(ctx context.Context, id, dir string, from io.Reader) error {
	return archives(from, func(h *tar.Header, one io.Reader) error {
		if path.IsAbs(h.Name) || strings.Contains(h.Name, "..") {
			return nil
		}
		return p.Provider.Upload(ctx, id, dir, one)
	})
}

func (p unpacksInPieces) Upload(ctx context.Context, id, dir string, from io.Reader) error {
	return archives(from, func(_ *tar.Header, one io.Reader) error { return p.Provider.Upload(ctx, id, dir, one) })
}

func (p packsFullNames) Download(ctx context.Context, id, name string) (io.ReadCloser, error) {
	top, _, _ := strings.Cut(name, "/")
	return p.Provider.Download(ctx, id, top)
}

func (p pretendsToPause) Pause(context.Context, string, provider.PauseKind) error { return nil }

func (p saysWarm) Resume(ctx context.Context, id string) (bool, error) {
	_, err := p.Provider.Resume(ctx, id)
	return true, err
}

func (p livesAlways) KeepAlive(ctx context.Context, id string, ttl time.Duration) error {
	return p.Provider.KeepAlive(ctx, id, ttl+24*time.Hour)
}

func (p diesAlways) KeepAlive(ctx context.Context, id string, ttl time.Duration) error {
	return p.Provider.KeepAlive(ctx, id, min(ttl, time.Second))
}

func (p measuresNothing) Usage(context.Context, string) (provider.Usage, error) {
	return provider.Usage{CPUTime: time.Second}, nil
}

func (p bootsImage) Create(ctx context.Context, req provider.CreateRequest) (provider.Workspace, error) {
	req.Spec.Snapshot = ""
	return p.Provider.Create(ctx, req)
}

func (p staysSilent) Watch(ctx context.Context, _ string, _ func(string)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (p allIsWell) Check(context.Context, string) error { return nil }

func (p oneName) OwnerName(context.Context) (string, func(), error) {
	return "one", func() {}, nil
}
