package queuetest

import (
	"fmt"
	"strings"

	"github.com/freshet-dev/freshet/queue"
)

func shares() []rule {
	return []rule{
		{
			"Share", "Tenants of the same weight are served alike, however many tickets one of them has.",
			func(s *suite) {
				s.load("a", 60, 1)
				s.load("b", 20, 1)
				s.load("c", 20, 1)
				s.fair(60, 1, map[string]int{"a": 1, "b": 1, "c": 1})
			},
		},
		{
			"ShareInBatches", "The order within a batch is as fair as that over many.",
			func(s *suite) {
				s.load("a", 60, 1)
				s.load("b", 60, 1)
				s.load("c", 60, 2)
				s.fair(100, 20, map[string]int{"a": 1, "b": 1, "c": 2})
			},
		},
		{
			"Weights", "Services divided by weight differ by at most one ticket each.",
			func(s *suite) {
				s.load("a", 40, 1)
				s.load("b", 40, 3)
				s.load("c", 60, 7)
				s.fair(60, 1, map[string]int{"a": 1, "b": 3, "c": 7})
			},
		},
		{
			"NewestWeight", "The weight of the newest ticket of a tenant counts for all of them.",
			func(s *suite) {
				s.load("a", 60, 1)
				s.load("b", 60, 1)
				tk := ticket("b-last")
				tk.Weight = 4
				s.push(tk)
				s.fair(1, 1, nil) // what is next may be settled already
				s.fair(1, 1, nil)
				s.fair(40, 1, map[string]int{"a": 1, "b": 4})
			},
		},
		{
			"ShareIsTheTenants", "Many agents give a tenant no greater share than one does.",
			func(s *suite) {
				var ts []queue.Ticket
				for i := range 60 {
					tk := ticket(fmt.Sprintf("a%d", i))
					tk.Agent = []string{"x", "y", "z"}[i%3]
					ts = append(ts, tk)
				}
				s.pushAll(ts)
				s.load("b", 30, 1)
				s.fair(50, 1, map[string]int{"a": 1, "b": 1})
			},
		},
		{
			"LateComer", "A tenant that comes later gets its share from then on: neither what it missed, nor the last place.",
			func(s *suite) {
				s.load("a", 60, 1)
				s.fair(30, 1, nil)
				s.load("b", 30, 1)
				s.fair(25, 1, map[string]int{"a": 1, "b": 1})
			},
		},
		{
			"ComeAgain", "A tenant that was idle for a while has saved up nothing, and owes nothing.",
			func(s *suite) {
				s.load("a", 80, 1)
				s.load("b", 5, 1)
				s.fair(35, 1, nil) // all of b's, and then a's alone
				for i := range 20 {
					s.push(ticket(fmt.Sprintf("b-again-%d", i)))
				}
				s.fair(30, 1, map[string]int{"a": 1, "b": 1})
			},
		},
		{
			"OneAtATime", "A tenant that pushes a ticket whenever its last was claimed gets its share and no more.",
			func(s *suite) {
				s.load("a", 40, 1)
				s.push(ticket("b0"))
				served := 0
				for i := range 30 {
					claims := s.take(1)
					if len(claims) == 1 && claims[0].Ticket.Tenant == "b" {
						served++
						s.push(ticket(fmt.Sprintf("b%d", i+1)))
					}
				}
				if served < 10 || served > 16 {
					s.Errorf("it had %d of 30; want about half, and no more", served)
				}
			},
		},
		{
			"ManyTenants", "Among many tenants, everyone is served once before anyone is served a third time.",
			func(s *suite) {
				const tenants = 50
				var ts []queue.Ticket
				for i := range 4 * tenants {
					tenant := fmt.Sprint("tenant-", i*i/4%tenants) // some have many, some few, in no order
					ts = append(ts, queue.Ticket{Task: fmt.Sprint(i), Generation: 1, Agent: "x", Tenant: tenant})
				}
				s.pushAll(ts)
				waiting, served := map[string]int{}, map[string]int{}
				for _, tk := range ts {
					waiting[tk.Tenant]++
				}
				for range ts {
					claims := s.take(1)
					if len(claims) != 1 {
						s.Fatal("a ticket is missing")
					}
					tenant := claims[0].Ticket.Tenant
					served[tenant]++
					for other := range waiting {
						if served[tenant] > 2 && served[other] == 0 {
							s.Fatalf("%s was served %d times, %s not once", tenant, served[tenant], other)
						}
					}
				}
			},
		},
		{
			"Newcomers", "Nobody starves: a tenant that waits is served however many new tenants keep coming.",
			func(s *suite) {
				s.load("a", 30, 1)
				served := 0
				for i := range 60 {
					var ts []queue.Ticket
					for n := range 2 { // twice as fast as they are served
						name := fmt.Sprint("new", i, "-", n)
						ts = append(ts, queue.Ticket{Task: name, Generation: 1, Agent: "x", Tenant: name})
					}
					s.pushAll(ts)
					if claims := s.take(1); len(claims) == 1 && claims[0].Ticket.Tenant == "a" {
						served++
					}
				}
				if served < 3 {
					s.Errorf("it was served %d times in 60", served)
				}
			},
		},
		{
			"ReleaseIsFree", "A release costs the tenant nothing of its share.",
			func(s *suite) {
				s.push(ticket("a0"))
				s.load("a", 30, 1) // and a0 once more, which has no effect
				s.load("b", 30, 1)
				for range 5 {
					claims := s.take(1)
					s.want(claims, "a0") // it was next, and is again
					s.release(s.q, 0, claims...)
				}
				only := request(3, long)
				only.SkipTenants = []string{"b"}
				for range 5 {
					claims := s.claim(s.q, only)
					if len(claims) != 3 {
						s.Fatalf("claimed %q, want three", tasks(claims))
					}
					s.release(s.q, 0, claims...)
				}
				s.fair(40, 1, map[string]int{"a": 1, "b": 1})
			},
		},
		{
			"LapseIsFree", "The end of a lease costs the tenant nothing of its share.",
			func(s *suite) {
				s.load("a", 30, 1)
				s.load("b", 30, 1)
				only := request(10, s.h.Lease)
				only.SkipTenants = []string{"b"}
				s.claim(s.q, only)
				s.lapse()
				s.fair(40, 1, map[string]int{"a": 1, "b": 1})
			},
		},
		{
			"SkippedSavesNothing", "A tenant that was to be skipped gets its share from then on, and not what it missed.",
			func(s *suite) {
				s.load("a", 30, 1)
				s.load("b", 60, 1)
				skip := request(1, long)
				skip.SkipTenants = []string{"a"}
				for range 20 {
					s.claim(s.q, skip)
				}
				s.fair(40, 1, map[string]int{"a": 1, "b": 1})
			},
		},
	}
}

