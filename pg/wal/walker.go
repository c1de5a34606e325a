package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/walkeep/walkeep/pg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mode is where a walker stands.
type mode int

const (
	walking  mode = iota
	switched      // behind a switch record: padding
	stopped       // behind the first thing that is no valid WAL
)

// walker follows records over the pages of one segment, which are passed to
// page one by one. It keeps no more than a page's worth of state, and up to
// MaxData bytes of a record that spans pages.
type walker struct {
	first    first
	name     pg.Timeline // timeline in the segment's name
	blockMax int
	end      pg.LSN // of the segment
	visit    func(*Record) error

	mode     mode
	timeline pg.Timeline // of the last valid page
	// reached: something in the segment is of the timeline in its name.
	reached  bool
	next     pg.LSN // address of the next page
	validTo  pg.LSN // end of the last whole record
	prev     pg.LSN // start of the last record, 0 before the first
	switchAt pg.LSN

	open    bool           // a record goes on on the next page
	rest    *pg.RecordRest // of a record from an earlier segment; nil: there is none
	partial partial
	current Record // what visit looks at; here, so that records cost no garbage

	stopAt  pg.LSN // where the thing that stopped us starts
	why     string
	damaged bool // valid WAL of this segment lies behind stopAt
}

// partial is a record of which the beginning has been seen, or, if headless,
// one that began in an earlier segment and cannot be checked.
type partial struct {
	lsn      pg.LSN
	total    uint32
	missing  uint32
	headless bool
	header   [recordHeader]byte
	seen     uint32 // bytes so far, the header included
	crc      uint32
	data     []byte
}

// stop ends the walk at a record or page that is not valid WAL.
func (w *walker) stop(at pg.LSN, why string) {
	w.mode, w.stopAt, w.why, w.open = stopped, at, why, false
}

// page takes the next page. It returns only visit's error.
func (w *walker) page(p []byte) error {
	at := w.next
	w.next += pg.LSN(len(p))
	switch w.mode {
	case switched:
		return nil
	case stopped:
		w.damaged = w.damaged || w.pageError(at, p) == ""
		return nil
	}
	if why := w.pageError(at, p); why != "" {
		if w.open && !w.partial.headless {
			at = w.partial.lsn
		}
		w.stop(at, why)
		return nil
	}
	h := parsePageHeader(p)
	w.timeline = h.timeline
	w.reached = w.reached || h.timeline == w.name
	pos := h.length()
	pos, ok, err := w.continued(p, pos, at, h)
	if err != nil || !ok {
		return err
	}
	return w.records(p, pos, at)
}

// pageError says why p cannot be the page at this address, or "".
func (w *walker) pageError(at pg.LSN, p []byte) string {
	h := parsePageHeader(p)
	switch {
	case h.magic != w.first.magic:
		return fmt.Sprintf("page magic %04X instead of %04X", h.magic, w.first.magic)
	case h.address != at:
		return fmt.Sprintf("the page is that of %s", h.address)
	case h.info&^allFlags != 0:
		return fmt.Sprintf("page flags %04X", h.info)
	case h.timeline < w.timeline || h.timeline > w.name:
		return fmt.Sprintf("the page is of timeline %d", h.timeline)
	case (h.info&flagLongHeader != 0) != (at == w.first.start):
		return "a long page header in the wrong place"
	}
	return ""
}

