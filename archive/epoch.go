package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// epoch is the epoch of a cluster in the i-th repository, the one that was
// prepared if any was.
func (a *Archive) epoch(i int, id pg.SystemID) *repo.Epoch {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.ready[readyKey{i, id}]; e != nil {
		return e
	}
	return a.opts.Repos[i].Epoch(id)
}

// prepare makes sure, before the first write, that the i-th repository is ours
// and expects WAL of this cluster. In a repository without epochs the first
// file begins one. A second epoch comes of pg_upgrade, and that is for a backup
// to say: a file alone could as well come from another cluster whose
// configuration names this repository by mistake.
func (a *Archive) prepare(ctx context.Context, i int, l *local) (*repo.Epoch, error) {
	id := l.head.SystemID
	a.mu.Lock()
	e := a.ready[readyKey{i, id}]
	a.mu.Unlock()
	if e != nil {
		return e, nil
	}
	r := a.opts.Repos[i]
	e = r.Epoch(id)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.Init(gctx) })
	known := true
	g.Go(func() error {
		_, err := e.Info(gctx)
		known = !absent(err)
		if !known || errors.Is(err, repo.ErrNoIdentity) {
			return nil
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if !known {
		if err := a.mayBegin(ctx, r, l); err != nil {
			return nil, err
		}
	}
	if l.major != 0 && l.size != 0 {
		var err error
		if e, err = r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: id, PGMajor: l.major, SegmentSize: l.size}); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready[readyKey{i, id}] = e
	return e, nil
}

// mayBegin refuses to begin an epoch beside others, or without knowing its facts.
func (a *Archive) mayBegin(ctx context.Context, r *repo.Repository, l *local) error {
	epochs, err := r.Epochs(ctx)
	// Another node's push may have begun this very epoch since prepare looked.
	own := slices.ContainsFunc(epochs, func(e repo.EpochInfo) bool { return e.SystemID == l.head.SystemID })
	switch {
	case err == nil && own:
		return nil
	case errors.Is(err, repo.ErrNoIdentity) || len(epochs) > 0:
		return refused(l.path, "it is of cluster %s, and %s holds another one%s; "+
			"if the cluster was upgraded with pg_upgrade, take a full backup, which begins anew",
			l.head.SystemID, r.Name(), named(epochs))
	case err != nil:
		return err
	case l.major == 0 || l.size == 0:
		return refused(l.path, "%s is empty, and without pg_control the file does not say what cluster it is of", r.Name())
	}
	return nil
}

func named(epochs []repo.EpochInfo) string {
	text := ""
	for _, e := range epochs {
		text += fmt.Sprintf(", %s (PostgreSQL %d)", e.SystemID, e.PGMajor)
	}
	return text
}

// identify finds the cluster of a history or backup history file that does not
// lie in a data directory: the only one that the repositories know.
func (a *Archive) identify(ctx context.Context, f *File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.l
	if l.head.SystemID != 0 {
		return nil
	}
	found := map[pg.SystemID]bool{}
	for _, r := range a.opts.Repos {
		epochs, err := r.Epochs(ctx)
		if err != nil {
			return &RepoError{Repo: r.Name(), Err: err}
		}
		for _, e := range epochs {
			found[e.SystemID] = true
			l.head.SystemID = e.SystemID
		}
	}
	if len(found) != 1 {
		return refused(l.path, "there is no pg_control beside it, and the repositories know %d clusters", len(found))
	}
	return nil
}
