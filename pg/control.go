package pg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"time"
)

// ControlFile is pg_control's path below PGDATA.
const ControlFile = "global/pg_control"

// Errors of ParseControl, wrapped.
var (
	// ErrControlCRC: the content does not match its CRC-32C. A running server
	// may have been writing; read again.
	ErrControlCRC = errors.New("pg_control does not match its checksum")
	// ErrControlVersion: not a pg_control of PostgreSQL 13 to 18.
	ErrControlVersion = errors.New("unsupported pg_control version")
)

// ControlState is DBState of pg_control.h: what the server was doing.
type ControlState uint32

// The states, in the server's numbering.
const (
	StateStartup ControlState = iota
	StateShutDown
	StateShutDownInRecovery
	StateShuttingDown
	StateCrashRecovery
	StateArchiveRecovery
	StateProduction
)

// String is pg_controldata's wording.
func (s ControlState) String() string {
	names := [...]string{
		"starting up", "shut down", "shut down in recovery", "shutting down",
		"in crash recovery", "in archive recovery", "in production",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("unrecognized status code %d", uint32(s))
}

// WALLevel is wal_level.
type WALLevel uint32

// The levels since 9.6, in the server's numbering.
const (
	WALMinimal WALLevel = iota
	WALReplica
	WALLogical
)

// String is the setting's value.
func (l WALLevel) String() string {
	names := [...]string{"minimal", "replica", "logical"}
	if int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("unrecognized wal_level %d", uint32(l))
}

// Control is the content of global/pg_control (catalog/pg_control.h).
type Control struct {
	SystemID       SystemID
	Version        uint32 // pg_control_version: 1300 (13 to 16), 1700, 1800
	CatalogVersion uint32 // catalog_version_no, as in PG_15_202209061
	State          ControlState
	Modified       time.Time // to the second, UTC

	// The latest checkpoint, or restartpoint on a standby.
	Checkpoint     LSN // of the record
	Redo           LSN // where replay starts
	Timeline       Timeline
	PrevTimeline   Timeline // differs when the checkpoint began the timeline
	FullPageWrites bool
	NextXID        uint64 // epoch in the upper half
	CheckpointTime time.Time

	// How far recovery must go before the cluster is consistent.
	MinRecovery         LSN
	MinRecoveryTimeline Timeline
	BackupStart         LSN
	BackupEnd           LSN
	BackupEndRequired   bool

	// Settings of the primary, which a standby must at least match.
	WALLevel             WALLevel
	WALLogHints          bool
	MaxConnections       int
	MaxWorkerProcesses   int
	MaxWALSenders        int
	MaxPreparedXacts     int
	MaxLocksPerXact      int
	TrackCommitTimestamp bool

	BlockSize       int // bytes, 8192
	RelSegBlocks    int // blocks per segment file of a relation, 131072
	WALBlockSize    int // bytes, 8192
	SegmentSize     SegmentSize
	DataChecksums   bool   // data_checksum_version is not 0
	ChecksumVersion uint32 // data_checksum_version
}

// Offsets in ControlFileData on 64-bit platforms. 13 to 18 agree up to
// data_checksum_version (17 put wal_level into a hole of the checkpoint); 18
// has a byte more behind it, which moves the CRC.
const (
	ctlVersion     = 8
	ctlState       = 16
	ctlCheckpoint  = 40 // checkPointCopy
	ctlUnlogged    = 128
	ctlSettings    = 172
	ctlMaxAlign    = 204
	ctlBlockSize   = 216
	ctlChecksums   = 252
	ctlCRC         = 288
	ctlCRC18       = 292
	controlMinimum = ctlCRC18 + 4
)

// ParseControl decodes pg_control. b is the whole file or at least its first
// 296 bytes. Errors wrap ErrControlVersion or ErrControlCRC.
func ParseControl(b []byte) (Control, error) {
	if len(b) < controlMinimum {
		return Control{}, fmt.Errorf("pg_control has only %d bytes: %w", len(b), ErrControlCRC)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	version := u32(ctlVersion)
	crcAt := ctlCRC
	switch version {
	case 1300, 1700:
	case 1800:
		crcAt = ctlCRC18
	default:
		// Either another version or garbage; the CRC cannot tell which,
		// because its place depends on the version.
		return Control{}, fmt.Errorf("pg_control version %d: %w (PostgreSQL 13 to 18 are known)", version, ErrControlVersion)
	}
	if crc32.Checksum(b[:crcAt], castagnoli) != u32(crcAt) {
		return Control{}, ErrControlCRC
	}
	// floatFormat sits where alignment to 8 bytes puts it, and holds 1234567.
	if u32(ctlMaxAlign) != 8 || math.Float64frombits(u64(ctlMaxAlign+4)) != 1234567 {
		return Control{}, fmt.Errorf("pg_control of another kind of platform (maximum alignment %d): %w", u32(ctlMaxAlign), ErrControlVersion)
	}
	c := Control{
		SystemID:       SystemID(u64(0)),
		Version:        version,
		CatalogVersion: u32(ctlVersion + 4),
		State:          ControlState(u32(ctlState)),
		Modified:       time.Unix(int64(u64(ctlState+8)), 0).UTC(),
		Checkpoint:     LSN(u64(ctlState + 16)),

		Redo:           LSN(u64(ctlCheckpoint)),
		Timeline:       Timeline(u32(ctlCheckpoint + 8)),
		PrevTimeline:   Timeline(u32(ctlCheckpoint + 12)),
		FullPageWrites: b[ctlCheckpoint+16] != 0,
		NextXID:        u64(ctlCheckpoint + 24),
		CheckpointTime: time.Unix(int64(u64(ctlCheckpoint+64)), 0).UTC(),

		MinRecovery:         LSN(u64(ctlUnlogged + 8)),
		MinRecoveryTimeline: Timeline(u32(ctlUnlogged + 16)),
		BackupStart:         LSN(u64(ctlUnlogged + 24)),
		BackupEnd:           LSN(u64(ctlUnlogged + 32)),
		BackupEndRequired:   b[ctlUnlogged+40] != 0,

		WALLevel:             WALLevel(u32(ctlSettings)),
		WALLogHints:          b[ctlSettings+4] != 0,
		MaxConnections:       int(int32(u32(ctlSettings + 8))),
		MaxWorkerProcesses:   int(int32(u32(ctlSettings + 12))),
		MaxWALSenders:        int(int32(u32(ctlSettings + 16))),
		MaxPreparedXacts:     int(int32(u32(ctlSettings + 20))),
		MaxLocksPerXact:      int(int32(u32(ctlSettings + 24))),
		TrackCommitTimestamp: b[ctlSettings+28] != 0,

		BlockSize:       int(u32(ctlBlockSize)),
		RelSegBlocks:    int(u32(ctlBlockSize + 4)),
		WALBlockSize:    int(u32(ctlBlockSize + 8)),
		SegmentSize:     SegmentSize(u32(ctlBlockSize + 12)),
		DataChecksums:   u32(ctlChecksums) != 0,
		ChecksumVersion: u32(ctlChecksums),
	}
	return c, c.check()
}

// check refuses values that no server writes, so that callers may divide by
// sizes without looking.
func (c Control) check() error {
	switch {
	case c.Major() == 0:
		return fmt.Errorf("catalog version %d: %w (PostgreSQL 13 to 18 are known)", c.CatalogVersion, ErrControlVersion)
	case !c.SegmentSize.Valid():
		return fmt.Errorf("WAL segment size %d in pg_control: %w", c.SegmentSize, ErrControlVersion)
	case c.BlockSize < 1024 || c.BlockSize > 32768 || c.WALBlockSize < 1024 || c.WALBlockSize > 65536 || c.RelSegBlocks <= 0:
		return fmt.Errorf("block sizes %d, %d, %d in pg_control: %w", c.BlockSize, c.WALBlockSize, c.RelSegBlocks, ErrControlVersion)
	case c.Timeline == 0:
		return fmt.Errorf("timeline 0 in pg_control: %w", ErrControlVersion)
	}
	return nil
}

// Major is the server's major version, 13 to 18, or 0 when it is none of
// these. pg_control_version alone does not tell 13 to 16 apart; the catalog
// version, which is fixed before a major version's release, does.
func (c Control) Major() int {
	switch c.Version {
	case 1800:
		return 18
	case 1700:
		return 17
	case 1300:
		switch v := c.CatalogVersion; {
		case v >= 202307071:
			return 16
		case v >= 202209061:
			return 15
		case v >= 202107181:
			return 14
		case v >= 202007201:
			return 13
		}
	}
	return 0
}

// Bounds on reading pg_control again while a server is writing it. The server
// writes its 296 bytes in one call, so that one more read is nearly always
// enough.
const (
	controlTries = 10
	controlPause = 10 * time.Millisecond
)

// ReadControl reads and decodes pg_control of a data directory whose server
// may be running. A torn read is repeated, for at most a tenth of a second.
func ReadControl(pgdata string) (Control, error) {
	path := filepath.Join(pgdata, filepath.FromSlash(ControlFile))
	for try := 1; ; try++ {
		b, err := os.ReadFile(path)
		if err != nil {
			return Control{}, fmt.Errorf("read pg_control: %w", err)
		}
		c, err := ParseControl(b)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, ErrControlCRC) || try == controlTries {
			return Control{}, fmt.Errorf("read %s: %w", path, err)
		}
		time.Sleep(controlPause)
	}
}
