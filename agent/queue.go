package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/repo"
)

// The waits after failures: of a repository, and of reading a file.
const (
	firstWait = time.Second
	longWait  = time.Minute
)

// queue is the way to one repository: its workers take what the table has for
// it. The fields from failures on are guarded by Agent.mu.
type queue struct {
	agent *Agent
	index int // in Options.Repos
	repo  *repo.Repository
	log   *zap.Logger

	failures int       // attempts that failed since the last that did not
	until    time.Time // no attempt before, if failures > 0
	probing  bool      // one worker tries whether the repository is back
	listing  bool      // one worker lists what is there; the others wait for it
	searched bool      // for holes
	last     error
	lastAt   time.Time
	moved    time.Time // the last success, or when nothing waited
	counters Counters
}

// Counters are of one repository, since the agent started.
type Counters struct {
	Pushed       int64 `json:"pushed"`       // files stored by this agent
	Deduplicated int64 `json:"deduplicated"` // found there, with the same content
	Repaired     int64 `json:"repaired"`     // copied from another repository, because pg_wal had it no more
	Conflicting  int64 `json:"conflicting"`  // found there with other content
	Dropped      int64 `json:"dropped"`      // no longer waited for, because of the queue limit
	Failed       int64 `json:"failed"`       // attempts that failed
}

// work pushes what is due, one file after the other, until ctx ends.
func (q *queue) work(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err // what is due can be endless
		}
		e, list, err := q.next(ctx)
		switch {
		case err != nil:
			return err
		case list != nil:
			q.list(ctx, list)
		case e == nil:
			q.search(ctx)
		default:
			q.attempt(ctx, e)
		}
	}
}

// next waits for a file to push and marks it as taken, or for files to ask the
// repository about in one go; neither if it is time to look for holes.
func (q *queue) next(ctx context.Context) (*entry, *stretch, error) {
	a := q.agent
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		a.mu.Lock()
		e, wait := q.choose(a.opts.Clock())
		if e != nil {
			q.probing = q.failures > 0
			list := q.stretchOf(e)
			if list == nil {
				e.places[q.index].busy, e.places[q.index].asked = true, true
			}
			a.mu.Unlock()
			return e, list, nil
		}
		if q.wantsHoles(a.opts.Clock()) {
			q.listing, q.probing = true, q.failures > 0
			a.mu.Unlock()
			return nil, nil, nil
		}
		changed := a.changed
		a.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-changed:
		case <-timer.C:
		}
	}
}

// choose is the file to push next, or how long there will be none unless the
// table changes. mu is held.
func (q *queue) choose(now time.Time) (best *entry, wait time.Duration) {
	wait = time.Hour
	if q.listing {
		return nil, wait
	}
	if q.failures > 0 {
		if q.probing {
			return nil, wait
		}
		if left := q.until.Sub(now); left > 0 {
			return nil, left
		}
	}
	for _, e := range q.agent.files {
		if !e.needs(q.index) {
			continue
		}
		if left := max(e.due.Sub(now), e.retry.Sub(now)); left > 0 {
			wait = min(wait, left)
			continue
		}
		if best == nil || e.before(best) {
			best = e
		}
	}
	return best, wait
}

