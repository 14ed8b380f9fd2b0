package queuetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/freshet-dev/freshet/queue"
)

// abilities are the rules for what a queue need not have. Those that it lacks have nothing to check.
func abilities() []rule {
	return []rule{
		{
			"Notifier", "Notify wakes after a Push, sooner or later, goes on until its context ends, and then is silent.",
			func(s *suite) {
				if n, ok := s.peer.(queue.Notifier); ok {
					s.notify(n)
				}
			},
		},
		{
			"Placer", "Place 1 is next, what goes before is counted, and 0 means not in the line.",
			func(s *suite) {
				if p, ok := s.q.(queue.Placer); ok {
					s.place(p)
				}
			},
		},
	}
}

func (s *suite) notify(n queue.Notifier) {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	woken, ended := make(chan struct{}, 1), make(chan error, 1)
	var over atomic.Bool
	go func() {
		ended <- n.Notify(ctx, func() {
			if over.Load() {
				s.Error("woken after Notify had returned")
			}
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		over.Store(true)
	}()
	pushed := 0
	for range 3 {
		select {
		case <-woken: // before anything was pushed: spurious, as a hint may be
		default:
		}
		s.eventually("Notify did not wake, whatever was pushed", func() bool {
			s.push(ticket(fmt.Sprint("a", pushed)))
			pushed++
			select {
			case <-woken:
				return true
			case err := <-ended:
				s.Fatalf("Notify ended by itself: %v", err)
			case <-time.After(s.h.Lease):
			}
			return false
		})
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(s.patience()):
		s.Fatal("Notify did not return when its context had ended")
	}
	s.push(ticket("last"))
	s.queued(pushed + 1)
}

func (s *suite) place(p queue.Placer) {
	wantPlace := func(task string, low, high int) {
		s.Helper()
		if got, err := p.Place(s.Context(), task); err != nil || got < low || got > high {
			s.Errorf("Place(%s) = %d, %v; want %d to %d", task, got, err, low, high)
		}
	}
	wantPlace("a0", 0, 0)
	for i := range 20 {
		s.push(ticket(fmt.Sprint("a", i)))
	}
	for i := range 20 {
		wantPlace(fmt.Sprint("a", i), i+1, i+1)
	}

	// A new tenant does not wait for all of a's.
	s.push(tickets("b0 b1")...)
	wantPlace("b0", 1, 3)
	wantPlace("b1", 3, 6)
	wantPlace("a19", 20, 22)

	// What has priority goes before all.
	urgent := ticket("c0")
	urgent.Priority = 1
	s.push(urgent)
	wantPlace("c0", 1, 1)
	wantPlace("a0", 2, 3)
	wantPlace("a19", 21, 23)

	claims := s.take(1)
	s.want(claims, "c0")
	s.done(s.q, claims...)
	wantPlace("c0", 0, 0)
	wantPlace("a0", 1, 2)
	wantPlace("nobody's", 0, 0)
}
