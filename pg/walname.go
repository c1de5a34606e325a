package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// SegmentSize is wal_segment_size in bytes: a power of two from 1 MiB to
// 1 GiB (xlog_internal.h, IsValidWalSegSize).
type SegmentSize uint32

// DefaultSegmentSize is PostgreSQL's default, 16 MiB.
const DefaultSegmentSize SegmentSize = 16 << 20

// Valid reports whether a server can have this size.
func (s SegmentSize) Valid() bool { return s >= 1<<20 && s <= 1<<30 && s&(s-1) == 0 }

// perXLogID is the number of segments in 4 GiB of WAL.
func (s SegmentSize) perXLogID() uint64 { return (1 << 32) / uint64(s) }

// SegmentNo counts segments since LSN 0; XLogSegNo.
type SegmentNo uint64

// SegmentOf is the number of the segment that holds the byte at lsn.
func (s SegmentSize) SegmentOf(lsn LSN) SegmentNo { return SegmentNo(uint64(lsn) / uint64(s)) }

// Start is the LSN of the first byte of a segment.
func (s SegmentSize) Start(n SegmentNo) LSN { return LSN(uint64(n) * uint64(s)) }

// Name is the file name of segment n on timeline t: XLogFileName.
func (s SegmentSize) Name(t Timeline, n SegmentNo) SegmentName {
	per := s.perXLogID()
	return SegmentName(fmt.Sprintf("%08X%08X%08X", uint32(t), uint64(n)/per, uint64(n)%per))
}

// SegmentName is the file name of a complete WAL segment: 24 upper-case
// hexadecimal digits, timeline first. What LSN it means depends on the segment
// size of its cluster.
type SegmentName string

// ParseSegmentName accepts exactly the names that PostgreSQL's IsXLogFileName
// does, with a timeline that is not zero.
func ParseSegmentName(s string) (SegmentName, error) {
	if len(s) != 24 || !isUpperHex(s) || s[:8] == "00000000" {
		return "", fmt.Errorf("not the name of a WAL segment: %q (expected 24 hexadecimal digits)", s)
	}
	return SegmentName(s), nil
}

// Timeline is the timeline in the name.
func (n SegmentName) Timeline() Timeline {
	v, _ := strconv.ParseUint(string(n[:8]), 16, 32)
	return Timeline(v)
}

// Number is the segment's number in a cluster with segments of this size. It
// is an error if no such cluster can have a segment of this name.
func (n SegmentName) Number(size SegmentSize) (SegmentNo, error) {
	hi, err1 := strconv.ParseUint(string(n[8:16]), 16, 32)
	lo, err2 := strconv.ParseUint(string(n[16:24]), 16, 32)
	if err1 != nil || err2 != nil || lo >= size.perXLogID() {
		return 0, fmt.Errorf("segment %s cannot exist with a WAL segment size of %d bytes", n, size)
	}
	return SegmentNo(hi*size.perXLogID() + lo), nil
}

// FileKind says what a file in pg_wal or in an archive is, by its name alone.
type FileKind int

// The kinds of files that PostgreSQL passes to archive_command and asks
// restore_command for.
const (
	FileUnknown     FileKind = iota
	FileSegment              // 000000010000000A000000FF
	FilePartial              // 000000010000000A000000FF.partial
	FileHistory              // 00000002.history
	FileBackupLabel          // 000000010000000A000000FF.00000028.backup
)

// KindOf classifies a base name (xlog_internal.h: IsXLogFileName,
// IsPartialXLogFileName, IsTLHistoryFileName, IsBackupHistoryFileName).
func KindOf(name string) FileKind {
	if _, err := ParseSegmentName(name); err == nil {
		return FileSegment
	}
	if s, ok := strings.CutSuffix(name, ".partial"); ok && KindOf(s) == FileSegment {
		return FilePartial
	}
	if s, ok := strings.CutSuffix(name, ".history"); ok {
		if _, err := ParseTimeline(s); err == nil {
			return FileHistory
		}
	}
	if len(name) > 24 && KindOf(name[:24]) == FileSegment {
		if s, ok := strings.CutSuffix(name[24:], ".backup"); ok && len(s) == 9 && s[0] == '.' && isUpperHex(s[1:]) {
			return FileBackupLabel
		}
	}
	return FileUnknown
}

// HistoryName is the file name of a timeline's history file.
func HistoryName(t Timeline) string { return t.Hex() + ".history" }
