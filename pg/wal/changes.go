package wal

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/walkeep/walkeep/pg"
)

// Resource managers (access/rmgrlist.h), the same from 13 to 18, and opcodes
// of records that change relations by their meaning. As walsummarizer.c of 17.
const (
	rmSmgr  = 2
	rmDbase = 4
	rmLast  = 21 // the last one that is built in

	xlogParameterChange = 0x60

	smgrCreate       = 0x10
	smgrTruncate     = 0x20
	smgrTruncateHeap = 0x0001

	// Databases: until 14, and from 15 on.
	dbaseCreateCopy = 0x00
	dbaseDropOld    = 0x10
	dbaseCreateLog  = 0x10
	dbaseDrop       = 0x20

	// specialRelUpdate marks records that change relations in other ways than
	// by the blocks they name (XLR_SPECIAL_REL_UPDATE).
	specialRelUpdate = 0x01

	xactHasRelations = 1 << 2 // in xinfo
)

// maxOpen bounds what is kept of a record that goes on in the next segment.
const maxOpen = 8 << 10

// collector gathers block changes from records. It is made to cost little
// beside the check of a record's CRC.
type collector struct {
	major int
	c     pg.BlockChanges // without Relations until finish
	rels  map[pg.RelFile]*relBits
	known [16]*relBits // those seen last, by number
}

// relBits are the changes of a relation while they are gathered: a bit per
// block, in pieces that are there where they are needed.
type relBits struct {
	file    pg.RelFile
	limited bool
	limit   uint32
	pieces  []*[pieceBlocks / 64]uint64 // by block / pieceBlocks
}

const pieceBlocks = 1 << 15

func newCollector(major int) *collector {
	return &collector{major: major, rels: map[pg.RelFile]*relBits{}}
}

// CollectRecord adds the changes of a record, given as its bytes from the
// header on, to c. If it cannot be told what it changes, it sets c.Unknown.
func CollectRecord(c *pg.BlockChanges, major int, record []byte) {
	col := newCollector(major)
	col.c.Unknown, col.c.Minimal = c.Unknown, c.Minimal
	if len(record) < recordHeader {
		col.unknown("a record is cut off in its header")
	} else {
		col.record(&Record{
			Length: binary.LittleEndian.Uint32(record), Info: record[16], RMID: record[17], Data: record[recordHeader:],
			Truncated: int64(len(record)) < int64(binary.LittleEndian.Uint32(record)),
		})
	}
	got := col.finish()
	c.Unknown, c.Minimal = got.Unknown, got.Minimal
	for f, r := range got.Relations {
		old := c.Relations[f]
		if old == nil {
			c.Relations[f] = r
			continue
		}
		if r.Limited && (!old.Limited || r.Limit < old.Limit) {
			old.Limited, old.Limit = true, r.Limit
		}
		old.Blocks = append(old.Blocks, r.Blocks...)
		slices.Sort(old.Blocks)
		old.Blocks = slices.Compact(old.Blocks)
	}
}

func (c *collector) unknown(format string, args ...any) {
	if c.c.Unknown == "" {
		c.c.Unknown = fmt.Sprintf(format, args...)
	}
}

// record adds what a record changes. Data may be the beginning only, if the
// record says so: enough is what holds all block headers, and, of records that
// change relations by their meaning, everything.
func (c *collector) record(r *Record) {
	if r.RMID > rmLast {
		// An extension's: whether it names all blocks is its own affair.
		c.unknown("record of resource manager %d", r.RMID)
		return
	}
	end, ok := blockHeaders(r.Data, int64(r.Length)-recordHeader, c.major, c)
	if !ok {
		c.unknown("a record of resource manager %d is not understood", r.RMID)
		return
	}
	if !bySense(r.RMID, r.Info) {
		return
	}
	main, ok := r.mainData()
	if end < 0 || !ok || !c.sense(r, main) {
		c.unknown("a record of resource manager %d and kind %02X is not understood", r.RMID, r.Info)
	}
}

// bySense: a record whose meaning counts, not only its block references.
func bySense(rmid, info uint8) bool {
	op := info & opMask
	return info&specialRelUpdate != 0 || rmid == rmSmgr || rmid == rmDbase ||
		rmid == rmXLOG && op == xlogParameterChange || rmid == rmXact && isEnd(info)
}

