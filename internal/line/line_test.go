package line

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1_000_000, 0)

// at is so many seconds after the start of a test.
func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// item is one of tenant a, agent x, with an ID of that tenant.
func item(id string) Item { return Item{ID: id, Generation: 1, Agent: "x", Tenant: id[:1]} }

// drain takes everything and returns the IDs.
func drain(l *Line, now time.Time, eligible func(agent, tenant string) bool) string {
	var ids []string
	for {
		it, ok := l.Take(now, eligible)
		if !ok {
			return strings.Join(ids, " ")
		}
		ids = append(ids, it.ID)
	}
}

func push(l *Line, ids ...string) {
	for _, id := range ids {
		l.Push(item(id))
	}
}

func TestOrder(t *testing.T) {
	weighted := func(id string, weight int) Item {
		it := item(id)
		it.Weight = weight
		return it
	}
	tests := []struct {
		name string
		do   func(l *Line)
		want string
	}{
		{"first come, first served", func(l *Line) { push(l, "a1", "a2", "a3") }, "a1 a2 a3"},
		{"tenants in turn", func(l *Line) { push(l, "a1", "a2", "a3", "b1", "b2", "c1") }, "a1 b1 c1 a2 b2 a3"},
		{"weights", func(l *Line) {
			for i := range 6 {
				l.Push(weighted(fmt.Sprintf("a%d", i), 3))
			}
			push(l, "b0", "b1")
		}, "a0 a1 a2 b0 a3 a4 a5 b1"},
		{"the newest weight counts", func(l *Line) {
			push(l, "a0", "a1", "a2", "b0", "b1", "b2")
			l.Take(start, nil)
			l.Push(weighted("a3", 1000))
		}, "b0 a1 b1 a2 a3 b2"},
		{"a weight below one is one", func(l *Line) {
			l.Push(weighted("a0", -5))
			l.Push(weighted("a1", -5))
			push(l, "b0", "b1")
		}, "a0 b0 a1 b1"},
		{"priority before share", func(l *Line) {
			push(l, "a1", "b1")
			for _, id := range []string{"a2", "a3"} {
				it := item(id)
				it.Priority = 1
				l.Push(it)
			}
			low := item("c1")
			low.Priority = -1
			l.Push(low)
		}, "a2 a3 a1 b1 c1"},
		{"agents of a tenant in the order of their items", func(l *Line) {
			for i, agent := range []string{"x", "y", "x", "z", "y"} {
				it := item(fmt.Sprintf("a%d", i))
				it.Agent = agent
				l.Push(it)
			}
		}, "a0 a1 a2 a3 a4"},
		{"a late comer neither waits nor catches up", func(l *Line) {
			push(l, "a1", "a2", "a3", "a4", "a5", "a6")
			for range 3 {
				l.Take(start, nil)
			}
			push(l, "b1", "b2", "b3")
		}, "a4 b1 a5 b2 a6 b3"},
		{"one at a time is no way round the share", func(l *Line) {
			push(l, "a1", "b1", "b2", "b3")
			for range 3 {
				if it, _ := l.Take(start, nil); it.Tenant == "a" {
					push(l, it.ID)
				}
			}
		}, "a1 b3"},
		{"a duplicate has no effect", func(l *Line) { push(l, "a1", "a2", "a1") }, "a1 a2"},
		{"a newer generation goes to the end", func(l *Line) {
			push(l, "a1", "a2")
			it := item("a1")
			it.Generation = 2
			l.Push(it)
		}, "a2 a1"},
		{"an older generation has no effect", func(l *Line) {
			it := item("a1")
			it.Generation = 2
			l.Push(it)
			push(l, "a2", "a1")
		}, "a1 a2"},
		{"returned items have their old place", func(l *Line) {
			push(l, "a1", "a2", "a3", "b1", "b2")
			a1, _ := l.Take(start, nil)
			b1, _ := l.Take(start, nil)
			a2, _ := l.Take(start, nil)
			l.Return(a2)
			l.Return(a1)
			l.Return(b1)
		}, "a1 b1 a2 b2 a3"},
		{"the last item of a tenant is returned too", func(l *Line) {
			push(l, "a1", "b1", "b2", "b3")
			it, _ := l.Take(start, nil)
			l.Take(start, nil)
			l.Take(start, nil)
			l.Return(it)
		}, "a1 b3"},
		{"a return after a newer generation has no effect", func(l *Line) {
			push(l, "a1", "a2")
			old, _ := l.Take(start, nil)
			it := item("a1")
			it.Generation = 2
			l.Push(it)
			l.Return(old)
		}, "a2 a1"},
		{"an item is refunded once", func(l *Line) {
			push(l, "a1", "a2", "a3", "b1", "b2", "b3")
			it, _ := l.Take(start, nil)
			l.Return(it)
			l.Return(it)
			l.Return(it)
		}, "a1 b1 a2 b2 a3 b3"},
		{"an item that was never taken may be returned", func(l *Line) {
			push(l, "a1")
			l.Return(item("a2"))
		}, "a1 a2"},
		{"remove", func(l *Line) {
			push(l, "a1", "a2", "a3", "b1")
			l.Remove("a1")
			l.Remove("b1")
			if l.Remove("b1") || l.Remove("zz") {
				panic("removed what is not there")
			}
		}, "a2 a3"},
		{"parked before it came", func(l *Line) {
			l.Park("a")
			push(l, "a1", "b1")
		}, "b1"},
		{"parked and back", func(l *Line) {
			push(l, "a1", "a2", "b1", "b2", "b3", "b4")
			l.Park("a")
			l.Park("a")
			l.Take(start, nil)
			l.Take(start, nil)
			l.Unpark("a")
			l.Unpark("a")
		}, "a1 b3 a2 b4"},
		{"a return does not unpark", func(l *Line) {
			push(l, "a1", "a2", "b1")
			it, _ := l.Take(start, nil)
			l.Park("a")
			l.Return(it)
		}, "b1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := New()
			test.do(l)
			if got := drain(l, start, nil); got != test.want {
				t.Errorf("served %s\n  want %s", got, test.want)
			}
		})
	}
}

