package providertest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// env is what one case works with: a provider, an owner of its own, and the duty to leave nothing behind.
type env struct {
	t     *testing.T
	h     Harness
	p     provider.Provider
	caps  provider.Capabilities
	owner string

	mu   sync.Mutex // protects made
	made []made
}

type made struct{ id, owner string }

func newEnv(t *testing.T, h Harness) *env {
	p := h.New(t)
	e := &env{t: t, h: h, p: p, caps: p.Capabilities(), owner: "pt-" + random()}
	_, err := p.Scope(e.ctx())
	e.must("Scope", err)
	return e
}

// random returns 20 characters that are allowed in every label.
func random() string { return strings.ToLower(rand.Text()[:20]) }

// ctx is the context of one step.
func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), e.h.patience())
	e.t.Cleanup(cancel)
	return ctx
}

// until asks again and again, within the patience, until ok.
func (e *env) until(what string, ok func() bool) {
	e.t.Helper()
	deadline := time.Now().Add(e.h.patience())
	for pause := 5 * time.Millisecond; !ok(); pause = min(2*pause, 200*time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("not within %v: %s", e.h.patience(), what)
		}
		wait(pause)
	}
}

// pollEvery is how long to wait between two looks at something that many look at.
const pollEvery = 50 * time.Millisecond

// wait lets time pass, for what has no event to wait for.
func wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}

// must stops the case when err is not nil.
func (e *env) must(what string, err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatalf("%s: %v", what, err)
	}
}

// want checks the class of an error.
func (e *env) want(what string, err error, classes ...error) {
	e.t.Helper()
	for _, class := range classes {
		if errors.Is(err, class) {
			return
		}
	}
	e.t.Errorf("%s: error is %v, want %v", what, err, classes)
}

// request is a CreateRequest with a new token.
func (e *env) request() provider.CreateRequest {
	return provider.CreateRequest{Token: random(), Owner: e.owner, Agent: "providertest", Spec: e.h.Spec}
}

// record makes sure that a workspace is deleted at the end.
func (e *env) record(w provider.Workspace, owner string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.made = append(e.made, made{w.ID, owner})
}

// create asks for a workspace, and as a dispatcher would, again when it asks too fast.
func (e *env) create(req provider.CreateRequest) (provider.Workspace, error) {
	ctx := e.ctx()
	for {
		w, err := e.p.Create(ctx, req)
		if err == nil {
			e.record(w, req.Owner)
			return w, nil
		}
		if !errors.Is(err, provider.ErrRateLimited) || ctx.Err() != nil {
			return w, err
		}
		wait(max(10*time.Millisecond, provider.RetryAfter(err)))
	}
}

// boot makes a workspace that is ready.
func (e *env) boot() provider.Workspace {
	e.t.Helper()
	return e.bootAs(e.request())
}

func (e *env) bootAs(req provider.CreateRequest) provider.Workspace {
	e.t.Helper()
	w, err := e.create(req)
	e.must("Create", err)
	return e.ready(w.ID)
}

// ready waits until a workspace is ready.
func (e *env) ready(id string) (w provider.Workspace) {
	e.t.Helper()
	e.until("the workspace is ready", func() bool {
		var err error
		w, err = e.p.Get(e.ctx(), id)
		e.must("Get", err)
		if w.State == provider.Failed {
			e.t.Fatalf("the workspace has failed: %s", w.Message)
		}
		return w.Ready
	})
	return w
}

// gone deletes a workspace and waits for its end.
func (e *env) gone(id string) {
	e.t.Helper()
	e.must("Delete", e.p.Delete(e.ctx(), id))
	e.awaitGone(id)
}

func (e *env) awaitGone(id string) {
	e.t.Helper()
	e.until("a deleted workspace is not found", func() bool {
		w, err := e.p.Get(e.ctx(), id)
		if err == nil && w.State != provider.Deleting {
			e.t.Fatalf("a deleted workspace is %s", w.State)
		}
		if err != nil {
			e.want("Get of a deleted workspace", err, provider.ErrNotFound)
		}
		return err != nil
	})
}