func isEnd(info uint8) bool {
	switch info & xactOpMask {
	case xactCommit, xactAbort, xactCommitPrepared, xactAbortPrepared:
		return true
	}
	return false
}

// sense adds what a record changes by its meaning.
func (c *collector) sense(r *Record, main []byte) bool {
	op := r.Info & opMask
	switch {
	case r.RMID == rmXLOG && op == xlogParameterChange:
		if len(main) < 24 {
			return false
		}
		c.c.Minimal = c.c.Minimal || binary.LittleEndian.Uint32(main[20:]) == 0
		return true
	case r.RMID == rmSmgr && op == smgrCreate:
		if len(main) < 16 {
			return false
		}
		if binary.LittleEndian.Uint32(main[12:]) == 0 {
			c.limit(relFile(main), 0)
		}
		return true
	case r.RMID == rmSmgr && op == smgrTruncate:
		if len(main) < 20 {
			return false
		}
		if binary.LittleEndian.Uint32(main[16:])&smgrTruncateHeap != 0 {
			c.limit(relFile(main[4:]), binary.LittleEndian.Uint32(main))
		}
		return true
	case r.RMID == rmDbase:
		return c.database(op, main)
	case r.RMID == rmXact && isEnd(r.Info):
		return c.ended(r.Info, main)
	}
	return false
}

// database adds what makes or removes a whole database in a tablespace.
func (c *collector) database(op uint8, main []byte) bool {
	drop := op == dbaseDrop
	if c.major < 15 {
		drop = op == dbaseDropOld
	}
	if len(main) < 8 {
		return false
	}
	db, second := binary.LittleEndian.Uint32(main), binary.LittleEndian.Uint32(main[4:])
	switch {
	case drop:
		if int64(len(main)) < 8+4*int64(second) {
			return false
		}
		for i := range int(second) {
			c.limit(pg.RelFile{Tablespace: binary.LittleEndian.Uint32(main[8+4*i:]), Database: db}, 0)
		}
	case op == dbaseCreateCopy, op == dbaseCreateLog && c.major >= 15:
		c.limit(pg.RelFile{Tablespace: second, Database: db}, 0)
	default:
		return false
	}
	return true
}

// ended adds the relations that a transaction's end removes.
func (c *collector) ended(info uint8, b []byte) bool {
	if len(b) < 8 {
		return false
	}
	if b = b[8:]; info&xactHasInfo == 0 {
		return true
	}
	if len(b) < 4 {
		return false
	}
	xinfo := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if xinfo&xactHasRelations == 0 {
		return true
	}
	if xinfo&1 != 0 { // database and tablespace
		if len(b) < 8 {
			return false
		}
		b = b[8:]
	}
	if xinfo&2 != 0 { // subtransactions
		if len(b) < 4 || int64(len(b)) < 4+4*int64(binary.LittleEndian.Uint32(b)) {
			return false
		}
		b = b[4+4*int(binary.LittleEndian.Uint32(b)):]
	}
	if len(b) < 4 || int64(len(b)) < 4+12*int64(binary.LittleEndian.Uint32(b)) {
		return false
	}
	n := int(binary.LittleEndian.Uint32(b))
	for i := range n {
		c.limit(relFile(b[4+12*i:]), 0)
	}
	return true
}

func relFile(b []byte) pg.RelFile {
	return pg.RelFile{
		Tablespace: binary.LittleEndian.Uint32(b), Database: binary.LittleEndian.Uint32(b[4:]), Number: binary.LittleEndian.Uint32(b[8:]),
	}
}

func (c *collector) of(f pg.RelFile) *relBits {
	slot := &c.known[f.Number%uint32(len(c.known))]
	if r := *slot; r != nil && r.file == f {
		return r
	}
	r := c.rels[f]
	if r == nil {
		r = &relBits{file: f}
		c.rels[f] = r
	}
	*slot = r
	return r
}

func (c *collector) limit(f pg.RelFile, block uint32) {
	r := c.of(f)
	if !r.limited || block < r.limit {
		r.limited, r.limit = true, block
	}
}

