package restore

import (
	"slices"

	"github.com/walkeep/walkeep/repo"
)

// item is one chunk with all that is made of it: pieces of one file. Without a
// chunk it is an empty file.
type item struct {
	chunk  repo.Chunk
	out    *output
	pieces []piece
	// spans are what is written at once, across the holes between the pieces, which
	// fills fill; nil: each piece.
	spans []span
	fills []fill
}

// batch is neighbouring chunks of one pack, fetched with one ranged read.
type batch struct {
	pack   repo.PackRef
	items  []item
	end    int64 // offset in the pack after the last chunk
	plain  int64 // bytes of data
	stored int64 // bytes of it in the pack
}

// Limits of a batch. Large enough that a request's round trip does not count,
// small enough that all workers have something to do.
const (
	batchBytes = 8 << 20
	batchItems = 1024
	// batchGap is how many bytes are read and thrown away rather than asking
	// again: chunks that a differential backup does not use any more.
	batchGap = 128 << 10
	// openBatches bounds how many packs are gathered from at a time. Files
	// next to each other in the manifest were read by different workers of the
	// backup, and so lie in different packs.
	openBatches = 16
)

// batcher gathers items into batches, in the order of the manifest.
type batcher struct {
	packs map[int]repo.PackRef
	open  map[int]*batch // by pack id
	order []int          // ids in open, the one begun first in front
	last  *batch         // the one that got the latest item
	emit  func(*batch) error
}

func newBatcher(packs map[int]repo.PackRef, emit func(*batch) error) *batcher {
	return &batcher{packs: packs, open: map[int]*batch{}, emit: emit}
}

// add takes an item. The pack of its chunk is in the table: the manifest's
// reader checked that.
func (g *batcher) add(it item) error {
	c := it.chunk
	b := g.open[c.Pack]
	if b != nil && (c.Offset < b.end || c.Offset > b.end+batchGap || b.full()) {
		if err := g.flush(c.Pack); err != nil {
			return err
		}
		b = nil
	}
	if b == nil {
		if len(g.order) >= openBatches {
			if err := g.flush(g.order[0]); err != nil {
				return err
			}
		}
		b = &batch{pack: g.packs[c.Pack]}
		g.open[c.Pack] = b
		g.order = append(g.order, c.Pack)
	}
	b.items = append(b.items, it)
	b.end = endOf(c)
	b.plain += int64(c.Plain)
	b.stored += int64(c.Stored)
	g.last = b
	return nil
}

// endOf is where the frame of a chunk ends in the pack.
func endOf(c repo.Chunk) int64 { return c.Offset + int64(c.Stored) }

func (b *batch) full() bool { return b.plain >= batchBytes || len(b.items) >= batchItems }

// addEmpty takes a file without chunks. It goes with whatever came last: small
// files come in swarms.
func (g *batcher) addEmpty(o *output) error {
	if g.last == nil || len(g.last.items) >= batchItems {
		g.last = nil
		return g.emit(&batch{items: []item{{out: o}}})
	}
	g.last.items = append(g.last.items, item{out: o})
	return nil
}

// flush hands out the batch of a pack.
func (g *batcher) flush(id int) error {
	b := g.open[id]
	delete(g.open, id)
	g.order = slices.DeleteFunc(g.order, func(o int) bool { return o == id })
	if g.last == b {
		g.last = nil
	}
	return g.emit(b)
}

func (g *batcher) flushAll() error {
	for len(g.order) > 0 {
		if err := g.flush(g.order[0]); err != nil {
			return err
		}
	}
	return nil
}

// itemsOf cuts a file into items: its chunks in the order of the packs, each
// with the pieces that come from it.
func itemsOf(o *output, chunks []repo.Chunk, extents []repo.Extent) []item {
	if extents == nil {
		items := make([]item, len(chunks))
		pieces := make([]piece, len(chunks))
		var at int64
		for i, c := range chunks {
			pieces[i] = piece{index: i, fileOffset: at, length: c.Plain}
			items[i] = item{chunk: c, out: o, pieces: pieces[i : i+1 : i+1]}
			at += int64(c.Plain)
		}
		o.expect(len(items), len(pieces))
		return items
	}
	by := make([][]piece, len(chunks))
	for i, x := range extents {
		by[x.Chunk] = append(by[x.Chunk], piece{i, x.FileOffset, int(x.ChunkOffset), int(x.Length)})
	}
	var items []item
	for i, ps := range by {
		if len(ps) > 0 {
			items = append(items, item{chunk: chunks[i], out: o, pieces: ps})
		}
	}
	o.expect(len(items), len(extents))
	return items
}

// expect says how many chunks the file will be made of, in how many pieces.
func (o *output) expect(chunks, pieces int) {
	o.left.Store(int32(chunks))
	o.crcs = make([]pieceCRC, pieces)
}
