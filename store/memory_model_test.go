package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// TestMemoryModel plays random steps to a Memory and to a model that keeps plain lists and counts them anew at each
// question, and compares all that can be seen after each step.
func TestMemoryModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newModel(t, seed).play(300) })
		})
	}
}

// model is the naive Store, and who plays it.
type model struct {
	*testing.T
	*rand.Rand
	m   *Memory
	ctx context.Context
	ids int

	tasks     []*modelTask // by id
	rows      []*Workspace // oldest first
	submitted []submission
	fence     int64
	hidden    []Workspace // rows that member does not see

	defaults Limits
	set      *Limits
	tenants  map[string]TenantLimits
	holds    map[holdKey]Hold
	plans    []Plan
	burst    int           // of the rate
	interval time.Duration // of the rate; 0: none
}

type modelTask struct {
	Task
	detached bool
}

type submission struct {
	tenant string
	at     time.Time
}

func newModel(t *testing.T, seed uint64) *model {
	w := &model{
		T: t, Rand: rand.New(rand.NewPCG(seed, 1)), m: NewMemory(), ctx: t.Context(),
		tenants: map[string]TenantLimits{}, holds: map[holdKey]Hold{},
	}
	for i, r := range []provider.Resources{{CPU: 1, MemoryMB: 100}, {CPU: 0.5, MemoryMB: 300}, {}} {
		w.plans = append(w.plans, Plan{Agent: fmt.Sprint("agent", i), Spec: "spec", Resources: r, Concurrent: w.IntN(2) * (1 + w.IntN(4))})
	}
	if w.IntN(2) == 0 {
		w.interval, w.burst = 20*time.Second, 1+w.IntN(6)
	}
	w.defaults = w.limits()
	return w
}

func (w *model) limits() Limits {
	pick := func(n int) int { return w.IntN(2) * (1 + w.IntN(n)) }
	l := Limits{
		Workspaces: pick(8), CPU: float64(pick(10)) / 2, MemoryMB: 100 * pick(12), Queued: pick(20), Tenant: w.tenantLimits(),
	}
	if w.interval > 0 {
		l.PerSecond, l.Burst = 1/w.interval.Seconds(), w.burst
	}
	return l
}

func (w *model) tenantLimits() TenantLimits {
	pick := func(n int) int { return w.IntN(2) * (1 + w.IntN(n)) }
	return TenantLimits{
		Concurrent: pick(4), CPU: float64(pick(6)) / 2, MemoryMB: 100 * pick(8), PerHour: pick(30), Queued: pick(10), Weight: w.IntN(4),
	}
}

func (w *model) id(prefix string) string {
	w.ids++
	return fmt.Sprintf("%s%05d", prefix, w.ids)
}

// play takes random steps.
func (w *model) play(steps int) {
	ops := []func(){
		w.submit, w.submit, w.submit, w.begin, w.begin, w.claim, w.claim, w.claim, w.finish, w.finish, w.finish, w.end, w.renew,
		w.detach, w.adopt, w.adopt, w.save, w.save, w.insert, w.insert, w.change, w.change, w.gone, w.gone, w.setLimits, w.setHold, w.forget,
	}
	for range steps {
		time.Sleep(time.Duration(1 + w.IntN(int(10*time.Second)))) // no two steps at the same time
		if w.IntN(50) == 0 {
			time.Sleep(time.Hour)
		}
		ops[w.IntN(len(ops))]()
		w.compare()
		if w.Failed() {
			return
		}
	}
}

func (w *model) want(what string, got, want any) {
	w.Helper()
	if !reflect.DeepEqual(got, want) {
		w.Fatalf("%s: %+v, the model says %+v", what, got, want)
	}
}

// any returns a random element that has the property, or the zero value.
func anyOf[E any](w *model, from []E, has func(E) bool) (found E) {
	n := 0
	for _, e := range from {
		if has(e) {
			if n++; w.IntN(n) == 0 {
				found = e
			}
		}
	}
	return found
}

func (w *model) task(id string) *modelTask {
	for _, t := range w.tasks {
		if t.ID == id {
			return t
		}
	}
	return nil
}

func (w *model) row(token string) *Workspace {
	for _, r := range w.rows {
		if r.Token == token {
			return r
		}
	}
	return nil
}

