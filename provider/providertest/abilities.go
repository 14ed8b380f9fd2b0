package providertest

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func listCases() []conformance {
	return []conformance{
		{
			name:  "list/owner",
			rule:  "List yields the workspaces of one owner, each once, in every state, and none of another's.",
			needs: []need{ability[provider.Lister]("a Lister")},
			run:   listOwner,
		},
		{
			name: "list/find",
			rule: "A workspace is found by its owner and token as long as it exists (provider.Find).",
			run:  find,
		},
	}
}

func listOwner(e *env) {
	mine, paused := e.boot(), e.boot()
	other := e.request()
	other.Owner = "pt-" + random()
	theirs := e.bootAs(other)
	want := map[string]provider.State{mine.ID: provider.Running, paused.ID: provider.Running}
	if a, ok := provider.As[provider.Pauser](e.p); ok && len(e.caps.PauseKinds) > 0 {
		e.must("Pause", a.Pause(e.ctx(), paused.ID, e.caps.PauseKinds[0]))
		want[paused.ID] = provider.Paused
	}
	got := listed(e, e.owner)
	for id, state := range want {
		if got[id] != state {
			e.t.Errorf("List: workspace %s is %q, want %s", id, got[id], state)
		}
	}
	if len(got) != len(want) {
		e.t.Errorf("List: %v, want %v", got, want)
	}
	if got := listed(e, other.Owner); len(got) != 1 || got[theirs.ID] != provider.Running {
		e.t.Errorf("List of another owner: %v", got)
	}
	if got := listed(e, "pt-"+random()); len(got) != 0 {
		e.t.Errorf("List of an unknown owner: %v", got)
	}
	l, _ := provider.As[provider.Lister](e.p)
	for range l.List(e.ctx(), e.owner) {
		break // whoever has seen enough stops
	}
}

func find(e *env) {
	_, err := provider.Find(e.ctx(), e.p, e.owner, random())
	if errors.Is(err, provider.ErrUnsupported) {
		return
	}
	e.want("Find of an unknown token", err, provider.ErrNotFound)
	req := e.request()
	w, err := e.create(req)
	e.must("Create", err)
	found, err := provider.Find(e.ctx(), e.p, e.owner, req.Token)
	e.must("Find", err)
	if found.ID != w.ID || found.Token != req.Token || found.Owner != req.Owner || found.Agent != req.Agent {
		e.t.Errorf("Find: %+v, want %+v", found, w)
	}
	_, err = provider.Find(e.ctx(), e.p, "pt-"+random(), req.Token)
	e.want("Find for another owner", err, provider.ErrNotFound)
	e.gone(w.ID)
	_, err = provider.Find(e.ctx(), e.p, e.owner, req.Token)
	e.want("Find of what is gone", err, provider.ErrNotFound)
}

func abilityCases() []conformance {
	return []conformance{
		{
			name:  "snapshot",
			rule:  "A snapshot boots with the files and without the processes and their names; the workspace that it was made of goes on. A snapshot is deleted as often as asked.",
			needs: []need{ability[provider.Snapshotter]("a Snapshotter")},
			run:   snapshot,
		},
		{
			name:  "resize",
			rule:  "Resize changes a running workspace, or is ErrInvalid where that takes a new one; its processes go on.",
			needs: []need{ability[provider.Resizer]("a Resizer")},
			run:   resize,
		},
		{
			name:  "watch",
			rule:  "Watch calls wake with the id of a workspace that has changed, for its owner alone, and returns when its context ends.",
			needs: []need{ability[provider.Watcher]("a Watcher")},
			run:   watch,
		},
		{
			name:  "keepalive",
			rule:  "A workspace whose time-out has passed is ended by the provider, one that was kept alive is not.",
			needs: []need{ability[provider.KeepAliver]("a KeepAliver")},
			run:   keepAlive,
		},
		{
			name:  "usage",
			rule:  "CPU time grows with the work of the processes, and that of those that have ended stays counted.",
			needs: []need{ability[provider.Meter]("a Meter")},
			run:   usage,
		},
		{
			name:  "quota",
			rule:  "Quota counts the workspaces in use, within what it allows.",
			needs: []need{ability[provider.Quotaer]("a Quotaer")},
			run: func(e *env) {
				a, _ := provider.As[provider.Quotaer](e.p)
				e.boot()
				q, err := a.Quota(e.ctx())
				e.must("Quota", err)
				if q.InUse < 1 || q.Workspaces > 0 && q.InUse > q.Workspaces {
					e.t.Errorf("Quota: %+v", q)
				}
			},
		},
		{
			name:  "ownername",
			rule:  "OwnerName is a valid owner. While it is held nobody else gets it; when it is given back the next one does.",
			needs: []need{ability[provider.Namer]("a Namer")},
			run:   ownerName,
		},
	}
}