// continued takes the part of an open record that lies on this page. ok is
// false when no records follow on the page.
func (w *walker) continued(p []byte, pos int, at pg.LSN, h pageHeader) (_ int, ok bool, err error) {
	if at == w.first.start && h.info&flagContRecord != 0 {
		w.open = true
		w.partial = partial{lsn: at, total: h.remaining, missing: h.remaining, headless: true, data: w.partial.data[:0]}
		w.rest = &pg.RecordRest{Length: h.remaining}
	}
	if w.open && h.info&flagOverwrite != 0 {
		// The rest of the open record was never written; the server goes on
		// here, and the record counts as not there.
		w.open = false
	}
	rest := &w.partial
	switch {
	case !w.open && h.info&flagContRecord != 0:
		w.stop(at, "the page continues a record that has ended")
		w.damaged = true // the page itself is valid
		return 0, false, nil
	case !w.open:
		return pos, true, nil
	case h.info&flagContRecord == 0 || h.remaining != rest.missing || h.remaining == 0:
		w.stop(rest.lsn, fmt.Sprintf("the page at %s does not continue the record", at))
		w.damaged = true // the page itself is valid
		return 0, false, nil
	}
	n := min(int(rest.missing), len(p)-pos)
	rest.feed(p[pos : pos+n])
	if rest.headless {
		w.rest.Data = append(w.rest.Data, p[pos:pos+min(n, pg.MaxRest-len(w.rest.Data))]...)
	}
	if rest.missing > 0 {
		return 0, false, nil
	}
	w.open = false
	pos = align8(pos + n)
	ok, err = w.finish(p, pos, at)
	return pos, ok, err
}

// feed adds a piece of the record.
func (r *partial) feed(b []byte) {
	r.missing -= uint32(len(b))
	if r.seen < recordHeader {
		n := copy(r.header[r.seen:], b)
		r.seen += uint32(n)
		b = b[n:]
	}
	r.seen += uint32(len(b))
	if r.headless {
		return // only its first bytes are of interest, and feed kept them in header
	}
	r.crc = crc32.Update(r.crc, castagnoli, b)
	if room := MaxData - len(r.data); room > 0 {
		r.data = append(r.data, b[:min(room, len(b))]...)
	}
}

// finish handles a record that spanned pages and ended at pos on page p.
func (w *walker) finish(p []byte, pos int, at pg.LSN) (ok bool, err error) {
	r := &w.partial
	end := at + pg.LSN(pos)
	if r.headless {
		w.validTo = end
		if r.isSwitch(w.first.start) && allZero(p[pos:]) {
			w.mode, w.switchAt = switched, end
			return false, nil
		}
		return true, nil
	}
	if why := w.headerError(r.header[:], r.lsn); why != "" {
		w.stopInPage(p, pos, at, r.lsn, why)
		return false, nil
	}
	crc := crc32.Update(r.crc, castagnoli, r.header[:20])
	if crc != binary.LittleEndian.Uint32(r.header[20:]) {
		w.stopInPage(p, pos, at, r.lsn, "the record does not match its CRC")
		return false, nil
	}
	return w.record(r.header[:], r.data, r.lsn, end)
}

// isSwitch recognizes a switch record of which only the last bytes lie in this
// segment. It leaves nothing but zeroes in the segment, which would otherwise
// look like one that ends early.
func (r *partial) isSwitch(start pg.LSN) bool {
	tail := r.header[:]
	switch r.total {
	case 16: // prev, info, rmid, padding, crc
		prev := pg.LSN(binary.LittleEndian.Uint64(tail))
		return prev < start && tail[8]&opMask == xlogSwitch && tail[9] == rmXLOG
	case 8: // info, rmid, padding, crc
		return tail[0]&opMask == xlogSwitch && tail[1] == rmXLOG
	}
	return false
}

// records walks the records that start on page p, from pos on.
func (w *walker) records(p []byte, pos int, at pg.LSN) error {
	for pos < len(p) {
		lsn := at + pg.LSN(pos)
		total := binary.LittleEndian.Uint32(p[pos:])
		if total < recordHeader || total > maxRecord {
			w.stopInPage(p, pos+8, at, lsn, fmt.Sprintf("record length %d", total))
			return nil
		}
		if pos+recordHeader <= len(p) {
			if why := w.headerError(p[pos:], lsn); why != "" {
				w.stopInPage(p, pos+8, at, lsn, why)
				return nil
			}
		}
		if int(total) > len(p)-pos {
			w.begin(p[pos:], lsn, total)
			return nil
		}
		header, data := p[pos:pos+recordHeader], p[pos+recordHeader:pos+int(total)]
		crc := crc32.Update(crc32.Update(0, castagnoli, data), castagnoli, header[:20])
		if crc != binary.LittleEndian.Uint32(header[20:]) {
			w.stopInPage(p, pos+8, at, lsn, "the record does not match its CRC")
			return nil
		}
		pos += align8(int(total))
		ok, err := w.record(header, data, lsn, at+pg.LSN(pos))
		if err != nil || !ok {
			return err
		}
	}
	return nil
}

