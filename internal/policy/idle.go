package policy

import "time"

// Silence is what is known of an agent that gives no sign.
type Silence struct {
	Now   time.Time
	Moved time.Time     // last sign: output, a word on its progress, a changed checkpoint folder
	Busy  time.Time     // when it was last seen to burn CPU; zero: never
	Limit time.Duration // the idle time-out
	Most  int           // idle time-outs on end for which CPU time alone counts as progress
}

// busyShare is the share of one core above which CPU time is work rather than the ticking of an idle runtime.
const busyShare = 0.01

// Working says whether so much CPU time in a window is work.
func Working(cpu, window time.Duration) bool {
	return window > 0 && float64(cpu) >= busyShare*float64(window)
}

// Judge says whether a silence means that the agent is stuck, else when to measure its CPU time and folder next. The first
// measure comes early in a silence, so that an agent that prints is never measured, and one that falls silent is seen
// from the beginning. CPU time counts as progress only for so long: an agent that spins is found too.
func Judge(s Silence) (stuck bool, next time.Duration) {
	alive := s.Moved
	if s.Busy.After(alive) {
		alive = s.Busy
		if most := s.Moved.Add(time.Duration(s.Most) * s.Limit); alive.After(most) {
			alive = most
		}
	}
	quiet := s.Now.Sub(alive)
	switch {
	case quiet >= s.Limit:
		return true, 0
	case s.Now.Sub(s.Moved) < s.Limit/8:
		return false, s.Limit/8 - s.Now.Sub(s.Moved)
	}
	return false, min(s.Limit/4, s.Limit-quiet)
}
