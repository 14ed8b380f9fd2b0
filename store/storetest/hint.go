package storetest

import (
	"context"
	"sync"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// hintRules are for what a Store may have beside the Store: a Watcher, a queue.Notifier, a queue.Placer.
func hintRules() []rule {
	return []rule{
		{"WatchTasks", "WatchTasks wakes with the ids of tasks that change on any connection, until its context ends", func(f *fixture) {
			w, ok := f.second.(store.Watcher)
			if !ok {
				return
			}
			woken := make(chan string, 1000)
			stop := f.background(func(ctx context.Context) error {
				return w.WatchTasks(ctx, func(task string) {
					select {
					case woken <- task:
					default:
					}
				})
			})
			defer stop()
			begun := f.start()
			f.until("a wake for a change", func() bool {
				f.must("Save", f.s.Save(f.Context(), begun.Lease, store.Save{Status: &store.Change{Note: "on"}}))
				f.h.Wait(f.h.Unit)
				for {
					select {
					case id := <-woken:
						if id == begun.Task.ID {
							return true
						}
					default:
						return false
					}
				}
			})
		}},
		{"Notify", "Notify wakes when something may have become claimable, until its context ends", func(f *fixture) {
			n, ok := f.second.(queue.Notifier)
			if !ok {
				return
			}
			woken := make(chan struct{}, 1)
			stop := f.background(func(ctx context.Context) error {
				return n.Notify(ctx, func() {
					select {
					case woken <- struct{}{}:
					default:
					}
				})
			})
			defer stop()
			wakes := func(what string, do func()) {
				f.Helper()
				f.until("a wake for "+what, func() bool {
					select {
					case <-woken: // of before
					default:
					}
					do()
					f.h.Wait(f.h.Unit)
					select {
					case <-woken:
						return true
					default:
						return false
					}
				})
			}
			wakes("a new task", func() { f.queued() })
			wakes("a retry", func() { f.requeue(f.start().Lease) })
		}},
		{"Place", "Place is 1 for what is next, and 0 for what is not in line", func(f *fixture) {
			p, ok := f.second.(queue.Placer)
			if !ok {
				return
			}
			place := func(id string, want int) {
				f.Helper()
				got, err := p.Place(f.Context(), id)
				f.must("Place", err)
				equal(f, "place of "+id, got, want)
			}
			ids := f.submit(f.tasksOf(tenant, 3)...)
			urgent := f.task()
			urgent.Priority = 1
			f.submit(urgent)
			place(urgent.ID, 1)
			for i, id := range ids {
				place(id, i+2)
			}
			place("unknown", 0)
			run := f.begin(f.offer(), urgent.ID)
			place(urgent.ID, 0)
			place(ids[0], 1)
			f.must("End", f.s.End(f.Context(), ids[0], canceled))
			place(ids[0], 0)
			place(ids[1], 1)
			f.requeue(run.Lease)
			place(urgent.ID, 1)
		}},
	}
}

// background calls do in a goroutine. The function that it returns ends do's context and waits for it.
func (f *fixture) background(do func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(f.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := do(ctx); ctx.Err() == nil {
			f.Errorf("it ended by itself: %v", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// until repeats do until it answers true. Hints may be missed, but not all of them.
func (f *fixture) until(what string, do func() bool) {
	f.Helper()
	for range 20 {
		if do() {
			return
		}
	}
	f.Errorf("there never was %s", what)
}
