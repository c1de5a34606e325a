package filesystem

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
)

// The system calls work relative to open directories, so that no name is
// resolved twice and no link is followed. Package os cannot do that without
// resolving every name from its root again.

// again repeats a system call that a signal interrupted, as NFS and FUSE allow.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openat opens name in dir, never through a link.
func openat(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	var fd int
	err := again(func() (err error) {
		fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), path.Join(dir.Name(), name)), nil
}

func openDirAt(dir *os.File, name string) (*os.File, error) {
	return openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// stat describes the entry name of dir itself, not what it links to.
func stat(dir *os.File, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func statOpen(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstat(int(f.Fd()), &st) })
	return st, err
}

func unlink(dir *os.File, name string) error {
	return again(func() error { return unix.Unlinkat(int(dir.Fd()), name, 0) })
}

// syncDir makes the names in dir durable. Some file systems (SMB, some FUSE)
// have no fsync for directories, and nothing better either.
func syncDir(dir *os.File) error {
	err := again(func() error { return unix.Fsync(int(dir.Fd())) })
	if isAny(err, unix.EINVAL, unix.ENOTSUP) {
		return nil
	}
	return err
}

// gone reports an error of a directory that was removed, or made again, while it
// was open.
func gone(err error) bool { return isAny(err, unix.ENOENT, unix.ESTALE) }

func isRegular(st unix.Stat_t) bool { return uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG }

// info is what the file system says about the object under key.
func info(key string, st unix.Stat_t) object.Info {
	modified := time.Unix(st.Mtim.Unix())
	return object.Info{
		Key: key, Size: st.Size, Modified: modified,
		Version: fmt.Sprintf("%x-%x-%x", uint64(st.Ino), modified.UnixNano(), st.Size),
	}
}

// split cuts a key into its directory, "" for the root, and its name there.
func split(key string) (dir, name string) {
	i := strings.LastIndexByte(key, '/')
	return key[:max(i, 0)], key[i+1:]
}
