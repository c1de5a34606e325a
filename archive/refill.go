package archive

import (
	"context"
	"errors"
	"fmt"

	"github.com/walkeep/walkeep/repo"
)

// ErrLost: a file that pg_wal has no more is in no other repository either.
var ErrLost = errors.New("neither pg_wal nor another repository has it")

// Refill copies a file that pg_wal has no more into the i-th repository from one
// of the others. c is the cluster that the file is of. The copy is examined like
// a file that is pushed, and stored if absent, so that two who do the same do it
// once. Errors: ErrLost, *RefusedError, *RepoError.
func (a *Archive) Refill(ctx context.Context, i int, c repo.EpochInfo, name repo.WALName) (Outcome, error) {
	r := a.opts.Repos[i]
	e, err := a.prepare(ctx, i, &local{path: name.String(), head: repo.WALHead{SystemID: c.SystemID}, major: c.PGMajor, size: c.SegmentSize})
	if err != nil {
		return Failed, a.repoError(ctx, i, err)
	}
	if _, err = e.WALHead(ctx, name); err == nil {
		return Present, nil
	}
	if !absent(err) {
		return Failed, a.repoError(ctx, i, err)
	}
	o := RepairOptions{Target: e, Log: a.opts.Log}
	for j, sibling := range a.opts.Repos {
		if j != i {
			o.Sources = append(o.Sources, SiblingSource(sibling.Epoch(c.SystemID)))
		}
	}
	p := newRepairer(o, c)
	if err := p.file(ctx, name); err != nil {
		return Failed, a.repoError(ctx, i, err)
	}
	if len(p.report.Failed) == 0 {
		return Stored, nil
	}
	if f := p.report.Failed[0]; !f.Lost {
		return Failed, &RepoError{Repo: r.Name(), Err: f.Err}
	}
	return Failed, fmt.Errorf("%s: %w", name, ErrLost)
}
