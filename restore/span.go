package restore

import (
	"github.com/walkeep/walkeep/repo"
)

// A file of which pages changed since the full backup is made of the full
// backup's chunks, with holes where pages changed, and of those pages out of
// later backups. Written piece by piece, 1 MiB with ten changed pages would cost
// 21 writes instead of one. So what belongs into the holes of a chunk of the full
// backup is put there in memory, and the chunk is written at once:
//
//   - Who covers a hole is the file's extents, which have no gaps: a hole is only
//     filled if all of it comes from chunks of later backups.
//   - Every byte is written once, by one worker. Nobody waits for anybody: who
//     decodes a chunk of the full backup gets what belongs into its holes himself
//     (see later).
//   - Pieces of later chunks that fit into no hole, because they lie at a chunk's
//     edge or are long, are written like any other.
//
// Checksums are those of the pieces. What is there already (restore in place) is
// written piece by piece: a hole can hold a page that is right.

// maxHole is how much is put into a hole rather than written by itself, bytes.
const maxHole = 256 << 10

// span is a part of a chunk that is written at once.
type span struct {
	fileOffset  int64 // bytes
	chunkOffset int
	length      int
}

// fill is a piece of a later chunk that belongs into a hole of a chunk of the full
// backup.
type fill struct {
	from  *later
	piece piece
	at    int // offset in the full backup's chunk
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

// fillHoles decides what of a file that is not there yet is put into holes, and
// returns the items that remain.
func (u under) fillHoles(o *output, items []item, chunks []repo.Chunk, extents []repo.Extent) []item {
	if len(u) == 0 || len(extents) < 3 {
		return items
	}
	f := &filler{under: u, chunks: chunks, extents: extents, filled: make([]bool, len(extents)), laters: map[int]*later{}}
	for i := range items {
		if u[items[i].chunk.Pack] {
			f.plan(&items[i])
		}
	}
	if len(f.laters) == 0 {
		return items
	}
	rest := items[:0]
	for _, it := range items {
		l := f.laters[extents[it.pieces[0].index].Chunk]
		if l == nil {
			rest = append(rest, it)
			continue
		}
		l.item = item{chunk: it.chunk, out: o}
		var own []piece
		for _, p := range it.pieces {
			if f.filled[p.index] {
				l.item.pieces = append(l.item.pieces, p)
			} else {
				own = append(own, p)
			}
		}
		f.order = append(f.order, l)
		if it.pieces = own; len(own) > 0 {
			rest = append(rest, it)
		}
	}
	for i, l := range f.order[:len(f.order)-1] {
		l.next = f.order[i+1]
	}
	o.left.Store(int32(len(rest)))
	return rest
}

// filler plans for one file.
type filler struct {
	under   under
	chunks  []repo.Chunk
	extents []repo.Extent
	filled  []bool         // by extent
	laters  map[int]*later // by chunk
	order   []*later       // as items are
}

// plan finds the holes of an item that others cover, and what goes there. Without
// any the item stays as it is, with a write for each piece.
func (f *filler) plan(it *item) {
	spans := make([]span, 0, 4)
	for i, p := range it.pieces {
		if n := len(spans) - 1; n >= 0 {
			s := &spans[n]
			hole := p.fileOffset - s.fileOffset - int64(s.length)
			shift := s.fileOffset - int64(s.chunkOffset) // of the file against the chunk
			between := [2]int{it.pieces[i-1].index + 1, p.index}
			if p.fileOffset-int64(p.chunkOffset) == shift && hole <= maxHole && f.covered(between) {
				s.length += int(hole) + p.length
				f.fill(it, between, shift)
				continue
			}
		}
		spans = append(spans, span{p.fileOffset, p.chunkOffset, p.length})
	}
	if len(spans) < len(it.pieces) {
		it.spans = spans
	}
}

// covered: none of these extents are of the full backup.
func (f *filler) covered(between [2]int) bool {
	for _, x := range f.extents[between[0]:between[1]] {
		if f.under[f.chunks[x.Chunk].Pack] {
			return false
		}
	}
	return true
}

func (f *filler) fill(it *item, between [2]int, shift int64) {
	for i := between[0]; i < between[1]; i++ {
		x := f.extents[i]
		l := f.laters[x.Chunk]
		if l == nil {
			l = &later{}
			f.laters[x.Chunk] = l
		}
		if n := len(it.fills); n == 0 || it.fills[n-1].from != l {
			l.uses.Add(1)
		}
		f.filled[i] = true
		it.fills = append(it.fills, fill{l, piece{i, x.FileOffset, int(x.ChunkOffset), int(x.Length)}, int(x.FileOffset - shift)})
	}
}
