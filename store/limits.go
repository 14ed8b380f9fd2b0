package store

import (
	"fmt"
	"time"
)

// Limits bound a fleet. A zero field limits nothing. Concurrency limits make tasks wait; rates and lengths of line make
// Submit refuse. Cores are counted in thousandths, so that 0.1 three times is 0.3.
type Limits struct {
	Workspaces int          // at once, spares included
	CPU        float64      // cores held at once, spares included
	MemoryMB   int          // held at once, spares included
	Queued     int          // tasks waiting; more are refused
	PerSecond  float64      // submissions per second, sustained; more are refused
	Burst      int          // submissions at once above PerSecond; 0: PerSecond rounded up
	Tenant     TenantLimits // of each tenant that has none of its own
}

// TenantLimits bound one tenant. A zero field limits nothing.
type TenantLimits struct {
	Concurrent int     // runs at once
	CPU        float64 // cores held by its runs at once
	MemoryMB   int     // held by its runs at once
	PerHour    int     // submissions in any hour; more are refused
	Queued     int     // tasks waiting; more are refused
	Weight     int     // its share of admissions; 0: 1
}

// The names of limits, as LimitError.Limit has them.
const (
	LimitWorkspaces       = "workspaces"
	LimitCPU              = "cpu"
	LimitMemory           = "memory"
	LimitQueued           = "queued"
	LimitRate             = "rate"
	LimitTenantConcurrent = "tenant concurrent"
	LimitTenantCPU        = "tenant cpu"
	LimitTenantMemory     = "tenant memory"
	LimitTenantPerHour    = "tenant per hour"
	LimitTenantQueued     = "tenant queued"
	LimitAgentConcurrent  = "agent concurrent"
)

// LimitError says which limit stands in the way.
type LimitError struct {
	Limit      string // one of the Limit constants
	Tenant     string // whose; "": not a tenant's
	Agent      string // whose; "": not an agent's
	Max, InUse float64
	RetryAfter time.Duration // earliest time that is known to help; 0: unknown
}

// Error names the limit, its value and what is in use.
func (e *LimitError) Error() string {
	who := ""
	switch {
	case e.Tenant != "":
		who = fmt.Sprintf(" of tenant %q", e.Tenant)
	case e.Agent != "":
		who = fmt.Sprintf(" of agent %q", e.Agent)
	}
	return fmt.Sprintf("limit %q%s reached: %g of %g in use", e.Limit, who, e.InUse, e.Max)
}

// Hold stops admissions.
type Hold struct {
	Agent, Tenant string    // "": of all
	Reason        string    // shown in the status of those who wait; "": lifts the hold
	Since         time.Time // set by the Store when the hold begins
	Until         time.Time // zero: until lifted
}

// Amount is what is held of the things that limits count.
type Amount struct {
	Workspaces int
	CPU        float64
	MemoryMB   int
}

// Usage is what stands around a task in line.
type Usage struct {
	Limits       Limits       // in force
	TenantLimits TenantLimits // in force
	Account      Amount       // held by all workspaces that count
	Tenant       Amount       // held by the tenant's runs
	Agent        Amount       // held by the agent's runs
	Queued       int
	TenantQueued int
	Hold         *Hold // that stands in the way; nil: none
}

// Counts counts one agent's tasks and workspaces.
type Counts struct {
	Queued, Starting, Running int
	Warm, Paused, Deleting    int       // workspaces: ready spares, paused spares, Intent delete
	New                       int       // workspaces: spares being made
	OldestQueued              time.Time // zero: none
}