// attempt pushes one file and notes what came of it.
func (q *queue) attempt(ctx context.Context, e *entry) {
	a := q.agent
	a.mu.Lock()
	gone := e.gone
	a.mu.Unlock()
	var outcome archive.Outcome
	var err error
	repaired := false
	if !gone {
		outcome, err = q.push(ctx, e)
	}
	if gone || errors.Is(err, errGone) {
		repaired = true
		outcome, err = q.refill(ctx, e)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.change()
	p := &e.places[q.index]
	p.busy = false
	if ctx.Err() != nil {
		q.probing = false
		return
	}
	q.note(e, p, outcome, err, repaired)
	if e.gone && e.over() && a.files[e.name] == e {
		delete(a.files, e.name)
	}
}

// errGone: the file is no longer in pg_wal, or has become another one.
var errGone = errors.New("the file is gone from pg_wal")

// push archives the file from pg_wal.
func (q *queue) push(ctx context.Context, e *entry) (archive.Outcome, error) {
	path := filepath.Join(q.agent.wal, e.name)
	f, err := q.agent.borrow(e, path)
	outcome := archive.Failed
	if err == nil {
		outcome, err = q.agent.archive.PushTo(ctx, q.index, f)
		q.agent.giveBack(e)
	}
	if err == nil {
		return outcome, nil
	}
	if info, statErr := os.Lstat(path); statErr != nil || identityOf(info) != e.id {
		// The server used the file again while it was read. Whatever went
		// wrong says nothing about the segment.
		return archive.Failed, fmt.Errorf("%w (%w)", errGone, err)
	}
	return archive.Failed, err
}

// borrow opens the file of an entry, or shares it with the other repositories
// that are being given it: it is read and examined once for all of them.
func (a *Agent) borrow(e *entry, path string) (*archive.File, error) {
	e.opening.Lock()
	defer e.opening.Unlock()
	if e.file == nil {
		f, err := a.archive.Open(path)
		if err != nil {
			return nil, err
		}
		e.file = f
	}
	e.borrowed++
	return e.file, nil
}

// giveBack closes the file when nobody uses it any more.
func (a *Agent) giveBack(e *entry) {
	e.opening.Lock()
	defer e.opening.Unlock()
	if e.borrowed--; e.borrowed == 0 {
		_ = e.file.Close() // it was only read
		e.file = nil
	}
}

// note enters the result of an attempt. mu is held.
func (q *queue) note(e *entry, p *place, outcome archive.Outcome, err error, repaired bool) {
	now := q.agent.opts.Clock()
	at := []zap.Field{zap.String("file", e.name)}
	switch {
	case err == nil:
		p.state, p.err = there, nil
		switch {
		case outcome == archive.Conflict:
			q.counters.Conflicting++
			p.conflict = true
		case outcome == archive.Present:
			q.counters.Deduplicated++
		case outcome == archive.Nothing:
		case repaired:
			q.counters.Repaired++
		default:
			q.counters.Pushed++
		}
		q.log.Debug("archived", append(at, zap.Stringer("outcome", outcome))...)
		q.well()
	case errors.Is(err, archive.ErrRefused):
		e.refused = err
		q.log.Error("refused to archive a file", append(at, zap.Error(err))...)
		q.well()
	case errors.Is(err, archive.ErrLost):
		p.state, p.err = lost, err
		q.log.Error("a file is in no repository and no longer in pg_wal: gap", append(at, zap.Error(err))...)
		q.well() // it answered
	case errors.As(err, new(*archive.RepoError)) && !errors.Is(err, repo.ErrChangedWhileRead):
		p.err = err
		p.failed++
		q.counters.Failed++
		q.ill(now, err)
		q.log.Warn("not archived", append(at, zap.Error(err), zap.Duration("next_attempt_in", q.until.Sub(now)))...)
	default: // of this file here, not of the repository
		p.err = err
		p.failed++
		e.local, e.retry = err, now.Add(backoff(p.failed))
		q.probing = false
		q.log.Warn("cannot read a file of pg_wal", append(at, zap.Error(err))...)
	}
}

// well notes that the repository works. mu is held.
func (q *queue) well() {
	if q.failures > 0 {
		q.log.Info("the repository works again", zap.Int("failed_attempts", q.failures))
	}
	q.failures, q.probing, q.moved = 0, false, q.agent.opts.Clock()
}

// ill notes that the repository failed. Attempts that were under way with the
// first one that failed do not lengthen the wait. mu is held.
func (q *queue) ill(now time.Time, err error) {
	if q.probing || q.failures == 0 || !now.Before(q.until) {
		q.failures++
		q.until = now.Add(backoff(q.failures))
	}
	q.probing = false
	q.last, q.lastAt = err, now
}

// backoff is the wait after the n-th failure in a row.
func backoff(n int) time.Duration {
	return min(longWait, firstWait<<min(max(n-1, 0), 10))
}
