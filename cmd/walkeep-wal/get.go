package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/archive/prefetch"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/dial"
)

// errNotHere: this get is one for walkeep.
var errNotHere = errors.New("not a get for this program")

// getDirectly gets a file here, without becoming walkeep, from the spool or
// from repositories that are all on file systems. done is false if it is a case
// for walkeep: other repositories, or wrong arguments. Else status is the exit
// status, and err goes with one that is not 0. file is the configuration's.
func getDirectly(c *config.Config, file, name, dest string) (done bool, status int, err error) {
	if pg.KindOf(name) == pg.FileUnknown {
		return false, 0, nil
	}
	if st, err := os.Stat(filepath.Dir(dest)); err != nil || !st.IsDir() {
		return false, 0, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := serverLog()
	g := prefetch.Getter{
		Archive: func(ctx context.Context) (*archive.Archive, error) { return openArchive(ctx, c, log) },
		Start:   func(r *prefetch.Recovery) error { return startPrefetcher(r, file) },
		Options: spoolOptions(c, log),
	}
	_, err = g.Get(ctx, name, dest)
	switch {
	case err == nil:
		return true, 0, nil
	case errors.Is(err, errNotHere):
		return false, 0, nil
	case ctx.Err() != nil:
		// The server ends recovery without complaint when its own SIGTERM
		// ended restore_command.
		return true, 128 + int(syscall.SIGTERM), err
	case errors.Is(err, archive.ErrNotArchived):
		return true, notArchived, err
	}
	return true, usageGet, err
}

// notArchived is the status of a get of what is certainly in no repository.
const notArchived = 1

func spoolOptions(c *config.Config, log *zap.Logger) prefetch.Options {
	o := prefetch.Options{
		Path: c.Archive.Spool.Path, Size: int64(c.Archive.Spool.Size), Workers: c.Archive.Workers,
		Origin: dial.Origin(c), Log: log,
	}
	if o.Path == config.NoSpool {
		o.Path, o.Off = "", true
	}
	return o
}

// startPrefetcher has walkeep prefetch in the background.
func startPrefetcher(r *prefetch.Recovery, configFile string) error {
	walkeep, err := findWalkeep()
	if err != nil {
		return err
	}
	if configFile, err = filepath.Abs(configFile); err != nil {
		return fmt.Errorf("find the configuration file: %w", err)
	}
	return prefetch.Detach(r, walkeep, "--config", configFile, "wal", "prefetch", r.WAL)
}
