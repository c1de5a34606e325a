package backup

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// finish brings the backup into existence in every repository that is left:
// its WAL, then the commit. The repositories do not wait for each other.
func (b *run) finish(ctx context.Context) {
	need, err := b.neededWAL(ctx)
	if err != nil {
		for _, t := range b.targets {
			t.fail(err)
		}
		return
	}
	b.endSegment(ctx)
	var all sync.WaitGroup
	for i, t := range b.targets {
		if !t.out.Load() {
			all.Go(func() {
				if err := b.finishOne(ctx, i, t, need); err != nil {
					t.fail(err)
				}
			})
		}
	}
	all.Wait()
	b.noteArchiver(ctx)
}

func (b *run) finishOne(ctx context.Context, i int, t *target, need []walRange) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := t.lease.Context()
	defer context.AfterFunc(lost, func() { cancel(context.Cause(lost)) })()

	err := putHistory(ctx, t, b.Source, b.stop.Timeline, b.info.Major)
	if err != nil {
		return err
	}
	w := walWait{
		need: need, size: b.info.SegmentSize, timeout: b.ArchiveTimeout,
		progress: b.Progress, hint: b.archiveHint(), log: b.Log,
	}
	if b.Push != nil && !b.start.FromStandby {
		w.push = func(ctx context.Context, name pg.SegmentName) error {
			return b.Push(ctx, i, filepath.Join(b.Source.pgdata(), "pg_wal", string(name)))
		}
	}
	if t.pushed, err = w.wait(ctx, t); err != nil {
		return err
	}
	b.Progress.Stage("storing the manifest in " + t.repo.Name())
	if err := t.lease.Check(ctx); err != nil {
		return err
	}
	h, s := b.header(), b.summary()
	if t.parent != nil {
		h.Parent, s.Parent = t.parent.summary.Label, t.parent.summary.Label
	}
	b.stored[i], err = t.writer.Commit(ctx, h, s)
	return err
}

// neededWAL is the WAL from start to stop.
func (b *run) neededWAL(ctx context.Context) ([]walRange, error) {
	var path []pg.TimelineSpan
	if b.start.Timeline != b.stop.Timeline {
		name := "pg_wal/" + pg.HistoryName(b.stop.Timeline)
		text, err := b.Source.readFile(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("read the history of timeline %d: %w", b.stop.Timeline, err)
		}
		h, err := pg.ParseHistory(b.stop.Timeline, text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		path = h.Path()
	}
	return neededWAL(path, b.start.Timeline, b.stop.Timeline, b.start.LSN, b.stop.LSN, b.info.SegmentSize)
}

// endSegment asks the primary to end the segment in which a standby's backup
// ends; a backup of a primary has done so itself. That it cannot is no error:
// the segment ends one day.
func (b *run) endSegment(ctx context.Context) {
	if !b.start.FromStandby || b.Primary == nil || ctx.Err() != nil {
		return
	}
	size := b.info.SegmentSize
	now, err := b.Primary.CurrentLSN(ctx)
	if err == nil && size.SegmentOf(now) > size.SegmentOf(b.stop.LSN-1) {
		return
	}
	if err == nil {
		_, err = b.Primary.SwitchWAL(ctx)
	}
	if err != nil {
		b.Log.Warn("the primary did not end its WAL segment: the backup waits until it ends by itself",
			zap.String("primary", b.Primary.Node()), zap.Error(err))
	}
}

// archiveHint says what to look at when WAL does not arrive.
func (b *run) archiveHint() string {
	hint := "is WAL archived into this repository? See pg_stat_archiver and the server's log, and try: walkeep check"
	switch {
	case b.start.FromStandby && b.Primary == nil:
		hint = "the primary was not reachable, so the segment ends only when it is full or archive_timeout passes there; " + hint
	case !b.start.FromStandby && b.info.ArchiveMode == "off":
		hint = "archive_mode is off on " + b.Server.Node() + ", so only an agent archives its WAL; " + hint
	}
	return hint
}

// noteArchiver says that the backup has its WAL only because it stored it itself.
// Without that it would have failed, and somebody would have noticed.
func (b *run) noteArchiver(ctx context.Context) {
	pushed := false
	for _, t := range b.targets {
		pushed = pushed || t.pushed && !t.out.Load()
	}
	if !pushed || ctx.Err() != nil {
		return
	}
	text := ""
	if b.info.ArchiveMode == "off" {
		text = fmt.Sprintf("archive_mode is off on %s: the backup stored the WAL that it needs itself; unless an agent archives, nothing written since is archived", b.Server.Node())
	} else if a, err := b.Server.Archiver(ctx); err == nil && a.Failing {
		text = fmt.Sprintf("archiving fails on %s, last with %s: the backup stored the WAL that it needs itself, but what is written since is not archived; "+
			"see the server's log, and try: walkeep check", b.Server.Node(), a.LastFailed)
	}
	for _, t := range b.targets {
		if text != "" && t.pushed && !t.out.Load() {
			t.note(b.Log, text)
		}
	}
}

func (b *run) header() repo.Header {
	return repo.Header{
		SystemID: b.info.SystemID, PGVersion: b.info.Version,
		SegmentSize: b.info.SegmentSize, Timeline: b.stop.Timeline,
		StartLSN: b.start.LSN, StopLSN: b.stop.LSN, Start: b.began.UTC(), Stop: b.ended.UTC(),
		FromStandby: b.start.FromStandby, DataChecksums: b.control.DataChecksums,
		BlockSize: b.control.BlockSize, PGData: b.Source.pgdata(), Tablespaces: b.tablespaces,
		Databases: headerDatabases(b.facts.Databases), Place: b.Source.place(),
	}
}

func (b *run) summary() repo.Summary {
	return repo.Summary{
		Start: b.began.UTC(), Stop: b.ended.UTC(), StartLSN: b.start.LSN, StopLSN: b.stop.LSN,
		Timeline: b.stop.Timeline, SystemID: b.info.SystemID, PGVersion: b.info.Version,
		SegmentSize: b.info.SegmentSize, FromStandby: b.start.FromStandby, Node: b.Node, Source: b.Source.name(),
		Annotations: b.Annotations, WalkeepVersion: b.Version,
	}
}
