package wal

import (
	"encoding/binary"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// recordHeader is the size of XLogRecord, the header of every record.
const recordHeader = 24

// maxRecord bounds a record's length: XLogRecordMaxSize since 16, which is what
// older servers could write at most too (an allocation of 1 GiB).
const maxRecord = 1 << 30

// Record is one WAL record whose CRC was found right. It is valid during the
// call that it is passed to.
type Record struct {
	LSN  pg.LSN // where its header starts
	End  pg.LSN // where the next record can start; what functions like pg_create_restore_point return
	Prev pg.LSN // the record before it
	XID  uint32 // transaction, 0 if none
	RMID uint8  // resource manager
	Info uint8  // upper half: the resource manager's opcode
	// Length is xl_tot_len, header included.
	Length uint32
	// Data is what follows the header: block headers, block data, main data.
	Data []byte
	// Truncated: Data has only the first MaxData bytes of it. All block
	// headers are in there.
	Truncated bool
}

// MaxData is how much of a record's data a visitor sees, in bytes, so that a
// record of a gigabyte does not take a gigabyte of memory.
const MaxData = 8 << 20

// Resource managers (access/rmgrlist.h) and opcodes that are understood here.
const (
	rmXLOG = 0
	rmXact = 1

	opMask = 0xF0 // the lower half of xl_info belongs to the WAL machinery

	xlogCheckpointShutdown = 0x00
	xlogCheckpointOnline   = 0x10
	xlogSwitch             = 0x40
	xlogRestorePoint       = 0x70
	xlogEndOfRecovery      = 0x90

	xactOpMask         = 0x70
	xactCommit         = 0x00
	xactPrepare        = 0x10
	xactAbort          = 0x20
	xactCommitPrepared = 0x30
	xactAbortPrepared  = 0x40
	xactHasInfo        = 0x80
)

// plausible reports whether a resource manager of this number can be there:
// built in (21 is the last of 18; some room for fields we cannot name) or
// custom, from 15 on.
func plausibleRMID(id uint8) bool { return id < 32 || id >= 128 }

// mainData finds the main data of a record that refers to no blocks
// (DecodeXLogRecord). ok is false when it does, or is malformed or truncated.
func (r *Record) mainData() (data []byte, ok bool) {
	if r.Truncated {
		return nil, false
	}
	b := r.Data
	for len(b) > 0 {
		var skip, n int
		switch b[0] {
		case 255: // XLR_BLOCK_ID_DATA_SHORT
			if len(b) < 2 {
				return nil, false
			}
			skip, n = 2, int(b[1])
		case 254: // XLR_BLOCK_ID_DATA_LONG
			if len(b) < 5 {
				return nil, false
			}
			skip, n = 5, int(binary.LittleEndian.Uint32(b[1:]))
		case 253: // XLR_BLOCK_ID_ORIGIN
			skip, n = 3, -1
		case 252: // XLR_BLOCK_ID_TOPLEVEL_XID
			skip, n = 5, -1
		default:
			return nil, false
		}
		if len(b) < skip {
			return nil, false
		}
		b = b[skip:]
		if n >= 0 {
			return b, n == len(b)
		}
	}
	return nil, false
}

// ended is what a commit or abort record says.
type ended struct {
	xid    uint32
	at     time.Time
	commit bool
}

// transaction decodes the records that end a transaction (access/xact.h). ok
// is false for every other record.
func (r *Record) transaction(major int) (e ended, ok bool) {
	if r.RMID != rmXact {
		return e, false
	}
	op := r.Info & xactOpMask
	switch op {
	case xactCommit, xactCommitPrepared:
		e.commit = true
	case xactAbort, xactAbortPrepared:
	default:
		return e, false
	}
	b, ok := r.mainData()
	if !ok || len(b) < 8 {
		return e, false
	}
	e.at = timestamp(b)
	e.xid = r.XID
	if op == xactCommitPrepared || op == xactAbortPrepared {
		// The header has the transaction that said COMMIT PREPARED, if any.
		e.xid, ok = twophaseXID(b[8:], r.Info, major, e.commit)
	}
	return e, ok
}

// IsPrepare reports whether the record is that of PREPARE TRANSACTION, whose
// work is kept although nothing has ended.
func (r *Record) IsPrepare() bool { return r.RMID == rmXact && r.Info&xactOpMask == xactPrepare }

// twophaseXID finds the prepared transaction's XID behind the variable parts
// of a commit or abort record.
func twophaseXID(b []byte, info uint8, major int, commit bool) (uint32, bool) {
	if info&xactHasInfo == 0 || len(b) < 4 {
		return 0, false
	}
	xinfo := binary.LittleEndian.Uint32(b)
	b = b[4:]
	statsItem := 12
	if major >= 18 {
		statsItem = 16
	}
	parts := []struct {
		flag uint32
		item int // bytes of each of the items that a count precedes; 0 = dbinfo, 8 bytes
	}{{1 << 0, 0}, {1 << 1, 4}, {1 << 2, 12}, {1 << 8, statsItem}, {1 << 3, 16}}
	for _, p := range parts {
		if xinfo&p.flag == 0 || p.flag == 1<<3 && !commit {
			continue
		}
		n := 8
		if p.item > 0 {
			if len(b) < 4 {
				return 0, false
			}
			n = 4 + int(binary.LittleEndian.Uint32(b))*p.item
		}
		if n > len(b) {
			return 0, false
		}
		b = b[n:]
	}
	if xinfo&(1<<4) == 0 || len(b) < 4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b), true
}

// RestorePoint is a named place made by pg_create_restore_point.
type RestorePoint struct {
	Name string
	LSN  pg.LSN // end of its record: what the function returned
	Time time.Time
}

// restorePoint decodes xl_restore_point.
func (r *Record) restorePoint() (p RestorePoint, ok bool) {
	if r.RMID != rmXLOG || r.Info&opMask != xlogRestorePoint {
		return p, false
	}
	b, ok := r.mainData()
	if !ok || len(b) < 8+1 {
		return p, false
	}
	name := b[8:]
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	return RestorePoint{Name: string(name), LSN: r.End, Time: timestamp(b)}, true
}

// timeline decodes ThisTimeLineID of the records that have it: CheckPoint and
// xl_end_of_recovery, where it lies behind 8 bytes.
func (r *Record) timeline() (pg.Timeline, bool) {
	if r.RMID != rmXLOG {
		return 0, false
	}
	switch r.Info & opMask {
	case xlogCheckpointShutdown, xlogCheckpointOnline, xlogEndOfRecovery:
	default:
		return 0, false
	}
	b, ok := r.mainData()
	if !ok || len(b) < 8+4 {
		return 0, false
	}
	return pg.Timeline(binary.LittleEndian.Uint32(b[8:])), true
}

// timestamp decodes TimestampTz: microseconds since 2000-01-01 UTC.
func timestamp(b []byte) time.Time {
	const epoch = 946684800
	us := int64(binary.LittleEndian.Uint64(b))
	sec, frac := us/1e6, us%1e6
	return time.Unix(epoch+sec, frac*1000).UTC()
}

// xidPrecedes compares transaction IDs, which wrap around (TransactionIdPrecedes).
func xidPrecedes(a, b uint32) bool { return int32(a-b) < 0 }
