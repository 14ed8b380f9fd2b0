package store

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// live is a random task with a run.
func (w *model) live() *modelTask {
	return anyOf(w, w.tasks, func(t *modelTask) bool { return t.State.Live() })
}

// lease is the lease of a task's run, or sometimes one that it had before.
func (w *model) lease(t *modelTask) (l Lease, current bool) {
	l = Lease{t.ID, t.Fence - int64(w.IntN(8)/7)}
	return l, l.Fence == t.Fence
}

func (w *model) finish() {
	t := w.live()
	if t == nil {
		return
	}
	l, current := w.lease(t)
	o := Outcome{
		Lease: l, State: []State{StateSucceeded, StateFailed, StateQueued, StateQueued}[w.IntN(4)], Reason: "finished", Cost: 0.5,
		Count:     []Count{CountAttempt, CountCrash, CountInterruption, CountNothing}[w.IntN(4)],
		Workspace: []Disposition{DisposeDelete, DisposeKeep, DisposePool, DisposeGone}[w.IntN(4)],
		KeepUntil: time.Now().Add(time.Duration(w.IntN(int(10 * time.Minute)))), Due: time.Now().Add(time.Duration(w.IntN(int(time.Minute)))),
	}
	done, err := w.m.Finish(w.ctx, []Outcome{o})
	if err != nil {
		w.Fatal(err)
	}
	if !current {
		w.want("stale Finish", done[0].Err, ErrLeaseLost)
		return
	}
	w.want("Finish", done[0].Err, nil)
	if row := w.row(t.Workspace); row != nil {
		switch {
		case o.Workspace == DisposeGone:
			w.drop(row)
		case row.Intent == IntentDelete: // it was on its way out
		default:
			w.write(row, func(r *Workspace) {
				switch o.Workspace {
				case DisposeKeep:
					r.Task, r.Fence, r.KeepUntil = "", 0, o.KeepUntil
				case DisposePool:
					r.Task, r.Fence, r.Tenant = "", 0, ""
				default:
					r.Intent = IntentDelete
				}
			})
		}
	}
	switch o.Count {
	case CountAttempt:
		t.Spent++
	case CountCrash:
		t.Crashes++
	case CountInterruption:
		t.Interruptions++
	}
	t.Cost += o.Cost
	switch {
	case o.State == StateQueued && t.Cancel:
		t.end(StateCanceled, t.Reason)
	case o.State == StateQueued:
		t.State, t.Reason, t.Due, t.LeaseEnd, t.Runner, t.Workspace, t.Path = o.State, o.Reason, o.Due, time.Time{}, "", "", ""
		t.Generation++
		if o.Count == CountNothing {
			t.Attempt--
		}
		t.event()
	default:
		t.end(o.State, o.Reason)
	}
}

func (w *model) end() {
	t := anyOf(w, w.tasks, func(*modelTask) bool { return true })
	if t == nil {
		return
	}
	e := Ending{State: []State{StateCanceled, StateCanceled, StateExpired}[w.IntN(3)], Reason: "ended"}
	err := w.m.End(w.ctx, t.ID, e)
	switch {
	case t.State.Finished():
		w.want("End", err, ErrFinished)
	case t.State == StateQueued:
		w.want("End", err, nil)
		t.end(e.State, e.Reason)
	case e.State != StateCanceled:
		w.want("End", err, ErrConflict)
	case !t.Cancel:
		w.want("End", err, nil)
		t.Cancel, t.Reason = true, e.Reason
		t.event()
	}
}

func (w *model) renew() {
	if t := w.live(); t != nil {
		l, current := w.lease(t)
		states, err := w.m.Renew(w.ctx, []Lease{l}, 2*time.Minute)
		if err != nil {
			w.Fatal(err)
		}
		if w.want("Renew", states[0], LeaseState{Held: current, Cancel: current && t.Cancel}); current {
			t.LeaseEnd, t.detached = time.Now().Add(2*time.Minute), false
		}
	}
}