func (w *model) inForce() Limits {
	if w.set != nil {
		return *w.set
	}
	return w.defaults
}

func (w *model) tenantInForce(tenant string) TenantLimits {
	if l, ok := w.tenants[tenant]; ok {
		return l
	}
	return w.inForce().Tenant
}

// held counts what the rows hold that fit.
func (w *model) held(fit func(*Workspace) bool) (a Amount) {
	for _, r := range w.rows {
		if fit(r) {
			a.Workspaces++
			a.CPU += r.Resources.CPU
			a.MemoryMB += r.Resources.MemoryMB
		}
	}
	return a
}

func (w *model) account() Amount {
	return w.held(func(r *Workspace) bool { return r.State != WorkspacePaused || !r.Uncounted })
}

func (w *model) queuedOf(fit func(*modelTask) bool) (n int) {
	for _, t := range w.tasks {
		if t.State == StateQueued && fit(t) {
			n++
		}
	}
	return n
}

// fits says whether so much more is within limits.
func fits(a Amount, r provider.Resources, workspaces int, cpu float64, mem int) bool {
	return (workspaces == 0 || a.Workspaces+1 <= workspaces) && (cpu == 0 || r.CPU == 0 || a.CPU+r.CPU <= cpu) &&
		(mem == 0 || r.MemoryMB == 0 || a.MemoryMB+r.MemoryMB <= mem)
}

func (w *model) fitsAccount(r provider.Resources) bool {
	l := w.inForce()
	return fits(w.account(), r, l.Workspaces, l.CPU, l.MemoryMB)
}

func (w *model) hold(t *modelTask) bool {
	for key, h := range w.holds {
		if (key.agent == "" || key.agent == t.Agent) && (key.tenant == "" || key.tenant == t.Tenant) &&
			(h.Until.IsZero() || time.Now().Before(h.Until)) {
			return true
		}
	}
	return false
}

// event makes the next event of a task.
func (t *modelTask) event() {
	t.Version++
	t.Changed = time.Now()
}

// end finishes a task.
func (t *modelTask) end(state State, reason string) {
	t.State, t.Reason, t.Finished, t.LeaseEnd, t.Runner, t.Workspace = state, reason, time.Now(), time.Time{}, "", ""
	t.event()
}

// write makes what has changed in a row its next version.
func (w *model) write(r *Workspace, change func(*Workspace)) {
	old := *r
	change(r)
	r.Version++
	if r.State != old.State || r.Intent != old.Intent || r.Task != old.Task {
		r.Since = time.Now()
	}
}

func (w *model) drop(r *Workspace) {
	w.rows = slices.DeleteFunc(w.rows, func(other *Workspace) bool { return other == r })
}

func (w *model) submit() {
	var tasks, fresh []Task
	var want []string
	keyed := map[string]string{}
	for range 1 + w.IntN(4) {
		task := Task{ID: w.id("t"), Agent: w.plans[w.IntN(3)].Agent, Tenant: fmt.Sprint("tenant", w.IntN(4)), Priority: w.IntN(2), Digest: "d"}
		switch w.IntN(6) {
		case 0:
			task.NotBefore = time.Now().Add(time.Duration(w.IntN(int(time.Minute))))
		case 1:
			task.NotAfter = time.Now().Add(time.Duration(w.IntN(int(time.Minute))))
		case 2:
			task.Key = fmt.Sprint("key", w.IntN(5))
		}
		key := task.Tenant + "/" + task.Key
		id := keyed[key]
		for _, t := range w.tasks {
			if t.Tenant == task.Tenant && t.Key == task.Key {
				id = t.ID
			}
		}
		tasks = append(tasks, task)
		if task.Key == "" || id == "" {
			id = task.ID
			fresh = append(fresh, task)
			if task.Key != "" {
				keyed[key] = id
			}
		}
		want = append(want, id)
	}
	refused := w.refused(fresh)
	ids, err := w.m.Submit(w.ctx, SubmitRequest{Limits: &w.defaults, Tasks: tasks})
	var limit *LimitError
	if errors.As(err, &limit); limit != nil != refused || err != nil && limit == nil {
		w.Fatalf("Submit: error %v, the model says %v", err, refused)
	}
	if refused {
		return
	}
	w.want("ids", ids, want)
	for _, task := range fresh {
		w.submitted = append(w.submitted, submission{task.Tenant, time.Now()})
		task.State, task.Generation, task.Created, task.Due = StateQueued, 1, time.Now(), task.NotBefore
		t := &modelTask{Task: task}
		t.event()
		w.tasks = append(w.tasks, t)
	}
}