func snapshot(e *env) {
	a, _ := provider.As[provider.Snapshotter](e.p)
	w := e.boot()
	e.run(w.ID, Action{Verb: Write, Path: "in/file.txt", Text: "before"})
	p := e.start(w.ID, "main", Action{Verb: Tick})
	seen := e.await(p, provider.Offset{}, "tick\n")
	snap, err := a.Snapshot(e.ctx(), w.ID)
	e.must("Snapshot", err)
	e.t.Cleanup(func() {
		for range 2 {
			e.must("DeleteSnapshot", a.DeleteSnapshot(e.ctx(), snap))
		}
	})
	e.await(p, seen.next, "tick\n")
	e.run(w.ID, Action{Verb: Write, Path: "in/file.txt", Text: "after"})

	req := e.request()
	req.Spec.Snapshot = snap
	copied := e.bootAs(req)
	reads(e, copied.ID, "in/file.txt", "before")
	if a, ok := provider.As[provider.Attacher](e.p); ok {
		_, err := a.Attach(e.ctx(), copied.ID, "main")
		e.want("Attach in the copy", err, provider.ErrNotFound)
	}
	e.exit(e.start(copied.ID, "main"))
	e.run(copied.ID, Action{Verb: Write, Path: "in/file.txt", Text: "copy"})
	reads(e, w.ID, "in/file.txt", "after")
	e.gone(w.ID)
	reads(e, copied.ID, "in/file.txt", "copy")
}

func resize(e *env) {
	a, _ := provider.As[provider.Resizer](e.p)
	w := e.boot()
	p := e.start(w.ID, "main", Action{Verb: Tick})
	seen := e.await(p, provider.Offset{}, "tick\n")
	r := e.h.Spec.Resources
	r.MemoryMB += 128
	if err := a.Resize(e.ctx(), w.ID, r); err != nil {
		e.want("Resize", err, provider.ErrInvalid)
	}
	e.ready(w.ID)
	e.await(p, seen.next, "tick\ntick\n")
}

func watch(e *env) {
	a, _ := provider.As[provider.Watcher](e.p)
	other := e.request()
	other.Owner = "pt-" + random()
	ctx, cancel := context.WithCancel(e.ctx())
	woken := make(chan string, 1000)
	var watching sync.WaitGroup
	watching.Go(func() {
		err := a.Watch(ctx, e.owner, func(id string) {
			select {
			case woken <- id:
			default:
			}
		})
		if !errors.Is(err, context.Canceled) {
			e.t.Errorf("Watch: %v", err)
		}
	})
	defer watching.Wait()
	defer cancel()

	theirs := e.bootAs(other)
	// The watch begins at some moment, and may miss changes: so there are several.
	var mine []string
	e.until("a change was noticed", func() bool {
		w := e.boot()
		mine = append(mine, w.ID)
		e.gone(w.ID)
		return len(woken) > 0
	})
	e.gone(theirs.ID)
	for len(woken) > 0 {
		if id := <-woken; !slices.Contains(mine, id) {
			e.t.Errorf("wake(%q), want one of %v", id, mine)
		}
	}
}

func keepAlive(e *env) {
	a, _ := provider.As[provider.KeepAliver](e.p)
	w, kept := e.boot(), e.boot()
	e.start(w.ID, "hang", Action{Verb: Hang})
	ttl := e.h.ttl()
	e.must("KeepAlive", a.KeepAlive(e.ctx(), w.ID, ttl))
	e.must("KeepAlive", a.KeepAlive(e.ctx(), kept.ID, time.Minute))
	e.must("KeepAlive again", a.KeepAlive(e.ctx(), kept.ID, time.Hour))
	if got := e.ready(kept.ID); time.Until(got.Expires) < 30*time.Minute {
		e.t.Errorf("Workspace.Expires is %v, want about an hour from now", got.Expires)
	}
	wait(ttl)
	e.until("the workspace has expired", func() bool {
		got, err := e.p.Get(e.ctx(), w.ID)
		return errors.Is(err, provider.ErrNotFound) || got.State == provider.Failed
	})
	e.ready(kept.ID)
}

func usage(e *env) {
	a, _ := provider.As[provider.Meter](e.p)
	w := e.boot()
	last, err := a.Usage(e.ctx(), w.ID)
	e.must("Usage", err)
	for range 2 {
		e.run(w.ID, Action{Verb: Burn})
		var now provider.Usage
		e.until("CPU time has grown", func() bool {
			now, err = a.Usage(e.ctx(), w.ID)
			e.must("Usage", err)
			if now.CPUTime < last.CPUTime {
				e.t.Fatalf("CPU time was %v and is %v", last.CPUTime, now.CPUTime)
			}
			return now.CPUTime > last.CPUTime
		})
		last = now
	}
}

func ownerName(e *env) {
	a, _ := provider.As[provider.Namer](e.p)
	name, release, err := a.OwnerName(e.ctx())
	e.must("OwnerName", err)
	if !regexp.MustCompile(`^[a-z0-9-]{1,26}$`).MatchString(name) {
		e.t.Errorf("OwnerName is %q", name)
	}
	if second, releaseSecond, err := a.OwnerName(e.ctx()); err == nil {
		if second == name {
			e.t.Errorf("OwnerName is %q for two", name)
		}
		releaseSecond()
	}
	release()
	again, release, err := a.OwnerName(e.ctx())
	e.must("OwnerName after the release", err)
	defer release()
	if again != name {
		e.t.Errorf("OwnerName is %q, then %q", name, again)
	}
}
