package policy

import "time"

// Breaker decides whether to ask a provider that keeps failing. The zero Breaker is closed: it lets everything pass.
type Breaker struct {
	Failures int       // in a row
	Since    time.Time // of the first of them
	Until    time.Time // while open, when the next probe may go
	Last     time.Time // the last failure that counted
	Reason   string    // of the last failure
}

const (
	breakerTrips = 3 // failures in a row that open it
	breakerFirst = time.Second
	breakerMost  = 30 * time.Second
)

// Open says whether it holds calls back at now. Once Until has passed it is half open: what passes is a probe, and
// Probed keeps the next one back until that one's answer.
func (b Breaker) Open(now time.Time) bool { return b.Tripped() && now.Before(b.Until) }

// Tripped says whether calls fail at present; those that pass are probes.
func (b Breaker) Tripped() bool { return b.Failures >= breakerTrips }

// Probed is the breaker after a probe was sent.
func (b Breaker) Probed(now time.Time) Breaker {
	if b.Tripped() {
		b.Until = now.Add(b.pause())
	}
	return b
}

// Failed is the breaker after a call, sent at a time, that failed because of the provider. Of calls that were under way
// together only the first failure counts: they all tell the same.
func (b Breaker) Failed(now, sent time.Time, reason string, retryAfter time.Duration) Breaker {
	b.Reason = reason
	if b.Failures > 0 && !sent.After(b.Last) {
		return b
	}
	if b.Failures == 0 {
		b.Since = now
	}
	b.Failures++
	b.Last = now
	if b.Tripped() {
		b.Until = now.Add(max(retryAfter, b.pause()))
	}
	return b
}

// Tripping is the breaker after an answer that leaves no doubt: it opens at once.
func (b Breaker) Tripping(now time.Time, reason string) Breaker {
	b = b.Failed(now, now, reason, 0)
	b.Failures = max(b.Failures, breakerTrips)
	b.Until = now.Add(b.pause())
	return b
}

// Succeeded is the breaker after a call that the provider answered.
func (b Breaker) Succeeded() Breaker { return Breaker{} }

func (b Breaker) pause() time.Duration {
	n := min(b.Failures-breakerTrips, 10)
	return min(breakerFirst<<max(n, 0), breakerMost)
}
