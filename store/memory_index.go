package store

import (
	"slices"
	"sort"
)

// idIndex keeps task rows in the order of their ids. They lie in blocks, so that an id that comes out of order, or one
// that is removed, moves few others.
type idIndex struct {
	blocks [][]*taskRow // none is empty
}

const idBlock = 128

// find returns the place of the first row whose id is not below id.
func (x *idIndex) find(id string) (block, i int) {
	block = sort.Search(len(x.blocks), func(k int) bool { b := x.blocks[k]; return b[len(b)-1].ID >= id })
	if block == len(x.blocks) {
		return block, 0
	}
	b := x.blocks[block]
	return block, sort.Search(len(b), func(k int) bool { return b[k].ID >= id })
}

// insert adds a row whose id is not in it yet.
func (x *idIndex) insert(t *taskRow) {
	if len(x.blocks) == 0 {
		x.blocks = append(x.blocks, []*taskRow{t})
		return
	}
	k, i := x.find(t.ID)
	if k == len(x.blocks) {
		k--
		i = len(x.blocks[k])
	}
	b := slices.Insert(x.blocks[k], i, t)
	if len(b) > idBlock {
		at := idBlock / 2
		if i == idBlock {
			at = i // in order, the usual case: leave the block full
		}
		x.blocks = slices.Insert(x.blocks, k+1, slices.Clone(b[at:]))
		b = slices.Delete(b, at, len(b))
	}
	x.blocks[k] = b
}

// remove takes a row out.
func (x *idIndex) remove(t *taskRow) {
	k, i := x.find(t.ID)
	x.blocks[k] = slices.Delete(x.blocks[k], i, i+1)
	if len(x.blocks[k]) == 0 {
		x.blocks = slices.Delete(x.blocks, k, k+1)
	}
}

// empty says whether there is no row in it.
func (x *idIndex) empty() bool { return len(x.blocks) == 0 }

// ascend calls yield with the rows in order until it returns false.
func (x *idIndex) ascend(yield func(*taskRow) bool) {
	for _, b := range x.blocks {
		for _, t := range b {
			if !yield(t) {
				return
			}
		}
	}
}

// descend calls yield with the rows whose ids are below before ("": all), the last first, until it returns false.
func (x *idIndex) descend(before string, yield func(*taskRow) bool) {
	k, i := len(x.blocks), 0
	if before != "" {
		k, i = x.find(before)
	}
	for {
		for i--; i >= 0; i-- {
			if !yield(x.blocks[k][i]) {
				return
			}
		}
		if k--; k < 0 {
			return
		}
		i = len(x.blocks[k])
	}
}
