package restore

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserve allocates a file's blocks at once, where the file system can: they
// lie together, and a full disk is found before the work is done. They read as
// zeroes.
func reserve(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return f.Truncate(size)
	}
	return err
}

// goDirect makes writes go past the page cache, where the file system can.
func goDirect(f *os.File) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_DIRECT)
	return err == nil
}

// writeAt writes b at an offset. A direct write must be aligned in memory, in
// the file and in length; a part that is not goes through the page cache, by
// another description of the same file.
func writeAt(f *os.File, direct bool, b []byte, off int64) error {
	if direct {
		aligned := 0
		if off%directAlign == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(b)))%directAlign == 0 {
			aligned = len(b) / directAlign * directAlign
		}
		if aligned > 0 {
			if _, err := f.WriteAt(b[:aligned], off); err != nil {
				return err
			}
			b, off = b[aligned:], off+int64(aligned)
		}
		if len(b) == 0 {
			return nil
		}
		return writeCached(f, b, off)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return writeBack(f, off, len(b))
}

// writeCached writes through the page cache to a file that is open for direct
// writing.
func writeCached(f *os.File, b []byte, off int64) (err error) {
	g, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if _, err := g.WriteAt(b, off); err != nil {
		return err
	}
	return writeBack(g, off, len(b))
}

// writeBack lets the kernel begin to write what is in the page cache, so that
// the disk works while we decode, and the final sync finds little to do.
func writeBack(f *os.File, off int64, n int) error {
	if n < writeBackFrom {
		return nil
	}
	err := unix.SyncFileRange(int(f.Fd()), off, int64(n), unix.SYNC_FILE_RANGE_WRITE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ESPIPE) || errors.Is(err, unix.EINVAL) {
		return nil // a hint only
	}
	return err
}

// writeBackFrom is the size from which writing back early pays, 256 KiB.
const writeBackFrom = 256 << 10

// setTime sets the modification time of an open file (futimens).
func setTime(f *os.File, t time.Time) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(t.UnixNano())}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, f.Fd(), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// syncer makes a whole file system durable. It has to be made before the first
// write: the kernel reports errors of writing back that happen from then on
// (Linux 5.8 and up).
type syncer struct{ d *os.File }

func newSyncer(p *place) (*syncer, error) {
	d, err := p.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p.path, err)
	}
	return &syncer{d}, nil
}

func (s *syncer) sync() error {
	if err := unix.Syncfs(int(s.d.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", s.d.Name(), noSpace(err))
	}
	return nil
}

func (s *syncer) close() { _ = s.d.Close() }

// alignedBuffer is n bytes of memory that direct writes accept.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+directAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (directAlign - 1))
	return b[skip : skip+n : skip+n]
}
