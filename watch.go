package freshet

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"golang.org/x/sync/errgroup"
)

// watcher observes workspaces for all runs and pools together: those that are awaited until they are ready, those that
// are in use for whether they are still there.
type watcher struct {
	*core
	woken chan struct{}

	mu      sync.Mutex // protects the fields below
	awaited map[string]*awaited
	hinted  map[string]bool // awaited ids with a hint that was not looked at yet
}

// awaited is a workspace that somebody waits for.
type awaited struct {
	id   string
	news chan sight // of capacity one: the newest
}

// sight is what an observation showed.
type sight struct {
	w   provider.Workspace
	err error
}

func newWatcher(c *core) *watcher {
	return &watcher{core: c, woken: make(chan struct{}, 1), awaited: map[string]*awaited{}, hinted: map[string]bool{}}
}

// wake is told that a workspace may have changed.
func (w *watcher) wake(id string) {
	w.mu.Lock()
	a := w.awaited[id]
	if a != nil {
		w.hinted[id] = true
	}
	w.mu.Unlock()
	if a != nil {
		poke(w.woken)
	}
}

// await waits until a workspace is ready, has failed (provider.ErrLost) or is gone (provider.ErrNotFound), or ctx ends.
func (w *watcher) await(ctx context.Context, id string) (provider.Workspace, error) {
	a := &awaited{id: id, news: make(chan sight, 1)}
	w.mu.Lock()
	w.awaited[id] = a
	w.hinted[id] = true // it may be ready already
	w.mu.Unlock()
	poke(w.woken)
	defer func() {
		w.mu.Lock()
		delete(w.awaited, id)
		delete(w.hinted, id)
		w.mu.Unlock()
	}()
	for {
		select {
		case s := <-a.news:
			switch {
			case errors.Is(s.err, provider.ErrNotFound):
				return s.w, s.err
			case s.err != nil: // the control plane's trouble, not the workspace's
			case s.w.Ready:
				return s.w, nil
			case s.w.State == provider.Failed, s.w.State == provider.Deleting:
				return s.w, &provider.Error{Op: "await", Class: provider.ErrLost, Err: errors.New(orDefault(s.w.Message, string(s.w.State)))}
			}
		case <-ctx.Done():
			return provider.Workspace{}, context.Cause(ctx)
		}
	}
}

const (
	bootPollFirst = 25 * time.Millisecond
	bootPollMost  = 2 * time.Second
	listAbove     = 4 // awaited ones above which one List is cheaper than a Get each
	getsAtOnce    = 8
)

func (w *watcher) loop(ctx context.Context) {
	health := time.NewTicker(healthTime)
	defer health.Stop()
	poll := time.NewTimer(time.Hour)
	defer poll.Stop()
	pause := bootPollFirst
	for {
		w.mu.Lock()
		waiting := len(w.awaited)
		w.mu.Unlock()
		var due <-chan time.Time
		if waiting > 0 {
			poll.Reset(pause)
			due = poll.C
		}
		select {
		case <-w.woken:
			w.look(ctx, w.takeHints())
			pause = bootPollFirst
		case <-due:
			w.lookAll(ctx)
			pause = min(2*pause, bootPollMost)
		case <-health.C:
			w.checkHealth(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (w *watcher) takeHints() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]string, 0, len(w.hinted))
	for id := range w.hinted {
		ids = append(ids, id)
	}
	clear(w.hinted)
	return ids
}

// look observes each of these workspaces.
func (w *watcher) look(ctx context.Context, ids []string) {
	if len(ids) == 1 {
		w.get(ctx, ids[0])
		return
	}
	var g errgroup.Group
	g.SetLimit(getsAtOnce)
	for _, id := range ids {
		g.Go(func() error { w.get(ctx, id); return nil })
	}
	_ = g.Wait()
}

func (w *watcher) get(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen, err := w.provider.Get(ctx, id)
	w.tell(id, sight{seen, err})
}

// lookAll observes everything awaited, with one List where that is cheaper.
func (w *watcher) lookAll(ctx context.Context) {
	w.mu.Lock()
	ids := make([]string, 0, len(w.awaited))
	for id := range w.awaited {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	if len(ids) <= listAbove {
		w.look(ctx, ids)
		return
	}
	all, err := w.list(ctx)
	if err != nil {
		w.look(ctx, ids)
		return
	}
	var missing []string
	for _, id := range ids {
		if seen, ok := all[id]; ok {
			w.tell(id, sight{w: seen})
		} else { // a list may lag behind a create
			missing = append(missing, id)
		}
	}
	w.look(ctx, missing)
}

// list observes all workspaces of the fleet.
func (w *watcher) list(ctx context.Context) (map[string]provider.Workspace, error) {
	lister, ok := provider.As[provider.Lister](w.provider)
	if !ok {
		return nil, provider.ErrUnsupported
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all := map[string]provider.Workspace{}
	for seen, err := range lister.List(ctx, w.owner) {
		if err != nil {
			return nil, err
		}
		all[seen.ID] = seen
	}
	return all, nil
}

func (w *watcher) tell(id string, s sight) {
	w.mu.Lock()
	a := w.awaited[id]
	w.mu.Unlock()
	if a == nil {
		return
	}
	select {
	case <-a.news: // what was not looked at yet is old
	default:
	}
	select {
	case a.news <- s:
	default:
	}
}

// checkHealth observes the workspaces of all runs that have begun their handler. Three findings in a row against a
// workspace mean that it is lost; a provider that does not answer is no finding.
func (w *watcher) checkHealth(ctx context.Context) {
	var runs []*liveRun
	for _, r := range w.live.all() {
		if r.handlingNow() {
			runs = append(runs, r)
		}
	}
	if len(runs) == 0 {
		return
	}
	all, err := w.list(ctx)
	listed := err == nil
	if err != nil && !errors.Is(err, provider.ErrUnsupported) {
		return
	}
	var g errgroup.Group
	g.SetLimit(getsAtOnce)
	for _, r := range runs {
		seen, ok := all[r.workspace().ID]
		if listed && ok && seen.Ready {
			r.healthy()
			continue
		}
		g.Go(func() error { w.examine(ctx, r); return nil })
	}
	_ = g.Wait()
}

// examine asks for one workspace itself.
func (w *watcher) examine(ctx context.Context, r *liveRun) {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	err := provider.Check(ctx, w.provider, r.workspace().ID)
	switch {
	case err == nil:
		r.healthy()
	case errors.Is(err, provider.ErrNotFound), errors.Is(err, provider.ErrLost):
		if n := r.unhealthy(); n >= healthFails {
			w.log.Warn("workspace lost", "task", r.task.ID, "workspace", r.workspace().ID, "err", err)
			r.stop(ErrWorkspaceLost)
		}
	}
}

func (r *liveRun) handlingNow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stage == stageHandler
}

func (r *liveRun) healthy() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = 0
}

func (r *liveRun) unhealthy() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails++
	return r.fails
}
