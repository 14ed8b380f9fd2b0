package policy

import (
	"math"
	"time"
)

// Pace is how fast a provider is asked for workspaces: a token bucket whose rate is learned from the answers. It begins at
// the rate that the provider states, or without a limit. The zero Pace has none.
//
// An answer that says "rate limited" cuts the rate at once, by a sixth, and each accepted create raises it by a hundredth.
// The two balance where about one answer in seventeen is a refusal, so a provider that refuses a few at random is not
// slowed down, and one with a firm limit is asked just above it. Of the refusals to requests that were under way together
// only the first cuts: they all tell the same. Where the provider states nothing, the first refusal begins a search from a
// guess, in which each accepted create raises the rate by a fifth until the next refusal.
type Pace struct {
	Most   float64 // creates per second that the provider states; 0: unknown
	Burst  float64 // tokens that gather at most; at least 1
	Rate   float64 // creates per second at present; 0: no limit
	Tokens float64
	At     time.Time // of Tokens
	Cut    time.Time // last
	Search bool      // the limit was not met since the first guess

	// Accepted creates of this second and the one before: what the first refusal tells the rate from.
	Second   time.Time
	Accepted [2]int
}

const (
	paceCut   = 0.85
	paceGrow  = 1.01
	paceFind  = 1.2
	paceGuess = 10.0 // creates per second
	paceFloor = 0.1  // creates per second
)

// NewPace begins at what the provider states; zero: unknown.
func NewPace(perSecond float64, burst int) Pace {
	p := Pace{Most: perSecond, Rate: perSecond, Burst: math.Max(1, float64(burst))}
	p.Tokens = p.Burst
	return p
}

// Wait is how long until the next create may go; 0: now.
func (p Pace) Wait(now time.Time) time.Duration {
	p = p.fill(now)
	if p.Rate == 0 || p.Tokens >= 1 {
		return 0
	}
	return time.Duration((1 - p.Tokens) / p.Rate * float64(time.Second))
}

// Sent is the pace after a create has gone.
func (p Pace) Sent(now time.Time) Pace {
	p = p.fill(now)
	p.Tokens--
	return p
}

func (p Pace) fill(now time.Time) Pace {
	if now.After(p.At) {
		if !p.At.IsZero() {
			p.Tokens = math.Min(math.Max(1, p.Burst), p.Tokens+p.Rate*now.Sub(p.At).Seconds())
		}
		p.At = now
	}
	return p
}

// Answered is the pace after the provider has accepted a create.
func (p Pace) Answered(now time.Time) Pace {
	if now.Sub(p.Second) >= time.Second {
		last := p.Accepted[0]
		if now.Sub(p.Second) >= 2*time.Second {
			last = 0
		}
		p.Second, p.Accepted = now, [2]int{0, last}
	}
	p.Accepted[0]++
	if p.Rate == 0 {
		return p
	}
	p = p.fill(now)
	if p.Search {
		p.Rate *= paceFind
	} else {
		p.Rate *= paceGrow
	}
	if p.Most > 0 {
		p.Rate = math.Min(p.Rate, p.Most)
	}
	return p
}

// Limited is the pace after the provider has refused, as coming too fast, a create that was sent at a time.
func (p Pace) Limited(now, sent time.Time) Pace {
	if !p.Cut.IsZero() && !sent.After(p.Cut) {
		return p
	}
	p = p.fill(now)
	p.Cut = now
	p.Search = p.Rate == 0
	if p.Search {
		p.Rate = math.Max(paceGuess, float64(max(p.Accepted[0], p.Accepted[1])))
		p.Tokens = 0
	}
	p.Rate = math.Max(paceFloor, p.Rate*paceCut)
	return p
}
