package line

import (
	"math"
	"time"
)

// heap gives the member with the lowest key at once and takes out any other. Its members hold their own positions, so
// that those can be found. Members with the same key come out in any order.
type heap[E any] struct {
	pos   func(E) *int
	slots []slot[E]
}

// arity is how many children a member has: their slots fill a cache line, and half as many members move as with two.
const arity = 4

// slot keeps the key beside the member: a large heap is not in the processor's cache, and its members even less so.
type slot[E any] struct {
	key  int64
	elem E
}

func (h *heap[E]) empty() bool { return len(h.slots) == 0 }

// first returns the first member of a heap that is not empty.
func (h *heap[E]) first() E { return h.slots[0].elem }

func (h *heap[E]) push(key int64, e E) {
	h.slots = append(h.slots, slot[E]{key, e})
	h.up(len(h.slots) - 1)
}

func (h *heap[E]) remove(e E) {
	i, last := *h.pos(e), len(h.slots)-1
	moved := h.slots[last]
	h.slots = shorten(h.slots)
	if i == last {
		return
	}
	h.slots[i] = moved
	h.down(i)
	h.up(*h.pos(moved.elem))
}

// up moves the member at i towards the front until its parent is before it.
func (h *heap[E]) up(i int) {
	s := h.slots[i]
	for i > 0 {
		parent := (i - 1) / arity
		if s.key >= h.slots[parent].key {
			break
		}
		h.put(i, h.slots[parent])
		i = parent
	}
	h.put(i, s)
}

// down moves the member at i away from the front until it is before its children.
func (h *heap[E]) down(i int) {
	s := h.slots[i]
	for {
		first := arity*i + 1
		if first >= len(h.slots) {
			break
		}
		child := first
		for other := first + 1; other < min(first+arity, len(h.slots)); other++ {
			if h.slots[other].key < h.slots[child].key {
				child = other
			}
		}
		if s.key <= h.slots[child].key {
			break
		}
		h.put(i, h.slots[child])
		i = child
	}
	h.put(i, s)
}

func (h *heap[E]) put(i int, s slot[E]) {
	h.slots[i] = s
	*h.pos(s.elem) = i
}

// bag is an unordered set whose members hold their own positions.
type bag[E any] []E

func (b *bag[E]) add(e E, pos func(E) *int) {
	*pos(e) = len(*b)
	*b = append(*b, e)
}

func (b *bag[E]) remove(e E, pos func(E) *int) {
	last := (*b)[len(*b)-1]
	(*b)[*pos(e)] = last
	*pos(last) = *pos(e)
	*b = shorten(*b)
}

// shorten drops the last element, and gives room back once most of it is unused.
func shorten[S ~[]E, E any](s S) S {
	clear(s[len(s)-1:])
	s = s[:len(s)-1]
	if cap(s) > 64 && len(s) < cap(s)/4 {
		s = append(make(S, 0, 2*len(s)), s...)
	}
	return s
}

// nanos is a time as a key: in the order of time, which it keeps for the years 1678 to 2261.
func nanos(t time.Time) int64 {
	const limit = math.MaxInt64 / int64(time.Second)
	switch s := t.Unix(); {
	case s >= limit:
		return math.MaxInt64
	case s <= -limit:
		return math.MinInt64
	}
	return t.UnixNano()
}
