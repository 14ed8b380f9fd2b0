package policy

import (
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

func TestAfter(t *testing.T) {
	base := End{Attempts: 3, MinDelay: time.Second, MaxDelay: time.Minute, Random: 0.5}
	with := func(change func(*End)) End {
		e := base
		change(&e)
		return e
	}
	for name, c := range map[string]struct {
		end  End
		want Next
	}{
		"success":                       {with(func(e *End) { e.Kind = EndSuccess }), Next{State: store.StateSucceeded, Count: store.CountAttempt}},
		"error is final":                {with(func(e *End) { e.Kind = EndError }), Next{State: store.StateFailed, Count: store.CountAttempt}},
		"error the agent retries":       {with(func(e *End) { e.Kind, e.Retryable = EndError, true }), Next{State: store.StateQueued, Count: store.CountAttempt, Delay: 500 * time.Millisecond}},
		"retry asked":                   {with(func(e *End) { e.Kind, e.Spent = EndRetry, 1 }), Next{State: store.StateQueued, Count: store.CountAttempt, Delay: time.Second}},
		"retry asked, none left":        {with(func(e *End) { e.Kind, e.Spent = EndRetry, 2 }), Next{State: store.StateFailed, Count: store.CountAttempt, Exhausted: true}},
		"timeout is final":              {with(func(e *End) { e.Kind = EndTimeout }), Next{State: store.StateFailed, Count: store.CountAttempt}},
		"idle the agent retries":        {with(func(e *End) { e.Kind, e.Retryable = EndIdle, true }), Next{State: store.StateQueued, Count: store.CountAttempt, Delay: 500 * time.Millisecond}},
		"canceled":                      {with(func(e *End) { e.Kind = EndCanceled }), Next{State: store.StateCanceled, Count: store.CountAttempt}},
		"never to be had":               {with(func(e *End) { e.Kind = EndImpossible }), Next{State: store.StateFailed, Count: store.CountAttempt}},
		"dead spare":                    {with(func(e *End) { e.Kind = EndDeadSpare }), Next{State: store.StateQueued}},
		"refused, asked to wait":        {with(func(e *End) { e.Kind, e.RetryAfter = EndNotStarted, time.Hour }), Next{State: store.StateQueued, Delay: time.Hour}},
		"lost before it began":          {with(func(e *End) { e.Kind = EndLost }), Next{State: store.StateQueued, Count: store.CountAttempt, Delay: 500 * time.Millisecond}},
		"lost, nothing to go on from":   {with(func(e *End) { e.Kind, e.Reached = EndLost, true }), Next{State: store.StateFailed, Count: store.CountAttempt, Stranded: true}},
		"lost, idempotent":              {with(func(e *End) { e.Kind, e.Reached, e.Idempotent = EndLost, true, true }), Next{State: store.StateQueued, Count: store.CountAttempt, Delay: 500 * time.Millisecond}},
		"lost, with a checkpoint":       {with(func(e *End) { e.Kind, e.Reached, e.Checkpoint = EndLost, true, true }), Next{State: store.StateQueued, Count: store.CountAttempt, Delay: 500 * time.Millisecond}},
		"interrupted before it began":   {with(func(e *End) { e.Kind = EndInterrupted }), Next{State: store.StateQueued, Count: store.CountInterruption}},
		"interrupted, nothing to go on": {with(func(e *End) { e.Kind, e.Reached = EndInterrupted, true }), Next{State: store.StateFailed, Count: store.CountInterruption, Stranded: true}},
	} {
		if got := After(c.end); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestDelayStaysWithinItsCeiling(t *testing.T) {
	for n := range 100 {
		ceiling := time.Minute
		if n < 6 {
			ceiling = time.Second << n
		}
		if d := Delay(n, time.Second, time.Minute, 0.999999); d > ceiling || d < ceiling*9/10 {
			t.Errorf("n=%d: %v, ceiling %v", n, d, ceiling)
		}
		if d := Delay(n, time.Second, time.Minute, 0); d != 0 {
			t.Errorf("n=%d: %v, want 0", n, d)
		}
	}
}

func TestJudge(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const limit = 8 * time.Minute
	for name, c := range map[string]struct {
		after, busy time.Duration // of the silence; busy 0: never
		stuck       bool
		next        time.Duration
	}{
		"just moved":              {0, 0, false, time.Minute},
		"an eighth":               {time.Minute, 0, false, 2 * time.Minute},
		"near the end":            {7 * time.Minute, 0, false, time.Minute},
		"the end":                 {limit, 0, true, 0},
		"was busy":                {limit, time.Minute, false, time.Minute},
		"is busy":                 {limit, limit, false, 2 * time.Minute},
		"busy for three limits":   {3 * limit, 3 * limit, false, 2 * time.Minute},
		"busy for nearly four":    {4*limit - time.Minute, 4*limit - time.Minute, false, time.Minute},
		"busy for four":           {4 * limit, 4 * limit, true, 0},
		"well beyond, not looked": {10 * limit, 0, true, 0},
	} {
		s := Silence{Now: start.Add(c.after), Moved: start, Limit: limit, Most: 3}
		if c.busy > 0 {
			s.Busy = start.Add(c.busy)
		}
		if stuck, next := Judge(s); stuck != c.stuck || next != c.next {
			t.Errorf("%s: stuck %v, next %v; want %v, %v", name, stuck, next, c.stuck, c.next)
		}
	}
}

func TestWorking(t *testing.T) {
	if Working(time.Second, 4*time.Minute) || !Working(3*time.Second, 4*time.Minute) || Working(time.Hour, 0) {
		t.Error("work is one hundredth of a core or more")
	}
}

func TestBreaker(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b Breaker
	for range breakerTrips {
		if b.Open(now) {
			t.Fatal("open before it has tripped")
		}
		now = now.Add(time.Millisecond)
		b = b.Failed(now, now, "away", 0)
	}
	if !b.Open(now) || b.Open(now.Add(breakerFirst)) {
		t.Error("should be open, and half open after the first pause")
	}
	probed := b.Probed(now.Add(breakerFirst))
	if !probed.Open(now.Add(breakerFirst)) {
		t.Error("one probe at a time")
	}
	for range 100 {
		now = now.Add(time.Millisecond)
		b = b.Failed(now, now, "away", 0)
	}
	if pause := b.Until.Sub(now); pause != breakerMost {
		t.Errorf("pause %v, want %v", pause, breakerMost)
	}
	if b = b.Failed(now, now.Add(time.Nanosecond), "away", time.Hour); b.Until.Sub(now) != time.Hour {
		t.Error("does not wait as long as it was asked to")
	}
	if together := (Breaker{}).Failed(now, now, "", 0).Failed(now, now, "", 0).Failed(now, now, "", 0); together.Tripped() {
		t.Error("calls under way together count once")
	}
	if b.Succeeded().Tripped() {
		t.Error("tripped after a success")
	}
	if quota := (Breaker{}).Tripping(now, "quota"); !quota.Open(now) {
		t.Error("not open after an answer that leaves no doubt")
	}
}

// server refuses what comes faster than rate, as a token bucket does.
type server struct {
	rate, tokens, burst float64
	at                  time.Time
}

func (s *server) accepts(now time.Time) bool {
	s.tokens = min(s.burst, s.tokens+s.rate*now.Sub(s.at).Seconds())
	s.at = now
	if s.tokens < 1 {
		return false
	}
	s.tokens--
	return true
}

func TestPaceFindsAProvidersLimit(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, limit := range []float64{1, 20, 200} {
		p, s := NewPace(0, 0), &server{rate: limit, burst: 1, at: start}
		now, accepted, refused := start, 0, 0
		long := max(time.Minute, time.Duration(300/limit)*time.Second)
		for now.Before(start.Add(long)) {
			if d := p.Wait(now); d > 0 {
				now = now.Add(d)
				continue
			}
			p = p.Sent(now)
			sent := now
			now = now.Add(time.Millisecond) // the answer
			if s.accepts(now) {
				accepted++
				p = p.Answered(now)
			} else {
				refused++
				p = p.Limited(now, sent)
			}
		}
		if share := float64(accepted) / (limit * long.Seconds()); share < 0.85 {
			t.Errorf("limit %g/s: used %.0f %% of it", limit, 100*share)
		}
		if share := float64(refused) / float64(accepted+refused); share > 0.2 {
			t.Errorf("limit %g/s: %.0f %% refused", limit, 100*share)
		}
	}
}

func TestPaceIgnoresRandomRefusals(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := NewPace(200, 1)
	for i := range 10_000 {
		now = now.Add(p.Wait(now))
		p = p.Sent(now)
		if i%20 == 0 {
			p = p.Limited(now, now)
		} else {
			p = p.Answered(now)
		}
	}
	if p.Rate < 150 {
		t.Errorf("rate %g after 5 %% random refusals, stated 200", p.Rate)
	}
}

func TestPaceCutsOnceForOneBurst(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := NewPace(100, 1)
	for range 1000 {
		p = p.Limited(now.Add(time.Second), now)
	}
	if p.Rate != 85 {
		t.Errorf("rate %g, want 85", p.Rate)
	}
}

func TestRefill(t *testing.T) {
	spare := func(state store.WorkspaceState, intent store.Intent, spec string) store.Workspace {
		return store.Workspace{State: state, Intent: intent, Spec: spec}
	}
	many := func(n int, w store.Workspace) []store.Workspace {
		var all []store.Workspace
		for range n {
			all = append(all, w)
		}
		return all
	}
	ready, asleep := spare(store.WorkspaceReady, "", "s"), spare(store.WorkspacePaused, "", "s")
	coming, going := spare(store.WorkspaceNew, store.IntentCreate, "s"), spare(store.WorkspaceReady, store.IntentDelete, "s")
	old := spare(store.WorkspaceReady, "", "old")
	for name, c := range map[string]struct {
		target                Target
		have                  []store.Workspace
		create, pause, delete int
	}{
		"empty":                               {Target{3, 2}, nil, 5, 0, 0},
		"full":                                {Target{3, 2}, append(many(3, ready), many(2, asleep)...), 0, 0, 0},
		"booting ones are not made anew":      {Target{3, 0}, append(many(1, ready), many(2, coming)...), 0, 0, 0},
		"those on their way out do not count": {Target{2, 0}, append(many(1, ready), many(3, going)...), 1, 0, 0},
		"warm ones are paused":                {Target{1, 2}, many(3, ready), 0, 2, 0},
		"surplus":                             {Target{1, 0}, many(4, ready), 0, 0, 3},
		"paused surplus":                      {Target{0, 1}, many(3, asleep), 0, 0, 2},
		"zero":                                {Target{}, many(2, ready), 0, 0, 2},
		"old spec stays until replaced":       {Target{2, 0}, many(2, old), 2, 0, 0},
		"old spec goes as others come":        {Target{2, 0}, append(many(2, old), ready), 1, 0, 1},
		"old spec of an empty pool":           {Target{}, many(2, old), 0, 0, 2},
		"a tenant's own is no spare":          {Target{1, 0}, []store.Workspace{{State: store.WorkspaceReady, Spec: "s", Tenant: "ann"}}, 1, 0, 0},
	} {
		do := Refill(c.target, "s", c.have)
		if do.Create != c.create || len(do.Pause) != c.pause || len(do.Delete) != c.delete {
			t.Errorf("%s: create %d, pause %d, delete %d; want %d, %d, %d", name, do.Create, len(do.Pause), len(do.Delete), c.create, c.pause, c.delete)
		}
	}
}

func TestExplain(t *testing.T) {
	now := time.Date(2026, 1, 1, 14, 2, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		w    Waiting
		want string
	}{
		"nothing known":  {Waiting{Now: now}, "queued"},
		"next":           {Waiting{Now: now, Position: 1}, "queued: 1st"},
		"teens":          {Waiting{Now: now, Position: 112}, "queued: 112th"},
		"tenant's limit": {Waiting{Now: now, Position: 3, Usage: store.Usage{TenantLimits: store.TenantLimits{Concurrent: 5}, Tenant: store.Amount{Workspaces: 5}}}, "queued: 3rd, your limit of 5 agents is in use"},
		"one agent":      {Waiting{Now: now, Usage: store.Usage{TenantLimits: store.TenantLimits{Concurrent: 1}, Tenant: store.Amount{Workspaces: 1}}}, "queued: your limit of 1 agent is in use"},
		"tenant's CPU":   {Waiting{Now: now, Resources: provider.Resources{CPU: 2}, Usage: store.Usage{TenantLimits: store.TenantLimits{CPU: 4}, Tenant: store.Amount{CPU: 3}}}, "queued: your limit of 4 CPU cores is in use"},
		"agent's limit":  {Waiting{Now: now, Agent: "a", Concurrent: 2, Usage: store.Usage{Agent: store.Amount{Workspaces: 2}}}, "queued: all 2 places for a are in use"},
		"account":        {Waiting{Now: now, Usage: store.Usage{Limits: store.Limits{Workspaces: 9}, Account: store.Amount{Workspaces: 9}}}, "queued: all 9 workspaces are in use"},
		"provider":       {Waiting{Now: now, Reason: "provider unavailable since 14:00:00 UTC"}, "queued: provider unavailable since 14:00:00 UTC"},
		"retry":          {Waiting{Now: now, Due: now.Add(time.Minute), Reason: "attempt 1 ended: x"}, "queued: attempt 1 ended: x; next try at 14:03:00 UTC"},
		"not before":     {Waiting{Now: now, Due: now.Add(time.Minute)}, "queued: not before 14:03:00 UTC"},
		"hold":           {Waiting{Now: now, Usage: store.Usage{Hold: &store.Hold{Since: now, Reason: "maintenance"}}}, "queued: on hold since 14:02:00 UTC: maintenance"},
	} {
		if got := Explain(c.w); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestExpectedStart(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	busy := store.Usage{Limits: store.Limits{Workspaces: 5}, Account: store.Amount{Workspaces: 5}}
	for name, c := range map[string]struct {
		w        Waiting
		duration time.Duration
		want     time.Time
	}{
		"nothing in the way":  {Waiting{Position: 1}, time.Minute, now},
		"behind others":       {Waiting{Position: 10, Usage: busy}, time.Minute, now.Add(2 * time.Minute)},
		"not due before then": {Waiting{Position: 10, Usage: busy, Due: now.Add(time.Hour)}, time.Minute, now.Add(time.Hour)},
		"unknown duration":    {Waiting{Position: 10, Usage: busy}, 0, time.Time{}},
		"unknown place":       {Waiting{Usage: busy}, time.Minute, time.Time{}},
		"tenant's limit": {Waiting{Position: 2, Usage: store.Usage{
			TenantLimits: store.TenantLimits{Concurrent: 1}, Tenant: store.Amount{Workspaces: 1}, Account: store.Amount{Workspaces: 100},
		}}, time.Minute, now.Add(2 * time.Minute)},
		"provider is away": {Waiting{Position: 1, Reason: "provider unavailable"}, time.Minute, time.Time{}},
		"hold":             {Waiting{Position: 1, Usage: store.Usage{Hold: &store.Hold{Reason: "x"}}}, time.Minute, time.Time{}},
	} {
		c.w.Now = now
		if at := ExpectedStart(c.w, c.duration); !at.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, at, c.want)
		}
	}
}

func TestMassDeletion(t *testing.T) {
	if MassDeletion(10, 10) || !MassDeletion(11, 20) || MassDeletion(11, 1000) || !MassDeletion(300, 1000) {
		t.Error("the guard is max(10, a fifth)")
	}
}

func TestEdgesLeadFromEveryStateThatIsNotFinal(t *testing.T) {
	edges := TaskEdges()
	for from, to := range edges {
		if from.Finished() {
			t.Errorf("%s is final", from)
		}
		for _, s := range to {
			if _, ok := edges[s]; !ok && !s.Finished() {
				t.Errorf("%s leads to %s, and nothing leads from there", from, s)
			}
		}
	}
}
