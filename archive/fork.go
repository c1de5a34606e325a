package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/conf"
	"github.com/walkeep/walkeep/repo"
)

// probedFor is how long it is believed that a timeline has no successor. Much
// less than it takes from a promotion to the first archived segment after it.
const probedFor = 2 * time.Second

// fork makes sure that a standby does not follow a dead primary past the point
// where the living one left it.
//
// A server asks for a segment on the newest timeline of its path, and, if it is
// not archived there, on the older ones (xlogrecovery.c, XLogFileReadAnyTLI),
// also for the segment in which the older one was left. After a failover the new
// primary's history file is archived at once, its first segment when it is full.
// If the old primary archived a segment of that number in between, a standby
// replays what only the old primary had, and has to be made anew.
//
// So that one segment, in which the timeline was left, is not archived for a
// standby which
//   - aims at the latest timeline (recovery_target_timeline), which then is the one
//     that left: found as the server finds it, by counting up (timeline.c,
//     findNewestTimeLine), in pg_wal or in the archive;
//   - is not past the fork itself, as far as pg_control knows.
//
// It asks again, and is served by the new primary's segment, or by streaming. A
// standby that is to stay on the old timeline says so in recovery_target_timeline.
// Others are not concerned: pg_rewind, which reads the old primary's segments on
// purpose, and recovery to a target, which takes "not archived" for the end.
type fork struct {
	a    *Archive
	q    ask
	wal  string // the pg_wal of the standby
	size pg.SegmentSize
	pos  Position // of the standby, at least
	seg  pg.SegmentName
}

// newFork is nil if the question is not concerned.
func (a *Archive) newFork(q ask, wal string) *fork {
	seg, err := pg.ParseSegmentName(q.name)
	if err != nil || !forStandby(filepath.Join(wal, q.name)) {
		return nil
	}
	c, err := control(filepath.Join(wal, q.name))
	if err != nil || c == nil {
		return nil
	}
	f := &fork{a: a, q: q, wal: wal, size: c.SegmentSize, seg: seg}
	f.pos = Position{Timeline: c.Timeline, LSN: c.Checkpoint}
	if c.MinRecovery > f.pos.LSN {
		f.pos = Position{Timeline: c.MinRecoveryTimeline, LSN: c.MinRecovery}
	}
	return f
}

// begin looks for a fork while the segment is fetched, and returns what waits for
// the answer: ErrNotArchived, with the reason, if the segment is not to be served.
// What cannot be found out is no reason. end ends the search.
func (f *fork) begin(ctx context.Context) (answer func() error, end func()) {
	if f == nil {
		return func() error { return nil }, func() {}
	}
	// Who does not answer must not keep the segment from the standby.
	ctx, cancel := context.WithTimeout(ctx, f.a.opts.StandbyPatience/3)
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = f.check(ctx)
	}()
	wait := func() { <-done }
	return func() error { wait(); return err }, func() { cancel(); wait() }
}

func (f *fork) check(ctx context.Context) error {
	t := f.seg.Timeline()
	newest := f.newest(ctx, t)
	n, err := f.seg.Number(f.size)
	if err != nil || newest.Timeline == 0 {
		return nil
	}
	for _, span := range newest.Path() {
		if span.Timeline != t || f.size.SegmentOf(span.To) != n || f.pos.Timeline == t && f.pos.LSN > span.To || !f.followsLatest() {
			continue
		}
		return fmt.Errorf("%w for a standby that follows the latest timeline: timeline %d leaves timeline %d at %s, in this segment; "+
			"to stay on timeline %d, set recovery_target_timeline to %d", ErrNotArchived, newest.Timeline, t, span.To, t, t)
	}
	return nil
}

// followsLatest: the server's default, and what it does if nothing can be found
// out about its configuration is not held against it.
func (f *fork) followsLatest() bool {
	const setting = "recovery_target_timeline"
	value, set, err := conf.Lookup(filepath.Dir(f.wal), setting)
	if err != nil {
		f.a.opts.Log.Debug("not known which timeline the standby follows", zap.Error(err))
		return false
	}
	return !set || value == "latest"
}

// newest is the history of the newest timeline after t; the zero value if there
// is none.
func (f *fork) newest(ctx context.Context, t pg.Timeline) (newest pg.History) {
	// The server keeps the history of the timeline that it aims at in pg_wal.
	for _, h := range LocalHistories(f.wal) {
		if h.Timeline > max(t, newest.Timeline) {
			newest = h
		}
	}
	for n := max(t, newest.Timeline) + 1; !f.a.probedLately(n); n++ {
		h, err := f.a.history(ctx, f.q.id, n)
		if err != nil {
			if errors.Is(err, ErrNotArchived) {
				f.a.probed(n)
			} else if ctx.Err() == nil {
				f.a.opts.Log.Debug("not known whether there is a newer timeline", zap.Error(err))
			}
			break
		}
		newest = h
	}
	return newest
}

// LocalHistories are the history files in a pg_wal that can be read.
func LocalHistories(wal string) (all []pg.History) {
	names, _ := filepath.Glob(filepath.Join(wal, "*.history"))
	for _, path := range names {
		name := filepath.Base(path)
		if pg.KindOf(name) != pg.FileHistory {
			continue
		}
		t, err := pg.ParseTimeline(name[:8])
		if err != nil {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if h, err := pg.ParseHistory(t, b); err == nil {
			all = append(all, h)
		}
	}
	return all
}

// history reads the history file of a timeline from the first repository that
// yields it. ErrNotArchived: certainly in none of those that are well.
func (a *Archive) history(ctx context.Context, id pg.SystemID, t pg.Timeline) (pg.History, error) {
	order, well := a.inOrder()
	type answer struct {
		h   pg.History
		err error
	}
	answers := make(chan answer, well)
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer func() { cancel(); all.Wait() }()
	for _, i := range order[:well] {
		all.Go(func() {
			var b bytes.Buffer
			_, err := a.epoch(i, id).GetWAL(ctx, repo.WALName{Kind: pg.FileHistory, Name: pg.HistoryName(t)}, &b)
			var h pg.History
			if err == nil {
				h, err = pg.ParseHistory(t, b.Bytes())
			}
			answers <- answer{h, err}
		})
	}
	err := ErrNotArchived
	for range well {
		got := <-answers
		if got.err == nil {
			return got.h, nil
		}
		if !absent(got.err) {
			err = got.err
		}
	}
	return pg.History{}, err
}

// probedLately reports whether the timeline was not there a moment ago.
func (a *Archive) probedLately(t pg.Timeline) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.noTimeline == t && time.Since(a.noTimelineAt) < probedFor
}

func (a *Archive) probed(t pg.Timeline) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noTimeline, a.noTimelineAt = t, time.Now()
}
