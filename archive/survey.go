package archive

import (
	"context"
	"errors"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Survey is the coverage of several repositories, held against each other:
// what one of them has shows what another lacks.
type Survey struct {
	SystemID pg.SystemID // 0: no repository holds anything
	Now      Position
	// NowKnown: a node said where the cluster is. Else Now is as far as the
	// newest timeline is archived anywhere.
	NowKnown bool
	Repos    []RepoCoverage // in the order asked for
}

// RepoCoverage is one repository of a Survey.
type RepoCoverage struct {
	Repo     *repo.Repository
	Epoch    *repo.Epoch // nil if the repository holds nothing of this cluster
	Holdings repo.Holdings
	Coverage Coverage
	Err      error // why it could not be looked at; the rest is zero then
}

// SurveyOptions say what to look at.
type SurveyOptions struct {
	Repos []*repo.Repository
	// SystemID of the cluster. 0: of the newest epoch in the repositories.
	SystemID pg.SystemID
	// Now is where the cluster is; the zero value: nobody knows.
	Now Position
	// Cache, nil: everything is listed.
	Cache *repo.RunCache
	// Heads has the heads that were read before; nil: each is read anew.
	Heads func(*repo.Epoch) *repo.HeadCache
}

// Look surveys repositories, all at the same time. One that cannot be looked at
// has its error; the others are judged without it. It reads lists, history
// files and the heads of a few segments.
func Look(ctx context.Context, o SurveyOptions) (*Survey, error) {
	s := &Survey{Now: o.Now, NowKnown: o.Now.Timeline != 0, SystemID: o.SystemID, Repos: make([]RepoCoverage, len(o.Repos))}
	if s.SystemID == 0 {
		s.SystemID = newestSystem(ctx, o.Repos)
	}
	var g errgroup.Group
	for i, r := range o.Repos {
		g.Go(func() error {
			s.Repos[i] = lookAt(ctx, r, s.SystemID, o.Cache)
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	histories := map[pg.Timeline]pg.History{}
	for _, r := range slices.Backward(s.Repos) { // the first repository counts, as in Get
		maps.Copy(histories, r.Holdings.Histories)
	}
	if !s.NowKnown {
		for _, r := range s.Repos {
			for _, t := range r.Holdings.Timelines() {
				s.Now.Timeline = max(s.Now.Timeline, t)
			}
		}
	}
	for _, r := range s.Repos {
		s.Now.LSN = max(s.Now.LSN, archivedTo(r.Holdings, s.Now.Timeline))
	}
	for i := range s.Repos {
		r := &s.Repos[i]
		if r.Err != nil || r.Holdings.SegmentSize == 0 {
			continue
		}
		r.Coverage = Cover(r.Holdings, s.Now, histories)
		heads := repo.NewHeadCache(r.Epoch)
		if o.Heads != nil {
			heads = o.Heads(r.Epoch)
		}
		if err := Alive(ctx, r.Holdings, heads, r.Coverage.Branches); err != nil {
			r.Err = err
		}
	}
	return s, nil
}

// Siblings are the other repositories as sources for the i-th one.
func (s *Survey) Siblings(i int) (sources []Source) {
	for j, other := range s.Repos {
		if j != i && other.Epoch != nil && other.Err == nil {
			sources = append(sources, SiblingSource(other.Epoch))
		}
	}
	return sources
}

// newestSystem is that of the newest epoch of all repositories that answer.
func newestSystem(ctx context.Context, repos []*repo.Repository) pg.SystemID {
	var newest repo.EpochInfo
	for _, r := range repos {
		epochs, err := r.Epochs(ctx)
		if err != nil || len(epochs) == 0 {
			continue
		}
		if last := epochs[len(epochs)-1]; last.Created.After(newest.Created) {
			newest = last
		}
	}
	return newest.SystemID
}

func lookAt(ctx context.Context, r *repo.Repository, id pg.SystemID, cache *repo.RunCache) RepoCoverage {
	c := RepoCoverage{Repo: r}
	if _, err := r.Marker(ctx); absent(err) {
		return c
	} else if err != nil {
		c.Err = err
		return c
	}
	e := r.Epoch(id)
	if _, err := e.Info(ctx); absent(err) || id == 0 {
		return c
	} else if err != nil {
		c.Err = err
		return c
	}
	var err error
	if cache != nil {
		c.Holdings, err = e.CachedHoldings(ctx, cache)
	} else {
		c.Holdings, err = e.Holdings(ctx)
	}
	if err != nil {
		c.Err = err
		return c
	}
	c.Epoch = e
	return c
}

// Whole reports whether nothing that is needed is missing in any repository,
// but for at most behind segments each that the cluster wrote last. Otherwise
// the error says what is.
func (s *Survey) Whole(behind int) error {
	var all []error
	for _, r := range s.Repos {
		if err := r.whole(behind); err != nil {
			all = append(all, &RepoError{Repo: r.Repo.Name(), Err: err})
		}
	}
	return errors.Join(all...)
}
