package backup

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// Source is where the files of the data directory come from: [Local], the disk
// of this machine, or [OverSQL], the server itself. Paths are relative to the
// data directory, "." is the directory itself. What is gone is fs.ErrNotExist.
// Its methods may be called from several goroutines.
type Source interface {
	// pgdata is the data directory as it is named in messages and, for people,
	// in the manifest.
	pgdata() string
	// name is repo.Summary.Source.
	name() string
	// place tells the directory from all others, so that the times of its files
	// can be relied on; nil: they cannot.
	place() *repo.Place
	// belongs is an error unless this is the directory that the server runs in.
	belongs(ctx context.Context, info server.Info) error

	// stat follows links.
	stat(ctx context.Context, path string) (found, error)
	// list is what is in a directory.
	list(ctx context.Context, path string) (listing, error)
	// tablespace looks at an entry of pg_tblspc: a link or, in place, a directory.
	tablespace(ctx context.Context, path string) (found, error)
	// tablespaces are where the links of pg_tblspc lead to.
	tablespaces(ctx context.Context) (map[identity]bool, error)

	// open opens a file that was found. It is fs.ErrNotExist also if it is no
	// regular file any more.
	open(ctx context.Context, e entry) (file, error)
	// readFile reads a small file.
	readFile(ctx context.Context, path string) ([]byte, error)
}

// found is what the walk finds under a name.
type found struct {
	entry
	// linked: the name is a link, and this is what it leads to.
	linked bool
	// leftOut is why it cannot be part of a backup; "": it can.
	leftOut string
	id      identity // of a directory
}

// identity tells directories apart; the zero value is not known.
type identity struct {
	device, inode uint64
	path          string // where there are no inodes
}

// listing is the names in a directory, in byte order.
type listing interface {
	names
	// look finds out what is under the i-th name.
	look(ctx context.Context, i int) (found, error)
}

// names is a sorted list of them.
type names interface {
	len() int
	at(i int) string
}

func hasName(l names, name string) bool {
	i := sort.Search(l.len(), func(i int) bool { return l.at(i) >= name })
	return i < l.len() && l.at(i) == name
}

// file is a file that is being read, also by several goroutines.
type file interface {
	// size is how much is to be read of it. What it grows by later is left to
	// replay.
	size() int64
	// readAt fills p from an offset on. It returns less only at the end of the
	// file, and then without an error; fs.ErrNotExist, if the source cannot keep
	// files, says that it is gone.
	readAt(ctx context.Context, p []byte, off int64) (int, error)
	// willNeed says what is going to be read.
	willNeed(off, n int64)
	close()
}

// controlReads is how often a torn pg_control is read again, controlPause
// apart. The server writes it with one write of 512 bytes or so.
const (
	controlReads = 20
	controlPause = 20 * time.Millisecond
)

// readControl reads pg_control as it is on disk, and what it says. Torn while
// the server writes it, it is read again.
func readControl(ctx context.Context, from Source) (entry, []byte, pg.Control, error) {
	for n := 1; ; n++ {
		at, err := from.stat(ctx, pg.ControlFile)
		if err != nil {
			return entry{}, nil, pg.Control{}, fmt.Errorf("read pg_control: %w", err)
		}
		b, err := from.readFile(ctx, pg.ControlFile)
		if err != nil {
			return entry{}, nil, pg.Control{}, fmt.Errorf("read pg_control: %w", err)
		}
		c, err := pg.ParseControl(b)
		if err == nil {
			return at.entry, b, c, nil
		}
		if !errors.Is(err, pg.ErrControlCRC) || n == controlReads {
			return entry{}, nil, pg.Control{}, fmt.Errorf("read %s in %s: %w", pg.ControlFile, from.pgdata(), err)
		}
		if err := sleep(ctx, controlPause); err != nil {
			return entry{}, nil, pg.Control{}, err
		}
	}
}

// CheckDataDir returns an error unless pgdata is the data directory of the
// server that info describes.
func CheckDataDir(ctx context.Context, pgdata string, info server.Info) error {
	_, err := checkDataDir(ctx, Local(pgdata), info)
	return err
}

// checkDataDir makes sure that a source is the data directory of the server that
// info describes, and not that of another node of the cluster, which has the
// same system identifier and in part the same files.
func checkDataDir(ctx context.Context, from Source, info server.Info) (pg.Control, error) {
	_, _, c, err := readControl(ctx, from)
	if err != nil {
		return c, err
	}
	if c.SystemID != info.SystemID {
		return c, wrongDir(from, "its system identifier is %s, the server's is %s", c.SystemID, info.SystemID)
	}
	if c.Major() != info.Major {
		return c, wrongDir(from, "it is of version %d, the server of version %d", c.Major(), info.Major)
	}
	if c.BlockSize != pg.PageSize {
		return c, fmt.Errorf("the server was built with a block size of %d bytes: only %d is supported", c.BlockSize, pg.PageSize)
	}
	if err := from.belongs(ctx, info); err != nil {
		return c, err
	}
	if inRecovery := c.State == pg.StateArchiveRecovery || c.State == pg.StateCrashRecovery; inRecovery != info.InRecovery {
		return c, wrongDir(from, "pg_control says %q, but the server connected to is a %s", c.State, role(info.InRecovery))
	}
	return c, nil
}

func wrongDir(from Source, format string, args ...any) error {
	return fmt.Errorf("%s is not the data directory of the server that was connected to: %s", from.pgdata(), fmt.Sprintf(format, args...))
}

func role(inRecovery bool) string {
	if inRecovery {
		return "standby"
	}
	return "primary"
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
