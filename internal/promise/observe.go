package promise

import (
	"context"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// Wrap returns s as dispatchers are to see it. It has the abilities of s, and changes nothing of what passes. It may be
// called for several connections to the same data.
func (c *Checker) Wrap(s store.Store) store.Store {
	var liner store.Liner
	if l, ok := s.(store.Liner); ok {
		liner = &observedLiner{l, s, c}
	}
	blobs, _ := s.(store.Blobs)
	return join(&observed{s, c}, s, liner, blobs)
}

// observed is a store whose traffic the checker sees.
type observed struct {
	store.Store
	c *Checker
}

// observedLiner is the same for what claims.
type observedLiner struct {
	store.Liner
	of store.Store
	c  *Checker
}

// Submit notes what the store has taken.
func (o *observed) Submit(ctx context.Context, req store.SubmitRequest) ([]string, error) {
	ids, err := o.Store.Submit(ctx, req)
	if err == nil {
		o.c.mu.Lock()
		defer o.c.mu.Unlock()
		for _, id := range ids {
			o.c.taskLocked(id).submitted = true
		}
	}
	return ids, err
}

// Remove notes what need not be there any more.
func (o *observed) Remove(ctx context.Context, tasks []string) error {
	o.c.mu.Lock()
	for _, id := range tasks {
		o.c.taskLocked(id).removed = true
	}
	o.c.mu.Unlock()
	return o.Store.Remove(ctx, tasks)
}

// Begin checks what was admitted.
func (o *observed) Begin(ctx context.Context, a store.Admission, reqs []store.BeginRequest) ([]store.Begun, error) {
	before := o.c.mark()
	out, err := o.Store.Begin(ctx, a, reqs)
	o.c.began(ctx, o.Store, before, out, true)
	return out, err
}

// ClaimBegin checks what was admitted.
func (o *observedLiner) ClaimBegin(ctx context.Context, a store.Admission, n int) (store.Claimed, error) {
	before := o.c.mark()
	out, err := o.Liner.ClaimBegin(ctx, a, n)
	o.c.began(ctx, o.of, before, out.Begun, true)
	return out, err
}

// Adopt checks what has passed to another owner.
func (o *observed) Adopt(ctx context.Context, a store.Admission, n int) ([]store.Begun, error) {
	before := o.c.mark()
	out, err := o.Store.Adopt(ctx, a, n)
	o.c.began(ctx, o.Store, before, out, false)
	return out, err
}

// mark is what was known before a call: what the call finds must be newer.
type mark struct {
	fence int64
	rules int
}

func (c *Checker) mark() mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mark{c.fence, c.sinceLocked()}
}

// began checks new owners: their fences are the highest, their workspaces were free for them, and with them all limits
// are kept.
func (c *Checker) began(ctx context.Context, s store.Store, before mark, out []store.Begun, fresh bool) {
	some := false
	c.mu.Lock()
	given := map[int64]bool{}
	for i := range out {
		b := &out[i]
		if b.Verdict != store.Admitted {
			continue
		}
		some = true
		t, f := c.taskLocked(b.Task.ID), b.Lease.Fence
		if f <= before.fence || given[f] || f <= t.fence {
			c.breakLocked(Owner, "task %s was begun under fence %d after fence %d, its last one being %d", b.Task.ID, f, before.fence, t.fence)
		}
		given[f] = true
		t.fence = max(t.fence, f)
		c.fence = max(c.fence, f)
		if !fresh {
			continue
		}
		c.admitted = append(c.admitted, b.Task.Tenant)
		c.checkTakenLocked(b)
	}
	c.mu.Unlock()
	if some {
		c.checkRows(ctx, s, before.rules)
	}
}

// checkTakenLocked checks that a run was given a workspace that it may have.
func (c *Checker) checkTakenLocked(b *store.Begun) {
	w := &b.Workspace
	if w.Token == "" || w.Task != b.Task.ID || w.Fence != b.Lease.Fence {
		c.breakLocked(Owner, "task %s, fence %d, was given workspace %q of task %s, fence %d", b.Task.ID, b.Lease.Fence, w.Token, w.Task, w.Fence)
	}
	switch w.Intent {
	case store.IntentNone, store.IntentCreate, store.IntentResume:
	default:
		c.breakLocked(Owner, "task %s was given workspace %s, on which somebody means to %s", b.Task.ID, w.Token, w.Intent)
	}
	if served, ok := c.tenants[w.Token]; ok && served != b.Task.Tenant {
		c.breakLocked(Owner, "task %s of tenant %q was given workspace %s, which has served tenant %q", b.Task.ID, b.Task.Tenant, w.Token, served)
	}
	c.tenants[w.Token] = b.Task.Tenant
}

// writing is a fenced write on its way. What is known of the task when it begins decides whether it may succeed.
type writing struct {
	lease store.Lease
	fence int64
	ended bool
}

func (c *Checker) writing(l store.Lease) writing {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.taskLocked(l.Task)
	return writing{l, t.fence, t.ended >= l.Fence}
}

// wroteLocked checks a write that has succeeded.
func (c *Checker) wroteLocked(w writing, what string) {
	if w.lease.Fence < w.fence {
		c.breakLocked(Owner, "task %s: %s succeeded under fence %d after fence %d was given", w.lease.Task, what, w.lease.Fence, w.fence)
	}
	if w.ended {
		c.breakLocked(Owner, "task %s: %s succeeded under fence %d, whose run had ended", w.lease.Task, what, w.lease.Fence)
	}
}

func (c *Checker) wrote(w writing, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wroteLocked(w, what)
}

// Save checks that no old owner writes.
func (o *observed) Save(ctx context.Context, l store.Lease, s store.Save) error {
	w := o.c.writing(l)
	err := o.Store.Save(ctx, l, s)
	if err == nil {
		o.c.wrote(w, "a write")
	}
	return err
}

// PutWorkspace checks that no old owner writes.
func (o *observed) PutWorkspace(ctx context.Context, l store.Lease, limits *store.Limits, row store.Workspace) (int64, error) {
	before, w := o.c.mark(), o.c.writing(l)
	version, err := o.Store.PutWorkspace(ctx, l, limits, row)
	if err != nil {
		return version, err
	}
	if l != (store.Lease{}) {
		o.c.wrote(w, "a write of a workspace")
	}
	if row.Version == 0 {
		o.c.checkRows(ctx, o.Store, before.rules)
	}
	return version, nil
}

// Renew checks that no old owner is told that it still is one.
func (o *observed) Renew(ctx context.Context, leases []store.Lease, ttl time.Duration) ([]store.LeaseState, error) {
	writes := make([]writing, len(leases))
	for i, l := range leases {
		writes[i] = o.c.writing(l)
	}
	out, err := o.Store.Renew(ctx, leases, ttl)
	for i := range out {
		if out[i].Held {
			o.c.wrote(writes[i], "a renewal")
		}
	}
	return out, err
}

// Finish checks that each run ends once, by its last owner.
func (o *observed) Finish(ctx context.Context, outs []store.Outcome) ([]store.Finished, error) {
	writes := make([]writing, len(outs))
	for i := range outs {
		writes[i] = o.c.writing(outs[i].Lease)
	}
	done, err := o.Store.Finish(ctx, outs)
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	for i := range done {
		if done[i].Err != nil {
			continue
		}
		l := outs[i].Lease
		o.c.wroteLocked(writes[i], "an end")
		t := o.c.taskLocked(l.Task)
		t.ended = max(t.ended, l.Fence)
		if outs[i].Code == idleCode {
			o.c.checkIdleLocked(l.Task, done[i].Task.Agent)
		}
	}
	return done, err
}
