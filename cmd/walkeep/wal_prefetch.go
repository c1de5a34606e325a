package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive/prefetch"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo/dial"
)

// newWALPrefetchCommand is what `wal get` starts in the background.
func newWALPrefetchCommand(r *root) *cobra.Command {
	return &cobra.Command{
		Use:    "prefetch PGWAL",
		Short:  "Fetch segments ahead of a recovery, until it ends",
		Long:   "Started by get. It ends by itself when recovery does not ask for segments any more.",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := r.config()
			if err != nil {
				return err
			}
			o := spoolOptions(cfg, r.logger())
			recovery, err := prefetch.Locate(args[0], o)
			if err != nil {
				return err
			}
			a, err := r.archive(c, false)
			if err != nil {
				return err
			}
			err = prefetch.NewPrefetcher(recovery, a, o).Run(c.Context())
			if errors.Is(err, prefetch.ErrRunning) || c.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
}

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

// startPrefetcher has this program prefetch in the background.
func (r *root) startPrefetcher(recovery *prefetch.Recovery) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the running program: %w", err)
	}
	file, err := filepath.Abs(r.configFile())
	if err != nil {
		return fmt.Errorf("find the configuration file: %w", err)
	}
	return prefetch.Detach(recovery, self, "--config", file, "wal", "prefetch", recovery.WAL)
}
