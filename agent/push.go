package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// Errors of Push that callers branch on.
var (
	// ErrElsewhere: the path is not in the pg_wal of this agent's server.
	ErrElsewhere = errors.New("not in the pg_wal of this agent's server")
	// ErrNotReady: the agent does not know its server yet.
	ErrNotReady = errors.New("the agent has not yet looked through pg_wal")
)

// patience is how long Push waits for repositories that neither fail nor
// answer. PostgreSQL asks again after a failure.
const patience = time.Minute

// Push waits until a file of pg_wal is durable in as many repositories as are
// required; it is the first to be pushed. It gives up as soon as so many
// repositories failed that this cannot be reached for now, and tells why; the
// file stays in the queue of each. Errors: ErrElsewhere, ErrNotReady,
// archive.ErrRefused, those of the repositories.
func (a *Agent) Push(ctx context.Context, path string) error {
	f, err := a.locate(path)
	if err != nil {
		return err
	}
	e, news := a.ask(f)
	if e == nil {
		return ErrNotReady
	}
	if news {
		a.wake() // what else is ready goes in parallel
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	begun := a.opts.Clock()
	for {
		a.mu.Lock()
		decided, err := a.decided(e, begun)
		changed := a.changed
		a.mu.Unlock()
		if decided {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			a.mu.Lock()
			err := a.undone(e, fmt.Errorf("no answer for %s", patience))
			a.mu.Unlock()
			return err
		}
	}
}

// locate finds the file that a client means, and makes sure that it is one of
// this server's pg_wal: only its name is taken from the client.
func (a *Agent) locate(path string) (finding, error) {
	name := filepath.Base(path)
	kind := pg.KindOf(name)
	if kind == pg.FileUnknown {
		return finding{}, fmt.Errorf("%q: its name is none that PostgreSQL archives", path)
	}
	if err := a.ours(path); err != nil {
		return finding{}, err
	}
	info, err := os.Lstat(filepath.Join(a.wal, name))
	if err != nil {
		return finding{}, fmt.Errorf("archive %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return finding{}, fmt.Errorf("archive %s: not a regular file: %w", name, fs.ErrInvalid)
	}
	f := finding{walFile: walFile{name: name, kind: kind, id: identityOf(info)}}
	f.timeline, err = pg.ParseTimeline(name[:8])
	return f, err
}

// ours makes sure that a path names a file of this server's pg_wal. Directories
// are compared, not names: pg_wal is often a link, and PGDATA can be reached in
// many ways.
func (a *Agent) ours(path string) error {
	theirs, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("%w (%s): %w", ErrElsewhere, a.opts.PGData, err)
	}
	mine, err := os.Stat(a.wal)
	if err != nil || !os.SameFile(mine, theirs) {
		return fmt.Errorf("%w (%s): %s", ErrElsewhere, a.opts.PGData, path)
	}
	return nil
}

// ask puts the file into the table as one that the server waits for. nil if
// the agent knows nothing yet.
func (a *Agent) ask(f finding) (e *entry, news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.known {
		return nil, false
	}
	before := a.files[f.name]
	e = a.offer(f, a.opts.Clock(), true)
	if e.refused != nil || e.local != nil {
		// Asked again after a failure: look again.
		e.refused, e.local, e.retry = nil, nil, time.Time{}
	}
	if e != before {
		a.limitQueues()
	}
	a.change()
	return e, e != before
}

// decided reports whether the client can be answered: with success, or with an
// error because for now there is no hope. mu is held.
func (a *Agent) decided(e *entry, begun time.Time) (bool, error) {
	switch {
	case e.refused != nil:
		return true, e.refused
	case e.enough(a.opts.Require):
		return true, nil
	case e.local != nil:
		return true, e.local
	}
	hopeful := 0
	for i, p := range e.places {
		q := a.queues[i]
		switch {
		case p.state == lost:
		case p.state == there, p.dropped:
			hopeful++
		case q.failures > 0 && !q.lastAt.Before(begun), q.failures > 0 && !q.probing && a.opts.Clock().Before(q.until):
		default:
			hopeful++
		}
	}
	if hopeful >= a.opts.Require {
		return false, nil
	}
	return true, a.undone(e, nil)
}

// undone says of each repository why it does not have the file. mu is held.
func (a *Agent) undone(e *entry, other error) error {
	var errs []error
	have := 0
	for i, p := range e.places {
		q := a.queues[i]
		switch {
		case p.state == there:
			have++
		case p.err != nil:
			errs = append(errs, p.err)
		case q.failures > 0:
			errs = append(errs, q.last)
		case other != nil:
			errs = append(errs, fmt.Errorf("%s: %w", q.repo.Name(), other))
		}
	}
	return fmt.Errorf("archive %s: %d of %d repositories have it, %d must: %w",
		e.name, have, len(e.places), a.opts.Require, errors.Join(errs...))
}