func (w *model) detach() {
	if t := w.live(); t != nil {
		l, current := w.lease(t)
		if err := w.m.Detach(w.ctx, []Lease{l}); err != nil {
			w.Fatal(err)
		}
		if current {
			t.LeaseEnd, t.detached = time.Now(), true
		}
	}
}

func (w *model) adopt() {
	n := w.IntN(4)
	a := w.offer(0)
	begun, err := w.m.Adopt(w.ctx, a, n)
	if err != nil {
		w.Fatal(err)
	}
	ended := 0
	for _, t := range w.tasks {
		if t.State.Live() && !time.Now().Before(t.LeaseEnd) {
			ended++
		}
	}
	w.want("adopted", len(begun), min(n, ended))
	for _, b := range begun {
		t := w.task(b.Task.ID)
		if !t.State.Live() || time.Now().Before(t.LeaseEnd) {
			w.Fatalf("adopted %+v", t)
		}
		if t.detached {
			t.Interruptions++
		} else {
			t.Crashes++
		}
		w.fence++
		for _, r := range w.rows {
			if r.Task == t.ID && r.Fence == t.Fence {
				w.write(r, func(r *Workspace) { r.Fence = w.fence })
			}
		}
		t.Fence, t.Runner, t.LeaseEnd, t.detached = w.fence, a.Runner, time.Now().Add(a.Lease), false
		t.event()
	}
}

// save makes a run's workspace ready and its task running, or has the run give its workspace up.
func (w *model) save() {
	t := w.live()
	if t == nil {
		return
	}
	row := w.row(t.Workspace)
	if row == nil || row.Intent == IntentDelete {
		return
	}
	l, current := w.lease(t)
	next := *row
	next.State, next.Intent, next.Home = WorkspaceReady, IntentNone, "/home"
	if w.IntN(4) == 0 {
		next.Intent = IntentDelete
	}
	next.Version -= int64(w.IntN(8) / 7)
	err := w.m.Save(w.ctx, l, Save{Workspace: &next, Status: &Change{State: StateRunning, Note: "note"}})
	switch {
	case !current:
		w.want("stale Save", err, ErrLeaseLost)
	case next.Version != row.Version:
		w.want("late Save", err, ErrConflict)
	default:
		w.want("Save", err, nil)
		w.write(row, func(r *Workspace) { r.State, r.Intent, r.Home = next.State, next.Intent, next.Home })
		if t.State = StateRunning; t.Started.IsZero() {
			t.Started = time.Now()
		}
		t.Note = "note"
		t.event()
	}
}

// insert adds a spare.
func (w *model) insert() {
	p := w.plans[w.IntN(3)]
	spare := Workspace{
		Token: w.id("w"), Scope: []string{"scope", "scope", "another"}[w.IntN(3)], Owner: "owner", Agent: p.Agent, Spec: p.Spec,
		Resources: p.Resources, State: []WorkspaceState{WorkspaceNew, WorkspaceReady, WorkspacePaused}[w.IntN(3)],
	}
	if spare.State == WorkspacePaused {
		spare.Uncounted = w.IntN(2) == 0
	}
	fits := spare.Uncounted || w.fitsAccount(spare.Resources)
	version, err := w.m.PutWorkspace(w.ctx, Lease{}, &w.defaults, spare)
	if !fits {
		if limit := (*LimitError)(nil); !errors.As(err, &limit) {
			w.Fatalf("insert: error %v, the model says that it does not fit", err)
		}
		return
	}
	w.want("insert", err, nil)
	w.want("version", version, int64(1))
	spare.Version, spare.Created, spare.Since = 1, time.Now(), time.Now()
	w.rows = append(w.rows, &spare)
}

