package fakeprovider_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func TestLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{
			Boot: fakeprovider.Fixed(3 * time.Second), Pause: fakeprovider.Fixed(4 * time.Second),
			Resume: fakeprovider.Fixed(5 * time.Second), Delete: fakeprovider.Fixed(6 * time.Second),
		})
		expect := func(id string, want provider.State) {
			t.Helper()
			if got := state(t, p, id); got != want {
				t.Errorf("state is %q, want %q", got, want)
			}
		}
		w := create(t, p, "t")
		expect(w.ID, provider.Creating)
		time.Sleep(3*time.Second - 1)
		expect(w.ID, provider.Creating)
		time.Sleep(1)
		expect(w.ID, provider.Running)

		begin := time.Now()
		check(t, "Pause", p.Pause(t.Context(), w.ID, provider.Frozen))
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("Pause took %v", took)
		}
		begin = time.Now()
		warm, err := p.Resume(t.Context(), w.ID)
		if took := time.Since(begin); err != nil || !warm || took != 5*time.Second {
			t.Errorf("Resume: %v, %v after %v", warm, err, took)
		}

		check(t, "Delete", p.Delete(t.Context(), w.ID))
		expect(w.ID, provider.Deleting)
		time.Sleep(6*time.Second - 1)
		check(t, "Delete again", p.Delete(t.Context(), w.ID))
		expect(w.ID, provider.Deleting)
		time.Sleep(1)
		expect(w.ID, "")
	})
}

func TestWatchWakesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{Boot: fakeprovider.Uniform(time.Second, time.Minute, 7)})
		begin := time.Now()
		var mu sync.Mutex // protects woken
		woken := make(map[string]time.Duration)
		ctx, cancel := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() {
			err := p.Watch(ctx, "test", func(id string) {
				mu.Lock()
				defer mu.Unlock()
				woken[id] = time.Since(begin)
			})
			wantErr(t, "Watch", err, context.Canceled)
		})
		synctest.Wait()
		const n = 100
		for i := range n {
			create(t, p, strconv.Itoa(i))
		}
		other := request("other")
		other.Owner = "other"
		_, err := p.Create(t.Context(), other)
		check(t, "Create", err)
		time.Sleep(2 * time.Minute)
		cancel()
		watch.Wait()
		if len(woken) != n {
			t.Errorf("%d workspaces woke the watcher, want %d", len(woken), n)
		}
		for id, at := range woken {
			if at < time.Second || at > time.Minute {
				t.Errorf("%s woke the watcher last at %v", id, at)
			}
		}
	})
}

func TestManyWorkspacesHaveNoGoroutines(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{Boot: fakeprovider.Fixed(time.Hour)})
	defer p.Close()
	before := runtime.NumGoroutine()
	for i := range 10_000 {
		w := create(t, p, strconv.Itoa(i))
		check(t, "KeepAlive", p.KeepAlive(t.Context(), w.ID, 2*time.Hour))
	}
	ready := fakeprovider.New(fakeprovider.Config{})
	defer ready.Close()
	w := create(t, ready, "t")
	for i := range 1000 {
		start(t, ready, w.ID, strconv.Itoa(i))
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}

func TestCapacity(t *testing.T) {
	for _, pausedCounts := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := fakeprovider.New(fakeprovider.Config{
				Capacity: 2, Delete: fakeprovider.Fixed(time.Second),
				Capabilities: func(c *provider.Capabilities) { c.PausedCounts = pausedCounts },
			})
			a, b := create(t, p, "a"), create(t, p, "b")
			create(t, p, "b") // the same one: no quota needed
			_, err := p.Create(t.Context(), request("c"))
			wantErr(t, "Create above the capacity", err, provider.ErrQuota)

			check(t, "Pause", p.Pause(t.Context(), a.ID, provider.Hibernated))
			_, err = p.Create(t.Context(), request("c"))
			if pausedCounts {
				wantErr(t, "Create while one is paused", err, provider.ErrQuota)
				_, err := p.Resume(t.Context(), a.ID)
				check(t, "Resume", err)
			} else {
				check(t, "Create while one is paused", err)
				_, err := p.Resume(t.Context(), a.ID)
				wantErr(t, "Resume above the capacity", err, provider.ErrQuota)
			}

			check(t, "Delete", p.Delete(t.Context(), b.ID))
			_, err = p.Create(t.Context(), request("d"))
			wantErr(t, "Create while one is being deleted", err, provider.ErrQuota)
			time.Sleep(time.Second)
			create(t, p, "d")
			if q, err := p.Quota(t.Context()); err != nil || q != (provider.Quota{Workspaces: 2, InUse: 2}) {
				t.Errorf("Quota: %+v, %v", q, err)
			}
			if p.InUse() != 2 || p.Peak() != 2 {
				t.Errorf("InUse %d, Peak %d", p.InUse(), p.Peak())
			}
			p.Close()
			if p.InUse() != 0 || p.Peak() != 2 {
				t.Errorf("at the end: InUse %d, Peak %d", p.InUse(), p.Peak())
			}
		})
	}
}

func TestCreateRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{CreatesPerSecond: 2, CreateBurst: 3})
		if c := p.Capabilities(); c.CreatesPerSecond != 2 || c.CreateBurst != 3 {
			t.Errorf("Capabilities: %+v", c)
		}
		for round := range 2 {
			for i := range 3 {
				create(t, p, strconv.Itoa(10*round+i))
			}
			for i := 3; i < 5; i++ {
				_, err := p.Create(t.Context(), request(strconv.Itoa(10*round+i)))
				wantErr(t, "Create above the rate", err, provider.ErrRateLimited)
				wait := provider.RetryAfter(err)
				if wait != 500*time.Millisecond {
					t.Errorf("RetryAfter is %v", wait)
				}
				time.Sleep(wait)
				create(t, p, strconv.Itoa(10*round+i))
			}
			time.Sleep(time.Hour) // saves up the burst, not more
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{
			Main:         hang,
			Capabilities: func(c *provider.Capabilities) { c.MaxLifetime = time.Hour },
		})
		w := create(t, p, "t")
		if want := time.Now().Add(time.Hour); !w.Expires.Equal(want) {
			t.Errorf("Expires is %v, want %v", w.Expires, want)
		}
		proc := start(t, p, w.ID, "main")
		wantErr(t, "KeepAlive for no time", p.KeepAlive(t.Context(), w.ID, 0), provider.ErrInvalid)
		for range 8 {
			check(t, "KeepAlive", p.KeepAlive(t.Context(), w.ID, 10*time.Minute))
			time.Sleep(7 * time.Minute)
		}
		begin := time.Now()
		check(t, "KeepAlive", p.KeepAlive(t.Context(), w.ID, 10*time.Minute))
		_, err := proc.Wait(t.Context()) // nobody but the timer ends it
		wantErr(t, "Wait", err, provider.ErrNotFound)
		if got := time.Since(begin); got != 4*time.Minute {
			t.Errorf("the workspace ended after %v, want the rest of its lifetime, 4m", got)
		}
	})
}

func TestSearchMakesTwins(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{Capabilities: func(c *provider.Capabilities) { c.Create = provider.Search }})
	defer p.Close()
	a, b, c := create(t, p, "t"), create(t, p, "t"), create(t, p, "t")
	for _, step := range []struct{ remove, found string }{{b.ID, a.ID}, {a.ID, c.ID}, {c.ID, ""}} {
		check(t, "Delete", p.Delete(t.Context(), step.remove))
		got, err := p.Find(t.Context(), "test", "t")
		if step.found == "" {
			wantErr(t, "Find", err, provider.ErrNotFound)
		} else if err != nil || got.ID != step.found {
			t.Errorf("Find: %q, %v; want %q", got.ID, err, step.found)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{})
	defer p.Close()
	for _, req := range []provider.CreateRequest{
		{Owner: "test"}, {Token: "t"}, {Token: "a token that is longer than 26 bytes", Owner: "test"},
		{Token: "t", Owner: "test", Spec: provider.Spec{Snapshot: "none"}},
	} {
		_, err := p.Create(t.Context(), req)
		wantErr(t, "Create", err, provider.ErrInvalid)
	}
	w := create(t, p, "t")
	for _, name := range []string{"", "a b", "a/b", "ä", strings.Repeat("a", 129)} {
		_, err := p.StartProcess(t.Context(), w.ID, name, provider.Cmd{Args: []string{"a"}})
		wantErr(t, "StartProcess with a name that is not allowed", err, provider.ErrInvalid)
	}
	_, err := p.StartProcess(t.Context(), w.ID, "a", provider.Cmd{})
	wantErr(t, "StartProcess without a program", err, provider.ErrInvalid)
	wantErr(t, "Resize", p.Resize(t.Context(), w.ID, provider.Resources{CPU: -1}), provider.ErrInvalid)
	if n := len(p.Workspaces()); n != 1 {
		t.Errorf("%d workspaces", n)
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		returned := 0
		p := fakeprovider.New(fakeprovider.Config{Main: func(ctx context.Context, _ *fakeprovider.Process) int {
			<-ctx.Done()
			time.Sleep(time.Minute) // slow to return
			returned++
			return 0
		}})
		w := create(t, p, "t")
		proc := start(t, p, w.ID, "main")
		watched := make(chan error, 1)
		go func() { watched <- p.Watch(t.Context(), "test", func(string) {}) }()
		synctest.Wait()
		p.Close()
		if returned != 1 {
			t.Error("Close did not wait for Main")
		}
		wantErr(t, "Watch", <-watched, provider.ErrUnavailable)
		_, err := proc.Wait(t.Context())
		wantErr(t, "Wait", err, provider.ErrNotFound)
		_, err = p.Create(t.Context(), request("late"))
		wantErr(t, "Create", err, provider.ErrUnavailable)
		_, err = p.Sibling().Get(t.Context(), w.ID)
		wantErr(t, "Get of a sibling", err, provider.ErrUnavailable)
		for _, err := range p.List(t.Context(), "test") {
			wantErr(t, "List", err, provider.ErrUnavailable)
		}
		p.Close()
	})
}

