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
	if why, _ := w.why(); why != "" {
		if w.Position > 0 {
			return place + ", " + why
		}
		return place + ": " + why
	}
	return place
}

// why is the limit or cause in words. running is how many runs share what is in the way; 0: nothing is.
func (w Waiting) why() (words string, running int) {
	u := w.Usage
	t, account := u.TenantLimits, u.Limits
	switch {
	case u.Hold != nil:
		return "on hold since " + clock(u.Hold.Since) + ": " + u.Hold.Reason, 0
	case w.Due.After(w.Now) && w.Reason != "":
		return w.Reason + "; next try at " + clock(w.Due), 0
	case w.Due.After(w.Now):
		return "not before " + clock(w.Due), 0
	case t.Concurrent > 0 && u.Tenant.Workspaces >= t.Concurrent:
		return fmt.Sprintf("your limit of %s is in use", count(t.Concurrent, "agent")), u.Tenant.Workspaces
	case t.CPU > 0 && u.Tenant.CPU+w.Resources.CPU > t.CPU:
		return fmt.Sprintf("your limit of %g CPU cores is in use", t.CPU), u.Tenant.Workspaces
	case t.MemoryMB > 0 && u.Tenant.MemoryMB+w.Resources.MemoryMB > t.MemoryMB:
		return fmt.Sprintf("your limit of %d MB of memory is in use", t.MemoryMB), u.Tenant.Workspaces
	case w.Concurrent > 0 && u.Agent.Workspaces >= w.Concurrent:
		return fmt.Sprintf("all %d places for %s are in use", w.Concurrent, w.Agent), u.Agent.Workspaces
	case account.Workspaces > 0 && u.Account.Workspaces >= account.Workspaces:
		return fmt.Sprintf("all %s are in use", count(account.Workspaces, "workspace")), u.Account.Workspaces
	case account.CPU > 0 && u.Account.CPU+w.Resources.CPU > account.CPU:
		return fmt.Sprintf("all %g CPU cores are in use", account.CPU), u.Account.Workspaces
	case account.MemoryMB > 0 && u.Account.MemoryMB+w.Resources.MemoryMB > account.MemoryMB:
		return fmt.Sprintf("all %d MB of memory are in use", account.MemoryMB), u.Account.Workspaces
	}
	return w.Reason, 0
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

// ExpectedStart is when a task in line may be expected to start: at once if nothing is in its way, else its place over the
// rate at which those end who are in the way, which is how many they are over how long they take (Little's law). Zero when
// too little is known.
func ExpectedStart(w Waiting, duration time.Duration) time.Time {
	at := w.Now
	why, running := w.why()
	switch {
	case w.Usage.Hold != nil:
		return time.Time{}
	case running > 0 && (duration <= 0 || w.Position <= 0):
		return time.Time{}
	case running > 0:
		at = at.Add(time.Duration(float64(duration) * float64(w.Position) / float64(running)))
	case why != "" && !w.Due.After(w.Now): // a provider that is away tells no time
		return time.Time{}
	}
	if w.Due.After(at) {
		return w.Due
	}
	return at
}
