package prefetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockTries is how often a prefetcher tries to get its lock, 5 ms apart: a
// getter that looks whether one runs holds it for a moment.
const lockTries = 100

// lock makes this the prefetcher of the spool. ErrRunning if there is one.
func (s *spool) lock(ctx context.Context) (*os.File, error) {
	for range lockTries {
		f, err := s.tryLock(unix.LOCK_EX)
		if !errors.Is(err, ErrRunning) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil, ErrRunning
}

// tryLock locks the file that has the lock's name then: the one that was opened
// may have been removed by a prefetcher that ended in between.
func (s *spool) tryLock(how int) (*os.File, error) {
	f, err := os.OpenFile(s.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the spool: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrRunning
		}
		return nil, fmt.Errorf("lock the spool: %w", err)
	}
	mine, err1 := f.Stat()
	there, err2 := os.Stat(s.path(lockName))
	if err1 != nil || err2 != nil || !os.SameFile(mine, there) {
		f.Close()
		return nil, ErrRunning
	}
	return f, nil
}

// running reports whether a prefetcher fills the spool.
func (s *spool) running() bool {
	f, err := s.tryLock(unix.LOCK_SH)
	if err != nil {
		return errors.Is(err, ErrRunning)
	}
	f.Close()
	return false
}

// remove removes the spool; the caller holds its lock. The lock's file goes
// last: whoever waits for it finds that it is not the one of that name.
func (s *spool) remove() {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range list {
		if e.Name() != lockName {
			_ = os.Remove(s.path(e.Name()))
		}
	}
	_ = os.Remove(s.path(lockName))
	_ = os.Remove(s.dir)
	_ = os.Remove(filepath.Dir(s.dir)) // if it was the only one; one that others made is not empty or not ours
}

// staleAfter is how long the spool of a killed prefetcher is left alone.
const staleAfter = time.Hour

// sweep removes the spools beside this one that killed prefetchers left: the
// data directory may be gone, so that no other will come for them.
func (s *spool) sweep(now time.Time) {
	list, err := os.ReadDir(filepath.Dir(s.dir))
	if err != nil {
		return
	}
	for _, e := range list {
		dir := filepath.Join(filepath.Dir(s.dir), e.Name())
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() || dir == s.dir || now.Sub(st.ModTime()) < staleAfter {
			continue
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
			continue
		}
		other := &spool{dir: dir}
		if _, err := os.Lstat(other.path(askedName)); err != nil {
			continue // not a spool
		}
		if f, err := other.tryLock(unix.LOCK_EX); err == nil {
			other.remove()
			f.Close()
		}
	}
}
