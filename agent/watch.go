package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// settle is how long a burst of changes is gathered before a survey.
const settle = 20 * time.Millisecond

// watch surveys pg_wal at start, on every change of archive_status, when asked
// to, and every Options.Rescan.
//
// Only archive_status is watched, not pg_wal: there every write of WAL would be
// an event. The server marks each finished segment in archive_status, on
// standbys whatever archive_mode says; a primary with archive_mode=off marks
// nothing, and its segments are found by the rescan.
func (a *Agent) watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch archive_status: %w", err)
	}
	defer watcher.Close()
	s := &surveyor{dir: a.wal, opts: &a.opts, rested: map[string]resting{}}
	defer func() { s.lock.release() }()
	tick := time.NewTicker(a.opts.Rescan)
	defer tick.Stop()
	for {
		// Again each time: the directory may have been made anew.
		status := filepath.Join(a.wal, "archive_status")
		if err := watcher.Add(status); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.opts.Log.Warn("cannot watch archive_status; segments are found by looking", zap.String("dir", status), zap.Error(err))
		}
		if err := a.survey(ctx, s); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-a.kick:
		case <-watcher.Events:
		case err := <-watcher.Errors:
			a.opts.Log.Debug("watching archive_status", zap.Error(err)) // too many events: the survey sees them all
		}
		a.gather(ctx, watcher)
	}
}

// gather takes the events that come in a burst.
func (a *Agent) gather(ctx context.Context, watcher *fsnotify.Watcher) {
	end := time.NewTimer(settle)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-watcher.Events:
		}
	}
}

// wake asks for a survey soon.
func (a *Agent) wake() {
	select {
	case a.kick <- struct{}{}:
	default: // one is asked for already
	}
}

// survey looks through pg_wal once and puts what it finds into the table. What
// is wrong with the directory is noted, for it may be right again later (it is
// made anew by a new standby); only another cluster ends the agent.
func (a *Agent) survey(ctx context.Context, s *surveyor) error {
	if err := s.own(a.opts.PGData); err != nil {
		return err
	}
	control, err := pg.ReadControl(a.opts.PGData)
	if err == nil {
		if err := a.identify(control); err != nil {
			return err
		}
		var w *pgWAL
		if w, err = s.read(control); err == nil {
			var found []finding
			found, err = s.survey(ctx, w, a.settled)
			a.take(w, found)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.mu.Lock()
	news := text != a.trouble
	a.trouble = text
	a.mu.Unlock()
	switch {
	case news && err != nil:
		a.opts.Log.Warn("cannot look through pg_wal", zap.String("pgdata", a.opts.PGData), zap.Error(err))
	case news:
		a.opts.Log.Info("pg_wal is fine again", zap.String("pgdata", a.opts.PGData))
	}
	return nil
}

// identify compares pg_control with what the agent serves.
func (a *Agent) identify(c pg.Control) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	want := a.opts.SystemID
	if a.known {
		want = a.cluster.SystemID
	}
	if want != 0 && want != c.SystemID {
		return fmt.Errorf("%w: %s is of cluster %s, and this agent serves %s", ErrOtherCluster, a.opts.PGData, c.SystemID, want)
	}
	a.cluster = repo.EpochInfo{SystemID: c.SystemID, PGMajor: c.Major(), SegmentSize: c.SegmentSize}
	a.timeline = c.Timeline
	a.standby = c.State == pg.StateArchiveRecovery || c.State == pg.StateShutDownInRecovery
	return nil
}

// take puts findings into the table.
func (a *Agent) take(w *pgWAL, found []finding) {
	now := a.opts.Clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range found {
		a.offer(f, now, false)
	}
	present := make(map[string]bool, len(w.files))
	for _, f := range w.files {
		present[f.name] = true
	}
	a.missing(present)
	a.limitQueues()
	a.known, a.surveyed = true, now
	a.change()
}
