package waltest

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"

	"github.com/walkeep/walkeep/pg"
)

// Control makes the pg_control of a server of version 15.
func Control(id pg.SystemID, state pg.ControlState, timeline pg.Timeline, size pg.SegmentSize) []byte {
	b := make([]byte, 8192)
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	binary.LittleEndian.PutUint64(b, uint64(id))
	put(8, 1300)
	put(12, 202209061)
	put(16, uint32(state))
	put(48, uint32(timeline))
	put(52, uint32(timeline))
	put(204, 8)
	binary.LittleEndian.PutUint64(b[208:], math.Float64bits(1234567))
	put(216, 8192)
	put(220, 131072)
	put(224, 8192)
	put(228, uint32(size))
	return sum(b)
}

// Recovered changes a pg_control to that of a standby which must replay up to
// lsn on that timeline.
func Recovered(b []byte, timeline pg.Timeline, lsn pg.LSN) []byte {
	binary.LittleEndian.PutUint64(b[136:], uint64(lsn))
	binary.LittleEndian.PutUint32(b[144:], uint32(timeline))
	return sum(b)
}

func sum(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// WriteControl writes a pg_control below a data directory, which gets a pg_wal
// too.
func WriteControl(pgdata string, b []byte) error {
	path := filepath.Join(pgdata, filepath.FromSlash(pg.ControlFile))
	if err := os.MkdirAll(filepath.Join(pgdata, "pg_wal"), 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
