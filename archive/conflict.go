package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// settle decides about a file whose name is taken: the same after all, or in
// conflict, and then kept beside what is stored.
func (a *Archive) settle(ctx context.Context, e *repo.Epoch, stored repo.WALHead, l *local) (Outcome, *ConflictError, error) {
	if stored.XXH3 == l.head.XXH3 && stored.Length == l.head.Length {
		return Present, nil, nil
	}
	c := &ConflictError{Repo: e.Repository().Name(), Name: l.head.WALName(), Stored: stored.XXH3, Local: l.head.XXH3}
	same, err := sameRecords(ctx, e, stored, l)
	switch {
	case errors.Is(err, repo.ErrNoIdentity):
		c.Undecided = true
	case err != nil:
		return Failed, nil, fmt.Errorf("compare with what is archived: %w", err)
	case same:
		return Present, nil, nil
	}
	return a.putConflict(ctx, e, l, c)
}

// putConflict keeps a file under conflict/. One put: killed before it, the next
// push comes here again; killed after it, the next push finds it.
func (a *Archive) putConflict(ctx context.Context, e *repo.Epoch, l *local, c *ConflictError) (Outcome, *ConflictError, error) {
	_, err := e.WALHead(ctx, c.Name.Conflicting(l.head.XXH3))
	if absent(err) {
		if c.Stored != "" { // people will want to know whether the other one is good
			if _, err := e.GetWAL(ctx, c.Name, io.Discard); errors.Is(err, repo.ErrIntegrity) {
				c.Damage = err
			}
		}
		err = e.PutConflict(ctx, l.head, l.plain())
		if errors.Is(err, repo.ErrExists) {
			_, err = e.WALHead(ctx, c.Name.Conflicting(l.head.XXH3))
		}
	}
	if errors.Is(err, repo.ErrNoIdentity) {
		err = nil // there is an object; its name says what it holds
	}
	if err != nil {
		return Failed, nil, fmt.Errorf("%w; it could not be kept as a conflict: %w", c, err)
	}
	a.opts.Log.Error(c.alert(), zap.String("repo", c.Repo), zap.Stringer("file", c.Name), zap.Bool("history_conflict", c.History()),
		zap.String("archived_xxh3", c.Stored), zap.String("this_xxh3", c.Local), zap.Error(c))
	return Conflict, c, nil
}

// sameRecords compares a segment with the one that is stored, without the
// padding behind a switch record.
func sameRecords(ctx context.Context, e *repo.Epoch, stored repo.WALHead, l *local) (bool, error) {
	if pg.FileKind(l.head.Kind) != pg.FileSegment || stored.ValidTo != l.head.ValidTo || stored.Length != l.head.Length {
		return false, nil
	}
	records := l.records.String()
	switch {
	case stored.RecordsXXH3 != "":
		return stored.RecordsXXH3 == records, nil
	case stored.ValidTo == stored.Start+pg.LSN(stored.Length):
		return false, nil // no padding at all
	}
	// The head does not say (records_xxh3 may be absent).
	h := &prefixHash{left: int64(l.head.ValidTo - l.head.Start)}
	if _, err := e.GetWAL(ctx, l.head.WALName(), h); err != nil {
		return false, err
	}
	return h.sum.Digest().String() == records, nil
}

// prefixHash hashes the first bytes that it gets.
type prefixHash struct {
	left int64
	sum  wal.Digester
}

func (h *prefixHash) Write(b []byte) (int, error) {
	n := min(h.left, int64(len(b)))
	_, _ = h.sum.Write(b[:n])
	h.left -= n
	return len(b), nil
}

// otherBranch finds out whether a segment is of another timeline than the one
// that the repository knows by that number: two servers that do not see each
// other can choose the same. The history file that lies beside the segment
// tells. If the repository has none yet, this one is archived first, so that
// the number is taken before its first segment is: else the segments of both
// would mix under names of which nobody could tell whose they are.
//
// nil: it is that timeline, or nothing says otherwise.
func (a *Archive) otherBranch(ctx context.Context, i int, e *repo.Epoch, l *local) (*ConflictError, error) {
	t := l.head.Timeline
	if t <= 1 || l.head.SegmentSize == 0 || l.path == "" {
		return nil, nil
	}
	history, err := a.Open(filepath.Join(filepath.Dir(l.path), pg.HistoryName(t)))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, ErrRefused):
		a.opts.Log.Warn("the history file beside a segment is no help", zap.String("segment", l.head.Name), zap.Error(err))
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer history.Close()
	key := timelineKey{i, l.head.SystemID, t, history.l.head.XXH3}
	a.mu.Lock()
	c, known := a.timelines[key]
	a.mu.Unlock()
	if !known {
		history.l.head.SystemID = l.head.SystemID
		if _, c, err = a.pushTo(ctx, i, history); err != nil {
			return nil, fmt.Errorf("look whose timeline %d is archived: %w", t, err)
		}
		a.mu.Lock()
		a.timelines[key] = c
		a.mu.Unlock()
	}
	if c == nil {
		return nil, nil
	}
	return &ConflictError{Repo: c.Repo, Name: l.head.WALName(), Local: l.head.XXH3, Timeline: t}, nil
}

// timelineKey is a history file that was held against a repository's.
type timelineKey struct {
	repo   int
	id     pg.SystemID
	t      pg.Timeline
	digest string
}
