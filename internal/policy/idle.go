package policy

import "time"

// Silence is what is known of an agent that shows no progress.
type Silence struct {
	For     time.Duration // since its last sign of progress
	Limit   time.Duration // the idle time-out
	CPU     time.Duration // used in Window; negative: not measured
	Window  time.Duration
	Rounds  int  // idle time-outs on end that CPU time alone has prolonged
	Most    int  // how many of them may be
	Changed bool // the checkpoint folder has changed since the last look
}

// Idleness is what follows from a silence.
type Idleness int

const (
	Wait     Idleness = iota // not silent for long enough
	Measure                  // half the limit has passed: measure CPU and folder, to compare with at the limit
	Progress                 // it moves: the silence begins anew
	Busy                     // it burns CPU: the silence begins anew, one of the rounds is used
	Stuck                    // end it
)

// busyShare is the share of one core above which CPU time is work rather than the ticking of an idle runtime.
const busyShare = 0.01

// Judge decides what a silence means. Silence alone is never enough: at the limit an agent is stuck only if neither its
// CPU time nor its checkpoint folder moved.
func Judge(s Silence) Idleness {
	switch {
	case s.For < s.Limit/2:
		return Wait
	case s.For < s.Limit:
		return Measure
	case s.Changed:
		return Progress
	case s.CPU >= 0 && s.Window > 0 && s.Rounds < s.Most && float64(s.CPU) >= busyShare*float64(s.Window):
		return Busy
	}
	return Stuck
}