// refused says whether a limit refuses tasks.
func (w *model) refused(fresh []Task) bool {
	if len(fresh) == 0 {
		return false
	}
	now, l := time.Now(), w.inForce()
	if l.Queued > 0 && w.queuedOf(func(*modelTask) bool { return true })+len(fresh) > l.Queued {
		return true
	}
	byTenant := map[string]int{}
	for _, t := range fresh {
		byTenant[t.Tenant]++
	}
	for tenant, n := range byTenant {
		own, recent := w.tenantInForce(tenant), 0
		for _, s := range w.submitted {
			if s.tenant == tenant && now.Sub(s.at) < time.Hour {
				recent++
			}
		}
		if own.PerHour > 0 && recent+n > own.PerHour ||
			own.Queued > 0 && w.queuedOf(func(t *modelTask) bool { return t.Tenant == tenant })+n > own.Queued {
			return true
		}
	}
	if w.interval > 0 { // in every stretch of time that ends now there is the burst, and one for each interval
		over := func(n int, since time.Time) bool { return time.Duration(n-w.burst)*w.interval > now.Sub(since) }
		if over(len(fresh), now) {
			return true
		}
		for i, s := range w.submitted {
			if over(len(w.submitted)-i+len(fresh), s.at) {
				return true
			}
		}
	}
	return false
}

// offer is an Admission with random Paths for each agent.
func (w *model) offer(n int) Admission {
	a := Admission{Runner: w.id("runner"), Lease: time.Minute, Owner: "owner", Scope: "scope", Limits: &w.defaults}
	for _, p := range w.plans {
		p.Paths = []Path{PathKept, PathWarm, PathPaused, PathCold}
		w.Shuffle(4, func(i, j int) { p.Paths[i], p.Paths[j] = p.Paths[j], p.Paths[i] })
		p.Paths = p.Paths[w.IntN(4)/3:]
		a.Plans = append(a.Plans, p)
	}
	for range n {
		a.Tokens = append(a.Tokens, w.id("w"))
	}
	return a
}

// obstacle is what a task has against its start: a verdict, or "account" if only that is in the way. Without any, it is
// told with which path and row, which is nil for a new one, it starts.
func (w *model) obstacle(a Admission, t *modelTask, generation int64) (verdict Verdict, path Path, row *Workspace, need provider.Resources) {
	now := time.Now()
	late := !t.NotAfter.IsZero() && now.After(t.NotAfter)
	switch {
	case t.State != StateQueued || t.Generation != generation || late:
		return NotYours, "", nil, need
	case t.Due.After(now):
		return NotDue, "", nil, need
	case w.hold(t):
		return Held, "", nil, need
	}
	p := a.Plans[slices.IndexFunc(a.Plans, func(p Plan) bool { return p.Agent == t.Agent })]
	tenant := w.held(func(r *Workspace) bool { return r.Task != "" && r.Tenant == t.Tenant })
	agent := w.held(func(r *Workspace) bool { return r.Task != "" && r.Agent == t.Agent })
	l := w.tenantInForce(t.Tenant)
	if !fits(tenant, p.Resources, l.Concurrent, l.CPU, l.MemoryMB) || !fits(agent, p.Resources, p.Concurrent, 0, 0) {
		return Limited, "", nil, need
	}
	blocked := false
	for _, path := range p.Paths {
		need := p.Resources
		row := w.member(p, path, t.Tenant)
		if path == PathCold && len(a.Tokens) == 0 || path != PathCold && row == nil {
			continue
		}
		if row != nil && !(row.Uncounted && row.State == WorkspacePaused) || w.fitsAccount(need) {
			return "", path, row, need
		}
		blocked = true
	}
	if blocked {
		return "account", "", nil, p.Resources
	}
	return Limited, "", nil, need
}

