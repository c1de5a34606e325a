// Package waltest makes WAL for tests: segments that are right to the last
// CRC, without a server.
package waltest

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"github.com/walkeep/walkeep/pg"
)

const (
	page        = 8192
	shortHeader = 24
	longHeader  = 40
)

var magics = map[int]uint16{13: 0xD106, 14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}

// Stream is WAL that grows record by record, over as many segments as it
// takes. Set the exported fields before the first record; Timeline may be
// raised later, as a promotion does.
type Stream struct {
	Major    int // 13 to 18
	SystemID pg.SystemID
	Timeline pg.Timeline
	Size     pg.SegmentSize
	First    pg.SegmentNo // segment that the stream begins with

	buf  []byte
	prev pg.LSN
	rand *rand.Rand
}

// New is a stream of version 15, timeline 1 and segments of 1 MiB, from
// segment 3 on.
func New(id pg.SystemID) *Stream {
	return &Stream{Major: 15, SystemID: id, Timeline: 1, Size: 1 << 20, First: 3}
}

func (s *Stream) start() pg.LSN { return s.Size.Start(s.First) }

// LSN is where the next record can start: the end of the last one.
func (s *Stream) LSN() pg.LSN { return s.start() + pg.LSN(len(s.buf)) }

// pageStart writes a page header; remaining bytes of a record follow it.
func (s *Stream) pageStart(remaining int, flags uint16) {
	at := s.LSN()
	h := make([]byte, shortHeader)
	if uint64(at)%uint64(s.Size) == 0 {
		h = make([]byte, longHeader)
		flags |= 2
		binary.LittleEndian.PutUint64(h[24:], uint64(s.SystemID))
		binary.LittleEndian.PutUint32(h[32:], uint32(s.Size))
		binary.LittleEndian.PutUint32(h[36:], page)
	}
	if remaining > 0 {
		flags |= 1
	}
	if s.prev/8%3 > 0 {
		flags |= 4 // XLP_BKP_REMOVABLE comes and goes
	}
	binary.LittleEndian.PutUint16(h[0:], magics[s.Major])
	binary.LittleEndian.PutUint16(h[2:], flags)
	binary.LittleEndian.PutUint32(h[4:], uint32(s.Timeline))
	binary.LittleEndian.PutUint64(h[8:], uint64(at))
	binary.LittleEndian.PutUint32(h[16:], uint32(remaining))
	s.buf = append(s.buf, h...)
}

// Append writes a record whose data (block headers and all) is given, and
// returns its start and its end.
func (s *Stream) Append(rmid, info uint8, xid uint32, data []byte) (lsn, end pg.LSN) {
	if len(s.buf)%page == 0 {
		s.pageStart(0, 0)
	}
	lsn = s.LSN()
	rec := make([]byte, 24, 24+len(data))
	binary.LittleEndian.PutUint32(rec[0:], uint32(24+len(data)))
	binary.LittleEndian.PutUint32(rec[4:], xid)
	binary.LittleEndian.PutUint64(rec[8:], uint64(s.prev))
	rec[16], rec[17] = info, rmid
	rec = append(rec, data...)
	binary.LittleEndian.PutUint32(rec[20:], CRC(rec))
	s.write(rec)
	s.prev = lsn
	return lsn, s.LSN()
}

// CRC is the checksum that a record, header included, must carry.
func CRC(rec []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(rec[24:], table), table, rec[:20])
}

func (s *Stream) write(rec []byte) {
	for len(rec) > 0 {
		n := min(page-len(s.buf)%page, len(rec))
		s.buf = append(s.buf, rec[:n]...)
		rec = rec[n:]
		if len(rec) > 0 {
			s.pageStart(len(rec), 0)
		}
	}
	for len(s.buf)%8 != 0 {
		s.buf = append(s.buf, 0)
	}
}

// Main wraps main data the way a record without blocks carries it.
func Main(data []byte) []byte {
	if len(data) < 256 {
		return append([]byte{255, byte(len(data))}, data...)
	}
	return append(binary.LittleEndian.AppendUint32([]byte{254}, uint32(len(data))), data...)
}

// Timestamp is PostgreSQL's form of t.
func Timestamp(t time.Time) []byte {
	return binary.LittleEndian.AppendUint64(nil, uint64(t.UnixMicro()-946684800_000000))
}

// Commit writes the commit of a transaction.
func (s *Stream) Commit(xid uint32, at time.Time) (end pg.LSN) {
	_, end = s.Append(1, 0, xid, Main(Timestamp(at)))
	return end
}

// Abort writes the abort of a transaction.
func (s *Stream) Abort(xid uint32, at time.Time) (end pg.LSN) {
	_, end = s.Append(1, 0x20, xid, Main(Timestamp(at)))
	return end
}

// RestorePoint writes a named restore point.
func (s *Stream) RestorePoint(name string, at time.Time) (end pg.LSN) {
	b := append(Timestamp(at), make([]byte, 64)...)
	copy(b[8:8+63], name)
	_, end = s.Append(0, 0x70, 0, Main(b))
	return end
}

// Switch ends the segment: a switch record, and zeroes to the end. It returns
// the end of the record.
func (s *Stream) Switch() (end pg.LSN) {
	end = s.SwitchRecord()
	if n := len(s.buf) % int(s.Size); n > 0 {
		s.buf = append(s.buf, make([]byte, int(s.Size)-n)...)
	}
	return end
}

// SwitchRecord is Switch without the zeroes.
func (s *Stream) SwitchRecord() (end pg.LSN) {
	_, end = s.Append(0, 0x40, 0, nil)
	return end
}

// Written is the first segment as far as it has been written.
func (s *Stream) Written() (pg.SegmentName, []byte) {
	return s.Size.Name(s.Timeline, s.First), s.buf[:min(len(s.buf), int(s.Size))]
}

// Noise writes n records of random data, up to about 250 bytes each, and now
// and then one that spans pages.
func (s *Stream) Noise(n int) {
	if s.rand == nil {
		s.rand = rand.New(rand.NewPCG(uint64(s.SystemID), uint64(s.First)))
	}
	for range n {
		size := s.rand.IntN(250)
		if s.rand.IntN(50) == 0 {
			size = s.rand.IntN(20000)
		}
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(s.rand.Uint32())
		}
		s.Append(10, 0, 0, Main(data))
	}
}

// Fill writes noise until the i-th segment of the stream is full. Unless luck
// will have it otherwise, its last record continues in the next one.
func (s *Stream) Fill(i int) {
	for len(s.buf) < (i+1)*int(s.Size) {
		s.Noise(1)
	}
}

// Segment is the i-th segment of the stream, zero-filled as far as nothing has
// been written.
func (s *Stream) Segment(i int) (pg.SegmentName, []byte) {
	b := make([]byte, s.Size)
	if at := i * int(s.Size); at < len(s.buf) {
		copy(b, s.buf[at:])
	}
	return s.Size.Name(s.Timeline, s.First+pg.SegmentNo(i)), b
}

// LosePartial drops what lies on the current page and continues on it the way
// a server does that crashed before it wrote the rest of the last record,
// which must span pages: the page is marked, and the record counts as lost.
// prev is the start of the record before it.
func (s *Stream) LosePartial(prev pg.LSN) {
	s.buf = s.buf[:len(s.buf)/page*page]
	s.prev = prev
	s.pageStart(0, 8)
}
