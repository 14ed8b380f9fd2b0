package storetest

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// crowd is many dispatchers who work off tasks at the same time. It counts what they hold from what they are told: each
// holding is added after the Store has given it and taken away before the Store is told of its end, so that the count is
// never above what is truly held.
type crowd struct {
	f      *fixture
	limits store.Limits
	agents int // runs of each agent at once

	mu      sync.Mutex
	held    map[string]store.Amount // by tenant, by agent, and under "" of all
	fences  map[int64]bool
	runs    map[string]int   // admissions by task and generation
	waiting map[string]int64 // generations by task
	open    int              // tasks that have not finished
}

func raceRules() []rule {
	return []rule{
		{"Begin", "of many who begin the same tasks each is begun once, and no limit is exceeded at any instant", func(f *fixture) {
			c := f.crowd()
			c.work(func(s store.Store, a store.Admission, rnd *rand.Rand) []store.Begun {
				var reqs []store.BeginRequest
				c.mu.Lock()
				for id, generation := range c.waiting {
					if reqs = append(reqs, store.BeginRequest{Task: id, Generation: generation}); len(reqs) == 4 {
						break
					}
				}
				c.mu.Unlock()
				begun, err := s.Begin(f.Context(), a, reqs)
				f.check("Begin", err)
				return begun
			})
		}},
		{"ClaimBegin", "of many who claim each task is given to one, and no limit is exceeded at any instant", func(f *fixture) {
			if _, ok := f.s.(store.Liner); !ok {
				return
			}
			c := f.crowd()
			c.work(func(s store.Store, a store.Admission, rnd *rand.Rand) []store.Begun {
				claimed, err := s.(store.Liner).ClaimBegin(f.Context(), a, 1+rnd.IntN(4))
				f.check("ClaimBegin", err)
				return claimed.Begun
			})
		}},
		{"Lease", "of a Renew, two Adopts and a Finish at the end of a lease, one wins and the others are told so", func(f *fixture) {
			for range 5 {
				begun := f.abandon()
				var renewed store.LeaseState
				var finished error
				var adopted [2][]store.Begun
				offers := []store.Admission{f.offer(), f.offer()}
				f.together(4, func(i int, s store.Store) {
					switch i {
					case 0:
						states, err := s.Renew(f.Context(), []store.Lease{begun.Lease}, time.Hour)
						if f.check("Renew", err); err == nil {
							renewed = states[0]
						}
					case 1:
						done, err := s.Finish(f.Context(), []store.Outcome{
							{Lease: begun.Lease, State: store.StateSucceeded, Workspace: store.DisposeGone},
						})
						if f.check("Finish", err); err == nil {
							finished = done[0].Err
						}
					default:
						var err error
						adopted[i-2], err = s.Adopt(f.Context(), offers[i-2], 5)
						f.check("Adopt", err)
					}
				})
				adoptions := len(adopted[0]) + len(adopted[1])
				won := 0
				if finished == nil {
					won++
				} else {
					f.fails("Finish", finished, store.ErrLeaseLost)
				}
				equal(f, "winners", won+adoptions, 1)
				if renewed.Held && adoptions > 0 {
					f.Error("a renewed lease was adopted")
				}
				f.history(begun.Task.ID)
				f.drain()
			}
		}},
		{"Adopt", "of many who adopt, each run goes to one", func(f *fixture) {
			const runs = 12
			for range runs {
				f.must("Detach", f.s.Detach(f.Context(), []store.Lease{f.start().Lease}))
			}
			offers := make([]store.Admission, 6)
			for i := range offers {
				offers[i] = f.offer()
			}
			var mu sync.Mutex
			got := map[string]int{}
			f.together(len(offers), func(i int, s store.Store) {
				for range 3 {
					begun, err := s.Adopt(f.Context(), offers[i], 2)
					f.check("Adopt", err)
					mu.Lock()
					for _, b := range begun {
						got[b.Task.ID]++
					}
					mu.Unlock()
				}
			})
			equal(f, "adopted", len(got), runs)
			for id, n := range got {
				equal(f, "adoptions of "+id, n, 1)
			}
		}},
		{"Cancel", "of a cancel and a Begin at the same time, either nothing begins or the run is told", func(f *fixture) {
			for range 20 {
				id, a := f.queued(), f.offer()
				var begun store.Begun
				f.together(2, func(i int, s store.Store) {
					if i == 0 {
						f.check("End", s.End(f.Context(), id, canceled))
						return
					}
					answers, err := s.Begin(f.Context(), a, []store.BeginRequest{{Task: id, Generation: 1}})
					if f.check("Begin", err); err == nil {
						begun = answers[0]
					}
				})
				t := f.get(id)
				if begun.Verdict == store.Admitted {
					same(f, "task", []any{t.State, t.Cancel}, []any{store.StateStarting, true})
				} else {
					same(f, "task", []any{t.State, begun.Verdict}, []any{store.StateCanceled, store.NotYours})
				}
				f.history(id)
			}
		}},
	}
}

// crowd submits tasks of three tenants and two agents, under limits of every kind.
func (f *fixture) crowd() *crowd {
	c := &crowd{
		f: f, agents: 5,
		limits: store.Limits{Workspaces: 8, CPU: 7, MemoryMB: 750, Tenant: store.TenantLimits{Concurrent: 4, CPU: 3, MemoryMB: 350}},
		held:   map[string]store.Amount{}, fences: map[int64]bool{}, runs: map[string]int{}, waiting: map[string]int64{},
	}
	for i := range 60 {
		task := f.task()
		task.Tenant, task.Agent = fmt.Sprint("tenant", i%3), fmt.Sprint("agent", i%2)
		f.submit(task)
		c.waiting[task.ID] = 1
	}
	c.open = len(c.waiting)
	return c
}

