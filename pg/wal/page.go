package wal

import (
	"encoding/binary"
	"fmt"

	"github.com/walkeep/walkeep/pg"
)

// Sizes and flags of access/xlog_internal.h.
const (
	shortHeader = 24
	longHeader  = 40

	flagContRecord = 0x0001 // the page begins with the rest of a record
	flagLongHeader = 0x0002
	// flagOverwrite: the server crashed between two pages of a record, and
	// other records took the place of the missing rest.
	flagOverwrite = 0x0008
	// allFlags has 0x0004 too (XLP_BKP_REMOVABLE), which means nothing here.
	allFlags = 0x000F
)

// pageHeader is XLogPageHeaderData, and the long form's extra fields.
type pageHeader struct {
	magic     uint16
	info      uint16
	timeline  pg.Timeline
	address   pg.LSN
	remaining uint32 // bytes of a record that began on an earlier page

	systemID    pg.SystemID
	segmentSize pg.SegmentSize
	blockSize   uint32
}

func parsePageHeader(p []byte) pageHeader {
	_ = p[shortHeader-1]
	return pageHeader{
		magic:     binary.LittleEndian.Uint16(p),
		info:      binary.LittleEndian.Uint16(p[2:]),
		timeline:  pg.Timeline(binary.LittleEndian.Uint32(p[4:])),
		address:   pg.LSN(binary.LittleEndian.Uint64(p[8:])),
		remaining: binary.LittleEndian.Uint32(p[16:]),
	}
}

func (h *pageHeader) parseLong(p []byte) {
	h.systemID = pg.SystemID(binary.LittleEndian.Uint64(p[24:]))
	h.segmentSize = pg.SegmentSize(binary.LittleEndian.Uint32(p[32:]))
	h.blockSize = binary.LittleEndian.Uint32(p[36:])
}

func (h *pageHeader) length() int {
	if h.info&flagLongHeader != 0 {
		return longHeader
	}
	return shortHeader
}

// majorOf is the server version that writes pages with this magic number, or 0.
func majorOf(magic uint16) int {
	switch magic {
	case 0xD106:
		return 13
	case 0xD10D:
		return 14
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	}
	return 0
}

// first is what the first page of a segment says about the whole.
type first struct {
	pageHeader
	major int
	start pg.LSN
}

// parseFirst reads the long header at the start of a segment and holds it
// against the name and what the caller expects.
func parseFirst(p []byte, name pg.SegmentName, size pg.SegmentSize, want pg.SystemID) (first, error) {
	f := first{pageHeader: parsePageHeader(p)}
	f.major = majorOf(f.magic)
	if f.major == 0 {
		return f, fmt.Errorf("%w: page magic %04X is none of PostgreSQL 13 to 18", ErrNotWAL, f.magic)
	}
	if f.info&^allFlags != 0 || f.info&flagLongHeader == 0 {
		return f, fmt.Errorf("%w: the first page has flags %04X and no long header", ErrNotWAL, f.info)
	}
	f.parseLong(p)
	if !f.segmentSize.Valid() || f.blockSize < 1024 || f.blockSize > 65536 || f.blockSize&(f.blockSize-1) != 0 {
		return f, fmt.Errorf("%w: segment size %d and block size %d in the first page", ErrNotWAL, f.segmentSize, f.blockSize)
	}
	if want != 0 && f.systemID != want {
		return f, &OtherClusterError{Want: want, Got: f.systemID}
	}
	if size != 0 && f.segmentSize != size {
		return f, fmt.Errorf("%w: it belongs to a cluster with segments of %d bytes, not %d", ErrWrongPage, f.segmentSize, size)
	}
	n, err := name.Number(f.segmentSize)
	if err != nil {
		return f, fmt.Errorf("%w: %w", ErrWrongPage, err)
	}
	f.start = f.segmentSize.Start(n)
	if f.address != f.start {
		return f, fmt.Errorf("%w: the first page is that of %s, not %s", ErrWrongPage, f.address, f.start)
	}
	if f.timeline == 0 || f.timeline > name.Timeline() {
		return f, fmt.Errorf("%w: the first page is of timeline %d, the name says %d", ErrWrongPage, f.timeline, name.Timeline())
	}
	return f, nil
}

// FirstPageSize is how much CheckFirst looks at, bytes.
const FirstPageSize = longHeader

// CheckFirst says in a few instructions whether a file can be the segment that
// its name says, as far as its first FirstPageSize bytes tell: the server has
// begun to write that segment, and everything before it. A file that the server
// keeps for later use (old content under a new name, or zeroes) is ErrWrongPage
// or ErrNotWAL; also *OtherClusterError. size and want as for Examine.
func CheckFirst(b []byte, name pg.SegmentName, size pg.SegmentSize, want pg.SystemID) error {
	if len(b) < longHeader {
		return fmt.Errorf("%w: only %d bytes", ErrNotWAL, len(b))
	}
	_, err := parseFirst(b, name, size, want)
	return err
}

// FirstTimeline is the timeline of a first page that CheckFirst has found right. It
// is lower than the name's in the segment in which that timeline began, and in a
// file of an older timeline that the server keeps for later use.
func FirstTimeline(b []byte) pg.Timeline { return parsePageHeader(b).timeline }
