package promise

import (
	"context"
	"maps"
	"math"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// rules are the limits that were in force for a while.
type rules struct {
	account store.Limits
	set     *store.Limits // at run time; nil: account
	tenants map[string]store.TenantLimits
	// excused is what was held when limits were lowered: it may be held on, and not be added to.
	excused amounts
}

func (r rules) inForce() store.Limits {
	if r.set != nil {
		return *r.set
	}
	return r.account
}

// holder is who a limit counts for.
type holder struct{ kind, name string }

// amounts is who holds how much.
type amounts map[holder]store.Amount

// add counts one run or, without a tenant, one spare.
func (a amounts) add(tenant, agent string, r provider.Resources) {
	who := []holder{{kind: "account"}}
	if tenant != "" {
		who = append(who, holder{"tenant", tenant}, holder{"agent", agent})
	}
	for _, h := range who {
		held := a[h]
		held.Workspaces++
		held.CPU += r.CPU
		held.MemoryMB += r.MemoryMB
		a[h] = held
	}
}

// most is what a holder may hold; zero fields limit nothing.
func (c *Checker) most(r rules, h holder) store.Amount {
	l := r.inForce()
	switch h.kind {
	case "agent":
		return store.Amount{Workspaces: c.agents[h.name].Concurrent}
	case "tenant":
		t, own := r.tenants[h.name]
		if !own {
			t = l.Tenant
		}
		return store.Amount{Workspaces: t.Concurrent, CPU: t.CPU, MemoryMB: t.MemoryMB}
	}
	return store.Amount{Workspaces: l.Workspaces, CPU: l.CPU, MemoryMB: l.MemoryMB}
}

// within says whether held keeps to most. Cores are compared in thousandths.
func within(held, most store.Amount) bool {
	milli := func(cores float64) float64 { return math.Round(cores * 1000) }
	return (most.Workspaces == 0 || held.Workspaces <= most.Workspaces) &&
		(most.CPU == 0 || milli(held.CPU) <= milli(most.CPU)) &&
		(most.MemoryMB == 0 || held.MemoryMB <= most.MemoryMB)
}

// checkRows compares the rows of the ledger with the limits. since is the index of the rules that were in force before the
// rows were asked for.
func (c *Checker) checkRows(ctx context.Context, s store.Store, since int) {
	held, err := ledger(ctx, s)
	if err != nil {
		return // nothing was seen
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compareLocked(held, since, "rows of the ledger")
	c.forgiveLocked(held)
}

// ledger is what is held according to the rows. It does without the store's own sums.
func ledger(ctx context.Context, s store.Store) (amounts, error) {
	rows, err := s.QueryWorkspaces(context.WithoutCancel(ctx), store.WorkspaceQuery{})
	if err != nil {
		return nil, err
	}
	held := amounts{}
	for i := range rows {
		w := &rows[i]
		switch {
		case w.Task != "":
			held.add(w.Tenant, w.Agent, w.Resources)
		case !w.Uncounted || w.State != store.WorkspacePaused:
			held.add("", w.Agent, w.Resources)
		}
	}
	return held, nil
}

// compareLocked reports who holds more than any of the rules since then allow.
func (c *Checker) compareLocked(held amounts, since int, what string) {
	for h, amount := range held {
		kept := false
		for _, r := range c.rules[since:] {
			excuse, ok := r.excused[h]
			kept = kept || within(amount, c.most(r, h)) || ok && within(amount, excuse)
		}
		if !kept {
			c.breakLocked(Limits, "%s: %s %s holds %+v, limit %+v", what, h.kind, h.name, amount, c.most(c.rules[len(c.rules)-1], h))
		}
	}
}

// forgiveLocked ends the excuses of those who hold no more than they may again.
func (c *Checker) forgiveLocked(held amounts) {
	last := c.rules[len(c.rules)-1]
	left := amounts{}
	for h, excuse := range last.excused {
		if !within(held[h], c.most(last, h)) {
			left[h] = excuse
		}
	}
	if len(left) < len(last.excused) {
		last.excused = left
		c.rules = append(c.rules, last)
	}
}

// SetLimits notes the limits from now on.
func (o *observed) SetLimits(ctx context.Context, l *store.Limits) error {
	return o.c.change(ctx, o.Store, func() error { return o.Store.SetLimits(ctx, l) }, func(r *rules) {
		r.set = nil
		if l != nil {
			set := *l
			r.set = &set
		}
	})
}

// SetTenantLimits notes the limits from now on.
func (o *observed) SetTenantLimits(ctx context.Context, tenant string, l *store.TenantLimits) error {
	return o.c.change(ctx, o.Store, func() error { return o.Store.SetTenantLimits(ctx, tenant, l) }, func(r *rules) {
		r.tenants = maps.Clone(r.tenants)
		if r.tenants == nil {
			r.tenants = map[string]store.TenantLimits{}
		}
		delete(r.tenants, tenant)
		if l != nil {
			r.tenants[tenant] = *l
		}
	})
}

// change makes rules. While it is under way both the old and the new ones count, afterwards the new ones, with an excuse
// for what is held. One that fails may have had its effect, and stays under way.
func (c *Checker) change(ctx context.Context, s store.Store, do func() error, set func(*rules)) error {
	c.mu.Lock()
	if c.changing == 0 {
		c.settled = len(c.rules) - 1
	}
	c.changing++
	next := c.rules[len(c.rules)-1]
	set(&next)
	c.rules = append(c.rules, next)
	c.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	held, err := ledger(ctx, s)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changing--
	next = c.rules[len(c.rules)-1]
	next.excused = held
	c.rules = append(c.rules, next)
	return nil
}

// sinceLocked is the index of the oldest rules that may be in force.
func (c *Checker) sinceLocked() int {
	if c.changing > 0 {
		return c.settled
	}
	return len(c.rules) - 1
}
