package agent

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// listFrom is how many segments of a timeline must be new for a repository to be
// asked for all of them in one listing: an agent that starts beside a full
// pg_wal, a standby that catches up.
const listFrom = 8

// stretch is a run of segments of one timeline to ask a repository about.
type stretch struct {
	system   pg.SystemID
	timeline pg.Timeline
	from, to pg.SegmentNo
}

// stretchOf is the stretch around an entry that is worth a listing, or nil. mu
// is held.
func (q *queue) stretchOf(e *entry) *stretch {
	if !e.listable(q.index) {
		return nil
	}
	s := &stretch{system: q.agent.cluster.SystemID, timeline: e.timeline, from: e.number, to: e.number}
	n := 0
	for _, o := range q.agent.files {
		if o.timeline == e.timeline && o.listable(q.index) {
			n++
			s.from, s.to = min(s.from, o.number), max(s.to, o.number)
		}
	}
	if n < listFrom {
		return nil
	}
	q.listing = true
	return s
}

// list asks which segments of a stretch the repository has.
func (q *queue) list(ctx context.Context, s *stretch) {
	have, err := q.present(ctx, s)
	a := q.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.change()
	if !q.listed(ctx, err) {
		return
	}
	for _, e := range a.files {
		if e.timeline == s.timeline && s.from <= e.number && e.number <= s.to && e.listable(q.index) {
			e.places[q.index].asked = true
			if have[e.number] {
				e.places[q.index].state = there
			}
		}
	}
	q.log.Info("listed what is archived", zap.Uint32("timeline", uint32(s.timeline)),
		zap.Uint64("segments", uint64(s.to-s.from)+1), zap.Int("found", len(have)))
}

// listed notes the end of a listing, and whether it came to something. mu is
// held.
func (q *queue) listed(ctx context.Context, err error) bool {
	q.listing, q.probing = false, false
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		q.ill(q.agent.opts.Clock(), &archive.RepoError{Repo: q.repo.Name(), Err: err})
		q.log.Warn("cannot list what is archived", zap.Error(err))
		return false
	}
	q.well()
	return true
}

// present are the segments of a stretch that the repository has.
func (q *queue) present(ctx context.Context, s *stretch) (map[pg.SegmentNo]bool, error) {
	there := map[pg.SegmentNo]bool{}
	err := q.repo.Epoch(s.system).Segments(ctx, s.timeline, s.from, s.to, func(n pg.SegmentNo) error {
		there[n] = true
		return nil
	})
	if errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity) {
		err = nil // nothing was ever stored here
	}
	return there, err
}