// member is the longest idle row that a path offers, or nil.
func (w *model) member(p Plan, path Path, tenant string) *Workspace {
	var found *Workspace
	for _, r := range w.rows {
		if slices.ContainsFunc(w.hidden, func(h Workspace) bool { return h.Token == r.Token }) {
			continue
		}
		if r.Task != "" || r.Intent != "" || r.Agent != p.Agent || r.Spec != p.Spec || r.Scope != "scope" || r.Owner != "owner" {
			continue
		}
		ok := false
		switch path {
		case PathWarm:
			ok = r.Tenant == "" && r.State == WorkspaceReady
		case PathPaused:
			ok = r.Tenant == "" && r.State == WorkspacePaused
		case PathKept:
			ok = r.Tenant == tenant && time.Now().Before(r.KeepUntil) && r.State != WorkspaceNew
		}
		better := found == nil || found.State == WorkspacePaused && r.State == WorkspaceReady ||
			found.State == r.State && r.Since.Before(found.Since)
		if ok && better {
			found = r
		}
	}
	return found
}

// start does what an admission does.
func (w *model) start(a *Admission, t *modelTask, path Path, row *Workspace) {
	now := time.Now()
	w.fence++
	if row == nil {
		p := a.Plans[slices.IndexFunc(a.Plans, func(p Plan) bool { return p.Agent == t.Agent })]
		row = &Workspace{
			Token: a.Tokens[0], Scope: a.Scope, Owner: a.Owner, Agent: t.Agent, Spec: p.Spec, Resources: p.Resources,
			State: WorkspaceNew, Created: now, Since: now,
		}
		a.Tokens = a.Tokens[1:]
		w.rows = append(w.rows, row)
	}
	w.write(row, func(r *Workspace) {
		r.Task, r.Fence, r.Tenant, r.KeepUntil, r.Uncounted = t.ID, w.fence, t.Tenant, time.Time{}, false
		r.Intent = map[WorkspaceState]Intent{WorkspaceNew: IntentCreate, WorkspacePaused: IntentResume}[r.State]
	})
	t.State, t.Started = StateStarting, time.Time{}
	if row.State == WorkspaceReady {
		t.State, t.Started = StateRunning, now
	}
	t.Fence, t.Path, t.Runner, t.LeaseEnd, t.Workspace, t.Reason, t.detached = w.fence, path, a.Runner, now.Add(a.Lease), row.Token, "", false
	t.Attempt++
	t.event()
}

// lacks says whether the account lacks room for so much and one more, when what is on its way out is gone.
func (w *model) lacks(asked Amount, r provider.Resources) (workspaces, cpu, mem bool) {
	l, a := w.inForce(), w.held(func(r *Workspace) bool {
		return (r.State != WorkspacePaused || !r.Uncounted) && r.Intent != IntentDelete
	})
	return l.Workspaces > 0 && a.Workspaces+asked.Workspaces+1 > l.Workspaces,
		l.CPU > 0 && r.CPU > 0 && a.CPU+asked.CPU+r.CPU > l.CPU,
		l.MemoryMB > 0 && r.MemoryMB > 0 && a.MemoryMB+asked.MemoryMB+r.MemoryMB > l.MemoryMB
}

// victim is the longest idle spare that helps with what is lacking, or nil.
func (w *model) victim(asked Amount, need provider.Resources) (found *Workspace) {
	n, cpu, mem := w.lacks(asked, need)
	for _, r := range w.rows {
		if r.Task == "" && r.Intent == "" && r.Scope == "scope" && r.State != WorkspaceNew && !(r.Uncounted && r.State == WorkspacePaused) &&
			(n || cpu && r.Resources.CPU > 0 || mem && r.Resources.MemoryMB > 0) && (found == nil || r.Since.Before(found.Since)) {
			found = r
		}
	}
	return found
}

func add(a Amount, r provider.Resources) Amount {
	return Amount{a.Workspaces + 1, a.CPU + r.CPU, a.MemoryMB + r.MemoryMB}
}