// clean deletes all that the case has made, and checks that nothing is left.
func (e *env) clean() {
	e.mu.Lock()
	all := slices.Clone(e.made)
	e.mu.Unlock()
	owners := []string{e.owner}
	for _, m := range all {
		if !slices.Contains(owners, m.owner) {
			owners = append(owners, m.owner)
		}
		if err := e.p.Delete(e.ctx(), m.id); err != nil {
			e.t.Errorf("Delete at the end: %v", err)
		}
	}
	for _, m := range all {
		e.awaitGone(m.id)
	}
	l, ok := provider.As[provider.Lister](e.p)
	if !ok {
		return
	}
	for _, owner := range owners {
		for w, err := range l.List(e.ctx(), owner) {
			if err != nil {
				e.t.Errorf("List at the end: %v", err)
			} else if w.State != provider.Deleting {
				e.t.Errorf("left behind: workspace %s, %s", w.ID, w.State)
			}
		}
	}
}

// list returns the ids of an owner's workspaces with their states.
func listed(e *env, owner string) map[string]provider.State {
	e.t.Helper()
	l, _ := provider.As[provider.Lister](e.p)
	found := make(map[string]provider.State)
	for w, err := range l.List(e.ctx(), owner) {
		e.must("List", err)
		if _, twice := found[w.ID]; twice {
			e.t.Errorf("List: workspace %s twice", w.ID)
		}
		found[w.ID] = w.State
	}
	return found
}

// start starts a process that does these actions.
func (e *env) start(id, name string, actions ...Action) provider.Process {
	e.t.Helper()
	p, err := e.p.StartProcess(e.ctx(), id, name, e.h.Cmd(actions...))
	e.must("StartProcess", err)
	return p
}

// exit waits for the end of a process.
func (e *env) exit(p provider.Process) provider.Exit {
	e.t.Helper()
	exit, err := p.Wait(e.ctx())
	e.must("Wait", err)
	return exit
}

// run runs a process of its own to its end and returns what it wrote to standard output.
func (e *env) run(id string, actions ...Action) string {
	e.t.Helper()
	p := e.start(id, "run-"+random(), actions...)
	got, err := e.read(p, provider.Offset{})
	e.must("Output", err)
	if exit := e.exit(p); exit.Code != 0 || exit.Signal != "" {
		e.t.Fatalf("process ended with %+v; output %q, %q", exit, got.out, got.err)
	}
	return string(got.out)
}

// file returns the content of a file of a workspace as a process sees it, and whether there is one.
func (e *env) file(id, path string) (string, bool) {
	e.t.Helper()
	p := e.start(id, "read-"+random(), Action{Verb: Read, Path: path})
	got, err := e.read(p, provider.Offset{})
	e.must("Output", err)
	return string(got.out), e.exit(p).Code == 0
}

// output is what was read of a process.
type output struct {
	out, err []byte
	next     provider.Offset
}

// read reads output from an offset to its end.
func (e *env) read(p provider.Process, from provider.Offset) (output, error) {
	return e.readUntil(e.ctx(), p, from, func(output) bool { return false })
}

// readUntil reads output until enough, and checks the offsets.
func (e *env) readUntil(ctx context.Context, p provider.Process, from provider.Offset, enough func(output) bool) (output, error) {
	got := output{next: from}
	for c, err := range p.Output(ctx, from) {
		if err != nil {
			return got, err
		}
		switch c.Stream {
		case provider.Stdout:
			got.out = append(got.out, c.Data...)
		case provider.Stderr:
			got.err = append(got.err, c.Data...)
		default:
			e.t.Errorf("Output: stream %d", c.Stream)
		}
		got.next = provider.Offset{Stdout: from.Stdout + int64(len(got.out)), Stderr: from.Stderr + int64(len(got.err))}
		if c.Next != got.next {
			e.t.Errorf("Output: Chunk.Next is %+v, want %+v", c.Next, got.next)
			got.next = c.Next
		}
		if enough(got) {
			return got, nil
		}
	}
	return got, nil
}

// await reads a running process's output from an offset until its standard output contains text.
func (e *env) await(p provider.Process, from provider.Offset, text string) output {
	e.t.Helper()
	got, err := e.readUntil(e.ctx(), p, from, func(o output) bool { return strings.Contains(string(o.out), text) })
	e.must("Output", err)
	if !strings.Contains(string(got.out), text) {
		e.t.Fatalf("Output ended without %q: %q, %q", text, got.out, got.err)
	}
	return got
}
