package policy

import (
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// Waiting is what is known of a task in line.
type Waiting struct {
	Now        time.Time
	Due        time.Time
	Position   int    // 0: unknown
	Reason     string // what its last try left, e.g. that the provider was unavailable
	Usage      store.Usage
	Resources  provider.Resources
	Agent      string
	Concurrent int // of the agent; 0: no limit
}

// Explain says in words that a product can show its user why a task waits.
func Explain(w Waiting) string {
	place := "queued"
	if w.Position > 0 {
		place = "queued: " + ordinal(w.Position)
	}
	if why := w.why(); why != "" {
		if w.Position > 0 {
			return place + ", " + why
		}
		return place + ": " + why
	}
	return place
}

func (w Waiting) why() string {
	u := w.Usage
	t, account := u.TenantLimits, u.Limits
	switch {
	case u.Hold != nil:
		return "on hold since " + clock(u.Hold.Since) + ": " + u.Hold.Reason
	case w.Due.After(w.Now) && w.Reason != "":
		return w.Reason + "; next try at " + clock(w.Due)
	case w.Due.After(w.Now):
		return "not before " + clock(w.Due)
	case t.Concurrent > 0 && u.Tenant.Workspaces >= t.Concurrent:
		return fmt.Sprintf("your limit of %s is in use", count(t.Concurrent, "agent"))
	case t.CPU > 0 && u.Tenant.CPU+w.Resources.CPU > t.CPU:
		return fmt.Sprintf("your limit of %g CPU cores is in use", t.CPU)
	case t.MemoryMB > 0 && u.Tenant.MemoryMB+w.Resources.MemoryMB > t.MemoryMB:
		return fmt.Sprintf("your limit of %d MB of memory is in use", t.MemoryMB)
	case w.Concurrent > 0 && u.Agent.Workspaces >= w.Concurrent:
		return fmt.Sprintf("all %d places for %s are in use", w.Concurrent, w.Agent)
	case account.Workspaces > 0 && u.Account.Workspaces >= account.Workspaces:
		return fmt.Sprintf("all %s are in use", count(account.Workspaces, "workspace"))
	case account.CPU > 0 && u.Account.CPU+w.Resources.CPU > account.CPU:
		return fmt.Sprintf("all %g CPU cores are in use", account.CPU)
	case account.MemoryMB > 0 && u.Account.MemoryMB+w.Resources.MemoryMB > account.MemoryMB:
		return fmt.Sprintf("all %d MB of memory are in use", account.MemoryMB)
	}
	return w.Reason
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func ordinal(n int) string {
	suffix := "th"
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		suffix = "st"
	case n%10 == 2:
		suffix = "nd"
	case n%10 == 3:
		suffix = "rd"
	}
	return fmt.Sprintf("%d%s", n, suffix)
}

// ExpectedStart is when a task in line may be expected to start: its place over the rate at which runs end, which is
// how many run at once over how long they take (Little's law). Zero when too little is known.
func ExpectedStart(now, due time.Time, position, running int, duration time.Duration) time.Time {
	if position <= 0 || running <= 0 || duration <= 0 {
		return time.Time{}
	}
	at := now.Add(time.Duration(float64(duration) * float64(position) / float64(running)))
	if due.After(at) {
		return due
	}
	return at
}
