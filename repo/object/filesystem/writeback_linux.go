package filesystem

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// startWriteBack asks the kernel to begin to write these bytes to disk, so that
// the fsync at the end finds little to do. A hint: errors do not matter.
func startWriteBack(f *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}

// awaitWriteBack waits until these bytes are on disk. Its error must not be passed over: the
// kernel tells a file's user of a failed write once, and who was told here is not told
// again by fsync (file_fdatawait_range in mm/filemap.c).
func awaitWriteBack(f *os.File, offset, length int64) error {
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := again(func() error { return unix.SyncFileRange(int(f.Fd()), offset, length, wait) })
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		return nil // not for this kernel, container, or file: nobody was told anything
	}
	return os.NewSyscallError("sync_file_range", err)
}

// letGo takes bytes that are on disk out of the page cache; length 0: all that
// follow. A hint.
func letGo(f *os.File, offset, length int64) {
	_ = unix.Fadvise(int(f.Fd()), offset, length, unix.FADV_DONTNEED)
}
