package queuetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/queue"
)

const claimers = 8

func races() []rule {
	return []rule{
		{
			"ManyClaimers", "However many claim at once, every ticket is claimed, and none twice within a lease.",
			func(s *suite) {
				const n = 240
				s.pushAll(crowd(n))
				var mu sync.Mutex // protects seen
				seen := map[string]int{}
				count := func(claims []queue.Claim) int {
					mu.Lock()
					defer mu.Unlock()
					for _, c := range claims {
						seen[c.Ticket.Task]++
					}
					return len(seen)
				}
				s.together(func(q queue.Queue, rnd *rand.Rand) error {
					for end := s.now().Add(s.patience()); s.now().Before(end); {
						claims, err := q.Claim(s.Context(), request(1+rnd.IntN(9), long))
						if err != nil {
							return err
						}
						if rnd.IntN(2) == 0 {
							if err := q.Done(s.Context(), claims); err != nil {
								return err
							}
						}
						if count(claims) == n {
							return nil
						}
						if len(claims) == 0 {
							s.wait(s.h.Lease / 50)
						}
					}
					return nil
				})
				for task, times := range seen {
					if times > 1 {
						s.Errorf("%s was claimed %d times within one lease", task, times)
					}
				}
				if len(seen) != n {
					s.Errorf("%d of %d tickets were claimed", len(seen), n)
				}
			},
		},
		{
			"ManyPushers", "However many push the same tickets at once, each is in the line once.",
			func(s *suite) {
				const n = 60
				s.together(func(q queue.Queue, rnd *rand.Rand) error {
					ts := crowd(n)
					rnd.Shuffle(n, func(i, j int) { ts[i], ts[j] = ts[j], ts[i] })
					for batch := range slices.Chunk(ts, 20) {
						if err := q.Push(s.Context(), batch); err != nil {
							return err
						}
					}
					return nil
				})
				s.h.Settle(s.T, s.q)
				s.queued(n)
				seen := map[string]bool{}
				for _, c := range s.take(2 * n) {
					if seen[c.Ticket.Task] {
						s.Errorf("%s is in the line twice", c.Ticket.Task)
					}
					seen[c.Ticket.Task] = true
				}
				if len(seen) != n {
					s.Errorf("%d of %d tickets were claimed", len(seen), n)
				}
			},
		},
		{
			"LeasesUnderLoad", "Nobody else has a ticket during a lease, whatever dies, is released or is done late meanwhile.",
			func(s *suite) {
				const n = 60
				s.pushAll(crowd(n))
				var l ledger
				s.together(func(q queue.Queue, rnd *rand.Rand) error {
					for end := s.now().Add(s.patience()); s.now().Before(end); {
						start := s.now()
						claims, err := q.Claim(s.Context(), request(1+rnd.IntN(4), s.h.Lease))
						if err != nil {
							return err
						}
						if len(claims) == 0 {
							if stats, err := q.Stats(s.Context()); err != nil || stats.Queued == 0 {
								return err
							}
							s.wait(s.h.Lease / 10)
							continue
						}
						holds := l.claimed(claims, start, s.now(), s.h.Lease)
						switch rnd.IntN(4) {
						case 0: // it seems to be dead, and then comes back to say that it is done
							s.wait(s.h.Lease + s.h.Lease/4)
							err = q.Done(s.Context(), claims)
						case 1:
							l.released(holds, s.now())
							err = q.Release(s.Context(), claims, 0)
						default:
							if err = q.Done(s.Context(), claims); err == nil {
								l.done(holds, s.now())
							}
						}
						if err != nil {
							return err
						}
					}
					return nil
				})
				l.check(s)
				s.queued(0)
			},
		},
	}
}

// crowd is n tickets of several tenants, agents and priorities.
func crowd(n int) []queue.Ticket {
	ts := make([]queue.Ticket, n)
	for i := range ts {
		ts[i] = queue.Ticket{
			Task: fmt.Sprint("task", i), Generation: 1, Agent: []string{"x", "y", "z"}[i%3],
			Tenant: fmt.Sprint("tenant", i%7), Weight: 1 + i%2, Priority: i % 4 / 3,
		}
	}
	return ts
}

// together runs work by several claimers at once, half of them on the peer, and waits for them.
func (s *suite) together(work func(q queue.Queue, rnd *rand.Rand) error) {
	s.Helper()
	var wg sync.WaitGroup
	for i := range claimers {
		q := []queue.Queue{s.q, s.peer}[i%2]
		wg.Go(func() {
			if err := work(q, rand.New(rand.NewPCG(uint64(i), 0))); err != nil {
				s.Errorf("claimer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// holding is a time during which a claimer had a ticket, as far as it can be certain: from when the call that claimed
// it was over, until its lease, counted from before that call, ended or it was given up.
type holding struct {
	task        string
	from, until time.Time
}

// ledger records who had what when.
type ledger struct {
	mu       sync.Mutex // protects what follows
	holdings []*holding
}

func (l *ledger) claimed(claims []queue.Claim, start, end time.Time, lease time.Duration) []*holding {
	l.mu.Lock()
	defer l.mu.Unlock()
	var holds []*holding
	for _, c := range claims {
		h := &holding{task: c.Ticket.Task, from: end, until: start.Add(lease - lease/10)}
		holds = append(holds, h)
	}
	l.holdings = append(l.holdings, holds...)
	return holds
}

// released ends holdings, at a time before the release.
func (l *ledger) released(holds []*holding, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range holds {
		if at.Before(h.until) {
			h.until = at
		}
	}
}

// done makes holdings endless that are over at the given time, if their leases were not.
func (l *ledger) done(holds []*holding, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range holds {
		if at.Before(h.until) {
			h.until = at.Add(1000 * time.Hour)
		}
	}
}

// check finds tickets that two claimers had at the same time.
func (l *ledger) check(s *suite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	byTask := map[string][]*holding{}
	for _, h := range l.holdings {
		for _, o := range byTask[h.task] {
			from, until := h.from, h.until
			if o.from.After(from) {
				from = o.from
			}
			if o.until.Before(until) {
				until = o.until
			}
			if from.Before(until) {
				s.Errorf("two claimers had %s at the same time: until %v and until %v, both from %v", h.task, h.until, o.until, from)
			}
		}
		byTask[h.task] = append(byTask[h.task], h)
	}
}