func (w *model) begin() {
	var reqs []BeginRequest
	for range 1 + w.IntN(3) {
		if t := anyOf(w, w.tasks, func(*modelTask) bool { return true }); t != nil {
			reqs = append(reqs, BeginRequest{t.ID, t.Generation - int64(w.IntN(8)/7)})
		}
	}
	a := w.offer(w.IntN(4))
	begun, err := w.m.Begin(w.ctx, a, reqs)
	if err != nil {
		w.Fatal(err)
	}
	var asked Amount
	for i, req := range reqs {
		t := w.task(req.Task)
		verdict, path, row, need := w.obstacle(a, t, req.Generation)
		got := begun[i]
		switch verdict {
		case "":
			w.want("verdict", got.Verdict, Admitted)
			w.start(&a, t, path, row)
			w.want("workspace", got.Workspace, *w.row(t.Workspace))
			continue
		case "account":
			verdict = Limited
			var evicted *Workspace
			if row := w.victim(asked, need); row != nil {
				w.write(row, func(r *Workspace) { r.Intent = IntentDelete })
				evicted = row
			}
			asked = add(asked, need)
			if (got.Evicted == nil) != (evicted == nil) || evicted != nil && *got.Evicted != *evicted {
				w.Fatalf("evicted %+v, the model says %+v", got.Evicted, evicted)
			}
		case NotYours:
			if t.State == StateQueued && !t.NotAfter.IsZero() && time.Now().After(t.NotAfter) && req.Generation == t.Generation {
				t.end(StateExpired, got.Task.Reason)
				t.Code = got.Task.Code
			}
		}
		w.want("verdict", got.Verdict, verdict)
	}
}

// startable checks that a claimed task may start as it has, and returns the row that it takes; nil: a new one. Spares that
// the same claim has evicted may have been evicted before or after. Where a task waits for the account, what comes behind
// it may have to do with a later one of its Paths.
func (w *model) startable(a Admission, t *modelTask, begun Begun, evicted []Workspace) *Workspace {
	waits := slices.ContainsFunc(w.tasks, func(t *modelTask) bool {
		verdict, _, _, _ := w.obstacle(a, t, t.Generation)
		return verdict == "account"
	})
	p := a.Plans[slices.IndexFunc(a.Plans, func(p Plan) bool { return p.Agent == t.Agent })]
	before := w.row(begun.Workspace.Token)
	defer func() { w.hidden = nil }()
	for _, w.hidden = range [][]Workspace{nil, evicted} {
		verdict, path, row, _ := w.obstacle(a, t, t.Generation)
		if verdict == "" && path == begun.Task.Path && row == before {
			return row
		}
		if verdict == "" && waits && slices.Contains(p.Paths, begun.Task.Path) && before != nil &&
			before == w.member(p, begun.Task.Path, t.Tenant) && before.counted() {
			return before
		}
	}
	verdict, path, row, _ := w.obstacle(a, t, t.Generation)
	w.Fatalf("%s was begun along %s with %+v; the model says %q, along %s with %+v", t.ID, begun.Task.Path, begun.Workspace, verdict, path, row)
	return nil
}

func (w *model) claim() {
	n := w.IntN(6)
	a := w.offer(n)
	offered := a
	claimed, err := w.m.ClaimBegin(w.ctx, a, n)
	if err != nil {
		w.Fatal(err)
	}
	// What was met too late has expired.
	for _, t := range w.tasks {
		if got := w.m.books.tasks.byID[t.ID]; t.State == StateQueued && got.State == StateExpired && time.Now().After(t.NotAfter) {
			t.end(StateExpired, got.Reason)
			t.Code = got.Code
		}
	}
	for _, begun := range claimed.Begun {
		t := w.task(begun.Task.ID)
		w.start(&a, t, begun.Task.Path, w.startable(a, t, begun, claimed.Evicted))
		w.want("workspace", begun.Workspace, *w.row(t.Workspace))
	}
	for _, evicted := range claimed.Evicted {
		row := w.row(evicted.Token)
		if row.Task != "" || row.Intent != "" {
			w.Fatalf("evicted %+v", *row)
		}
		w.write(row, func(r *Workspace) { r.Intent = IntentDelete })
	}
	blocked, startable := false, ""
	for _, t := range w.tasks {
		switch verdict, _, _, _ := w.obstacle(a, t, t.Generation); verdict {
		case "account":
			blocked = true
		case "":
			startable = t.ID
		}
	}
	if len(claimed.Begun) < n && startable != "" && !blocked {
		w.Fatalf("%d of %d claimed; %s could start too (offer %+v)", len(claimed.Begun), n, startable, offered)
	}
	if len(claimed.Evicted) > 0 && !blocked {
		w.Fatalf("%d spares were evicted for nobody", len(claimed.Evicted))
	}
}
