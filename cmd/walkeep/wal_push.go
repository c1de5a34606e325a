package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
)

func newWALPushCommand(r *root) *cobra.Command {
	return &cobra.Command{
		Use:   "push PATH...",
		Short: "Archive files of pg_wal in all repositories",
		Long: `Archive segments, history files or backup history files in all repositories. The
exit status is 0 only when each is durable in as many of them as archive.require
says. It may be pushed from several nodes, and again. For archive_command:

  archive_command = 'walkeep-wal push "%p"'

Of a directory, such as the pg_wal of a server that crashed, all is archived that
the server had begun to write there. A segment that is not complete is kept as a
partial one, which walkeep restore --use-partial can use. Empty files, as a failed
pg_rewind leaves them, are passed over.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			quitQuietly()
			paths, directory, err := filesOfWAL(args)
			if err != nil {
				return err
			}
			a, err := r.archive(c, directory)
			if err != nil {
				return err
			}
			return pushFiles(c.Context(), a, paths, directory)
		},
	}
}

// pushFiles goes on after a file that cannot be archived: the others may be the
// ones that matter. In a directory there are files that the server keeps for later
// use; of some that shows only when they are read to their end.
func pushFiles(ctx context.Context, a *archive.Archive, paths []string, directory bool) error {
	var errs []error
	for _, p := range paths {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		if _, err := a.Push(ctx, p); err != nil && !(directory && errors.Is(err, wal.ErrWrongPage)) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// filesOfWAL replaces directories by the files in them, history files first:
// they say whose the segments of a timeline are.
func filesOfWAL(args []string) (paths []string, directory bool, err error) {
	for _, arg := range args {
		st, err := os.Stat(arg)
		if err != nil || !st.IsDir() {
			paths = append(paths, arg) // what is wrong with it, the push says
			continue
		}
		entries, err := os.ReadDir(arg)
		if err != nil {
			return nil, false, fmt.Errorf("list %s: %w", arg, err)
		}
		directory = true
		var segments []string
		for _, e := range entries {
			path := filepath.Join(arg, e.Name())
			switch pg.KindOf(e.Name()) {
			case pg.FileHistory:
				// A pg_rewind that failed half way leaves empty ones: it had
				// made room for the new primary's.
				if st, err := e.Info(); err != nil || st.Size() > 0 {
					paths = append(paths, path)
				}
			case pg.FileSegment:
				begun, err := begunSegment(path)
				if err != nil {
					return nil, false, err
				}
				if begun {
					segments = append(segments, path)
				}
			}
		}
		paths = append(paths, segments...)
	}
	return paths, directory, nil
}

// begunSegment tells a segment from a file that the server keeps for later use.
func begunSegment(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, wal.FirstPageSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	err = wal.CheckFirst(head[:n], pg.SegmentName(filepath.Base(path)), 0, 0)
	return !errors.Is(err, wal.ErrNotWAL) && !errors.Is(err, wal.ErrWrongPage), nil
}
