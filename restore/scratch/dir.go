package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// prefix begins the names of scratch directories, and lockFile is in each of
// them: held locked by the process whose directory it is. The kernel lets go of
// it when that process ends, however it does.
const (
	prefix   = "walkeep-scratch-"
	lockFile = "walkeep.scratch"
)

// dir is a scratch directory.
type dir struct {
	path string
	lock *os.File
}

// makeDir removes what runs that were killed left below parent, and makes a new
// scratch directory. A lock on parent keeps two of them apart meanwhile: nobody
// sees a directory that is not locked yet.
//
// Killed anywhere, a run leaves a directory of that name, with a lock file that
// nobody holds or without one, which the next run removes.
func makeDir(parent string, log *zap.Logger) (*dir, error) {
	above, err := os.Open(parent)
	if err != nil {
		return nil, fmt.Errorf("open the scratch space: %w", err)
	}
	defer above.Close()
	if err := unix.Flock(int(above.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock the scratch space %s: %w", parent, err)
	}
	if err := sweep(parent, log); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, fmt.Errorf("make a scratch directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	// The server's user must get to its data directory.
	if err = errors.Join(err, os.Chmod(path, 0o711)); err != nil {
		return nil, errors.Join(fmt.Errorf("make a scratch directory: %w", err), os.RemoveAll(path))
	}
	return &dir{path, lock}, nil
}

// sweep removes scratch directories that nobody holds.
func sweep(parent string, log *zap.Logger) error {
	found, err := filepath.Glob(filepath.Join(escape(parent), prefix+"*"))
	if err != nil {
		return fmt.Errorf("look for what was left in %s: %w", parent, err)
	}
	for _, path := range found {
		if st, err := os.Lstat(path); err != nil || !st.IsDir() {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR, 0)
		if err == nil && unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			_ = lock.Close()
			continue // in use
		}
		if err == nil {
			defer lock.Close()
		} else if names, _ := os.ReadDir(path); len(names) > 0 {
			continue // not one of ours, for all we know
		}
		log.Info("remove what a scratch restore left that was killed", zap.String("directory", path))
		endServer(filepath.Join(path, dataDir))
		if err := removeAll(path); err != nil {
			return err
		}
	}
	return nil
}

// escape takes the meaning off characters of a pattern.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// endServer ends a server that has outlived its run: it is told by the kernel
// to end, so this is for one that is slow at it.
func endServer(pgdata string) {
	b, err := os.ReadFile(filepath.Join(pgdata, "postmaster.pid"))
	if err != nil {
		return
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 {
		return
	}
	for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL} {
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
			if err != nil || cwd != pgdata {
				return // gone, or somebody else's number by now
			}
			if syscall.Kill(pid, sig) != nil {
				return
			}
		}
	}
}

// remove removes the directory and lets go of it.
func (d *dir) remove() error {
	err := removeAll(d.path)
	return errors.Join(err, d.lock.Close())
}

// removeAll removes a directory in which the last processes of a server may
// still be making files.
func removeAll(path string) (err error) {
	for range 50 {
		if err = os.RemoveAll(path); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("remove the scratch directory: %w", err)
}
