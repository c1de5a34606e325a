package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the file in the uploads directory whose flock serialises what
// compares versions with what changes them. It never holds anything.
const lockName = "lock"

// lock takes the lock of the whole repository, against other goroutines and
// other processes. It is held for a few system calls at a time, so one lock is
// enough; the kernel frees that of a dead process. Call unlock.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.locking <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() {
		if err != nil {
			<-s.locking
		}
	}()
	var f *os.File
	err = s.dirs.with(uploads, func(d *dir) (err error) {
		f, err = s.lockFile(ctx, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() {
		_ = f.Close() // which unlocks
		<-s.locking
	}, nil
}

// lockFile opens and locks the lock file, and makes sure that it is the one that
// others find under the name: somebody may have tidied up.
func (s *Store) lockFile(ctx context.Context, d *dir) (*os.File, error) {
	for {
		f, err := openat(d.File, lockName, unix.O_RDWR|unix.O_CREAT, s.fileMode)
		if err != nil {
			return nil, err
		}
		err = errors.Join(chmodOwn(f, s.fileMode), flock(ctx, f))
		if err == nil {
			ours, openErr := statOpen(f)
			named, nameErr := stat(d.File, lockName)
			if openErr == nil && nameErr == nil && ours.Ino == named.Ino {
				return f, nil
			}
			err = openErr
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// chmodOwn is chmod where it is allowed: another user may have made the file.
func chmodOwn(f *os.File, mode uint32) error {
	if err := chmod(f, mode); !errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

// flock waits for the lock, but no longer than ctx.
func flock(ctx context.Context, f *os.File) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