func TestDistributions(t *testing.T) {
	const n = 20_000
	draw := func(latency func() time.Duration) []time.Duration {
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = latency()
		}
		return all
	}
	first := draw(fakeprovider.LogNormal(time.Second, 10*time.Second, 3))
	if !slices.Equal(first, draw(fakeprovider.LogNormal(time.Second, 10*time.Second, 3))) {
		t.Error("the same seed gives another sequence")
	}
	slices.Sort(first)
	for at, want := range map[float64]float64{0.5: 1, 0.99: 10} {
		if got := first[int(at*n)].Seconds(); math.Abs(got/want-1) > 0.15 {
			t.Errorf("LogNormal: %.0f %% are below %.2f s, want %.2f s", 100*at, got, want)
		}
	}
	uniform := draw(fakeprovider.Uniform(time.Second, 3*time.Second, 3))
	slices.Sort(uniform)
	if uniform[0] < time.Second || uniform[n-1] > 3*time.Second || math.Abs(uniform[n/2].Seconds()-2) > 0.1 {
		t.Errorf("Uniform: from %v to %v, half of them below %v", uniform[0], uniform[n-1], uniform[n/2])
	}
}

func TestSiblingsShareWorkspaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeprovider.New(fakeprovider.Config{Main: hang})
		defer a.Close()
		b := a.Sibling()
		w := create(t, a, "t")
		proc := start(t, a, w.ID, "main")
		a.SetDown(provider.ErrUnavailable)
		if again := create(t, b, "t"); again.ID != w.ID {
			t.Errorf("Create: %q, want %q", again.ID, w.ID)
		}
		theirs, err := b.Attach(t.Context(), w.ID, "main")
		check(t, "Attach", err)
		_, err = proc.Wait(t.Context())
		wantErr(t, "Wait", err, provider.ErrUnavailable)
		check(t, "Signal", theirs.Signal(t.Context(), provider.Kill))
		exit, err := theirs.Wait(t.Context())
		if err != nil || exit.Signal != "SIGKILL" {
			t.Errorf("Wait: %+v, %v", exit, err)
		}
		if calls := b.Calls(); calls["create"] != 1 || calls["wait"] != 1 || calls["start"] != 0 {
			t.Errorf("calls: %v", calls)
		}
		scopeB, _ := b.Scope(t.Context())
		a.SetDown(nil)
		if scopeA, err := a.Scope(t.Context()); err != nil || scopeA != scopeB {
			t.Errorf("scopes %q and %q, %v", scopeA, scopeB, err)
		}
	})
}

func BenchmarkCreateDelete(b *testing.B) {
	for _, live := range []int{0, 10_000} {
		b.Run("live="+strconv.Itoa(live), func(b *testing.B) {
			fake := fakeprovider.New(fakeprovider.Config{Boot: fakeprovider.Fixed(time.Hour)})
			defer fake.Close()
			tokens := make([]string, live+b.N)
			for i := range tokens {
				tokens[i] = strconv.Itoa(i)
			}
			var failed error
			for _, token := range tokens[:live] {
				_, err := fake.Create(b.Context(), request(token))
				failed = errors.Join(failed, err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, token := range tokens[live:] {
				w, err := fake.Create(b.Context(), request(token))
				if err == nil {
					err = fake.Delete(b.Context(), w.ID)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			if failed != nil {
				b.Fatal(failed)
			}
		})
	}
}
