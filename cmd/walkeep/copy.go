package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/transfer"
)

type copyFlags struct {
	from, to string
	wal      string
	workers  int
	wait     time.Duration
	json     bool
}

func newCopyCommand(r *root) *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use:   "copy LABEL --from REPO --to REPO",
		Short: "Copy a backup from one repository to another",
		Long: `Copy a backup, the backups that it builds on, and the WAL that makes them
consistent from one repository to another; with --wal all, all WAL that follows
the first of them too, so that the copy can be restored to the latest moment.
Without it there are gaps between the backups, which verify and wal status show.

What is copied is verified against the digests of the source, and encrypted anew
for the target as its configuration says; to copy from an encrypted repository
the private key of its data is needed. What is there already is not copied again:
a copy that was killed goes on where it was. The exit status is 5 if another
copies the same backup, and 3 if there is no such backup.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return r.runCopy(c, args[0], f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "the repository that has the backup")
	fl.StringVar(&f.to, "to", "", "the repository to copy it to")
	fl.StringVar(&f.wal, "wal", "needed", "needed: what makes the backups consistent; all: all that follows the first of them, too")
	fl.IntVar(&f.workers, "workers", 4, "packs and segments that are copied at a time")
	fl.DurationVar(&f.wait, "wait", 0, "how long to wait for another copy of the same backup")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	return c
}

func (r *root) runCopy(c *cobra.Command, text string, f copyFlags) error {
	ctx := c.Context()
	label, err := repo.ParseLabel(text)
	switch {
	case err != nil:
		return usageErrorf("%w", err)
	case f.from == "" || f.to == "" || f.from == f.to:
		return usageErrorf("--from and --to name two repositories")
	case f.wal != "needed" && f.wal != "all":
		return usageErrorf("--wal %s: expected needed or all", f.wal)
	case f.workers < 1 || f.workers > 64:
		return usageErrorf("--workers %d: expected 1 to 64", f.workers)
	}
	from, err := r.repositories(ctx, f.from)
	if err != nil {
		return err
	}
	to, err := r.repositories(ctx, f.to)
	if err != nil {
		return err
	}
	found, err := findBackup(ctx, from, label)
	if err != nil {
		return err
	}
	progress := newProgress(r.stderr, time.Now)
	defer progress.close()
	result, err := transfer.Run(ctx, transfer.Options{
		From: from[0], To: to[0], SystemID: found.epoch.SystemID(), Label: label,
		AllWAL: f.wal == "all", Workers: f.workers, Wait: f.wait, Progress: progress, Log: r.logger(),
	})
	progress.close()
	if f.json {
		return errors.Join(err, r.printJSON(result))
	}
	if err != nil {
		return err
	}
	for _, l := range result.Present {
		fmt.Fprintf(r.stderr, "%s has %s already\n", f.to, l)
	}
	fmt.Fprintf(r.stderr, "copied %d backups to %s: %d packs, %s, and %d segments; WAL goes on to %s\n",
		len(result.Copied), f.to, result.Packs, size(result.Bytes), result.Segments, result.Latest)
	r.printf("%s\n", label)
	return nil
}
