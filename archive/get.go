package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/retry"
)

// errDest: the file could not be written here. No repository helps against that.
var errDest = errors.New("cannot write the file")

// Get brings the file of that name to dest and returns the name of the
// repository that it came from. ErrNotArchived: certainly in none of them.
// Every other error leaves open whether the file is archived. A name that ends
// in ".partial" gets the longest partial segment, lengthened with zeroes to a
// whole one.
//
// For a standby, which asks again for as long as it is one, and for a history
// file that the server has, an error of a repository is ErrNotArchived too, after
// Options.StandbyPatience at the latest: see getForStandby. For a standby, so is
// the segment in which a newer timeline leaves the older one: see fork.
func (a *Archive) Get(ctx context.Context, name, dest string) (string, error) {
	return a.GetFor(ctx, filepath.Dir(dest), name, dest, nil)
}

// GetFor is Get for the server of a pg_wal where dest does not lie. It calls
// arrived, if it is not nil, whenever bytes arrive, possibly from several
// goroutines.
func (a *Archive) GetFor(ctx context.Context, wal, name, dest string, arrived func()) (string, error) {
	if pg.KindOf(name) == pg.FileUnknown {
		return "", fmt.Errorf("get %q: not the name of a file that PostgreSQL archives", name)
	}
	id, _, err := a.expect(dest)
	if err != nil {
		return "", err
	}
	sweep(filepath.Dir(dest), time.Now())
	if name == pg.HistoryName(1) {
		// Timeline 1 has none. Each promotion asks for it (timeline.c,
		// writeTimeLineHistory), and must not wait, or fail, for nothing.
		return "", fmt.Errorf("get %s: %w: timeline 1 has no history", name, ErrNotArchived)
	}
	var from string
	order, _ := a.inOrder()
	q := ask{id: id, name: name, dest: dest, order: order, hedge: a.opts.Hedge, arrived: arrived}
	var end func()
	q.permit, end = a.newFork(q, wal).begin(retry.Once(ctx))
	defer end()
	if forStandby(dest) || hasLocal(name, dest) {
		from, err = a.getForStandby(ctx, q)
	} else {
		from, err = a.race(ctx, q)
	}
	if err != nil {
		return "", fmt.Errorf("get %s: %w", name, err)
	}
	return from, nil
}

// forStandby tells whether dest lies in the pg_wal of a server in standby mode:
// one that never takes "not archived" for the end of the WAL (xlogrecovery.c,
// WaitForWALToBecomeAvailable).
func forStandby(dest string) bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(filepath.Dir(dest)), "standby.signal"))
	return err == nil
}

// hasLocal tells whether the history file lies in pg_wal already, as it does for
// every timeline that the server has followed. The server asks the archive all
// the same, at the end of recovery, when standby.signal is gone; it takes "not
// archived" for an answer, and its own file (xlogarchive.c, RestoreArchivedFile).
func hasLocal(name, dest string) bool {
	if pg.KindOf(name) != pg.FileHistory {
		return false
	}
	_, err := os.Stat(filepath.Join(filepath.Dir(dest), name))
	return err == nil
}

// getForStandby is race with little patience, in which "cannot be asked" means
// "not archived". A standby asks the archive whenever its primary is gone. If the
// answer were an error then, its server would end; if it took minutes, nobody
// could promote it: one dead repository would take the whole cluster down at the
// moment of a failover. It asks again, and tries to stream, in between. So no
// request is repeated here, and who was silent a moment ago is not asked.
func (a *Archive) getForStandby(ctx context.Context, q ask) (string, error) {
	order, well := a.inOrder()
	if well == 0 {
		return "", fmt.Errorf("%w that answers; the standby will ask again: none answered less than %s ago", ErrNotArchived, downFor)
	}
	patience := a.opts.StandbyPatience
	short, cancel := context.WithCancelCause(retry.Once(ctx))
	defer cancel(nil)
	out := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing came for %s", patience)) })
	defer out.Stop()
	q.order, q.hedge = order[:well], min(a.opts.Hedge, patience/4)
	arrived := q.arrived
	q.arrived = func() {
		out.Reset(patience) // what arrives, however slowly, is worth waiting for
		if arrived != nil {
			arrived()
		}
	}
	from, err := a.race(short, q)
	var of *RepoError
	if errors.As(err, &of) && ctx.Err() == nil && !errors.Is(err, errDest) && !errors.Is(err, repo.ErrIntegrity) {
		a.opts.Log.Warn("not known whether it is archived; the standby will ask again", zap.String("file", q.name), zap.Error(err))
		err = fmt.Errorf("%w that answers; the standby will ask again: %w", ErrNotArchived, err)
	}
	return from, err
}

// ask is one question to the archive.
type ask struct {
	id         pg.SystemID
	name, dest string
	order      []int         // which repositories, by index
	hedge      time.Duration // how long to wait for one before the next is asked too
	arrived    func()        // called when bytes arrive; may be nil
	permit     func() error  // asked when the file is there, before it is handed over
}

// attempt is one repository that is asked, and the outcome. err nil: d holds the
// file.
type attempt struct {
	i     int
	since time.Time
	heard atomic.Bool // something arrived
	d     *destination
	err   error
}

