package queuetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/queue"
)

func basics() []rule {
	return []rule{
		{
			"Empty", "An empty line gives nothing, empty requests ask for nothing, and neither is an error.",
			func(s *suite) {
				s.want(s.take(10), "")
				s.pushAll(nil)
				s.done(s.q)
				s.release(s.q, 0)
				stats, err := s.q.Stats(s.Context())
				if err != nil || stats.Queued != 0 || !stats.Oldest.IsZero() {
					s.Errorf("Stats of an empty line: %+v, %v; want zero", stats, err)
				}
				s.push(ticket("a1"))
				s.want(s.take(0), "")
				s.want(s.take(-1), "")
				s.want(s.claim(s.q, queue.ClaimRequest{N: 10, Lease: long}), "")
				s.want(s.take(1), "a1")
			},
		},
		{
			"RoundTrip", "A claim holds the ticket as it was pushed.",
			func(s *suite) {
				pushed := []queue.Ticket{
					ticket("a1"),
					{Task: "b1", Generation: 1 << 40, Agent: "y", Tenant: "ten", Priority: 1 << 30, Weight: 1000},
					{Task: "c1", Generation: 3, Agent: "z", Tenant: "", Priority: -1 << 30, Weight: 1},
				}
				s.pushAll(pushed)
				claims := s.take(10)
				s.want(claims, "b1 a1 c1")
				for _, c := range claims {
					for _, want := range pushed {
						if c.Ticket.Task == want.Task {
							s.same(c.Ticket, want)
						}
					}
					if c.Token == "" {
						s.Errorf("the claim of %s has no token", c.Ticket.Task)
					}
				}
			},
		},
		{
			"PushKeepsNothing", "The slice that Push is given is not kept.",
			func(s *suite) {
				ts := tickets("a1 a2")
				s.pushAll(ts)
				ts[0], ts[1] = ticket("b1"), ticket("b2")
				s.wantSet(s.take(10), "a1 a2")
			},
		},
		{
			"Done", "A ticket stays in the line until Done, claimed or not, and is gone then.",
			func(s *suite) {
				s.push(tickets("a1 a2")...)
				s.queued(2)
				claims := s.take(2)
				s.queued(2)
				s.done(s.q, claims[0])
				s.queued(1)
				s.done(s.peer, claims[1])
				s.queued(0)
				s.want(s.take(10), "")
			},
		},
		{
			"DoneAgain", "Done of what is gone is passed over without an error, and the others of that call are done.",
			func(s *suite) {
				s.push(tickets("a1 a2")...)
				claims := s.take(2)
				s.done(s.q, claims[0])
				unknown := queue.Claim{Ticket: ticket("z9"), Token: claims[0].Token}
				forged := queue.Claim{Ticket: claims[1].Ticket, Token: "not " + claims[1].Token}
				s.done(s.q, claims[0], unknown, forged)
				s.queued(1)
				s.done(s.q, claims[0], unknown, claims[1])
				s.queued(0)
			},
		},
		{
			"PushAgain", "A ticket that was done can be pushed again: the sweep does so when a task is still to be run.",
			func(s *suite) {
				s.push(ticket("a1"))
				s.done(s.q, s.take(1)...)
				s.push(ticket("a1"))
				s.want(s.take(1), "a1")
			},
		},
		{
			"Duplicate", "A ticket whose task and generation are in the line already, claimed or not, has no effect.",
			func(s *suite) {
				s.push(tickets("a1 a2 a1")...)
				s.pushAll(tickets("a2 a1 a2"))
				s.queued(2)
				claims := s.take(1)
				s.want(claims, "a1")
				s.push(ticket("a1"))
				s.queued(2)
				rest := s.take(10)
				s.want(rest, "a2")
				s.done(s.q, append(claims, rest...)...)
				s.queued(0)
			},
		},
		{
			"Release", "Released tickets can be claimed at once, under another token, in their old place.",
			func(s *suite) {
				s.push(tickets("a1 a2 a3")...)
				first := s.take(2)
				s.want(first, "a1 a2")
				s.release(s.peer, 0, first...)
				s.queued(3)
				again := s.take(3)
				s.want(again, "a1 a2 a3")
				if again[0].Token == first[0].Token {
					s.Error("two claims of one ticket have the same token")
				}
			},
		},
		{
			"ReleaseAgain", "Release of what was released, done or claimed by somebody else since is passed over.",
			func(s *suite) {
				s.push(tickets("a1 a2")...)
				first := s.take(2)
				s.release(s.q, 0, first[0])
				s.done(s.q, first[1])
				s.release(s.q, 0, first...)
				second := s.take(10)
				s.want(second, "a1")
				s.release(s.q, 0, first...)
				s.done(s.q, first...)
				s.want(s.take(10), "")
				s.queued(1)
				s.done(s.q, second...)
				s.queued(0)
			},
		},
		{
			"Batches", "Claim gives as many as were asked for if so many are there, each once.",
			func(s *suite) {
				var ts []queue.Ticket
				for i := range 500 {
					ts = append(ts, ticket(fmt.Sprintf("%c%d", 'a'+i%5, i)))
				}
				s.pushAll(ts)
				seen := map[string]bool{}
				for _, n := range []int{1, 2, 97, 100, 300} {
					claims := s.take(n)
					if want := min(n, 500-len(seen)); len(claims) != want {
						s.Fatalf("claimed %d tickets, want %d", len(claims), want)
					}
					for _, c := range claims {
						if seen[c.Ticket.Task] {
							s.Fatalf("%s was claimed twice", c.Ticket.Task)
						}
						seen[c.Ticket.Task] = true
					}
					s.done(s.q, claims...)
				}
				s.want(s.take(10_000), "")
				s.queued(0)
			},
		},
		{
			"Agents", "Only tickets of the agents that were asked for are claimed.",
			func(s *suite) {
				var all []string
				for i, agent := range strings.Fields("p q p r q x") {
					tk := ticket(fmt.Sprintf("a%d", i))
					tk.Agent = agent
					s.push(tk)
				}
				for i := range 200 {
					all = append(all, fmt.Sprintf("agent-%d", i))
				}
				s.want(s.claim(s.q, queue.ClaimRequest{Agents: all, N: 10, Lease: long}), "")
				s.want(s.claim(s.q, queue.ClaimRequest{Agents: []string{"q"}, N: 1, Lease: long}), "a1")
				s.want(s.claim(s.q, queue.ClaimRequest{Agents: append(all, "p", "q"), N: 10, Lease: long}), "a0 a2 a4")
				s.want(s.claim(s.q, queue.ClaimRequest{Agents: []string{"x", "r", "x"}, N: 10, Lease: long}), "a3 a5")
			},
		},
		{
			"Stats", "Stats counts claimed and delayed tickets too, and knows when the oldest was pushed.",
			func(s *suite) {
				const skew = time.Minute // of the queue's clock against ours
				before := s.now().Add(-skew)
				s.push(ticket("a1"))
				oldest := s.oldest()
				if oldest.Before(before) || oldest.After(s.now().Add(skew)) {
					s.Errorf("the oldest was pushed at %v, says Stats; it is %v", oldest, s.now())
				}
				s.wait(s.h.Lease)
				delayed := ticket("a2")
				delayed.NotBefore = s.now().Add(long)
				s.push(delayed, ticket("a3"))
				s.queued(3)
				claims := s.take(1)
				s.want(claims, "a1")
				if now := s.oldest(); !now.Equal(oldest) {
					s.Errorf("the oldest, now claimed, was pushed at %v, says Stats; before it was %v", now, oldest)
				}
				s.done(s.q, claims...)
				s.queued(2)
				if now := s.oldest(); !now.After(oldest) {
					s.Errorf("the oldest is done, but %v, says Stats, is when the oldest was pushed", now)
				}
			},
		},
		{
			"AnyNames", "Tenants, agents and tasks are any UTF-8 of up to 256 bytes, and come back byte for byte.",
			func(s *suite) {
				names := hostileNames()
				var ts []queue.Ticket
				agents := []string{"plain"}
				for i, name := range names {
					ts = append(ts,
						queue.Ticket{Task: name, Generation: 1, Agent: "plain", Tenant: "plain"},
						queue.Ticket{Task: fmt.Sprint("tenant", i), Generation: 1, Agent: "plain", Tenant: name},
						queue.Ticket{Task: fmt.Sprint("agent", i), Generation: 1, Agent: name, Tenant: "plain"},
						queue.Ticket{Task: fmt.Sprint("both", i), Generation: 1, Agent: name, Tenant: names[len(names)-1-i]})
					agents = append(agents, name)
				}
				s.pushAll(ts)
				pushed := map[string]queue.Ticket{}
				for _, t := range ts {
					pushed[t.Task] = t
				}
				claims := s.claim(s.q, queue.ClaimRequest{Agents: agents, N: 2 * len(ts), Lease: long})
				for _, c := range claims {
					s.same(c.Ticket, pushed[c.Ticket.Task])
					delete(pushed, c.Ticket.Task)
				}
				for task := range pushed {
					s.Errorf("%q was not claimed", task)
				}
				s.done(s.q, claims...)
				s.queued(0)
			},
		},
		{
			"NamesApart", "Names that look alike are different names.",
			func(s *suite) {
				names := hostileNames()
				var ts []queue.Ticket
				for i, name := range names {
					ts = append(ts, queue.Ticket{Task: fmt.Sprint(i), Generation: 1, Agent: name, Tenant: name})
				}
				s.pushAll(ts)
				for i, name := range names {
					skip := slices.Concat(names[:i], names[i+1:])
					req := queue.ClaimRequest{Agents: names, N: 10, Lease: long, SkipTenants: skip}
					claims := s.claim(s.q, req)
					s.want(claims, fmt.Sprint(i))
					s.release(s.q, 0, claims...)
					req = queue.ClaimRequest{Agents: []string{name}, N: 10, Lease: long}
					s.want(s.claim(s.q, req), fmt.Sprint(i))
				}
			},
		},
	}
}

