package backup

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

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

	file   *source
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

// source is a large file, opened once for all units that read it, so that all
// of them see the same file even when another takes its name.
type source struct {
	fd   int
	path string
	refs atomic.Int32
}

func (s *source) release() {
	if s.refs.Add(-1) == 0 {
		_ = unix.Close(s.fd)
	}
}

func (s *source) readAt(p []byte, off int64) (int, error) { return readAt(s.fd, s.path, p, off) }

// readAt fills p from a file's offset on. It returns less only at the end of
// the file, and then without an error.
func readAt(fd int, path string, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		k, err := unix.Pread(fd, p[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("read %s at offset %d: %w", path, off+int64(n), err)
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}

// openFile opens a file of PGDATA. It returns -1 and no error if the file is
// gone or is no regular file any more.
func openFile(path string) (fd int, size int64, err error) {
	for {
		// Not blocking: what was a file a moment ago may be a pipe now.
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return -1, 0, nil
	}
	if err != nil {
		return -1, 0, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, 0, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return -1, 0, nil
	}
	return fd, st.Size, nil
}

// piece is what was read of one file in one unit.
type piece struct {
	gone       bool // the file vanished before it was opened
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
