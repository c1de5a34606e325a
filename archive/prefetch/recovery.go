package prefetch

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/walkeep/walkeep/pg"
)

// Recovery is one data directory that asks for segments, and its spool.
type Recovery struct {
	// WAL is its pg_wal, absolute.
	WAL string
	// System and Segment are what its pg_control says.
	System  pg.SystemID
	Segment pg.SegmentSize

	pgdata string // absolute, without links
	device uint64
	inode  uint64
	dir    string // the spool
}

// Locate finds the recovery that the directory pg_wal belongs to. ErrNoRecovery
// if it lies in no data directory, or in one that is not in archive recovery.
func Locate(wal string, o Options) (*Recovery, error) {
	o = o.withDefaults()
	abs, err := filepath.Abs(wal)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", wal, err)
	}
	// As the path names it: pg_wal itself may be a link to elsewhere.
	pgdata, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoRecovery, err)
	}
	if !inRecovery(pgdata) {
		return nil, fmt.Errorf("%w: %s is not in archive recovery", ErrNoRecovery, pgdata)
	}
	c, err := pg.ReadControl(pgdata)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoRecovery, err)
	}
	st, err := os.Stat(pgdata)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoRecovery, err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("%w: %s has no inode", ErrNoRecovery, pgdata)
	}
	r := &Recovery{WAL: abs, System: c.SystemID, Segment: c.SegmentSize, pgdata: pgdata, device: uint64(sys.Dev), inode: sys.Ino}
	if r.depth(o) < 1 {
		return nil, fmt.Errorf("%w: segments of %d bytes, a spool of %d", ErrNoRecovery, r.Segment, o.Size)
	}
	base := o.base(pgdata)
	key := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d\x00%s\x00%s", pgdata, r.device, r.inode, r.System, o.Origin))
	r.dir = filepath.Join(base, fmt.Sprintf("%s-%x", r.System, key[:8]))
	return r, nil
}

// depth is how many segments the spool has room for.
func (r *Recovery) depth(o Options) int { return int(o.Size / int64(r.Segment)) }

// inRecovery reports whether a server that has this data directory asks an
// archive for WAL: the files that begin archive recovery stay until it ends.
// pg_rewind also calls restore_command, but reads backwards.
func inRecovery(pgdata string) bool {
	for _, name := range []string{"recovery.signal", "standby.signal"} {
		if _, err := os.Lstat(filepath.Join(pgdata, name)); err == nil {
			return true
		}
	}
	return false
}

// over reports whether recovery has ended, or the data directory is not there
// any more, or another.
func (r *Recovery) over() bool {
	if !inRecovery(r.pgdata) {
		return true
	}
	st, err := os.Stat(r.pgdata)
	if err != nil {
		return true
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return !ok || uint64(sys.Dev) != r.device || sys.Ino != r.inode
}