func (s *suite) oldest() time.Time {
	s.Helper()
	stats, err := s.q.Stats(s.Context())
	if err != nil {
		s.Fatalf("Stats: %v", err)
	}
	return stats.Oldest
}

// same checks a claimed ticket. A weight of 0 is 1, and a time that has passed means nothing.
func (s *suite) same(got, want queue.Ticket) {
	s.Helper()
	for _, t := range []*queue.Ticket{&got, &want} {
		t.Weight = max(t.Weight, 1)
		t.NotBefore = time.Time{}
	}
	if got != want {
		s.Errorf("claimed %+q, pushed %+q", got, want)
	}
}

// hostileNames are different strings that have broken something somewhere.
func hostileNames() []string {
	return []string{
		"abc", "Abc", "abc ", " abc", "abc\t", "ábc", "a\u0301bc", "аbc", // the last has a Cyrillic a
		"'", "\"", "`", "\\", "\\'", "''", "'; DROP TABLE tickets; --", "' OR '1'='1", "/* */", "$1", "?", ":name", "@p1",
		"%", "_", "*", "[a-z]", "%s%n", "{x}", "{x}y", "a:b", "a:", ":b", "a|b", "a,b", "a/b", "../../x", "a.b", "a\x1fb",
		"\n", "\r\n", "\x01\x02\x03", "\x1b[31m", "\x7f", "\u0085", "\u2028", "\ufeff", "\u200b", "\u202e", "\ufffd", "\uffff",
		"null", "NULL", "nil", "true", "0", "00", "-1", "1e9", "NaN", "[]", "{}", "\"a\"", "<b>&amp;</b>",
		"日本語", "👩‍👩‍👧", "\U0010ffff", strings.Repeat("x", 256), strings.Repeat("x", 255) + "y", strings.Repeat("🌊", 64),
	}
}