// change moves a spare on.
func (w *model) change() {
	row := anyOf(w, w.rows, func(r *Workspace) bool { return r.Task == "" })
	if row == nil {
		return
	}
	next := *row
	switch w.IntN(5) {
	case 0:
		next.State, next.Intent, next.Uncounted = WorkspaceReady, IntentNone, false
	case 1:
		next.State, next.Intent, next.Uncounted = WorkspacePaused, IntentNone, w.IntN(2) == 0
	case 2:
		next.Intent = IntentResize
	case 3:
		next.Failures++
	case 4:
		next.Resources = provider.Resources{CPU: float64(w.IntN(5)) / 2, MemoryMB: 100 * w.IntN(4)}
		next.Spec = "resized" // of no plan, so that a run never takes another size than planned
	}
	counts := next.State == WorkspacePaused && !next.Uncounted && row.State == WorkspacePaused && row.Uncounted
	fits := !counts || w.fitsAccount(next.Resources)
	_, err := w.m.PutWorkspace(w.ctx, Lease{}, &w.defaults, next)
	if !fits {
		if limit := (*LimitError)(nil); !errors.As(err, &limit) {
			w.Fatalf("change: error %v, the model says that it does not fit", err)
		}
		return
	}
	w.want("change", err, nil)
	w.write(row, func(r *Workspace) {
		since, version := r.Since, r.Version
		*r = next
		r.Since, r.Version = since, version
	})
}

// gone confirms that a workspace is gone.
func (w *model) gone() {
	if row := anyOf(w, w.rows, func(r *Workspace) bool { return r.Intent == IntentDelete || r.Task == "" }); row != nil {
		next := *row
		next.State = WorkspaceGone
		_, err := w.m.PutWorkspace(w.ctx, Lease{}, nil, next)
		w.want("gone", err, nil)
		w.drop(row)
	}
}

func (w *model) setLimits() {
	var err error
	switch tenant := fmt.Sprint("tenant", w.IntN(4)); w.IntN(4) {
	case 0:
		l := w.limits()
		w.set = &l
		err = w.m.SetLimits(w.ctx, &l)
	case 1:
		w.set = nil
		err = w.m.SetLimits(w.ctx, nil)
	case 2:
		l := w.tenantLimits()
		w.tenants[tenant] = l
		err = w.m.SetTenantLimits(w.ctx, tenant, &l)
	case 3:
		delete(w.tenants, tenant)
		err = w.m.SetTenantLimits(w.ctx, tenant, nil)
	}
	w.want("limits", err, nil)
}

func (w *model) setHold() {
	h := Hold{Agent: []string{"", "agent0"}[w.IntN(2)], Tenant: []string{"", "tenant0"}[w.IntN(2)]}
	key := holdKey{h.Agent, h.Tenant}
	delete(w.holds, key)
	if w.IntN(4) == 0 {
		h.Reason, h.Until = "held", time.Now().Add(time.Minute)
		w.holds[key] = h
	}
	w.want("hold", w.m.SetHold(w.ctx, h), nil)
}

// forget removes finished tasks.
func (w *model) forget() {
	var ids []string
	for _, t := range w.tasks {
		if w.IntN(2) == 0 {
			ids = append(ids, t.ID)
		}
	}
	w.want("Acknowledge", w.m.Acknowledge(w.ctx, ids), nil)
	for _, t := range w.tasks {
		if slices.Contains(ids, t.ID) && t.State.Finished() {
			t.Acknowledged = true
		}
	}
	w.want("Remove", w.m.Remove(w.ctx, ids[:len(ids)/2]), nil)
	w.tasks = slices.DeleteFunc(w.tasks, func(t *modelTask) bool {
		return t.State.Finished() && slices.Contains(ids[:len(ids)/2], t.ID)
	})
}