func (c *collector) block(f pg.RelFile, block uint32) {
	r := c.of(f)
	n := int(block / pieceBlocks)
	if n >= len(r.pieces) {
		r.pieces = append(r.pieces, make([]*[pieceBlocks / 64]uint64, n+1-len(r.pieces))...)
	}
	if r.pieces[n] == nil {
		r.pieces[n] = new([pieceBlocks / 64]uint64)
	}
	r.pieces[n][block%pieceBlocks/64] |= 1 << (block % 64)
}

// blockHeaders reads the headers at the beginning of a record's data
// (DecodeXLogRecord) and gives the block references to c. length is that of all
// data, of which b may be the beginning. It returns where the headers end, and
// false if they are not all in b or are wrong; what was given is right
// nevertheless, as far as it goes.
func blockHeaders(b []byte, length int64, major int, c *collector) (end int, ok bool) {
	at := 0
	var behind int64 // bytes of data behind the headers
	var rel pg.RelFile
	known := false
	for length-int64(at) > behind {
		if at >= len(b) {
			return at, false
		}
		id, rest := b[at], b[at+1:]
		switch {
		case id <= 32 && len(rest) >= 3:
			n := 3
			flags := rest[0]
			behind += int64(binary.LittleEndian.Uint16(rest[1:]))
			if flags&0x10 != 0 { // image
				if len(rest) < n+5 {
					return at, false
				}
				behind += int64(binary.LittleEndian.Uint16(rest[n:]))
				n += 5
				if hole, compressed := imageInfo(rest[n-1], major); hole && compressed {
					n += 2
				}
			}
			if flags&0x80 == 0 { // else the relation of the header before
				if len(rest) < n+12 {
					return at, false
				}
				rel, known = relFile(rest[n:]), true
				n += 12
			}
			if !known || len(rest) < n+4 {
				return at, false
			}
			if flags&0x0F == 0 { // the main fork
				c.block(rel, binary.LittleEndian.Uint32(rest[n:]))
			}
			at += 1 + n + 4
		case id == 255 && len(rest) >= 1:
			behind, at = behind+int64(rest[0]), at+2
		case id == 254 && len(rest) >= 4:
			behind, at = behind+int64(binary.LittleEndian.Uint32(rest)), at+5
		case id == 253 && len(rest) >= 2:
			at += 3
		case id == 252 && major >= 14 && len(rest) >= 4:
			at += 5
		default:
			return at, false
		}
	}
	return at, length-int64(at) == behind
}

// imageInfo reads bimg_info (xlogrecord.h): whether the image has a hole in it, and
// is compressed.
func imageInfo(info uint8, major int) (hole, compressed bool) {
	mask := uint8(0x02)
	if major >= 15 {
		mask = 0x04 | 0x08 | 0x10
	}
	return info&0x01 != 0, info&mask != 0
}

// border takes the record that the segment ends in.
func (c *collector) border(r *partial) {
	seen := append(append([]byte(nil), r.header[:min(r.seen, recordHeader)]...), r.data...)
	open := func() {
		if len(seen) > maxOpen {
			c.unknown("a record across the end of the segment is not understood")
			return
		}
		c.c.Open = &pg.OpenRecord{LSN: r.lsn, Data: seen}
	}
	if len(seen) < recordHeader {
		open()
		return
	}
	// Its CRC is not known to be right yet. If it is not, the blocks it names
	// are some too many.
	rmid, info := seen[17], seen[16]
	switch _, ok := blockHeaders(seen[recordHeader:], int64(r.total)-recordHeader, c.major, c); {
	case rmid > rmLast:
		c.unknown("record of resource manager %d", rmid)
	case !ok || bySense(rmid, info):
		open()
	}
}

// finish lists what was gathered.
func (c *collector) finish() *pg.BlockChanges {
	c.c.Relations = make(map[pg.RelFile]*pg.RelChanges, len(c.rels))
	for f, r := range c.rels {
		list := &pg.RelChanges{Limited: r.limited, Limit: r.limit}
		for n, piece := range r.pieces {
			if piece == nil {
				continue
			}
			for i, word := range piece {
				for ; word != 0; word &= word - 1 {
					list.Blocks = append(list.Blocks, uint32(n*pieceBlocks+i*64+bits.TrailingZeros64(word)))
				}
			}
		}
		c.c.Relations[f] = list
	}
	return &c.c
}
