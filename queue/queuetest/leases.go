package queuetest

import (
	"time"

	"github.com/freshet-dev/freshet/queue"
)

func leases() []rule {
	return []rule{
		{
			"LeaseHolds", "Nobody else is given a claimed ticket before its lease has run out.",
			func(s *suite) {
				s.push(ticket("a1"))
				start := s.now()
				s.want(s.claim(s.q, request(1, s.h.Lease)), "a1")
				var again []queue.Claim
				s.eventually("the ticket did not come back", func() bool {
					again = s.claim(s.peer, request(1, long))
					return len(again) > 0
				})
				s.notBefore(start, s.h.Lease, "claimed again")
			},
		},
		{
			"LeaseLasts", "A lease is as long as was asked for, whatever the others are.",
			func(s *suite) {
				s.push(tickets("a1 a2 a3")...)
				s.want(s.claim(s.q, request(1, long)), "a1")
				s.want(s.claim(s.q, request(1, s.h.Lease)), "a2")
				s.want(s.claim(s.q, request(1, long)), "a3")
				s.lapse()
				s.want(s.claim(s.peer, request(10, long)), "a2")
				s.queued(3)
			},
		},
		{
			"LeaseEnds", "When the lease has run out, the ticket is back in its old place; its next claim has another token.",
			func(s *suite) {
				s.push(tickets("a1 a2 a3 a4")...)
				first := s.claim(s.q, request(2, s.h.Lease))
				s.want(first, "a1 a2")
				s.lapse()
				s.queued(4)
				second := s.claim(s.peer, request(4, long))
				s.want(second, "a1 a2 a3 a4")
				for i, c := range first {
					if second[i].Token == c.Token {
						s.Errorf("two claims of %s have the same token", c.Ticket.Task)
					}
				}
			},
		},
		{
			"LateDone", "Done after the lease has run out removes the ticket, if nobody has claimed it since.",
			func(s *suite) {
				s.push(tickets("a1 a2")...)
				claims := s.claim(s.q, request(1, s.h.Lease))
				s.lapse()
				other := request(1, long)
				other.SkipTenants = []string{"a"}
				s.want(s.claim(s.peer, other), "") // it may notice that the lease has run out
				s.done(s.q, claims...)
				s.want(s.take(10), "a2")
				s.queued(1)
			},
		},
		{
			"StaleDone", "Done of a claim whose ticket somebody else holds by now changes nothing, and is no error.",
			func(s *suite) {
				s.push(ticket("a1"))
				stale := s.claim(s.q, request(1, s.h.Lease))
				s.lapse()
				held := s.claim(s.peer, request(1, long))
				s.want(held, "a1")
				s.done(s.q, stale...)
				s.queued(1)
				s.want(s.take(1), "")
				s.done(s.peer, held...)
				s.queued(0)
			},
		},
		{
			"StaleRelease", "Release of a claim whose ticket somebody else holds by now changes nothing, and is no error.",
			func(s *suite) {
				s.push(tickets("a1 a2")...)
				stale := s.claim(s.q, request(1, s.h.Lease))
				s.lapse()
				held := s.claim(s.peer, request(1, long))
				s.want(held, "a1")
				fresh := s.take(1)
				s.want(fresh, "a2")
				s.release(s.q, 0, append(stale, fresh...)...)
				s.want(s.take(10), "a2")
				s.done(s.peer, held...)
				s.queued(1)
			},
		},
		{
			"NotBefore", "A ticket with a time in the future is not claimed before then, and keeps its place.",
			func(s *suite) {
				start := s.now()
				for _, task := range []string{"a1", "a2", "a3"} {
					tk := ticket(task)
					switch task {
					case "a1":
						tk.NotBefore = start.Add(2 * s.h.Lease)
					case "a2":
						tk.NotBefore = start.Add(-long)
					}
					s.push(tk)
				}
				first := s.take(1)
				s.want(first, "a2")
				s.release(s.q, 0, first...)
				s.eventually("the delayed ticket was never given out", func() bool {
					claims := s.take(1)
					if tasks(claims) == "a1" {
						return true
					}
					s.want(claims, "a2")
					s.release(s.q, 0, claims...)
					return false
				})
				s.notBefore(start, 2*s.h.Lease, "claimed")
				s.want(s.take(10), "a2 a3")
			},
		},
		{
			"ReleaseDelay", "A ticket released with a delay is not claimed before it has passed, and then is in its old place.",
			func(s *suite) {
				s.push(tickets("a1 a2")...)
				claims := s.take(1)
				start := s.now()
				s.release(s.q, s.h.Lease, claims...)
				s.queued(2)
				s.eventually("the released ticket did not come back", func() bool {
					claims := s.take(1)
					if tasks(claims) == "a1" {
						return true
					}
					s.want(claims, "a2")
					s.release(s.q, 0, claims...)
					return false
				})
				s.notBefore(start, s.h.Lease, "claimed again")
				s.want(s.take(10), "a2")
			},
		},
		{
			"DelayAndLease", "A delay after a release is not shortened by the end of the lease that was given up.",
			func(s *suite) {
				s.push(ticket("a1"))
				s.release(s.q, long, s.claim(s.q, request(1, s.h.Lease))...)
				s.lapse()
				s.want(s.take(1), "")
				s.queued(1)
			},
		},
		{
			"Supersede", "A newer generation takes the place of an older one, which nobody is given any more.",
			func(s *suite) {
				s.push(tickets("a1 a2")...)
				newer := ticket("a1")
				newer.Generation, newer.Agent, newer.Priority = 2, "y", 5
				s.push(newer)
				s.queued(2)
				older := ticket("a1")
				s.push(older)
				s.queued(2)
				claims := s.take(10)
				s.want(claims, "a1 a2")
				if got := claims[0].Ticket; got.Generation != 2 || got.Agent != "y" || got.Priority != 5 {
					s.Errorf("claimed %+v, want %+v", got, newer)
				}
				s.push(older)
				s.done(s.q, claims...)
				s.queued(0)
			},
		},
		{
			"SupersedeClaimed", "A newer generation can be claimed at once though an older one is, whose claim is void.",
			func(s *suite) {
				s.push(ticket("a1"))
				older := s.take(1)
				newer := ticket("a1")
				newer.Generation = 2
				s.push(newer)
				s.queued(1)
				s.done(s.q, older...)
				s.release(s.q, long, older...)
				s.queued(1)
				claims := s.claim(s.peer, request(10, long))
				s.want(claims, "a1")
				if len(claims) == 1 && claims[0].Ticket.Generation != 2 {
					s.Errorf("claimed generation %d, want 2", claims[0].Ticket.Generation)
				}
				s.done(s.q, older...)
				s.release(s.q, 0, older...)
				s.want(s.take(1), "")
				s.done(s.peer, claims...)
				s.queued(0)
			},
		},
	}
}

// notBefore checks that d has passed since start. What was noticed just now may have happened a little earlier, so only
// what is certain is wrong; a tenth of d is left to clocks of different speed.
func (s *suite) notBefore(start time.Time, d time.Duration, what string) {
	s.Helper()
	if passed := s.now().Sub(start); passed < d-d/10 {
		s.Errorf("%s after %v, which is before %v", what, passed, d)
	}
}
