package restore

import (
	"slices"

	"github.com/walkeep/walkeep/repo"
)

// A file of which pages changed since the full backup is made of the full
// backup's chunks, with holes where pages changed, and of those pages out of
// later backups. Written piece by piece, 1 MiB with ten changed pages costs
// eleven writes instead of one. So a chunk of the full backup is written across
// the holes in it, and what belongs into the holes is written over that, later:
//
//   - Who covers a hole is the file's extents, which have no gaps: a hole is only
//     written across if all of it comes from chunks of later backups.
//   - Such a chunk waits until all chunks of its file that were written across
//     holes are written. The batcher hands out the full backup's batches before the
//     later ones that may wait for them, in one queue, and they wait for nothing.
//     So the first batch of the queue that is not done can always go on.
//   - What is written over something is written in full, zeroes too: that holds
//     for pages that became zeroes, and for those of a chunk that is lost.
//   - Killed in between, a hole holds an old page, in a directory that has its
//     marker and no global/pg_control. The next run clears it, or compares it
//     with the backup like any other old file.
//
// Checksums are those of the pieces. What is there already (restore in place) is
// written piece by piece: a hole can hold a page that is right.

// maxHole is how much of a chunk is written in vain rather than beginning
// another write, bytes.
const maxHole = 256 << 10

// span is a part of a chunk that is written at once.
type span struct {
	fileOffset  int64 // bytes
	chunkOffset int
	length      int
}

// under knows the packs of the full backup, on which later ones build. Empty if
// there are no others.
type under map[int]bool

func newUnder(packs map[int]repo.PackRef, full repo.Label) under {
	u := under{}
	for id, p := range packs {
		if p.Label == full {
			u[id] = true
		}
	}
	if len(u) == len(packs) {
		return nil
	}
	return u
}

// spans decides which items of a file that is not there yet are written across
// holes, and puts those that are written over them at the end.
func (u under) spans(o *output, items []item, chunks []repo.Chunk, extents []repo.Extent) {
	if len(u) == 0 || len(extents) < 3 {
		return
	}
	across := int32(0)
	for i := range items {
		it := &items[i]
		if !u[it.chunk.Pack] {
			continue
		}
		if it.spans = u.spansOf(it.pieces, chunks, extents); it.spans != nil {
			across++
		}
	}
	if across == 0 {
		return
	}
	o.across.Store(across)
	o.acrossDone = make(chan struct{})
	for i := range items {
		items[i].over = !u[items[i].chunk.Pack]
	}
	slices.SortStableFunc(items, func(a, b item) int {
		switch {
		case a.over == b.over:
			return 0
		case b.over:
			return -1
		}
		return 1
	})
}

// spansOf puts together pieces that lie in the chunk as in the file, and whose
// holes others cover; nil if none can be.
func (u under) spansOf(pieces []piece, chunks []repo.Chunk, extents []repo.Extent) []span {
	if len(pieces) < 2 {
		return nil
	}
	spans := make([]span, 0, 4)
	for i, p := range pieces {
		if n := len(spans) - 1; n >= 0 {
			s := &spans[n]
			hole := p.fileOffset - s.fileOffset - int64(s.length)
			if p.fileOffset-int64(p.chunkOffset) == s.fileOffset-int64(s.chunkOffset) && hole <= maxHole &&
				u.covered(extents[pieces[i-1].index+1:p.index], chunks) {
				s.length += int(hole) + p.length
				continue
			}
		}
		spans = append(spans, span{p.fileOffset, p.chunkOffset, p.length})
	}
	if len(spans) == len(pieces) {
		return nil
	}
	return spans
}

// covered: none of these extents are of the full backup, so all are written
// over.
func (u under) covered(extents []repo.Extent, chunks []repo.Chunk) bool {
	for _, x := range extents {
		if u[chunks[x.Chunk].Pack] {
			return false
		}
	}
	return true
}
