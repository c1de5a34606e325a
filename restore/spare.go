package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
)

// spares are other repositories that have the same backup: what the plan's
// repository cannot give any more comes from there. A chunk is looked for at the
// same place of the same pack, as in the copy of a bucket, or where one run fed
// both repositories. Its digests are in the manifest, so nothing wrong is taken.
type spares struct {
	repos []*repo.Repository
	plan  *Plan
	log   *zap.Logger

	// dead is set when the plan's repository failed and another one did not: from
	// then on that is asked first, for each failure costs all of a repository's
	// patience.
	dead atomic.Bool

	once  sync.Once // guards what follows
	found []*spare
}

type spare struct {
	name  string
	cache *packCache
	packs map[packKey]repo.PackRef
}

// open finds the repositories that have the backup.
func (s *spares) open(ctx context.Context) []*spare {
	s.once.Do(func() {
		for _, r := range s.repos {
			if r.Name() == s.plan.Repository {
				continue
			}
			e := r.Epoch(s.plan.SystemID)
			sum, err := e.Summary(ctx, s.plan.Backup.Label)
			if err == nil {
				var m *repo.ManifestReader
				if m, err = e.OpenManifest(ctx, sum); err == nil {
					one := &spare{name: r.Name(), cache: newPackCache(e), packs: map[packKey]repo.PackRef{}}
					for _, ref := range m.Packs() {
						one.packs[packKey{ref.Label, ref.Number}] = ref
					}
					s.found = append(s.found, one)
					err = m.Close()
				}
			}
			if err != nil && !errors.Is(err, repo.ErrNotFound) {
				s.log.Warn("the backup cannot be read from another repository", zap.String("repo", r.Name()), zap.Error(err))
			}
		}
	})
	return s.found
}

// chunk reads and decodes a chunk from whichever other repository has it, into
// a buffer; the error is cause if none does. cause is nil if the plan's
// repository was not asked.
func (s *spares) chunk(ctx context.Context, w *worker, ref repo.PackRef, it *item, into []byte, cause error) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, cause
	}
	for _, one := range s.open(ctx) {
		data, err := one.chunk(ctx, w, ref, it.chunk, into)
		if err != nil {
			s.log.Debug("a chunk is not in another repository", zap.String("repo", one.name), zap.Error(err))
			continue
		}
		switch {
		case cause == nil:
		case isDamage(cause):
			s.log.Warn("damaged, taken from another repository", zap.String("file", it.out.where()), zap.String("other", one.name), zap.Error(cause))
		case !s.dead.Swap(true):
			s.log.Warn("the repository fails: going on with another one that has the same backup",
				zap.String("repo", s.plan.Repository), zap.String("other", one.name), zap.Error(cause))
		}
		return data, nil
	}
	return nil, cmp.Or(cause, error(repo.ErrNotFound))
}

func (o *spare) chunk(ctx context.Context, w *worker, ref repo.PackRef, c repo.Chunk, into []byte) ([]byte, error) {
	theirs, ok := o.packs[packKey{ref.Label, ref.Number}]
	if !ok {
		return nil, repo.ErrNotFound
	}
	src := &packSource{cache: o.cache, ref: theirs, end: endOf(c), in: w.spareIn}
	defer src.close()
	return src.chunk(ctx, w, c, into)
}

// isDamage reports whether an error says that something stored is not what it
// should be, or is gone: asking again does not help.
func isDamage(err error) bool {
	return errors.Is(err, repo.ErrIntegrity) || errors.Is(err, repo.ErrNotFound)
}

// Damaged is a part of a restored file that could not be brought back: it is
// zeroes.
type Damaged struct {
	Path  string `json:"path"`
	First uint32 `json:"first_page"` // counted from 0
	Last  uint32 `json:"last_page"`  // included
	Why   string `json:"why"`
}

func (d Damaged) String() string {
	return fmt.Sprintf("%s, pages %d to %d: %s", d.Path, d.First, d.Last, d.Why)
}

// damage describes what an item's pieces lose.
func damage(it *item, err error) (all []Damaged) {
	const page = 8192
	for _, p := range it.pieces {
		d := Damaged{
			Path: it.out.where(), First: uint32(p.fileOffset / page), Last: uint32((p.fileOffset + int64(p.length) - 1) / page), Why: err.Error(),
		}
		if n := len(all); n > 0 && all[n-1].Last+1 >= d.First && all[n-1].First <= d.First {
			all[n-1].Last = d.Last
			continue
		}
		all = append(all, d)
	}
	return all
}

// lose deals with a chunk that nobody can give: with AllowDamaged it is noted,
// and zeroes are written in its place. What the server needs to begin recovery
// at all must be whole.
func (r *run) lose(it *item, err error) ([]byte, error) {
	lost := damage(it, err)
	if !isDamage(err) {
		return nil, err
	}
	if path := it.out.where(); !r.opts.AllowDamaged || path == "backup_label" || it == r.control {
		return nil, fmt.Errorf("file %s, pages %d to %d: %w", path, lost[0].First, lost[len(lost)-1].Last, asIntegrity(err))
	}
	it.out.damaged.Store(true)
	r.lostMu.Lock()
	defer r.lostMu.Unlock()
	r.lost = append(r.lost, lost...)
	return make([]byte, it.chunk.Plain), nil
}

// asIntegrity makes a pack that is gone a damage.
func asIntegrity(err error) error {
	if errors.Is(err, repo.ErrIntegrity) {
		return err
	}
	return fmt.Errorf("%w: %w", repo.ErrIntegrity, err)
}
