package providertest

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func workspaceCases() []conformance {
	return []conformance{
		{
			name: "scope",
			rule: "Scope is not empty and always the same; a new instance of it has the same one.",
			run:  scope,
		},
		{
			name: "capabilities",
			rule: "Capabilities is always the same and fits the abilities: Search needs a Lister or Finder, Attach an Attacher, PauseKinds a Pauser.",
			run:  capabilities,
		},
		{
			name: "workspace/separate",
			rule: "Workspaces do not see each other's files.",
			run: func(e *env) {
				a, b := e.boot(), e.boot()
				e.run(a.ID, Action{Verb: Write, Path: "mine.txt", Text: "a"})
				if got, ok := e.file(b.ID, "mine.txt"); ok {
					e.t.Errorf("a file of another workspace reads %q", got)
				}
			},
		},
		{
			name: "workspace/home",
			rule: "Workspace.Home, where it is known, is the absolute path of the folder in which processes start.",
			run: func(e *env) {
				w := e.boot()
				if w.Home == "" {
					return
				}
				if !strings.HasPrefix(w.Home, "/") {
					e.t.Errorf("Home is %q", w.Home)
				}
				e.run(w.ID, Action{Verb: Write, Path: "here.txt", Text: "here"})
				if got, ok := e.file(w.ID, w.Home+"/here.txt"); !ok || got != "here" {
					e.t.Errorf("a file in Home reads %q, %v", got, ok)
				}
			},
		},
		{
			name: "workspace/gone",
			rule: "Every call for a workspace that is gone answers ErrNotFound, but Delete, which answers nil.",
			run:  workspaceGone,
		},
		{
			name: "delete/twice",
			rule: "Delete may be repeated, also at the same time, also when the workspace is gone.",
			run: func(e *env) {
				w := e.boot()
				var deletes sync.WaitGroup
				for range 4 {
					deletes.Go(func() {
						if err := e.p.Delete(e.ctx(), w.ID); err != nil {
							e.t.Errorf("Delete: %v", err)
						}
					})
				}
				deletes.Wait()
				e.awaitGone(w.ID)
				e.must("Delete of what is gone", e.p.Delete(e.ctx(), w.ID))
			},
		},
		{
			name: "delete/creating",
			rule: "Delete works while a workspace is being created, and it does not come back.",
			run: func(e *env) {
				w, err := e.create(e.request())
				e.must("Create", err)
				e.gone(w.ID)
			},
		},
		{
			name: "delete/processes",
			rule: "Delete ends the processes of a workspace, whatever they do. Wait and Output of what is gone answer ErrNotFound.",
			run:  deleteProcesses,
		},
		{
			name: "context/ended",
			rule: "With a context that has ended a call returns the context's error and has no effect.",
			run:  contextEnded,
		},
	}
}

func scope(e *env) {
	first, err := e.p.Scope(e.ctx())
	e.must("Scope", err)
	if first == "" {
		e.t.Error("Scope is empty")
	}
	again, err := e.p.Scope(e.ctx())
	e.must("Scope", err)
	if again != first {
		e.t.Errorf("Scope is %q, then %q", first, again)
	}
	if e.h.Reopen == nil {
		return
	}
	e.p = e.h.Reopen(e.t, e.p)
	again, err = e.p.Scope(e.ctx())
	e.must("Scope of a new instance", err)
	if again != first {
		e.t.Errorf("Scope is %q, of a new instance %q", first, again)
	}
}

func capabilities(e *env) {
	if again := e.p.Capabilities(); !reflect.DeepEqual(again, e.caps) {
		e.t.Errorf("Capabilities is %+v, then %+v", e.caps, again)
	}
	_, lister := provider.As[provider.Lister](e.p)
	_, finder := provider.As[provider.Finder](e.p)
	if e.caps.Create == provider.Search && !lister && !finder {
		e.t.Error("Create is Search, but there is neither a Lister nor a Finder")
	}
	if _, ok := provider.As[provider.Attacher](e.p); e.caps.Attach && !ok {
		e.t.Error("Attach is true, but there is no Attacher")
	}
	if _, ok := provider.As[provider.Pauser](e.p); len(e.caps.PauseKinds) > 0 && !ok {
		e.t.Error("there are PauseKinds, but no Pauser")
	}
}

