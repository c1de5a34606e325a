package filesystem

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteBack asks the kernel to begin to write these bytes to disk, so that
// the fsync at the end finds little to do. A hint: errors do not matter.
func startWriteBack(f *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}

// letGo waits until these bytes are on disk, and takes them out of the page cache.
// A hint, too: it is fsync that says whether they are durable.
func letGo(f *os.File, offset, length int64) {
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	fd := int(f.Fd())
	_ = unix.SyncFileRange(fd, offset, length, wait)
	_ = unix.Fadvise(fd, offset, length, unix.FADV_DONTNEED)
}
