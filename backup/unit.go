package backup

import (
	"sync/atomic"

	"github.com/walkeep/walkeep/repo"
)

const (
	chunkSize = repo.MaxChunk
	// rangeSize is how much of a large file is one piece of work.
	rangeSize = 16 << 20
	// batchFiles bounds how many small files, directories and links are one
	// piece of work.
	batchFiles = 1024
)

// unit is one piece of work: either a range of a large file, or small files
// (with the directories and links between them) whose data shares chunks.
// Units are numbered in the order of the manifest.
type unit struct {
	seq int

	batch []entry // if file is nil
	plans []*filePlan

	file   *sharedFile
	entry  entry // of file
	plan   *filePlan
	off    int64
	length int64
	last   bool // the file ends with this range
}

// release gives back the unit's file.
func (u *unit) release() {
	if u.file != nil {
		u.file.release()
	}
}

// sharedFile is a large file, opened once for all units that read it.
type sharedFile struct {
	file
	refs atomic.Int32
}

func (s *sharedFile) release() {
	if s.refs.Add(-1) == 0 {
		s.close()
	}
}

// piece is what was read of one file in one unit.
type piece struct {
	gone       bool // the file vanished before anything of it was read
	size       int64
	crc        uint32   // CRC-32C of these bytes
	crcUnknown bool     // not all of them were read
	parts      [][]part // where they are, by target
	bad        []uint32
	short      bool // fewer bytes than the file had when it was opened
}

// result is what became of a unit.
type result struct {
	unit   *unit
	pieces []piece // one per entry of a batch, or one
}
