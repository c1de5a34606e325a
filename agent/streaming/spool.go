package streaming

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// spool is the directory, and the lock that keeps a second process out.
type spool struct {
	dir  string
	lock *os.File
}

// openSpool makes the directory empty, and ours.
func openSpool(dir string) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool %s: %w", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the spool %s: %w", dir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the spool %s: another process uses it: %w", dir, err), lock.Close())
	}
	s := &spool{dir: dir, lock: lock}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	for _, e := range entries {
		if pg.KindOf(e.Name()) == pg.FileUnknown {
			continue // not ours, or the lock
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return nil, errors.Join(fmt.Errorf("empty the spool: %w", err), s.close())
		}
	}
	return s, nil
}

func (s *spool) close() error { return s.lock.Close() }

// phase of a file in the spool.
type phase int

const (
	growing phase = iota
	whole         // a finished segment
	ended         // a segment that its timeline ended in
	history       // a history file
)

// file is one file in the spool.
type file struct {
	name  string // segment or history file
	start pg.LSN // of the segment
	end   pg.LSN

	// Lanes hold mu for reading while they examine a growing file, so that
	// they see no half of a write.
	mu    sync.RWMutex // guards what follows, and writing and renaming
	phase phase
	path  string
	f     *os.File // while it grows
	size  int64    // bytes received, without gaps
	// lineage counts how often what was received turned out not to be what
	// the file had: what lanes stored of an earlier lineage is not a beginning
	// of this.
	lineage int

	own []stored // by lane; guarded by the receiver's mu
}

// stored is what a lane has of a file.
type stored struct {
	done    bool // the final form is durable, or given up
	partial repo.WALName
	ours    bool // partial was created by this lane, and is not deleted yet
	lineage int  // of partial
	size    int64
}

// pageAlign is a multiple of every WAL block size: only whole pages are
// examined, so the file always ends behind a page, in zeroes.
const pageAlign = 64 << 10

func (s *spool) newSegment(t pg.Timeline, n pg.SegmentNo, size pg.SegmentSize, lanes int) (*file, error) {
	name := string(size.Name(t, n))
	path := filepath.Join(s.dir, name+".partial")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write to the spool: %w", err)
	}
	return &file{name: name, start: size.Start(n), end: size.Start(n) + pg.LSN(size), path: path, f: f, own: make([]stored, lanes)}, nil
}

func (s *spool) newHistory(t pg.Timeline, b []byte, lanes int) (*file, error) {
	name := pg.HistoryName(t)
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("write to the spool: %w", err)
	}
	return &file{name: name, phase: history, path: path, own: make([]stored, lanes)}, nil
}

// write takes WAL that belongs at offset, which is at most size. What the file
// has already is compared. The result says whether it was another history.
func (f *file) write(offset int64, b []byte) (differs bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if again := min(f.size-offset, int64(len(b))); again > 0 {
		have := make([]byte, again)
		if _, err := f.f.ReadAt(have, offset); err != nil {
			return false, fmt.Errorf("read the spool: %w", err)
		}
		if bytes.Equal(have, b[:again]) {
			offset, b = offset+again, b[again:]
		} else {
			differs = true
			f.lineage++
			f.size = offset
			if err := f.f.Truncate(offset); err != nil {
				return true, fmt.Errorf("write to the spool: %w", err)
			}
		}
	}
	if len(b) == 0 {
		return differs, nil
	}
	if _, err := f.f.WriteAt(b, offset); err != nil {
		return differs, fmt.Errorf("write to the spool: %w", err)
	}
	f.size = offset + int64(len(b))
	padded := min((f.size+pageAlign-1)/pageAlign*pageAlign, int64(f.end-f.start))
	if err := f.f.Truncate(padded); err != nil {
		return differs, fmt.Errorf("write to the spool: %w", err)
	}
	return differs, nil
}

// finish ends a segment that grew.
func (f *file) finish(p phase) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = p
	err := f.f.Close()
	f.f = nil
	if p == whole && err == nil {
		to := filepath.Join(filepath.Dir(f.path), f.name)
		if err = os.Rename(f.path, to); err == nil {
			f.path = to
		}
	}
	if err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	return nil
}

// remove deletes the file.
func (f *file) remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f != nil {
		_ = f.f.Close()
		f.f = nil
	}
	return os.Remove(f.path)
}

func (f *file) now() (p phase, size int64, lineage int) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.phase, f.size, f.lineage
}
