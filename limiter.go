package freshet

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// SetLimits sets the fleet's limits at run time, for every process and until it is set to nil, which goes back to each
// process's Config.Limits. Lowering lets what runs run on. ErrInvalid for a negative limit.
func (d *Dispatcher) SetLimits(ctx context.Context, l *Limits) error {
	if l != nil {
		if err := checkLimits(l); err != nil {
			return err
		}
	}
	return d.changeLimits(ctx, func() error { return d.store.SetLimits(ctx, l) })
}

// SetTenantLimits sets one tenant's limits in place of Limits.Tenant, as SetLimits does; nil undoes it.
func (d *Dispatcher) SetTenantLimits(ctx context.Context, tenant string, l *TenantLimits) error {
	if tenant == "" {
		return invalid("tenant is empty")
	}
	if err := checkName("tenant", tenant, maxTenant); err != nil {
		return err
	}
	if l != nil {
		if err := checkTenantLimits("limits", l); err != nil {
			return err
		}
	}
	return d.changeLimits(ctx, func() error { return d.store.SetTenantLimits(ctx, tenant, l) })
}

// Hold stops admissions of f's agent, of its tenant, of that agent for that tenant, or of all if both are empty, until it
// is lifted with an empty reason. Running tasks go on, submissions are accepted, and those who wait are shown reason.
func (d *Dispatcher) Hold(ctx context.Context, f Filter, reason string) error {
	if len(f.States) > 0 {
		return invalid("Hold knows no States")
	}
	if err := errors.Join(checkName("agent", f.Agent, maxTenant), checkName("tenant", f.Tenant, maxTenant), checkName("reason", reason, maxReason)); err != nil {
		return err
	}
	return d.changeLimits(ctx, func() error {
		return d.store.SetHold(ctx, store.Hold{Agent: f.Agent, Tenant: f.Tenant, Reason: reason})
	})
}

func (c *core) changeLimits(ctx context.Context, change func() error) error {
	if err := c.ready(ctx); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	if c.started.Load() {
		c.admit.changed()
	}
	return nil
}

func checkLimits(l *Limits) error {
	const most = 1 << 40
	if l.Workspaces < 0 || l.MemoryMB < 0 || l.Queued < 0 || l.Burst < 0 {
		return invalid("Limits must not be negative")
	}
	for _, v := range []float64{l.CPU, l.PerSecond} {
		if !(v >= 0 && v <= most) || math.IsInf(v, 0) {
			return invalid("Limits must not be negative, nor absurd")
		}
	}
	if l.Burst > 0 && l.PerSecond == 0 {
		return invalid("Limits.Burst needs Limits.PerSecond")
	}
	return checkTenantLimits("Limits.Tenant", &l.Tenant)
}

func checkTenantLimits(what string, l *TenantLimits) error {
	if l.Concurrent < 0 || l.MemoryMB < 0 || l.PerHour < 0 || l.Queued < 0 || !(l.CPU >= 0) || math.IsInf(l.CPU, 0) {
		return invalid("%s must not be negative", what)
	}
	if l.Weight < 0 || l.Weight > 1000 {
		return invalid("%s: Weight must be between 0 and 1000", what)
	}
	return nil
}

// retryPause is how long to wait before asking a Store or Queue again that has failed n times in a row.
func retryPause(n int) time.Duration { return min(100*time.Millisecond<<min(n, 6), 5*time.Second) }
