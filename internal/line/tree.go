package line

import "math/rand/v2"

// tree is an ordered set that can be walked from its first member at a cost of O(1) for each step: a treap. Its members
// hold their own nodes, so it allocates nothing. The order of a member must not change while it is in the tree, and no
// two are equal.
type tree[E any] struct {
	before func(a, b E) bool
	root   *node[E]
}

// node is a member's place in a tree.
type node[E any] struct {
	elem        E
	left, right *node[E]
	rank        uint32 // no higher than its parent's; random, which keeps the tree shallow whatever is put in
}

func (t *tree[E]) empty() bool { return t.root == nil }

// first returns the first member of a tree that is not empty.
func (t *tree[E]) first() E {
	n := t.root
	for n.left != nil {
		n = n.left
	}
	return n.elem
}

func (t *tree[E]) insert(n *node[E]) {
	n.rank = rand.Uint32()
	at := &t.root
	for *at != nil && (*at).rank >= n.rank {
		at = t.step(*at, n.elem)
	}
	below := *at
	*at = n

	// What was below is split in two: before n and after it.
	left, right := &n.left, &n.right
	for below != nil {
		if t.before(below.elem, n.elem) {
			*left = below
			left = &below.right
			below = below.right
		} else {
			*right = below
			right = &below.left
			below = below.left
		}
	}
	*left, *right = nil, nil
}

func (t *tree[E]) remove(n *node[E]) {
	at := &t.root
	for *at != n {
		at = t.step(*at, n.elem)
	}

	// Its two sides are merged into its place.
	left, right := n.left, n.right
	for left != nil && right != nil {
		if left.rank >= right.rank {
			*at = left
			at = &left.right
			left = left.right
		} else {
			*at = right
			at = &right.left
			right = right.left
		}
	}
	if left == nil {
		left = right
	}
	*at = left
	n.left, n.right = nil, nil
}

// step returns the link to follow from n towards the place of e.
func (t *tree[E]) step(n *node[E], e E) **node[E] {
	if t.before(e, n.elem) {
		return &n.left
	}
	return &n.right
}

// all walks the members in order. The tree must not change until the walk is over.
func (t *tree[E]) all(yield func(E) bool) { t.root.walk(yield) }

func (n *node[E]) walk(yield func(E) bool) bool {
	return n == nil || n.left.walk(yield) && yield(n.elem) && n.right.walk(yield)
}
