package streaming

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// lane stores the files of the spool in one repository, in order.
type lane struct {
	r    *Receiver
	i    int
	wake chan struct{}

	// Guarded by r.mu:
	urgent   bool // store the growing segment without waiting for the interval
	due      time.Time
	durable  mark // how far this repository has the WAL
	failed   error
	failedAt time.Time // first failure in a row
	skipped  int       // files given up
	partials int       // stored
}

// mark is a place in the WAL.
type mark struct {
	timeline pg.Timeline
	lsn      pg.LSN
}

// failing reports whether the last attempt failed. Caller holds r.mu.
func (l *lane) failing() bool { return l.failed != nil }

func (l *lane) run(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		f, wait := l.next(time.Now())
		if f == nil {
			l.sleep(ctx, wait)
			continue
		}
		began := time.Now()
		err := l.store(ctx, f)
		l.note(err, began)
		if err == nil {
			pause = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		pause = min(max(2*pause, 200*time.Millisecond), l.r.opts.Retry)
		l.r.opts.Log.Warn("streamed WAL could not be stored, trying again", zap.String("repo", l.r.opts.Repos[l.i].Name()),
			zap.String("file", f.name), zap.Error(err))
		sleep(ctx, pause)
	}
}

func (l *lane) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-l.wake:
	}
}

// next is the file to store now, or how long there is none.
func (l *lane) next(now time.Time) (*file, time.Duration) {
	const idle = time.Minute
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	for _, f := range l.r.files {
		own := &f.own[l.i]
		if own.done {
			continue
		}
		p, size, lineage := f.now()
		if p != growing {
			return f, 0
		}
		if size == own.size && lineage == own.lineage {
			l.urgent = false
			return nil, max(l.due.Sub(now), min(l.r.opts.Interval, time.Second))
		}
		if !l.urgent && now.Before(l.due) {
			return nil, l.due.Sub(now)
		}
		l.urgent = false
		return f, 0
	}
	return nil, min(idle, l.r.opts.Interval)
}

// note remembers how an attempt went.
func (l *lane) note(err error, began time.Time) {
	now := time.Now()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	// Half of the time is for the others.
	l.due = began.Add(max(l.r.opts.Interval, 2*now.Sub(began)))
	if err != nil && l.failed == nil {
		l.failedAt = now
	}
	l.failed = err
	l.r.sweep()
}

// store stores a file as it is now.
func (l *lane) store(ctx context.Context, f *file) error {
	if p, size, _ := f.now(); p == ended && size == 0 {
		l.settle(f, mark{}, stored{done: true})
		return nil
	}
	// While the file is examined, nothing is written to it.
	f.mu.RLock()
	p, size, lineage := f.phase, f.size, f.lineage
	opened, err := l.archive().Open(f.path)
	f.mu.RUnlock()
	switch {
	case errors.Is(err, fs.ErrNotExist) && p == growing:
		return nil // renamed or removed: the next turn finds what it is now
	case errors.Is(err, archive.ErrRefused):
		return l.refused(f, err)
	case err != nil:
		return err
	}
	defer opened.Close() //nolint:errcheck // it was only read
	if p == growing || p == ended {
		return l.partial(ctx, f, opened, p, size, lineage)
	}
	outcome, err := l.archive().PushTo(ctx, l.i, opened)
	if errors.Is(err, archive.ErrRefused) {
		return l.refused(f, err)
	}
	if err != nil {
		return err
	}
	var at mark
	if p == whole {
		at = mark{pg.SegmentName(f.name).Timeline(), f.end}
	}
	before := l.settle(f, at, stored{done: true})
	if outcome == archive.Conflict {
		return nil // the whole one there is another's: nothing is outdated by it
	}
	return l.deleteOld(ctx, before, repo.WALName{}, lineage)
}

func (l *lane) archive() *archive.Archive {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.r.archive
}

// partial stores what there is of a segment. Order: first the longer one, and
// only when it is durable, the one before is deleted. A crash in between leaves
// both.
func (l *lane) partial(ctx context.Context, f *file, opened *archive.File, p phase, size int64, lineage int) error {
	name := opened.Name()
	at := mark{pg.SegmentName(f.name).Timeline(), name.ValidTo}
	l.r.mu.Lock()
	before := f.own[l.i]
	l.r.mu.Unlock()
	now := stored{done: p == ended, partial: name, lineage: lineage, size: size, ours: before.ours}
	if name.ValidTo <= f.start || name == before.partial && lineage == before.lineage {
		// Nothing whole in it, or nothing more than before.
		now.partial, now.lineage = before.partial, before.lineage
		if before.partial == (repo.WALName{}) {
			now.lineage = lineage
		}
		l.settle(f, mark{}, now)
		return nil
	}
	outcome, err := l.archive().PushTo(ctx, l.i, opened)
	if errors.Is(err, archive.ErrRefused) {
		return l.refused(f, err)
	}
	if err != nil {
		return err
	}
	now.ours = outcome == archive.Stored
	l.settle(f, at, now)
	return l.deleteOld(ctx, before, name, lineage)
}

// settle notes what the lane has of f now, and returns what it had.
func (l *lane) settle(f *file, at mark, now stored) (before stored) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	before, f.own[l.i] = f.own[l.i], now
	if at.lsn != 0 {
		l.durable = at
	}
	if now.ours && now.partial != before.partial {
		l.partials++
	}
	return before
}

// deleteOld deletes the partial segment that this lane stored before, now that
// a longer one (or the whole segment: longer is empty), which begins with it,
// is durable here. Of another lineage it does not begin with it.
func (l *lane) deleteOld(ctx context.Context, before stored, longer repo.WALName, lineage int) error {
	if !before.ours || before.lineage != lineage || before.partial == longer || before.partial == (repo.WALName{}) {
		return nil
	}
	l.r.mu.Lock()
	id := l.r.id
	l.r.mu.Unlock()
	r := l.r.opts.Repos[l.i]
	if err := r.Epoch(id).DeletePartial(ctx, before.partial); err != nil && ctx.Err() == nil {
		// Under an object lock, say. It is garbage, and expiry will find it.
		l.r.opts.Log.Warn("an outdated partial segment stays", zap.String("repo", r.Name()), zap.Stringer("file", before.partial), zap.Error(err))
	}
	return nil
}

// refused passes over a file that no repeated attempt would archive.
func (l *lane) refused(f *file, err error) error {
	l.r.opts.Log.Error("streamed WAL is not archived", zap.String("repo", l.r.opts.Repos[l.i].Name()), zap.String("file", f.name), zap.Error(err))
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	_, size, lineage := f.now()
	if p, _, _ := f.now(); p == growing {
		f.own[l.i].size, f.own[l.i].lineage, f.own[l.i].ours = size, lineage, false
		return nil
	}
	f.own[l.i] = stored{done: true}
	l.skipped++
	return nil
}