func workspaceGone(e *env) {
	w := e.boot()
	e.gone(w.ID)
	_, err := e.p.StartProcess(e.ctx(), w.ID, "late", e.h.Cmd())
	e.want("StartProcess", err, provider.ErrNotFound)
	e.want("provider.Check", provider.Check(e.ctx(), e.p, w.ID), provider.ErrNotFound)
	if a, ok := provider.As[provider.Attacher](e.p); ok {
		_, err := a.Attach(e.ctx(), w.ID, "any")
		e.want("Attach", err, provider.ErrNotFound)
	}
	if a, ok := provider.As[provider.Pauser](e.p); ok {
		for _, kind := range e.caps.PauseKinds {
			e.want("Pause", a.Pause(e.ctx(), w.ID, kind), provider.ErrNotFound)
		}
		_, err := a.Resume(e.ctx(), w.ID)
		e.want("Resume", err, provider.ErrNotFound)
	}
	if a, ok := provider.As[provider.Snapshotter](e.p); ok {
		_, err := a.Snapshot(e.ctx(), w.ID)
		e.want("Snapshot", err, provider.ErrNotFound)
	}
	if a, ok := provider.As[provider.Filer](e.p); ok {
		e.want("Upload", a.Upload(e.ctx(), w.ID, "in", archive(file("a", "a"))), provider.ErrNotFound)
		_, err := a.Download(e.ctx(), w.ID, "a")
		e.want("Download", err, provider.ErrNotFound)
	}
	if a, ok := provider.As[provider.Resizer](e.p); ok {
		e.want("Resize", a.Resize(e.ctx(), w.ID, provider.Resources{MemoryMB: 256}), provider.ErrNotFound)
	}
	if a, ok := provider.As[provider.KeepAliver](e.p); ok {
		e.want("KeepAlive", a.KeepAlive(e.ctx(), w.ID, time.Minute), provider.ErrNotFound)
	}
	if a, ok := provider.As[provider.Meter](e.p); ok {
		_, err := a.Usage(e.ctx(), w.ID)
		e.want("Usage", err, provider.ErrNotFound)
	}
}

func deleteProcesses(e *env) {
	w := e.boot()
	p := e.start(w.ID, "stubborn", Action{Verb: IgnoreTerm}, Action{Verb: Spawn, Then: []Action{{Verb: Hang}}},
		Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
	e.await(p, provider.Offset{}, "up")
	var watching sync.WaitGroup
	ctx := e.ctx()
	watching.Go(func() {
		exit, err := p.Wait(ctx)
		if err == nil && exit.Signal == "" {
			e.t.Errorf("Wait during the deletion: %+v", exit)
		}
		if err != nil && !errors.Is(err, provider.ErrNotFound) && !errors.Is(err, provider.ErrLost) {
			e.t.Errorf("Wait during the deletion: %v", err)
		}
	})
	watching.Go(func() {
		_, err := e.readUntil(ctx, p, provider.Offset{}, func(output) bool { return false })
		if err != nil && !errors.Is(err, provider.ErrNotFound) && !errors.Is(err, provider.ErrLost) {
			e.t.Errorf("Output during the deletion: %v", err)
		}
	})
	e.gone(w.ID)
	watching.Wait()
	_, err := p.Wait(e.ctx())
	e.want("Wait after the deletion", err, provider.ErrNotFound)
	_, err = e.read(p, provider.Offset{})
	e.want("Output after the deletion", err, provider.ErrNotFound)
	if err := p.Signal(e.ctx(), provider.Kill); err != nil {
		e.want("Signal after the deletion", err, provider.ErrNotFound)
	}
}

func contextEnded(e *env) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	w := e.boot()
	p := e.start(w.ID, "hang", Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
	e.await(p, provider.Offset{}, "up")

	_, err := e.p.Get(ended, w.ID)
	e.want("Get", err, context.Canceled)
	e.want("Delete", e.p.Delete(ended, w.ID), context.Canceled)
	_, err = e.p.StartProcess(ended, w.ID, "never", e.h.Cmd())
	e.want("StartProcess", err, context.Canceled)
	_, err = p.Wait(ended)
	e.want("Wait", err, context.Canceled)
	e.want("Signal", p.Signal(ended, provider.Kill), context.Canceled)
	_, err = e.readUntil(ended, p, provider.Offset{}, func(output) bool { return false })
	e.want("Output", err, context.Canceled)

	soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = p.Wait(soon)
	e.want("Wait while the context ends", err, context.DeadlineExceeded)
	if w := e.ready(w.ID); !w.Ready {
		e.t.Error("the workspace is not ready any more")
	}
	e.must("Signal", p.Signal(e.ctx(), provider.Kill))
	e.exit(e.start(w.ID, "never"))
}