// compare compares all that can be seen.
func (w *model) compare() {
	w.Helper()
	tasks, err := w.m.QueryTasks(w.ctx, TaskQuery{N: 10000, OldestFirst: true})
	w.want("QueryTasks", err, nil)
	w.want("number of tasks", len(tasks), len(w.tasks))
	for i, got := range tasks {
		w.want("task", got, w.tasks[i].Task)
		events, err := w.m.Events(w.ctx, got.ID, 0, 1000)
		w.want("Events", err, nil)
		w.want("number of events", int64(len(events)), got.Version)
		last := events[len(events)-1]
		w.want("last event", []any{last.State, last.Version, last.Reason, last.At}, []any{got.State, got.Version, got.Reason, got.Changed})
	}
	rows, err := w.m.QueryWorkspaces(w.ctx, WorkspaceQuery{})
	w.want("QueryWorkspaces", err, nil)
	w.want("number of rows", len(rows), len(w.rows))
	for i, got := range rows {
		w.want("row", got, *w.rows[i])
	}
	for i := range 5 {
		tenant, agent := fmt.Sprint("tenant", i), fmt.Sprint("agent", i)
		u, err := w.m.Usage(w.ctx, &w.defaults, tenant, agent)
		w.want("Usage", err, nil)
		w.want("hold", u.Hold != nil, w.hold(&modelTask{Task: Task{Agent: agent, Tenant: tenant}}))
		u.Hold = nil
		w.want("usage", u, Usage{
			Limits: w.inForce(), TenantLimits: w.tenantInForce(tenant), Account: w.account(),
			Tenant:       w.held(func(r *Workspace) bool { return r.Task != "" && r.Tenant == tenant }),
			Agent:        w.held(func(r *Workspace) bool { return r.Task != "" && r.Agent == agent }),
			Queued:       w.queuedOf(func(*modelTask) bool { return true }),
			TenantQueued: w.queuedOf(func(t *modelTask) bool { return t.Tenant == tenant }),
		})
	}
	counts, err := w.m.Counts(w.ctx)
	w.want("Counts", err, nil)
	w.want("counts", counts, w.counts())
	w.bounded()
}

// counts counts anew.
func (w *model) counts() map[string]Counts {
	counts := map[string]Counts{}
	for _, t := range w.tasks {
		c := counts[t.Agent]
		switch t.State {
		case StateQueued:
			if c.Queued++; c.OldestQueued.IsZero() || t.Changed.Before(c.OldestQueued) {
				c.OldestQueued = t.Changed
			}
		case StateStarting:
			c.Starting++
		case StateRunning:
			c.Running++
		}
		counts[t.Agent] = c
	}
	for _, r := range w.rows {
		c := counts[r.Agent]
		switch {
		case r.Intent == IntentDelete:
			c.Deleting++
		case r.Task != "":
		case r.State == WorkspaceNew:
			c.New++
		case r.State == WorkspaceReady:
			c.Warm++
		case r.State == WorkspacePaused:
			c.Paused++
		}
		counts[r.Agent] = c
	}
	for agent, c := range counts {
		runs := w.held(func(r *Workspace) bool { return r.Task != "" && r.Agent == agent })
		if c == (Counts{}) && runs == (Amount{}) {
			delete(counts, agent)
		}
	}
	return counts
}

// bounded checks that nothing is kept of what is no more.
func (w *model) bounded() {
	w.Helper()
	b := &w.m.books
	live, queued, finished, spares := 0, 0, 0, 0
	for _, t := range w.tasks {
		switch {
		case t.State.Live():
			live++
		case t.State == StateQueued:
			queued++
		default:
			finished++
		}
	}
	for _, shelf := range b.ledger.shelves {
		spares += shelf.Len()
	}
	w.want("live", len(b.tasks.live), live)
	w.want("in line", b.line.Len(), queued)
	w.want("finished", b.tasks.finished.Len(), finished)
	for _, t := range w.tasks {
		_, unacked := b.tasks.unacked[t.ID]
		w.want("unacknowledged", unacked, t.State.Finished() && !t.Acknowledged)
		_, expiring := b.tasks.expiring[t.ID]
		w.want("expiring", expiring, t.State == StateQueued && !t.NotAfter.IsZero())
	}
	for _, r := range w.rows {
		if *r != (Workspace{}) && r.place() != (shelf{}) {
			spares--
		}
	}
	w.want("surplus of spares", spares, 0)
	for name, t := range b.tally.tenants {
		if t.held == (amount{}) && t.queued == 0 && len(t.window) == 0 {
			w.Fatalf("tenant %s is kept for nothing", name)
		}
	}
	for name := range b.parked {
		if b.tally.tenants[name] == nil {
			w.Fatalf("tenant %s is parked for nothing", name)
		}
	}
}
