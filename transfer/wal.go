package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// wal copies the WAL from the start of a backup up to an LSN, or to the end of
// what there is without a gap, and the history files of its timelines.
func (c *copying) wal(ctx context.Context, s repo.Summary, to pg.LSN) error {
	line := c.held.Line(s.Timeline)
	if to == pg.MaxLSN {
		line = c.newest(line, s.StopLSN)
	}
	reach := c.held.Reach(line, s.StartLSN)
	if reach.End < s.StopLSN {
		return &repo.DamageError{Key: string(c.size.Name(reach.Timeline, reach.Missing)), Why: "the segment is missing, which the backup needs", Err: repo.ErrNotFound}
	}
	for _, span := range line {
		if err := c.history(ctx, span.Timeline); err != nil {
			return err
		}
	}
	c.Progress.Stage("copying WAL of " + string(s.Label))
	var mu sync.Mutex // guards c.result
	for _, r := range reach.Ranges {
		last := r.Last
		if to != pg.MaxLSN {
			last = min(last, c.size.SegmentOf(to-1))
		}
		if last < r.First {
			break
		}
		missing, err := c.to.MissingSegments(ctx, r.Timeline, r.First, last)
		if err != nil {
			return err
		}
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(c.Workers)
		lacks := map[pg.SegmentNo]bool{}
		for _, n := range missing {
			lacks[n] = true
		}
		for n := r.First; n <= last; n++ {
			name := repo.SegmentFile(c.size.Name(r.Timeline, n))
			group.Go(func() error {
				if !lacks[n] && to == pg.MaxLSN {
					return nil // the WAL that makes the backup consistent was compared
				}
				if !lacks[n] {
					return c.sameFile(gctx, name)
				}
				err := c.file(gctx, name)
				mu.Lock()
				defer mu.Unlock()
				c.result.Segments++
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		mu.Lock()
		c.result.Latest = max(c.result.Latest, c.size.Start(last+1))
		mu.Unlock()
	}
	return nil
}

// newest is the line of the newest timeline that goes on from a line.
func (c *copying) newest(line repo.Line, stop pg.LSN) repo.Line {
	best := line
	for _, t := range c.held.Timelines() {
		other := c.held.Line(t)
		if t > best.Timeline() && other.Holds(line.Timeline(), stop) {
			best = other
		}
	}
	return best
}

// history copies the history file of a timeline, if the source has it.
func (c *copying) history(ctx context.Context, t pg.Timeline) error {
	name := repo.HistoryFile(t)
	if _, ok := c.held.Histories[t]; !ok {
		return nil
	}
	_, err := c.to.WALHead(ctx, name)
	switch {
	case err == nil:
		return c.sameFile(ctx, name)
	case errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity):
		return c.file(ctx, name)
	}
	return err
}

// file copies a file of pg_wal through a temporary file, whose digest is
// checked on the way in and on the way out.
func (c *copying) file(ctx context.Context, name repo.WALName) error {
	tmp, err := os.CreateTemp("", "walkeep-*")
	if err != nil {
		return fmt.Errorf("create a temporary file: %w", err)
	}
	defer tmp.Close()
	_ = os.Remove(tmp.Name())
	head, err := c.from.GetWAL(ctx, name, tmp)
	if err != nil {
		return err
	}
	if name.Kind == pg.FileSegment {
		// What it changes serves later incremental backups.
		changes, err := c.from.WALChanges(ctx, pg.SegmentName(name.Name))
		if err == nil {
			head.Changes = changes
		} else if !errors.Is(err, repo.ErrNoChanges) {
			return err
		}
	}
	if _, err := tmp.Seek(0, 0); err != nil {
		return fmt.Errorf("read a temporary file: %w", err)
	}
	err = c.to.PutWAL(ctx, head, tmp)
	if errors.Is(err, repo.ErrExists) { // another was faster
		return c.sameFile(ctx, name)
	}
	return err
}

// sameFile makes sure that both repositories have the same file, padding aside.
func (c *copying) sameFile(ctx context.Context, name repo.WALName) error {
	one, err := c.from.WALHead(ctx, name)
	if err != nil {
		return err
	}
	two, err := c.to.WALHead(ctx, name)
	if err != nil {
		return err
	}
	if one.XXH3 != two.XXH3 && (one.RecordsXXH3 == "" || one.RecordsXXH3 != two.RecordsXXH3 || one.ValidTo != two.ValidTo) {
		return fmt.Errorf("%s is another file in %s than in %s: the backup cannot be restored with it", name, c.To.Name(), c.From.Name())
	}
	return nil
}
