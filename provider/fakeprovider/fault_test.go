package fakeprovider_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// once is a Fault function for the next call of one op.
func once(op string, f fakeprovider.Fault) func(fakeprovider.Call) fakeprovider.Fault {
	var mu sync.Mutex // protects done
	done := false
	return func(c fakeprovider.Call) fakeprovider.Fault {
		mu.Lock()
		defer mu.Unlock()
		if c.Op != op || done {
			return fakeprovider.Fault{}
		}
		done = true
		return f
	}
}

func TestFaultBefore(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{Fault: once("create", fakeprovider.Fault{Before: provider.ErrNoCapacity})})
	defer p.Close()
	_, err := p.Create(t.Context(), request("t"))
	var e *provider.Error
	if !errors.As(err, &e) || e.Class != provider.ErrNoCapacity || e.Op != "create" {
		t.Errorf("Create: %#v", err)
	}
	if len(p.Workspaces()) != 0 {
		t.Error("it has had an effect")
	}
	p.SetFault(once("get", fakeprovider.Fault{Before: &provider.Error{Class: provider.ErrRateLimited, RetryAfter: time.Second}}))
	w := create(t, p, "t")
	_, err = p.Get(t.Context(), w.ID)
	if !errors.Is(err, provider.ErrRateLimited) || provider.RetryAfter(err) != time.Second {
		t.Errorf("Get: %v", err)
	}
	_, err = p.Get(t.Context(), w.ID)
	check(t, "Get again", err)
}

func TestFaultAfter(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{})
	defer p.Close()
	p.SetFault(once("create", fakeprovider.Fault{After: provider.ErrAmbiguous}))
	_, err := p.Create(t.Context(), request("t"))
	wantErr(t, "Create", err, provider.ErrAmbiguous)
	w, err := p.Find(t.Context(), "test", "t")
	check(t, "Find", err)

	p.SetFault(once("start", fakeprovider.Fault{After: provider.ErrAmbiguous}))
	_, err = p.StartProcess(t.Context(), w.ID, "main", provider.Cmd{Args: []string{"a"}})
	wantErr(t, "StartProcess", err, provider.ErrAmbiguous)
	_, err = p.Attach(t.Context(), w.ID, "main")
	check(t, "Attach", err)

	p.SetFault(once("delete", fakeprovider.Fault{After: provider.ErrAmbiguous}))
	wantErr(t, "Delete", p.Delete(t.Context(), w.ID), provider.ErrAmbiguous)
	if got := state(t, p, w.ID); got != "" {
		t.Errorf("state is %s", got)
	}
}

func TestFaultHalfWay(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{Main: func(_ context.Context, p *fakeprovider.Process) int {
		fmt.Fprint(p.Stdout, strings.Repeat("0123456789abcdef", 10_000))
		return 0
	}})
	defer p.Close()
	for i := range 10 {
		create(t, p, strconv.Itoa(i))
	}
	p.SetFault(once("list", fakeprovider.Fault{After: provider.ErrUnavailable}))
	var got []string
	var last error
	for w, err := range p.List(t.Context(), "test") {
		if last = err; err == nil {
			got = append(got, w.ID)
		}
	}
	if len(got) != 5 {
		t.Errorf("List: %v", got)
	}
	wantErr(t, "List", last, provider.ErrUnavailable)

	proc := start(t, p, got[0], "main")
	_, err := proc.Wait(t.Context())
	check(t, "Wait", err)
	p.SetFault(once("output", fakeprovider.Fault{After: provider.ErrUnavailable}))
	var from provider.Offset
	for c, err := range proc.Output(t.Context(), from) {
		if last = err; err == nil {
			from = c.Next
		}
	}
	wantErr(t, "Output", last, provider.ErrUnavailable)
	if from.Stdout == 0 || from.Stdout >= 160_000 {
		t.Errorf("Output stopped at %+v", from)
	}
	for c, err := range proc.Output(t.Context(), from) {
		check(t, "Output again", err)
		from = c.Next
	}
	if from.Stdout != 160_000 {
		t.Errorf("Output ended at %+v", from)
	}
}

func TestFaultDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{})
		defer p.Close()
		p.SetFault(func(c fakeprovider.Call) fakeprovider.Fault {
			return fakeprovider.Fault{Delay: time.Second, AnswerDelay: 2 * time.Second}
		})
		begin := time.Now()
		w := create(t, p, "slow")
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("Create took %v", took)
		}
		for after, want := range map[time.Duration]error{500 * time.Millisecond: context.DeadlineExceeded, 1500 * time.Millisecond: provider.ErrAmbiguous} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			_, err := p.Create(ctx, request("cut"))
			wantErr(t, "Create", err, want)
			wantErr(t, "Create", err, context.DeadlineExceeded)
			_, err = p.Get(ctx, w.ID)
			if err != context.DeadlineExceeded {
				t.Errorf("Get: %v", err)
			}
			cancel()
			p.SetFault(nil)
			made := len(p.Workspaces()) == 2
			if made != (want == provider.ErrAmbiguous) {
				t.Errorf("after %v: made is %v", after, made)
			}
			found, err := p.Find(t.Context(), "test", "cut")
			if made != (err == nil) {
				t.Errorf("Find: %v", err)
			}
			check(t, "Delete", p.Delete(t.Context(), found.ID))
			p.SetFault(func(fakeprovider.Call) fakeprovider.Fault {
				return fakeprovider.Fault{Delay: time.Second, AnswerDelay: 2 * time.Second}
			})
		}
	})
}

func TestFaultStates(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{})
	defer p.Close()
	w := create(t, p, "t")
	stale := fakeprovider.Fault{State: provider.Creating}
	p.SetFault(once("get", stale))
	if got := state(t, p, w.ID); got != provider.Creating {
		t.Errorf("Get: %s", got)
	}
	p.SetFault(once("list", stale))
	for got, err := range p.List(t.Context(), "test") {
		if err != nil || got.State != provider.Creating || got.Ready {
			t.Errorf("List: %+v, %v", got, err)
		}
	}
	if got := state(t, p, w.ID); got != provider.Running {
		t.Errorf("in truth it is %s", got)
	}
}

func TestFaultEndsWorkspaces(t *testing.T) {
	p := fakeprovider.New(fakeprovider.Config{Main: hang})
	defer p.Close()
	vanishing, failing := create(t, p, "v"), create(t, p, "f")
	a, b := start(t, p, vanishing.ID, "main"), start(t, p, failing.ID, "main")
	p.SetFault(once("check", fakeprovider.Fault{Vanish: true}))
	wantErr(t, "Check", p.Check(t.Context(), vanishing.ID), provider.ErrNotFound)
	_, err := a.Wait(t.Context())
	wantErr(t, "Wait", err, provider.ErrNotFound)

	p.SetFault(once("check", fakeprovider.Fault{Fail: true}))
	wantErr(t, "Check", p.Check(t.Context(), failing.ID), provider.ErrLost)
	_, err = b.Wait(t.Context())
	wantErr(t, "Wait", err, provider.ErrLost)

	p.SetFault(once("create", fakeprovider.Fault{Fail: true}))
	if w := create(t, p, "t"); w.State != provider.Failed || w.Message == "" {
		t.Errorf("Create: %+v", w)
	}
}

func TestFaultOfBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{
			Boot:  fakeprovider.Fixed(time.Second),
			Fault: once("create", fakeprovider.Fault{Fail: true}),
		})
		w := create(t, p, "t")
		if w.State != provider.Creating {
			t.Errorf("Create: %s", w.State)
		}
		time.Sleep(time.Second)
		if got := state(t, p, w.ID); got != provider.Failed {
			t.Errorf("after the boot: %s", got)
		}
	})
}

func TestFaultColdResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{
			Main: hang, Resume: fakeprovider.Fixed(time.Second),
			Fault: once("resume", fakeprovider.Fault{Cold: true}),
		})
		defer p.Close()
		w := create(t, p, "t")
		proc := start(t, p, w.ID, "main")
		check(t, "Pause", p.Pause(t.Context(), w.ID, provider.Hibernated))
		for range 2 { // a repeat says the same
			if warm, err := p.Resume(t.Context(), w.ID); warm || err != nil {
				t.Errorf("Resume: %v, %v", warm, err)
			}
		}
		if exit, err := proc.Wait(t.Context()); err != nil || exit.Signal != "SIGKILL" {
			t.Errorf("Wait: %+v, %v", exit, err)
		}
	})
}

func TestPauseOutlivesItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{Pause: fakeprovider.Fixed(time.Minute), Resume: fakeprovider.Fixed(time.Minute)})
		w := create(t, p, "t")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, "Pause", p.Pause(ctx, w.ID, provider.Frozen), provider.ErrAmbiguous)
		if got := state(t, p, w.ID); got != provider.Changing {
			t.Errorf("state is %s", got)
		}
		_, err := p.Resume(t.Context(), w.ID)
		wantErr(t, "Resume meanwhile", err, provider.ErrConflict)
		_, err = p.StartProcess(t.Context(), w.ID, "main", provider.Cmd{Args: []string{"a"}})
		wantErr(t, "StartProcess meanwhile", err, provider.ErrConflict)
		begin := time.Now()
		check(t, "Pause again", p.Pause(t.Context(), w.ID, provider.Frozen))
		if took := time.Since(begin); took != 59*time.Second {
			t.Errorf("Pause again took %v", took)
		}

		var resumes sync.WaitGroup
		for range 3 {
			resumes.Go(func() {
				warm, err := p.Resume(t.Context(), w.ID)
				if err != nil || !warm {
					t.Errorf("Resume: %v, %v", warm, err)
				}
			})
		}
		synctest.Wait()
		wantErr(t, "Pause meanwhile", p.Pause(t.Context(), w.ID, provider.Frozen), provider.ErrConflict)
		resumes.Wait()

		var pauses sync.WaitGroup
		pauses.Go(func() {
			wantErr(t, "Pause of what vanishes", p.Pause(t.Context(), w.ID, provider.DiskOnly), provider.ErrNotFound)
		})
		synctest.Wait()
		p.Vanish(w.ID)
		pauses.Wait()

		w = create(t, p, "u")
		pauses.Go(func() {
			wantErr(t, "Pause of what fails", p.Pause(t.Context(), w.ID, provider.DiskOnly), provider.ErrConflict)
		})
		synctest.Wait()
		p.Fail(w.ID)
		pauses.Wait()
	})
}

func TestSetDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{Main: func(ctx context.Context, p *fakeprovider.Process) int {
			p.Sleep(time.Minute)
			fmt.Fprint(p.Stdout, "went on")
			return 5
		}})
		defer p.Close()
		w := create(t, p, "t")
		proc := start(t, p, w.ID, "main")
		down := &provider.Error{Class: provider.ErrUnavailable, RetryAfter: time.Minute}
		var broken sync.WaitGroup
		broken.Go(func() {
			_, err := proc.Wait(t.Context())
			wantErr(t, "Wait", err, down)
		})
		broken.Go(func() {
			for _, err := range proc.Output(t.Context(), provider.Offset{}) {
				wantErr(t, "Output", err, down)
			}
		})
		broken.Go(func() { wantErr(t, "Watch", p.Watch(t.Context(), "test", func(string) {}), down) })
		synctest.Wait()
		p.SetDown(down)
		broken.Wait()
		_, err := p.Create(t.Context(), request("u"))
		wantErr(t, "Create", err, down)
		p.SetDown(provider.ErrSuspended)
		_, err = p.Get(t.Context(), w.ID)
		wantErr(t, "Get", err, provider.ErrSuspended)
		time.Sleep(time.Hour)
		p.SetDown(nil)
		exit, err := proc.Wait(t.Context())
		if err != nil || exit.Code != 5 || text(t, proc) != "went on" {
			t.Errorf("afterwards: %+v, %v", exit, err)
		}
	})
}

func TestCrashOfAHost(t *testing.T) {
	for _, attach := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a := fakeprovider.New(fakeprovider.Config{
				Main:         hang,
				Capabilities: func(c *provider.Capabilities) { c.Attach = attach },
			})
			defer a.Close()
			b := a.Sibling()
			name, _, err := a.OwnerName(t.Context())
			check(t, "OwnerName", err)
			w := create(t, a, "t")
			start(t, a, w.ID, "a")
			theirs := start(t, b, w.ID, "b")

			a.Crash()
			a.SetDown(nil)
			_, err = a.Get(t.Context(), w.ID)
			wantErr(t, "Get after the crash", err, provider.ErrUnavailable)
			if got, _, err := b.OwnerName(t.Context()); err != nil || got != name {
				t.Errorf("OwnerName: %q, %v; want %q", got, err, name)
			}
			proc, err := b.Attach(t.Context(), w.ID, "a")
			if attach {
				check(t, "Attach", err)
				check(t, "Signal", proc.Signal(t.Context(), provider.Kill))
				_, err = proc.Wait(t.Context())
				check(t, "Wait", err)
			} else {
				wantErr(t, "Attach", err, provider.ErrNotFound)
			}
			synctest.Wait()
			check(t, "Signal", theirs.Signal(t.Context(), provider.Kill))
			if exit, err := theirs.Wait(t.Context()); err != nil || exit.Signal != "SIGKILL" {
				t.Errorf("a process of the sibling: %+v, %v", exit, err)
			}
		})
	}
}

