package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// commit makes the directory one that a server can be started in. In this
// order, so that a crash anywhere leaves a directory without pg_control, which
// no server starts in, or a complete one:
//
//  1. The recovery settings and recovery.signal; owners and modes of
//     directories; everything made durable.
//  2. global/pg_control, durable.
//  3. The markers go, the one of PGDATA first: from then on nothing here is
//     taken for remains. A marker that stays in a tablespace harms nobody.
func (r *run) commit(ctx context.Context) error {
	r.opts.Progress.Stage("write the recovery settings")
	if err := r.writeSettings(); err != nil {
		return r.tell(err)
	}
	if err := r.writePartial(ctx); err != nil {
		return r.tell(err)
	}
	if err := r.writeLeft(ctx); err != nil {
		return r.tell(err)
	}
	if err := r.tree.finish(r.self); err != nil {
		return err
	}
	r.opts.Progress.Stage("make it durable")
	if err := r.sync(); err != nil {
		return r.tell(err)
	}
	if err := r.step("durable"); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.writeControl(ctx); err != nil {
		return r.tell(err)
	}
	if err := r.step("control"); err != nil {
		return err
	}
	if err := r.places[""].done(); err != nil {
		return err
	}
	for link, p := range r.places {
		if err := r.step("unmarked"); err != nil {
			return err
		}
		if link == "" {
			continue
		}
		if err := p.done(); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) writeSettings() error {
	const name = "postgresql.auto.conf"
	root := r.places[""].root
	old, err := root.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", name, err)
	}
	content := editConf(old, string(r.plan.Backup.Label), recoverySettings(r.plan, r.opts))
	signal, other := "recovery.signal", "standby.signal"
	if r.plan.Standby {
		signal, other = other, signal
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{name, content}, {signal, nil}} {
		out, err := r.create(f.name)
		if err != nil {
			return err
		}
		if _, err := out.Write(f.content); err != nil {
			return errors.Join(fmt.Errorf("write %s: %w", f.name, noSpace(err)), out.Close())
		}
		if err := r.seal(out, f.name); err != nil {
			return err
		}
	}
	// A standby's backup can have one.
	if err := root.Remove(other); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", other, err)
	}
	return nil
}

// writePartial puts the partial segment into pg_wal under the segment's name,
// lengthened with zeroes, as a server leaves it that dies. Recovery looks there
// when restore_command does not have a segment, so the whole one, should it
// turn up in the archive, goes first. Like all else it is there before
// pg_control is.
func (r *run) writePartial(ctx context.Context) error {
	p := r.plan.Partial
	if p == nil {
		return nil
	}
	return r.writeSegment(ctx, p.Segment, repo.PartialFile(p.Segment, p.ValidTo), p.ValidTo)
}

// writeLeft does so with what the segment that recovery ends in has of timelines
// that were left in it. Marked as archived, because nobody is to archive it again
// under a name that only the incomplete segment of the old primary has.
func (r *run) writeLeft(ctx context.Context) error {
	from := repo.SegmentFile(r.plan.Stop.Segment)
	if p := r.plan.Partial; p != nil && p.Segment == r.plan.Stop.Segment {
		from = repo.PartialFile(p.Segment, p.ValidTo)
	}
	for _, l := range r.plan.Left {
		if err := r.writeSegment(ctx, l.Segment, from, l.To); err != nil {
			return err
		}
		name := path.Join("pg_wal", "archive_status", string(l.Segment)+".done")
		f, err := r.create(name)
		if err != nil {
			return err
		}
		if err := r.seal(f, name); err != nil {
			return err
		}
	}
	return nil
}

// writeSegment makes a segment in pg_wal of what the archive has, up to an LSN,
// and zeroes.
func (r *run) writeSegment(ctx context.Context, segment pg.SegmentName, from repo.WALName, to pg.LSN) error {
	name := path.Join("pg_wal", string(segment))
	f, err := r.create(name)
	if err != nil {
		return err
	}
	size := r.plan.SegmentSize
	n := int64(to - size.Start(size.SegmentOf(to-1)))
	if err = r.fetchWAL(ctx, from, f, n); err == nil {
		err = f.Truncate(int64(size))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, noSpace(err)), f.Close())
	}
	return r.seal(f, name)
}

// fetchWAL writes the first bytes of an archived file: the plan's repository's, or
// another's if that one cannot give it any more.
func (r *run) fetchWAL(ctx context.Context, from repo.WALName, to *os.File, n int64) error {
	_, err := r.plan.epoch.GetWAL(ctx, from, &firstBytes{w: to, left: n})
	for _, other := range r.opts.Archives {
		if err == nil || ctx.Err() != nil {
			break
		}
		if other.Name() == r.plan.Repository {
			continue
		}
		err2 := to.Truncate(0)
		if err2 == nil {
			_, err2 = to.Seek(0, io.SeekStart)
		}
		if err2 != nil {
			return err2
		}
		if _, err2 = other.Epoch(r.plan.SystemID).GetWAL(ctx, from, &firstBytes{w: to, left: n}); err2 == nil {
			r.opts.Log.Warn("taken from another repository", zap.Stringer("file", from), zap.String("other", other.Name()), zap.Error(err))
			return nil
		}
		err = errors.Join(err, err2)
	}
	return err
}

// firstBytes passes on the first bytes that are written to it.
type firstBytes struct {
	w    io.Writer
	left int64
}

func (f *firstBytes) Write(b []byte) (int, error) {
	n, err := f.w.Write(b[:min(int64(len(b)), f.left)])
	f.left -= int64(n)
	if err != nil {
		return n, err
	}
	return len(b), nil
}

func (r *run) sync() error {
	for _, s := range r.syncers {
		if err := s.sync(); err != nil {
			return err
		}
	}
	return nil
}

// writeControl restores global/pg_control under another name, makes it
// durable, and renames it.
func (r *run) writeControl(ctx context.Context) error {
	if r.control == nil {
		return &repo.DamageError{Key: r.manifestKey, Why: "it has no " + controlFile}
	}
	const half = controlFile + ".restoring"
	out := r.control.out
	out.entry.Path = half
	b := &batch{pack: r.manifest.Packs()[r.control.chunk.Pack], items: []item{*r.control}}
	b.end = r.control.chunk.Offset + int64(r.control.chunk.Stored)
	q := newReady()
	if err := q.put(ctx, b); err != nil {
		return err
	}
	q.end()
	if err := newWorker(r).run(ctx, q, inOrder); err != nil {
		return err
	}
	root := r.places[""].root
	f, err := root.OpenFile(half, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", half, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", half, noSpace(err))
	}
	if err := root.Rename(half, controlFile); err != nil {
		return fmt.Errorf("rename %s: %w", half, err)
	}
	d, err := root.Open("global")
	if err != nil {
		return fmt.Errorf("open global: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync global: %w", noSpace(err))
	}
	return nil
}
