package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// changeReaders is how many WAL objects are read at a time.
const changeReaders = 16

// firstRecord is where the first record of a segment is at least: behind the
// long page header.
const firstRecord = 40

// walFacts is what the WAL between the parents and this backup tells.
type walFacts struct {
	why     string // why it does not tell which pages have changed; "": it does
	changes *changeSet
	// minimal: wal_level was minimal at some time, or that cannot be told,
	// because of why.
	minimal bool
	unseen  bool
}

// tryChanges: the block changes that were stored with the archived WAL, or, of
// segments that are not archived yet, those in pg_wal.
func (b *run) tryChanges(ctx context.Context, p *planner) (why string, err error) {
	f, err := b.walFacts(ctx)
	if err != nil {
		return "", err
	}
	if f.minimal {
		return "wal_level was minimal", nil
	}
	p.changes = f.changes
	return f.why, nil
}

// walFacts reads them once.
func (b *run) walFacts(ctx context.Context) (*walFacts, error) {
	if b.wal == nil {
		f, err := b.readWALFacts(ctx)
		if err != nil {
			return nil, err
		}
		b.wal = f
	}
	return b.wal, nil
}

func (b *run) readWALFacts(ctx context.Context) (*walFacts, error) {
	f := &walFacts{}
	segments := b.wantedSegments()
	all := make([]*pg.BlockChanges, len(segments))
	reasons := make([]string, len(segments))
	var g errgroup.Group
	g.SetLimit(changeReaders)
	for i, name := range segments {
		last := i == len(segments)-1
		g.Go(func() (err error) {
			all[i], reasons[i], err = b.segmentChanges(ctx, name, last)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, c := range all {
		if c == nil {
			f.unseen, f.why = true, fmt.Sprintf("WAL segment %s: %s", segments[i], reasons[i])
			continue
		}
		f.minimal = f.minimal || c.Minimal
	}
	if f.why == "" {
		f.changes, f.why = mergeChanges(segments, all, uint32(b.control.RelSegBlocks), b.info.Major)
	}
	return f, nil
}

// wantedSegments are the segments that hold the wanted WAL. The segment in
// which a timeline was left is that of its successor, which begins with a copy
// of the old one's part.
func (b *run) wantedSegments() []pg.SegmentName {
	size := b.info.SegmentSize
	var names []pg.SegmentName
	spans := b.wanted()
	for i, s := range spans {
		end := size.SegmentOf(s.to - 1)
		if i < len(spans)-1 {
			end = size.SegmentOf(s.to)
			if end == 0 {
				continue
			}
			end--
		} else if s.to-size.Start(end) <= firstRecord && end > size.SegmentOf(s.from) {
			end-- // nothing but a page header
		}
		for n := size.SegmentOf(s.from); n <= end; n++ {
			names = append(names, size.Name(s.timeline, n))
		}
	}
	return names
}

// segmentChanges is what one segment changes, or why that is not known. The
// last one may be in pg_wal only, as far as the server has written it.
func (b *run) segmentChanges(ctx context.Context, name pg.SegmentName, last bool) (*pg.BlockChanges, string, error) {
	why := "it is in no repository"
	for _, t := range b.targets {
		if t.out.Load() {
			continue
		}
		c, err := t.epoch.WALChanges(ctx, name)
		switch {
		case err == nil:
			return c, "", nil
		case ctx.Err() != nil:
			return nil, "", context.Cause(ctx)
		case !errors.Is(err, repo.ErrNotFound) || errors.Is(err, repo.ErrIntegrity):
			why = err.Error()
		}
	}
	f, err := b.Source.open(ctx, entry{path: "pg_wal/" + string(name), kind: kindFile})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, why, nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read WAL segment %s: %w", name, err)
	}
	defer f.close()
	r, err := wal.Examine(io.NewSectionReader(readerAtOf{ctx, f}, 0, f.size()), name, b.info.SegmentSize, wal.Options{SystemID: b.info.SystemID, Changes: true})
	switch {
	case last && r.Changes != nil && r.ValidTo >= b.start.LSN && (err == nil || errors.As(err, new(*wal.DamagedError))):
		// What matters is there. Behind it the server writes, and a record of
		// which a page is missing yet looks like damage.
		return r.Changes, "", nil
	case err != nil: // the server used the file for another
		return nil, why + ", and in pg_wal: " + err.Error(), nil
	case !r.Complete:
		return nil, why + ", and in pg_wal its records end at " + r.ValidTo.String(), nil
	}
	return r.Changes, "", nil
}

// readerAtOf is a file as the standard library wants it.
type readerAtOf struct {
	ctx  context.Context
	file file
}

func (r readerAtOf) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.file.readAt(r.ctx, p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// mergeChanges adds up what the segments change. A record that crosses a
// border is put together from what both sides kept of it.
func mergeChanges(names []pg.SegmentName, all []*pg.BlockChanges, segmentBlocks uint32, major int) (*changeSet, string) {
	set := newChangeSet(segmentBlocks)
	for i, c := range all {
		if c.Unknown != "" {
			return nil, fmt.Sprintf("WAL segment %s: %s", names[i], c.Unknown)
		}
		set.add(c)
		if c.Open == nil || i == len(all)-1 {
			// What follows the last segment comes after the start of the
			// backup, or is a record that was given up.
			continue
		}
		rest := all[i+1].Rest
		if rest == nil {
			continue // the server crashed in the middle of it: it does not count
		}
		joined := &pg.BlockChanges{Relations: map[pg.RelFile]*pg.RelChanges{}}
		wal.CollectRecord(joined, major, append(append([]byte(nil), c.Open.Data...), rest.Data...))
		if joined.Unknown != "" {
			return nil, fmt.Sprintf("WAL at %s: %s", c.Open.LSN, joined.Unknown)
		}
		set.add(joined)
	}
	return set, ""
}

func (c *changeSet) add(b *pg.BlockChanges) {
	for f, rc := range b.Relations {
		r := relation{f.Tablespace, f.Database, f.Number}
		if rc.Limited {
			c.limit(r, rc.Limit)
		}
		for _, n := range rc.Blocks {
			c.block(r, n)
		}
	}
}
