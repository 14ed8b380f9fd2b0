package queuetest

import (
	"fmt"
	"strings"

	"github.com/freshet-dev/freshet/queue"
)

func orders() []rule {
	return []rule{
		{
			"FirstComeFirstServed", "Tickets of one tenant and priority are given out in the order in which they were pushed.",
			func(s *suite) {
				var want []string
				for i := range 30 {
					tk := ticket(fmt.Sprintf("a%d", (i*7)%30)) // the names do not sort like that
					tk.Agent = []string{"x", "y", "z"}[i%3]
					s.push(tk)
					want = append(want, tk.Task)
				}
				var got []string
				for _, n := range []int{1, 4, 1, 10, 30} {
					if claims := s.take(n); len(claims) > 0 {
						got = append(got, tasks(claims))
					}
				}
				if strings.Join(got, " ") != strings.Join(want, " ") {
					s.Errorf("claimed %v\npushed  %v", got, want)
				}
			},
		},
		{
			"Priority", "A higher priority goes first, whoever's it is and whenever it came; 0 is the middle.",
			func(s *suite) {
				for _, at := range []struct {
					task     string
					priority int
				}{{"a0", 0}, {"a-1", -1}, {"b5", 5}, {"b-max", 1 << 30}, {"c-min", -1 << 30}, {"c1", 1}} {
					tk := ticket(at.task)
					tk.Priority = at.priority
					s.push(tk)
				}
				s.want(s.take(2), "b-max b5")
				s.want(s.take(10), "c1 a0 a-1 c-min")
			},
		},
		{
			"PriorityOverShare", "A tenant that has had much goes before one that had nothing, if its tickets have priority.",
			func(s *suite) {
				for i := range 10 {
					tk := ticket(fmt.Sprintf("a%d", i))
					tk.Priority = 1
					s.push(tk, ticket(fmt.Sprintf("b%d", i)))
				}
				for range 10 {
					if claims := s.take(1); len(claims) != 1 || claims[0].Ticket.Tenant != "a" {
						s.Fatalf("claimed %q, want one of tenant a", tasks(claims))
					}
				}
				s.want(s.take(2), "b0 b1")
			},
		},
		{
			"SkipTenants", "Tickets of tenants to skip are passed over, block nobody, and are there when they are not skipped.",
			func(s *suite) {
				s.push(tickets("a1 a2 a3 b1 c1 a4 b2")...)
				req := request(10, long)
				req.SkipTenants = []string{"a", "c", "nobody"}
				s.want(s.claim(s.q, req), "b1 b2")
				req.SkipTenants = []string{"a"}
				s.want(s.claim(s.q, req), "c1")
				s.want(s.take(10), "a1 a2 a3 a4")
			},
		},
		{
			"SkipAgents", "Tickets of agents to skip are passed over; their tenants' other tickets are not.",
			func(s *suite) {
				for i, agent := range strings.Fields("x y x z y") {
					tk := ticket(fmt.Sprintf("a%d", i))
					tk.Agent = agent
					s.push(tk)
				}
				req := request(10, long)
				req.SkipAgents = []string{"x", "none"}
				s.want(s.claim(s.q, req), "a1 a3 a4")
				req.SkipAgents = []string{"x", "y", "z"}
				s.want(s.claim(s.q, req), "")
				s.want(s.take(10), "a0 a2")
			},
		},
		{
			"SkipBoth", "A ticket is claimed only if neither its tenant nor its agent is to be skipped.",
			func(s *suite) {
				for i, pair := range strings.Fields("ax ay bx by cz") {
					s.push(queue.Ticket{Task: fmt.Sprint(i), Generation: 1, Tenant: pair[:1], Agent: pair[1:]})
				}
				req := request(10, long)
				req.SkipTenants, req.SkipAgents = []string{"a"}, []string{"x"}
				s.wantSet(s.claim(s.q, req), "3 4")
				req.SkipTenants, req.SkipAgents = []string{"b"}, []string{"z"}
				s.wantSet(s.claim(s.q, req), "0 1")
				s.want(s.take(10), "2")
			},
		},
		{
			"SkipMany", "Each list of what to skip may have queue.MaxSkip entries, of 256 bytes each.",
			func(s *suite) {
				req := request(10, long)
				for i := range queue.MaxSkip {
					name := fmt.Sprintf("%0256d", i)
					req.SkipTenants = append(req.SkipTenants, name)
					req.SkipAgents = append(req.SkipAgents, name)
				}
				var ts []queue.Ticket
				for i, name := range req.SkipTenants {
					ts = append(ts, queue.Ticket{Task: fmt.Sprint("t", i), Generation: 1, Agent: "x", Tenant: name})
				}
				s.pushAll(ts[:300])
				s.push(ticket("a1"))
				s.pushAll(ts[300:])
				s.want(s.claim(s.q, req), "a1")
				s.queued(queue.MaxSkip + 1)
			},
		},
	}
}
