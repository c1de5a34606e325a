package agent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lock is held by one process; the kernel takes it back when that ends.
type lock struct{ file *os.File }

// lockFile takes the lock of a file, which is made if need be and stays.
// ErrRunning: another process has it.
func lockFile(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return take(f)
}

// lockDir takes the lock of a directory, without leaving anything in it.
func lockDir(path string) (*lock, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return take(f)
}

func take(f *os.File) (*lock, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrRunning
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return &lock{f}, nil
}

// holds reports whether it is the lock of what is at the path now.
func (l *lock) holds(path string) bool {
	if l == nil {
		return false
	}
	mine, err1 := l.file.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

func (l *lock) release() {
	if l != nil {
		_ = l.file.Close()
	}
}
