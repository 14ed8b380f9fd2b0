package store

import (
	"cmp"
	"context"
	"math"
	"time"
)

// rules are what operators have set, and the meter of the account's rate.
type rules struct {
	account *Limits // nil: each caller's defaults
	tenants map[string]TenantLimits
	holds   map[holdKey]Hold
	paid    time.Time // until when the accepted submissions use up the rate, at one interval for each
}

// holdKey is what a hold stops.
type holdKey struct{ agent, tenant string }

// inForce is what limits the account in a call with these defaults.
func (r *rules) inForce(defaults *Limits) Limits {
	switch {
	case r.account != nil:
		return *r.account
	case defaults != nil:
		return *defaults
	}
	return Limits{}
}

// tenant is what limits a tenant, with these limits of the account in force.
func (r *rules) tenant(name string, inForce Limits) TenantLimits {
	if own, ok := r.tenants[name]; ok {
		return own
	}
	return inForce.Tenant
}

// active says whether a hold is in force.
func (h *Hold) active(now time.Time) bool { return h.Until.IsZero() || now.Before(h.Until) }

// hold returns a hold that stands in the way of an agent's tasks for a tenant, or nil.
func (r *rules) hold(now time.Time, agent, tenant string) *Hold {
	if len(r.holds) == 0 {
		return nil
	}
	for _, key := range [...]holdKey{{}, {agent: agent}, {tenant: tenant}, {agent, tenant}} {
		if h, ok := r.holds[key]; ok && h.active(now) {
			return &h
		}
	}
	return nil
}

// nextHoldEnd is when the first of the holds ends; zero: none does.
func (r *rules) nextHoldEnd(now time.Time) time.Time {
	var next time.Time
	for _, h := range r.holds {
		if h.active(now) {
			next = earlier(next, h.Until)
		}
	}
	return next
}

// earlier is the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// accept refuses new tasks with a *LimitError, or counts them as submitted.
func (b *books) accept(now time.Time, limits Limits, fresh []*Task) error {
	b.forgetWindows(now)
	n := len(fresh)
	if limits.Queued > 0 && b.tally.queued+n > limits.Queued {
		return &LimitError{Limit: LimitQueued, Max: float64(limits.Queued), InUse: float64(b.tally.queued)}
	}
	tenants := make(map[string]int, 1)
	for _, t := range fresh {
		tenants[t.Tenant]++
	}
	for name, n := range tenants {
		if err := b.acceptTenant(now, name, b.rules.tenant(name, limits), n); err != nil {
			return err
		}
	}
	paid, err := b.rules.pay(now, limits, n)
	if err != nil {
		return err
	}
	b.rules.paid = paid
	for name, n := range tenants {
		b.tally.submitted(now, b.tally.tenant(name), n)
	}
	return nil
}

// acceptTenant refuses n new tasks of one tenant with a *LimitError, or changes nothing that can be seen.
func (b *books) acceptTenant(now time.Time, name string, l TenantLimits, n int) error {
	t := b.tally.tenants[name]
	if t == nil {
		t = &tenantTally{}
	}
	if l.Queued > 0 && t.queued+n > l.Queued {
		return &LimitError{Limit: LimitTenantQueued, Tenant: name, Max: float64(l.Queued), InUse: float64(t.queued)}
	}
	b.tally.slide(now, t)
	if used := len(t.window); l.PerHour > 0 && used+n > l.PerHour {
		err := &LimitError{Limit: LimitTenantPerHour, Tenant: name, Max: float64(l.PerHour), InUse: float64(used)}
		if n <= l.PerHour {
			last := t.window[used+n-l.PerHour-1] // of those that must leave first
			err.RetryAfter = last + time.Hour - now.Sub(b.tally.start)
		}
		return err
	}
	return nil
}

// pay tells until when the rate is used up after n more submissions, or refuses them. It is a token bucket, kept as the
// time at which the bucket will be full again: exact, since an interval is a whole number of nanoseconds.
func (r *rules) pay(now time.Time, l Limits, n int) (paid time.Time, err error) {
	if l.PerSecond <= 0 {
		return time.Time{}, nil
	}
	burst := cmp.Or(l.Burst, int(math.Ceil(l.PerSecond)))
	interval := time.Duration(min(math.Ceil(float64(time.Second)/l.PerSecond), math.MaxInt64/4/float64(max(burst, n))))
	paid = now
	if r.paid.After(now) {
		paid = r.paid
	}
	paid = paid.Add(time.Duration(n) * interval)
	wait := paid.Sub(now) - time.Duration(burst)*interval
	if wait <= 0 {
		return paid, nil
	}
	refused := &LimitError{Limit: LimitRate, Max: l.PerSecond, InUse: l.PerSecond}
	if n <= burst {
		refused.RetryAfter = wait
	}
	return time.Time{}, refused
}

// SetLimits implements Limiter.
func (m *Memory) SetLimits(ctx context.Context, l *Limits) error {
	if _, err := m.step(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.books.rules.account = nil
	if l != nil {
		set := *l
		m.books.rules.account = &set
	}
	m.books.watchers.claimable()
	return nil
}

// SetTenantLimits implements Limiter. A new Weight counts from the tenant's next task in line.
func (m *Memory) SetTenantLimits(ctx context.Context, tenant string, l *TenantLimits) error {
	if _, err := m.step(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if l == nil {
		delete(m.books.rules.tenants, tenant)
	} else {
		m.books.rules.tenants[tenant] = *l
	}
	m.books.unpark(tenant)
	m.books.watchers.claimable()
	return nil
}

// SetHold implements Limiter.
func (m *Memory) SetHold(ctx context.Context, h Hold) error {
	now, err := m.step(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	holds := m.books.rules.holds
	for key, old := range holds {
		if !old.active(now) {
			delete(holds, key)
		}
	}
	key := holdKey{h.Agent, h.Tenant}
	if h.Reason == "" {
		delete(holds, key)
		m.books.watchers.claimable()
		return nil
	}
	h.Since = now
	if old, ok := holds[key]; ok {
		h.Since = old.Since
	}
	holds[key] = h
	m.books.watchers.claimable() // its Until is for a claimer to learn
	return nil
}

// Usage implements Limiter.
func (m *Memory) Usage(ctx context.Context, defaults *Limits, tenant, agent string) (Usage, error) {
	now, err := m.step(ctx)
	if err != nil {
		return Usage{}, err
	}
	defer m.mu.Unlock()
	b := &m.books
	u := Usage{
		Limits:  b.rules.inForce(defaults),
		Account: b.tally.account.public(),
		Queued:  b.tally.queued,
		Hold:    b.rules.hold(now, agent, tenant),
	}
	u.TenantLimits = b.rules.tenant(tenant, u.Limits)
	if t := b.tally.tenants[tenant]; t != nil {
		u.Tenant, u.TenantQueued = t.held.public(), t.queued
	}
	if a := b.tally.agents[agent]; a != nil {
		u.Agent = a.held.public()
	}
	return u, nil
}

// Counts implements Limiter.
func (m *Memory) Counts(ctx context.Context) (map[string]Counts, error) {
	if _, err := m.step(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	out := make(map[string]Counts, len(m.books.tally.agents))
	for name, a := range m.books.tally.agents {
		c := a.count
		if first := a.line.Front(); first != nil {
			c.OldestQueued = first.Value.(*taskRow).Changed
		}
		out[name] = c
	}
	return out, nil
}