func TestDelays(t *testing.T) {
	l := New()
	for i, due := range []int{30, 0, 20, 10} {
		it := item(fmt.Sprintf("a%d", i))
		if due > 0 {
			it.Due = at(due)
		}
		it.Pushed = at(i)
		l.Push(it)
	}
	steps := []struct {
		now    int
		served string
		next   time.Time
	}{
		{0, "a1", at(10)},
		{9, "", at(10)},
		{10, "a3", at(20)},
		{30, "a0 a2", time.Time{}},
	}
	for _, step := range steps {
		if got := drain(l, at(step.now), nil); got != step.served {
			t.Errorf("at %d s: served %q, want %q", step.now, got, step.served)
		}
		if got := l.NextDue(at(step.now)); !got.Equal(step.next) {
			t.Errorf("at %d s: next due %v, want %v", step.now, got, step.next)
		}
	}
}

func TestReturnWithDelay(t *testing.T) {
	l := New()
	push(l, "a1", "a2", "b1", "b2")
	it, _ := l.Take(at(1), nil)
	it.Due = at(5)
	l.Return(it)
	if got, want := drain(l, at(2), nil), "a2 b1 b2"; got != want {
		t.Errorf("while a1 waits: served %s, want %s", got, want)
	}
	push(l, "b3", "b4", "a3")
	if got, want := drain(l, at(5), nil), "b3 a1 b4 a3"; got != want {
		t.Errorf("when a1 is due: served %s, want %s", got, want)
	}
}

func TestEligible(t *testing.T) {
	l := New()
	for i, pair := range []string{"ax", "ay", "bx", "cy", "ax", "bz"} {
		l.Push(Item{ID: fmt.Sprint(i), Tenant: pair[:1], Agent: pair[1:]})
		l.Push(Item{ID: fmt.Sprint(i + 100), Tenant: pair[:1], Agent: pair[1:], Priority: -1})
	}
	var asked []string
	it, ok := l.Take(start, func(agent, tenant string) bool {
		asked = append(asked, tenant+agent)
		return false
	})
	if ok {
		t.Errorf("took %v, and nothing was eligible", it)
	}
	if got, want := strings.Join(asked, " "), "ax ay bx bz cy"; got != want {
		t.Errorf("asked for %s\n     want %s", got, want)
	}
	notX := func(agent, tenant string) bool { return agent != "x" }
	if got, want := drain(l, start, notX), "1 5 3 101 105 103"; got != want {
		t.Errorf("without x: served %s, want %s", got, want)
	}
	if got, want := drain(l, start, nil), "0 2 4 100 102 104"; got != want {
		t.Errorf("then x: served %s, want %s", got, want)
	}
}

// A tenant that was passed over is next when it becomes eligible, but has not saved up what it missed.
func TestPassedOver(t *testing.T) {
	l := New()
	for i := range 6 {
		push(l, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
	}
	notA := func(_, tenant string) bool { return tenant != "a" }
	for range 3 {
		l.Take(start, notA)
	}
	if got, want := drain(l, start, nil), "a0 a1 b3 a2 b4 a3 b5 a4 a5"; got != want {
		t.Errorf("served %s\n  want %s", got, want)
	}
}

func TestCounts(t *testing.T) {
	l := New()
	if l.Len() != 0 || !l.Oldest().IsZero() || !l.NextDue(start).IsZero() || l.Place("a1") != 0 {
		t.Error("an empty line counts something")
	}
	for i, pushed := range []int{5, 3, 9} {
		it := item(fmt.Sprintf("a%d", i))
		it.Pushed = at(pushed)
		l.Push(it)
	}
	if l.Len() != 3 || !l.Oldest().Equal(at(3)) {
		t.Errorf("%d items, oldest %v; want 3, %v", l.Len(), l.Oldest(), at(3))
	}
	l.Remove("a1")
	if !l.Oldest().Equal(at(5)) {
		t.Errorf("oldest %v after the oldest went; want %v", l.Oldest(), at(5))
	}
	far := item("a9")
	far.Due = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	l.Push(far)
	drain(l, at(10), nil)
	if l.Len() != 1 || !l.NextDue(at(10)).Equal(far.Due) {
		t.Errorf("%d items, next due %v; want 1, %v", l.Len(), l.NextDue(at(10)), far.Due)
	}
}