// begin starts a record that goes on on the next page. If there is no next
// page in this segment, nothing vouches for the length; then a valid record
// behind its start gives away that the length is wrong.
func (w *walker) begin(p []byte, lsn pg.LSN, total uint32) {
	w.open = true
	w.partial = partial{lsn: lsn, total: total, missing: total, data: w.partial.data[:0]}
	w.partial.feed(p)
	if w.next == w.end && w.recordBehind(p, 8, lsn, lsn) {
		w.stop(lsn, fmt.Sprintf("record length %d", total))
		w.damaged = true
	}
}

// record passes on a valid record. ok is false when nothing follows.
func (w *walker) record(header, data []byte, lsn, end pg.LSN) (ok bool, err error) {
	// Field by field: a literal would be made elsewhere and copied.
	r := &w.current
	r.LSN, r.End = lsn, end
	r.Length = binary.LittleEndian.Uint32(header)
	r.XID = binary.LittleEndian.Uint32(header[4:])
	r.Prev = pg.LSN(binary.LittleEndian.Uint64(header[8:]))
	r.Info, r.RMID = header[16], header[17]
	r.Data = data
	r.Truncated = int(r.Length)-recordHeader > len(data)
	w.validTo, w.prev = end, lsn
	if t, ok := r.timeline(); ok && t == w.name {
		w.reached = true
	}
	if err := w.visit(r); err != nil {
		return false, err
	}
	if r.RMID == rmXLOG && r.Info&opMask == xlogSwitch {
		w.mode, w.switchAt = switched, end
		return false, nil
	}
	return true, nil
}

// foreign reports whether a whole file has nothing of its name's timeline: the
// server has kept a segment of an older timeline under a name that it will write
// later. What is behind a promotion begins with a record that says so, on a page
// that may still be the old timeline's; that record may be the one that crosses
// into the next segment.
func (w *walker) foreign() bool {
	crosses := w.open && !w.partial.headless && w.partial.header[17] == rmXLOG
	return !w.reached && !crosses
}

// headerError says why these 24 bytes are not the header of the record at
// lsn, or "".
func (w *walker) headerError(h []byte, lsn pg.LSN) string {
	prev := pg.LSN(binary.LittleEndian.Uint64(h[8:]))
	switch {
	case !plausibleRMID(h[17]):
		return fmt.Sprintf("resource manager %d", h[17])
	case w.prev != 0 && prev != w.prev:
		return fmt.Sprintf("the record before it is said to be at %s and is at %s", prev, w.prev)
	case w.prev == 0 && prev >= w.first.start:
		return fmt.Sprintf("the record before it is said to be at %s", prev)
	}
	return ""
}

// stopInPage stops at lsn and looks on the rest of the page, from pos on, for
// a valid record that came after it.
func (w *walker) stopInPage(p []byte, pos int, at, lsn pg.LSN, why string) {
	w.stop(lsn, why)
	if pos < len(p) && w.recordBehind(p, pos, at, lsn) {
		w.damaged = true
	}
}

// recordBehind looks from pos on for a record with the right CRC whose
// predecessor is at lsn or later. p starts at address at. Records left over
// from an older segment have an older predecessor.
func (w *walker) recordBehind(p []byte, pos int, at, lsn pg.LSN) bool {
	for ; pos+recordHeader <= len(p); pos += 8 {
		total := binary.LittleEndian.Uint32(p[pos:])
		prev := pg.LSN(binary.LittleEndian.Uint64(p[pos+8:]))
		if prev < lsn || prev >= at+pg.LSN(pos) || total < recordHeader || int64(total) > int64(len(p)-pos) {
			continue
		}
		crc := crc32.Update(0, castagnoli, p[pos+recordHeader:pos+int(total)])
		if crc32.Update(crc, castagnoli, p[pos:pos+20]) == binary.LittleEndian.Uint32(p[pos+20:]) {
			return true
		}
	}
	return false
}

func align8(n int) int { return (n + 7) &^ 7 }

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
