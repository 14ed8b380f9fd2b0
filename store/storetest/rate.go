package storetest

import (
	"time"

	"github.com/freshet-dev/freshet/store"
)

// offered submits n new tasks of a tenant with limits.
func (f *fixture) offered(l store.Limits, tenant string, n int) error {
	_, err := f.s.Submit(f.Context(), store.SubmitRequest{Limits: &l, Tasks: f.tasksOf(tenant, n)})
	return err
}

func rateRules() []rule {
	return []rule{
		{"Queued", "no more tasks wait than Queued allows; what runs does not wait", func(f *fixture) {
			l := store.Limits{Queued: 3}
			f.must("Submit", f.offered(l, tenant, 2))
			f.unchanged("a refused Submit", func() {
				refused := f.limit(f.offered(l, "another", 2), store.LimitQueued)
				same(f, "error", []any{refused.Max, refused.InUse, refused.Tenant, refused.RetryAfter},
					[]any{3.0, 2.0, "", time.Duration(0)})
			})
			f.must("Submit", f.offered(l, "another", 1))
			f.limit(f.offered(l, tenant, 1), store.LimitQueued)
			first := f.query(store.TaskQuery{OldestFirst: true})[0].ID
			begun := f.begin(f.offer(), first)
			f.must("Submit", f.offered(l, tenant, 1))
			f.requeue(begun.Lease) // a retry is refused by no length of line
			equal(f, "queued", f.usage(tenant, agent).Queued, 4)
			f.must("End", f.s.End(f.Context(), first, canceled))
			f.limit(f.offered(l, tenant, 1), store.LimitQueued)
		}},
		{"TenantQueued", "no more tasks of a tenant wait than its Queued allows", func(f *fixture) {
			l := store.Limits{Tenant: store.TenantLimits{Queued: 2}}
			f.must("Submit", f.offered(l, tenant, 2))
			f.unchanged("a refused Submit", func() {
				refused := f.limit(f.offered(l, tenant, 1), store.LimitTenantQueued)
				same(f, "error", []any{refused.Max, refused.InUse, refused.Tenant}, []any{2.0, 2.0, tenant})
			})
			f.must("Submit", f.offered(l, "another", 2))
			f.limit(f.offered(l, "third", 3), store.LimitTenantQueued)
			u := f.usage(tenant, agent)
			same(f, "queued", []any{u.Queued, u.TenantQueued}, []any{4, 2})
		}},
		{"AllOrNone", "a Submit that a limit refuses records none of its tasks and counts for no rate", func(f *fixture) {
			l := store.Limits{PerSecond: 1e-6, Burst: 5, Tenant: store.TenantLimits{PerHour: 3, Queued: 9}}
			f.must("Submit", f.offered(l, tenant, 1))
			f.unchanged("a refused Submit", func() {
				mixed := append(f.tasksOf("another", 1), f.tasksOf(tenant, 3)...)
				_, err := f.s.Submit(f.Context(), store.SubmitRequest{Limits: &l, Tasks: mixed})
				f.limit(err, store.LimitTenantPerHour)
				f.limit(f.offered(l, "another", 4), store.LimitTenantPerHour)
			})
			f.must("Submit", f.offered(l, "another", 2))
			f.must("Submit", f.offered(l, tenant, 2))
			f.limit(f.offered(l, "third", 1), store.LimitRate)
		}},
		{"PerHour", "a tenant submits no more than PerHour in any hour; RetryAfter says when the first of them leaves it", func(f *fixture) {
			l := store.Limits{Tenant: store.TenantLimits{PerHour: 3}}
			f.must("Submit", f.offered(l, tenant, 1))
			f.h.Wait(f.h.Unit)
			f.must("Submit", f.offered(l, tenant, 2))
			f.unchanged("a refused Submit", func() {
				refused := f.limit(f.offered(l, tenant, 1), store.LimitTenantPerHour)
				same(f, "error", []any{refused.Max, refused.InUse, refused.Tenant}, []any{3.0, 3.0, tenant})
				if refused.RetryAfter <= 30*time.Minute || refused.RetryAfter > time.Hour-f.h.Unit {
					f.Errorf("retry after %v", refused.RetryAfter)
				}
				if more := f.limit(f.offered(l, tenant, 2), store.LimitTenantPerHour).RetryAfter; more <= refused.RetryAfter {
					f.Errorf("one may come after %v, two after %v", refused.RetryAfter, more)
				}
				equal(f, "retry of what is never taken", f.limit(f.offered(l, tenant, 4), store.LimitTenantPerHour).RetryAfter, 0)
			})
			f.must("Submit", f.offered(l, "another", 3))

			// Known ids count for nothing.
			f.submit(f.query(store.TaskQuery{Payload: true})...)

			// Neither an end nor a removal gives anything back.
			id := f.query(store.TaskQuery{Tenant: tenant})[0].ID
			f.must("End", f.s.End(f.Context(), id, canceled))
			f.limit(f.offered(l, tenant, 1), store.LimitTenantPerHour)
		}},
		{"PerHourSet", "a PerHour set at run time counts what came before it", func(f *fixture) {
			f.submit(f.tasksOf(tenant, 2)...)
			f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), tenant, &store.TenantLimits{PerHour: 2}))
			f.limit(f.offered(store.Limits{}, tenant, 1), store.LimitTenantPerHour)
			f.must("SetTenantLimits", f.s.SetTenantLimits(f.Context(), tenant, &store.TenantLimits{PerHour: 3}))
			f.must("Submit", f.offered(store.Limits{}, tenant, 1))
		}},
		{"SlidingHour", "the hour slides: RetryAfter is exact", func(f *fixture) {
			if !f.h.Virtual {
				return // an hour is too long
			}
			l := store.Limits{Tenant: store.TenantLimits{PerHour: 3}}
			for range 3 {
				f.must("Submit", f.offered(l, tenant, 1))
				f.h.Wait(10 * time.Minute)
			}
			for i := range 10 {
				wait := 10 * time.Minute
				switch {
				case i == 0:
					wait = 30 * time.Minute
				case i%3 == 0:
					wait = 40 * time.Minute
				}
				refused := f.limit(f.offered(l, tenant, 1), store.LimitTenantPerHour)
				equal(f, "retry after", refused.RetryAfter, wait)
				f.h.Wait(wait - time.Nanosecond)
				f.limit(f.offered(l, tenant, 1), store.LimitTenantPerHour)
				f.h.Wait(time.Nanosecond)
				f.must("Submit", f.offered(l, tenant, 1))
			}
		}},
		{"Rate", "a burst is taken at once, then PerSecond; RetryAfter says when the next one is", func(f *fixture) {
			l := store.Limits{PerSecond: 1 / f.h.Unit.Seconds(), Burst: 50}
			var refused *store.LimitError
			for range 200 {
				if err := f.offered(l, f.id("tenant"), 10); err != nil {
					refused = f.limit(err, store.LimitRate)
					break
				}
			}
			if refused == nil {
				f.Fatal("nothing is refused")
			}
			equal(f, "max", refused.Max, l.PerSecond)
			if refused.RetryAfter <= 0 || refused.RetryAfter > 10*f.h.Unit {
				f.Fatalf("retry after %v", refused.RetryAfter)
			}
			equal(f, "retry of what is never taken", f.limit(f.offered(l, tenant, 51), store.LimitRate).RetryAfter, 0)
			f.h.Wait(refused.RetryAfter)
			f.must("Submit", f.offered(l, tenant, 10))
			f.limit(f.offered(l, tenant, 10), store.LimitRate)
		}},
		{"RateExact", "the rate is exact: what RetryAfter says is taken, and a nanosecond sooner it is not", func(f *fixture) {
			if !f.h.Virtual {
				return // needs a clock that stands still
			}
			for _, l := range []store.Limits{{PerSecond: 3}, {PerSecond: 0.01}, {PerSecond: 7, Burst: 2}, {PerSecond: 1000, Burst: 1}} {
				burst := l.Burst
				if burst == 0 {
					burst = max(int(l.PerSecond), 1)
				}
				f.h.Wait(24 * time.Hour) // the bucket is full
				f.must("Submit", f.offered(l, tenant, burst))
				for range 10 {
					refused := f.limit(f.offered(l, tenant, 1), store.LimitRate)
					f.h.Wait(refused.RetryAfter - time.Nanosecond)
					f.limit(f.offered(l, tenant, 1), store.LimitRate)
					f.h.Wait(time.Nanosecond)
					f.must("Submit", f.offered(l, tenant, 1))
				}
			}
		}},
		{"KnownIDs", "submissions that yield a known id count for no rate and no length of line", func(f *fixture) {
			l := store.Limits{Queued: 1, PerSecond: 1e-6, Burst: 1, Tenant: store.TenantLimits{PerHour: 1, Queued: 1}}
			task := f.task()
			task.Key = "key"
			again := f.task()
			again.Key, again.Digest = task.Key, task.Digest
			for range 3 {
				for _, t := range []store.Task{task, again} {
					ids, err := f.s.Submit(f.Context(), store.SubmitRequest{Limits: &l, Tasks: []store.Task{t}})
					f.must("Submit", err)
					list(f, "ids", ids, task.ID)
				}
			}
		}},
		{"Race", "of many who submit at once, exactly as many are taken as the limits allow", func(f *fixture) {
			for name, l := range map[string]store.Limits{
				"a": {Queued: 5},
				"b": {Tenant: store.TenantLimits{Queued: 5}},
				"c": {Tenant: store.TenantLimits{PerHour: 5}},
				"d": {PerSecond: 1e-6, Burst: 5},
			} {
				for _, t := range f.query(store.TaskQuery{States: []store.State{store.StateQueued}}) {
					f.must("End", f.s.End(f.Context(), t.ID, canceled))
				}
				tasks := f.tasksOf("tenant "+name, 16)
				taken := make([]bool, len(tasks))
				f.together(len(tasks), func(i int, s store.Store) {
					_, err := s.Submit(f.Context(), store.SubmitRequest{Limits: &l, Tasks: tasks[i : i+1]})
					taken[i] = err == nil
				})
				n := 0
				for _, ok := range taken {
					if ok {
						n++
					}
				}
				equal(f, "taken with limits "+name, n, 5)
				equal(f, "recorded with limits "+name, len(f.query(store.TaskQuery{Tenant: "tenant " + name})), 5)
			}
		}},
	}
}
