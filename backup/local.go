package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
)

// controlReads is how often a torn pg_control is read again, controlPause
// apart. The server writes it with one write of 512 bytes or so.
const (
	controlReads = 20
	controlPause = 20 * time.Millisecond
)

// readControl reads pg_control as it is on disk, and what it says. Torn while
// the server writes it, it is read again.
func readControl(ctx context.Context, pgdata string) (entry, []byte, pg.Control, error) {
	path := filepath.Join(pgdata, pg.ControlFile)
	for n := 1; ; n++ {
		st, err := os.Stat(path)
		if err != nil {
			return entry{}, nil, pg.Control{}, fmt.Errorf("read pg_control: %w", err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return entry{}, nil, pg.Control{}, fmt.Errorf("read pg_control: %w", err)
		}
		c, err := pg.ParseControl(b)
		if err == nil {
			return newEntry(pg.ControlFile, kindFile, st), b, c, nil
		}
		if !errors.Is(err, pg.ErrControlCRC) || n == controlReads {
			return entry{}, nil, pg.Control{}, fmt.Errorf("read %s: %w", path, err)
		}
		if err := sleep(ctx, controlPause); err != nil {
			return entry{}, nil, pg.Control{}, err
		}
	}
}

// CheckDataDir returns an error unless pgdata is the data directory of the
// server that info describes.
func CheckDataDir(ctx context.Context, pgdata string, info server.Info) error {
	_, err := checkDataDir(ctx, pgdata, info)
	return err
}

// checkDataDir makes sure that pgdata is the data directory of the server that
// info describes, and not that of another node of the cluster, which has the
// same system identifier and in part the same files.
func checkDataDir(ctx context.Context, pgdata string, info server.Info) (pg.Control, error) {
	_, _, c, err := readControl(ctx, pgdata)
	if err != nil {
		return c, err
	}
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%s is not the data directory of the server that was connected to: %s", pgdata, fmt.Sprintf(format, args...))
	}
	if c.SystemID != info.SystemID {
		return c, wrong("its system identifier is %s, the server's is %s", c.SystemID, info.SystemID)
	}
	if c.Major() != info.Major {
		return c, wrong("it is of version %d, the server of version %d", c.Major(), info.Major)
	}
	if c.BlockSize != pg.PageSize {
		return c, fmt.Errorf("the server was built with a block size of %d bytes: only %d is supported", c.BlockSize, pg.PageSize)
	}
	running, err := postmasterDataDir(pgdata)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, wrong("it has no postmaster.pid, so no server runs in it")
	case err != nil:
		return c, err
	case info.DataDirectory != "" && filepath.Clean(running) != filepath.Clean(info.DataDirectory):
		// Both are paths as the server sees them; ours may differ, in a
		// container beside it.
		return c, wrong("its postmaster.pid belongs to a server that runs in %s, the server connected to runs in %s", running, info.DataDirectory)
	}
	if inRecovery := c.State == pg.StateArchiveRecovery || c.State == pg.StateCrashRecovery; inRecovery != info.InRecovery {
		return c, wrong("pg_control says %q, but the server connected to is a %s", c.State, role(info.InRecovery))
	}
	return c, nil
}

// postmasterDataDir reads the second line of postmaster.pid: the data
// directory in the words of the server itself.
func postmasterDataDir(pgdata string) (string, error) {
	f, err := os.Open(filepath.Join(pgdata, "postmaster.pid"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if n == 2 {
			return strings.TrimSpace(lines.Text()), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read postmaster.pid: %w", err)
	}
	return "", fmt.Errorf("read postmaster.pid in %s: it has no second line", pgdata)
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