// race asks the repositories one after the other. The next one is asked when
// one lacks the file or failed, and also when it takes long; then the first to
// deliver wins.
func (a *Archive) race(ctx context.Context, q ask) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan *attempt)
	running := map[*attempt]bool{}
	next := func() {
		if len(q.order) > 0 {
			t := &attempt{i: q.order[0], since: time.Now()}
			q.order = q.order[1:]
			running[t] = true
			go func() {
				t.d, t.err = a.getFrom(ctx, q, t)
				ended <- t
			}()
		}
	}
	defer func() {
		cancel()
		for range running {
			if late := <-ended; late.err == nil {
				late.d.abandon()
			}
		}
	}()
	var failures []error
	hedge := time.NewTicker(q.hedge)
	defer hedge.Stop()
	for next(); len(running) > 0; {
		var got *attempt
		select {
		case <-hedge.C:
			next()
			continue
		case got = <-ended:
			delete(running, got)
		}
		from := a.opts.Repos[got.i].Name()
		switch {
		case got.err == nil:
			a.memory.answered(from)
			for t := range running {
				if time.Since(t.since) >= q.hedge && !t.heard.Load() {
					a.memory.silent(a.opts.Repos[t.i].Name())
				}
			}
			a.report(q.name, from, failures)
			if err := q.permit(); err != nil {
				got.d.abandon()
				return "", err
			}
			return from, got.d.commit()
		case errors.Is(got.err, errDest):
			return "", got.err
		case errors.Is(got.err, ErrNotArchived):
			a.memory.answered(from)
		default:
			// Who fails at once costs nothing to ask again.
			if time.Since(got.since) >= q.hedge && !errors.Is(got.err, repo.ErrIntegrity) && !stopped(ctx) {
				a.memory.silent(from)
			}
			failures = append(failures, &RepoError{Repo: from, Err: cause(ctx, got.err)})
		}
		next()
	}
	if err := errors.Join(failures...); err != nil {
		return "", err
	}
	return "", ErrNotArchived
}

// stopped reports whether the caller ended ctx, and not our impatience.
func stopped(ctx context.Context) bool {
	return ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled)
}

// report tells of the repositories that should have had the file and did not.
func (a *Archive) report(name, from string, failures []error) {
	for _, err := range failures {
		a.opts.Log.Warn("passed over a repository", zap.String("file", name), zap.String("taken_from", from), zap.Error(err))
	}
}

// getFrom brings the file from one repository. ErrNotArchived: it is certainly
// not there.
func (a *Archive) getFrom(ctx context.Context, q ask, t *attempt) (d *destination, err error) {
	for range 3 {
		if d, err = a.getOnce(ctx, q, t); !errors.Is(err, errReplaced) {
			break
		}
	}
	return d, err
}

// errReplaced: the partial segment that was listed is gone, because there is a
// longer one now.
var errReplaced = errors.New("the partial segment was replaced while it was fetched")

func (a *Archive) getOnce(ctx context.Context, q ask, t *attempt) (*destination, error) {
	r := a.opts.Repos[t.i]
	e := r.Epoch(q.id)
	if q.id == 0 {
		var err error
		if e, err = onlyEpoch(ctx, r); err != nil {
			return nil, err
		}
	}
	wn, err := find(ctx, e, q.name)
	if err != nil {
		return nil, err
	}
	d, err := newDestination(q.dest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDest, err)
	}
	d.arrived = func() {
		t.heard.Store(true)
		if q.arrived != nil {
			q.arrived()
		}
	}
	head, err := e.GetWAL(ctx, wn, d)
	if err == nil && wn.Kind == pg.FilePartial {
		err = d.pad(int64(head.SegmentSize))
		d.err = err
	}
	if err == nil {
		return d, nil
	}
	d.abandon()
	switch {
	case d.err != nil:
		return nil, fmt.Errorf("%w: write to %s: %w", errDest, filepath.Dir(q.dest), d.err)
	case absent(err):
		// Is this the repository that we think it is?
		if _, err := r.Marker(ctx); err != nil && !absent(err) {
			return nil, err
		}
		if wn.Kind == pg.FilePartial {
			return nil, errReplaced
		}
		return nil, ErrNotArchived
	}
	return nil, err
}

// onlyEpoch is the epoch of a repository, when nothing says which one is meant.
func onlyEpoch(ctx context.Context, r *repo.Repository) (*repo.Epoch, error) {
	epochs, err := r.Epochs(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(epochs) == 0:
		return nil, ErrNotArchived
	case len(epochs) > 1:
		return nil, fmt.Errorf("it holds %d clusters (before and after pg_upgrade), and there is no pg_control beside the destination to choose by", len(epochs))
	}
	return r.Epoch(epochs[0].SystemID), nil
}

// find is the stored name of the file that PostgreSQL calls name.
func find(ctx context.Context, e *repo.Epoch, name string) (repo.WALName, error) {
	segment, partial := strings.CutSuffix(name, ".partial")
	if !partial {
		return repo.ParseWALName(name)
	}
	all, err := e.Partials(ctx)
	if err != nil {
		return repo.WALName{}, err
	}
	var best *repo.Partial
	for i, p := range all {
		if string(p.Segment) == segment && (best == nil || p.ValidTo > best.ValidTo) {
			best = &all[i]
		}
	}
	if best == nil {
		return repo.WALName{}, ErrNotArchived
	}
	return repo.PartialFile(best.Segment, best.ValidTo), nil
}