func TestChaos(t *testing.T) {
	const n = 4000
	ops := []string{"create", "get", "delete", "list", "wait"}
	count := func(chaos func(fakeprovider.Call) fakeprovider.Fault) (faults map[string]int, all []fakeprovider.Fault) {
		faults = make(map[string]int)
		for _, op := range ops {
			for i := range n {
				f := chaos(fakeprovider.Call{Op: op, N: i + 1})
				all = append(all, f)
				if f == (fakeprovider.Fault{}) {
					continue
				}
				faults["any"]++
				for name, has := range map[string]bool{
					"delay": f.Delay > 0, "vanish": f.Vanish, "fail": f.Fail, "state": f.State != "",
					"unavailable": errors.Is(f.Before, provider.ErrUnavailable), "rate limited": errors.Is(f.Before, provider.ErrRateLimited),
					"no capacity": errors.Is(f.Before, provider.ErrNoCapacity), "ambiguous": errors.Is(f.After, provider.ErrAmbiguous),
					"answer lost": errors.Is(f.After, provider.ErrUnavailable),
				} {
					if has {
						faults[name]++
					}
				}
			}
		}
		return faults, all
	}
	got, all := count(fakeprovider.Chaos(1, 0.2))
	if share := float64(got["any"]) / float64(n*len(ops)); math.Abs(share-0.2) > 0.02 {
		t.Errorf("a share of %.3f goes wrong, want 0.2", share)
	}
	for _, kind := range []string{"delay", "vanish", "fail", "state", "unavailable", "rate limited", "no capacity", "ambiguous", "answer lost"} {
		if got[kind] == 0 {
			t.Errorf("no fault of kind %q", kind)
		}
	}
	if _, again := count(fakeprovider.Chaos(1, 0.2)); !reflect.DeepEqual(all, again) {
		t.Error("the same seed gives other faults")
	}
	if _, other := count(fakeprovider.Chaos(2, 0.2)); reflect.DeepEqual(all, other) {
		t.Error("another seed gives the same faults")
	}
	for rate, want := range map[float64]int{0: 0, 1: n * len(ops)} {
		if got, _ := count(fakeprovider.Chaos(1, rate)); got["any"] != want {
			t.Errorf("with rate %v %d calls go wrong, want %d", rate, got["any"], want)
		}
	}
}

// Whatever goes wrong, what was asked for is deleted in the end by whoever repeats as the contract says.
func TestLifeInChaos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakeprovider.New(fakeprovider.Config{
			Boot: fakeprovider.LogNormal(time.Second, 10*time.Second, 1), Delete: fakeprovider.Uniform(0, 5*time.Second, 2),
			Main: hang, Capacity: 40, Fault: fakeprovider.Chaos(3, 0.3),
		})
		defer p.Close()
		again := func(what string, call func() error) {
			for {
				err := call()
				if err == nil || errors.Is(err, provider.ErrNotFound) || errors.Is(err, provider.ErrConflict) || errors.Is(err, provider.ErrExists) {
					return
				}
				if !provider.Retryable(err) {
					t.Errorf("%s: %v", what, err)
					return
				}
				time.Sleep(time.Second)
			}
		}
		var lives sync.WaitGroup
		for i := range 200 {
			lives.Go(func() {
				var w provider.Workspace
				again("Create", func() (err error) {
					w, err = p.Create(t.Context(), request(strconv.Itoa(i)))
					return err
				})
				time.Sleep(5 * time.Second)
				again("StartProcess", func() error {
					_, err := p.StartProcess(t.Context(), w.ID, "main", provider.Cmd{Args: []string{"a"}})
					return err
				})
				again("Delete", func() error { return p.Delete(t.Context(), w.ID) })
			})
		}
		lives.Wait()
		time.Sleep(time.Minute)
		if left := p.Workspaces(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if p.Peak() > 40 {
			t.Errorf("peak is %d", p.Peak())
		}
	})
}
