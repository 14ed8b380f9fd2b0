package providertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func createCases() []conformance {
	return []conformance{
		{
			name: "create/ready",
			rule: "Create returns a workspace with the labels that were asked for; it becomes Ready, and Get shows the same one.",
			run:  createReady,
		},
		{
			name: "create/same-token",
			rule: "Idempotent: the same token and spec give the same workspace, with another spec ErrExists. Search: what was made is found by its token.",
			run:  createSameToken,
		},
		{
			name: "create/concurrent",
			rule: "Idempotent: creates with one token at the same time make one workspace, which all of them return.",
			run:  createConcurrent,
		},
		{
			name: "create/context",
			rule: "A Create whose context ends returns the context's error when nothing was made, and ErrAmbiguous when something may have been. A repeat finds it.",
			run:  createContext,
		},
	}
}

func createReady(e *env) {
	req := e.request()
	w, err := e.create(req)
	e.must("Create", err)
	check := func(call string, w provider.Workspace) {
		e.t.Helper()
		if w.ID == "" || w.Token != req.Token || w.Owner != req.Owner || w.Agent != req.Agent {
			e.t.Errorf("%s: %+v, want the labels of %+v", call, w, req)
		}
		if w.Ready != (w.State == provider.Running) && w.State != provider.Running {
			e.t.Errorf("%s: ready, but %s", call, w.State)
		}
	}
	check("Create", w)
	if w.State != provider.Creating && w.State != provider.Running {
		e.t.Errorf("Create: state %s", w.State)
	}
	got := e.ready(w.ID)
	check("Get", got)
	if got.ID != w.ID {
		e.t.Errorf("Get: id %q, want %q", got.ID, w.ID)
	}
	if got.State != provider.Running {
		e.t.Errorf("Get: ready, but %s", got.State)
	}
	e.must("provider.Check", provider.Check(e.ctx(), e.p, w.ID))
}

func createSameToken(e *env) {
	req := e.request()
	w := e.bootAs(req)
	again, err := e.create(req)
	e.must("second Create", err)
	if e.caps.Create == provider.Search {
		e.ready(again.ID)
		found, err := provider.Find(e.ctx(), e.p, req.Owner, req.Token)
		e.must("Find", err)
		if found.ID != w.ID && found.ID != again.ID {
			e.t.Errorf("Find: %q, want %q or %q", found.ID, w.ID, again.ID)
		}
		return
	}
	if again.ID != w.ID {
		e.t.Errorf("second Create: %q, want %q", again.ID, w.ID)
	}
	other := req
	other.Spec.Resources.MemoryMB += 128
	_, err = e.create(other)
	e.want("Create with another spec", err, provider.ErrExists)
	e.ready(w.ID)
	if _, ok := provider.As[provider.Lister](e.p); ok {
		if all := listed(e, e.owner); len(all) != 1 {
			e.t.Errorf("List: %v, want one workspace", all)
		}
	}
}

func createConcurrent(e *env) {
	if e.caps.Create != provider.Idempotent {
		return
	}
	req := e.request()
	ids := make([]string, 8)
	var creates sync.WaitGroup
	for i := range ids {
		creates.Go(func() {
			w, err := e.create(req)
			if err != nil {
				e.t.Errorf("Create: %v", err)
			}
			ids[i] = w.ID
		})
	}
	creates.Wait()
	for _, id := range ids {
		if id != ids[0] {
			e.t.Errorf("Create: %q and %q", ids[0], id)
		}
	}
	if _, ok := provider.As[provider.Lister](e.p); ok {
		if all := listed(e, e.owner); len(all) != 1 {
			e.t.Errorf("List: %v, want one workspace", all)
		}
	}
}

func createContext(e *env) {
	for _, after := range []time.Duration{0, time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond} {
		req := e.request()
		ctx, cancel := context.WithTimeout(context.Background(), after)
		w, err := e.p.Create(ctx, req)
		cancel()
		if err == nil {
			e.record(w, req.Owner)
			continue
		}
		ambiguous := errors.Is(err, provider.ErrAmbiguous)
		if !ambiguous {
			e.want("Create", err, context.DeadlineExceeded)
		}
		found, err := provider.Find(e.ctx(), e.p, req.Owner, req.Token)
		switch {
		case err == nil:
			e.record(found, req.Owner)
			if !ambiguous {
				e.t.Errorf("Create returned the context's error after %v, but made a workspace", after)
			}
		case !errors.Is(err, provider.ErrNotFound) && !errors.Is(err, provider.ErrUnsupported):
			e.t.Errorf("Find: %v", err)
		}
		if e.caps.Create == provider.Idempotent {
			again, err := e.create(req)
			e.must("Create again", err)
			if found.ID != "" && again.ID != found.ID {
				e.t.Errorf("Create again: %q, want %q, which was found", again.ID, found.ID)
			}
		}
	}
}
