package providertest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/freshet-dev/freshet/provider"
)

func faultCases() []conformance {
	return []conformance{
		{
			name:  "fault/failed",
			rule:  "A workspace that has failed is Failed, in Get and List, until it is deleted; Check says ErrLost, its processes have ended.",
			needs: []need{fails},
			run:   failed,
		},
		{
			name:  "fault/vanished",
			rule:  "A workspace that has vanished is ErrNotFound everywhere, also to who waits for its processes.",
			needs: []need{vanishes},
			run:   vanished,
		},
	}
}

func failed(e *env) {
	w := e.boot()
	p := e.start(w.ID, "main", Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
	e.await(p, provider.Offset{}, "up")
	e.h.Fail(e.t, e.p, w.ID)
	e.until("the workspace is Failed", func() bool {
		got, err := e.p.Get(e.ctx(), w.ID)
		e.must("Get", err)
		return got.State == provider.Failed && !got.Ready
	})
	e.want("provider.Check", provider.Check(e.ctx(), e.p, w.ID), provider.ErrLost)
	if exit, err := p.Wait(e.ctx()); err == nil && exit.Signal == "" {
		e.t.Errorf("Wait: %+v", exit)
	} else if err != nil {
		e.want("Wait", err, provider.ErrLost)
	}
	_, err := e.p.StartProcess(e.ctx(), w.ID, "late", e.h.Cmd())
	e.want("StartProcess", err, provider.ErrConflict, provider.ErrLost)
	if _, ok := provider.As[provider.Lister](e.p); ok {
		if got := listed(e, e.owner); got[w.ID] != provider.Failed {
			e.t.Errorf("List: %v, want it Failed", got)
		}
	}
	e.gone(w.ID)
}

func vanished(e *env) {
	w := e.boot()
	p := e.start(w.ID, "main", Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
	e.await(p, provider.Offset{}, "up")
	ctx := e.ctx()
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := p.Wait(ctx); !errors.Is(err, provider.ErrNotFound) && !errors.Is(err, provider.ErrLost) {
			e.t.Errorf("Wait meanwhile: %v", err)
		}
	})
	e.h.Vanish(e.t, e.p, w.ID)
	waiting.Wait()
	e.awaitGone(w.ID)
	_, err := p.Wait(e.ctx())
	e.want("Wait", err, provider.ErrNotFound)
	e.want("provider.Check", provider.Check(e.ctx(), e.p, w.ID), provider.ErrNotFound)
	e.must("Delete", e.p.Delete(e.ctx(), w.ID))
}

func manyCases() []conformance {
	return []conformance{{
		name: "many",
		rule: "Many workspaces at once: each boots, runs its own process and is deleted; nothing is left.",
		run:  many,
	}}
}

func many(e *env) {
	ids := make([]string, e.h.many())
	var lives sync.WaitGroup
	for i := range ids {
		lives.Go(func() {
			id, err := live(e, fmt.Sprintf("workspace %d", i))
			if err != nil {
				e.t.Errorf("workspace %d: %v", i, err)
			}
			ids[i] = id
		})
	}
	lives.Wait()
	for i, id := range ids {
		for _, other := range ids[:i] {
			if id != "" && id == other {
				e.t.Errorf("two workspaces have the id %s", id)
			}
		}
		if id != "" {
			e.awaitGone(id)
		}
	}
}

// live is the whole life of a workspace.
func live(e *env, text string) (id string, err error) {
	w, err := e.create(e.request())
	if err != nil {
		return "", err
	}
	ctx := e.ctx()
	for !w.Ready {
		wait(pollEvery)
		if w, err = e.p.Get(ctx, w.ID); err != nil {
			return w.ID, err
		}
		if w.State == provider.Failed {
			return w.ID, fmt.Errorf("it has failed: %s", w.Message)
		}
	}
	cmd := e.h.Cmd(Action{Verb: Cat}, Action{Verb: Exit, N: 7})
	cmd.Stdin = []byte(text)
	p, err := e.p.StartProcess(ctx, w.ID, "main", cmd)
	if err != nil {
		return w.ID, err
	}
	got, err := e.readUntil(ctx, p, provider.Offset{}, func(output) bool { return false })
	if err != nil {
		return w.ID, err
	}
	exit, err := p.Wait(ctx)
	if err != nil {
		return w.ID, err
	}
	if string(got.out) != text || exit.Code != 7 {
		return w.ID, fmt.Errorf("output %q, %+v", got.out, exit)
	}
	return w.ID, e.p.Delete(ctx, w.ID)
}