// load pushes n tickets of a tenant and weight, named after it.
func (s *suite) load(tenant string, n, weight int) {
	s.Helper()
	ts := make([]queue.Ticket, n)
	for i := range ts {
		ts[i] = queue.Ticket{
			Task: fmt.Sprint(tenant, i), Generation: 1, Agent: "x", Tenant: tenant, Weight: weight,
		}
	}
	s.pushAll(ts)
}

// fair claims and finishes n tickets, so many at once. As long as all tenants of weights have tickets left, which the
// case sees to, the services of any two, divided by weight, may at no time have drifted apart by more than one ticket
// of each, counted from any earlier time.
func (s *suite) fair(n, batch int, weights map[string]int) {
	s.Helper()
	const rounding = 0.01
	services := map[string]float64{}
	low, high := map[string]float64{}, map[string]float64{}
	var history []string
	for len(history) < n {
		claims := s.take(min(batch, n-len(history)))
		if len(claims) == 0 {
			s.Fatalf("nothing to claim after %d of %d", len(history), n)
		}
		s.done(s.q, claims...)
		for _, c := range claims {
			history = append(history, c.Ticket.Tenant)
			services[c.Ticket.Tenant] += 1 / float64(max(weights[c.Ticket.Tenant], 1))
			for a, wa := range weights {
				for b, wb := range weights {
					pair, drift := a+" "+b, services[a]-services[b]
					low[pair], high[pair] = min(low[pair], drift), max(high[pair], drift)
					if bound := 1/float64(wa) + 1/float64(wb); high[pair]-low[pair] > bound+rounding {
						s.Fatalf("tenants %s and %s, of weights %d and %d, drifted apart by %.2f; at most %.2f is fair: %s", a, b,
							wa, wb, high[pair]-low[pair], bound, strings.Join(history, " "))
					}
				}
			}
		}
	}
}