// work lets eight dispatchers work until all tasks have finished, while somebody reads the ledger.
func (c *crowd) work(begin func(s store.Store, a store.Admission, rnd *rand.Rand) []store.Begun) {
	f := c.f
	const dispatchers, patience = 8, 100_000
	var reader sync.WaitGroup
	done := make(chan struct{})
	reader.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				c.look()
			}
		}
	})
	f.together(dispatchers, func(i int, s store.Store) {
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		p, q := f.plan("agent0"), f.plan("agent1")
		p.Concurrent, q.Concurrent = c.agents, c.agents
		for try := range patience {
			a := store.Admission{
				Runner: "runner", Lease: time.Hour, Owner: owner, Scope: scope, Limits: &c.limits, Plans: []store.Plan{p, q},
			}
			for n := range 4 {
				a.Tokens = append(a.Tokens, fmt.Sprintf("w%dx%dx%d", i, try, n))
			}
			var mine []store.Begun
			for _, begun := range begin(s, a, rnd) {
				if begun.Verdict == store.Admitted {
					c.admitted(begun)
					mine = append(mine, begun)
				}
			}
			runtime.Gosched() // others look while it holds them
			for _, begun := range mine {
				c.end(s, begun, rnd)
			}
			if c.finished() || f.Failed() {
				return
			}
		}
	})
	close(done)
	reader.Wait()
	equal(f, "tasks left", c.open, 0)
	equal(f, "held", f.usage("tenant0", "agent0").Account, store.Amount{})
	for _, t := range f.query(store.TaskQuery{}) {
		equal(f, "state", t.State, store.StateSucceeded)
		f.history(t.ID)
	}
}

// finished says whether no task is left.
func (c *crowd) finished() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open == 0
}

// over says whether so much is more than the limits allow who holds it.
func (c *crowd) over(who string, a store.Amount) bool {
	switch who[:min(len(who), 5)] {
	case "":
		return a.Workspaces > c.limits.Workspaces || a.CPU > c.limits.CPU || a.MemoryMB > c.limits.MemoryMB
	case "agent":
		return a.Workspaces > c.agents
	}
	l := c.limits.Tenant
	return a.Workspaces > l.Concurrent || a.CPU > l.CPU || a.MemoryMB > l.MemoryMB
}

// hold adds a workspace to what is held.
func (c *crowd) hold(held map[string]store.Amount, w store.Workspace, sign int) {
	for _, who := range []string{"", w.Tenant, w.Agent} {
		a := held[who]
		a.Workspaces += sign
		a.CPU += float64(sign) * w.Resources.CPU
		a.MemoryMB += sign * w.Resources.MemoryMB
		if held[who] = a; c.over(who, a) {
			c.f.Errorf("%q holds %+v", who, a)
		}
	}
}

// look counts the rows of the ledger.
func (c *crowd) look() {
	rows, err := c.f.second.QueryWorkspaces(c.f.Context(), store.WorkspaceQuery{})
	c.f.check("QueryWorkspaces", err)
	held := map[string]store.Amount{}
	for _, w := range rows {
		c.hold(held, w, 1)
	}
}

// admitted counts a run that has begun.
func (c *crowd) admitted(begun store.Begun) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold(c.held, begun.Workspace, 1)
	if c.fences[begun.Lease.Fence] {
		c.f.Errorf("fence %d was given twice", begun.Lease.Fence)
	}
	c.fences[begun.Lease.Fence] = true
	run := fmt.Sprint(begun.Task.ID, "/", begun.Task.Generation)
	if c.runs[run]++; c.runs[run] > 1 {
		c.f.Errorf("%s was begun twice", run)
	}
	delete(c.waiting, begun.Task.ID)
}

// end ends a run: at once or by a deletion, for good or to be tried again.
func (c *crowd) end(s store.Store, begun store.Begun, rnd *rand.Rand) {
	f := c.f
	out := store.Outcome{Lease: begun.Lease, State: store.StateSucceeded, Count: store.CountAttempt, Workspace: store.DisposeDelete}
	if begun.Task.Generation < 3 && rnd.IntN(3) == 0 {
		out.State = store.StateQueued
	}
	if rnd.IntN(2) == 0 {
		out.Workspace = store.DisposeGone
		c.release(begun.Workspace)
	}
	done, err := s.Finish(f.Context(), []store.Outcome{out})
	if err != nil || done[0].Err != nil {
		f.Errorf("Finish: %v, %v", err, done)
		return
	}
	c.mu.Lock()
	if out.State == store.StateQueued {
		c.waiting[begun.Task.ID] = begun.Task.Generation + 1
	} else {
		c.open--
	}
	c.mu.Unlock()
	if out.Workspace == store.DisposeDelete {
		w := done[0].Workspace
		w.State = store.WorkspaceGone
		c.release(begun.Workspace)
		_, err := s.PutWorkspace(f.Context(), store.Lease{}, nil, w)
		f.check("PutWorkspace", err)
	}
}

// release takes a workspace from what is held.
func (c *crowd) release(w store.Workspace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold(c.held, w, -1)
}
