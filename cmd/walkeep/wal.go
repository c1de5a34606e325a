package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/archive/prefetch"
	"github.com/walkeep/walkeep/pg"
)

// newWALCommand groups what concerns the WAL. PostgreSQL calls push and get
// through walkeep-wal.
func newWALCommand(r *root) *cobra.Command {
	c := &cobra.Command{
		Use:   "wal",
		Short: "Archive WAL, and bring it back",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return usageErrorf("no subcommand given")
		},
	}
	c.AddCommand(newWALPushCommand(r), newWALGetCommand(r), newWALPrefetchCommand(r), newWALStatusCommand(r), newWALRepairCommand(r))
	return c
}

func newWALGetCommand(r *root) *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME DEST",
		Short: "Bring back an archived file",
		Long: `Bring an archived segment or history file back, from the first repository that
has it whole. The exit status is 0 on success, 1 if every repository answered that
it does not have the file, and above 125 in all other cases, so that PostgreSQL
does not take a failure for the end of the WAL. A standby, which asks again, gets 1
also when a repository does not answer. Segments that follow are fetched
in the background, into archive.spool of the configuration. For restore_command:

  restore_command = 'walkeep-wal get "%f" "%p"'`,
		Args:        cobra.ExactArgs(2),
		Annotations: map[string]string{restoreCommandKey: "true"},
		RunE: func(c *cobra.Command, args []string) error {
			quitQuietly()
			name, dest := args[0], args[1]
			if pg.KindOf(name) == pg.FileUnknown {
				return usageErrorf("%q is not the name of a WAL segment or history file", name)
			}
			if st, err := os.Stat(filepath.Dir(dest)); err != nil || !st.IsDir() {
				return usageErrorf("%s: its directory does not exist", dest)
			}
			cfg, err := r.config()
			if err != nil {
				return err
			}
			g := prefetch.Getter{
				Archive: func(context.Context) (*archive.Archive, error) { return r.archive(c, false) },
				Start:   r.startPrefetcher, Options: spoolOptions(cfg, r.logger()),
			}
			if _, err = g.Get(c.Context(), name, dest); errors.Is(err, archive.ErrNotArchived) {
				return fmt.Errorf("%w: %w", err, errNothingFound)
			}
			return err
		},
	}
}

// archive opens all repositories for pushing and getting; unfinished as in
// archive.Options.
func (r *root) archive(c *cobra.Command, unfinished bool) (*archive.Archive, error) {
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	repos, err := r.repositories(c.Context())
	if err != nil {
		return nil, err
	}
	return archive.New(archive.Options{Repos: repos, Require: cfg.Required(), Unfinished: unfinished, Log: r.logger()})
}
