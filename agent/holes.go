package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
)

// lookBack is how many segments before the oldest of pg_wal are looked at for
// holes: 64 GiB at the usual size, four requests to a cloud.
const lookBack = 4096

// wantsHoles reports whether it is time to look for holes: once, by the
// primary's agent, when there is a repository to copy from and nothing else to
// do. An agent that was killed while a repository was away knows nothing of what
// that one missed, and pg_wal may not have it any more. mu is held.
func (q *queue) wantsHoles(now time.Time) bool {
	a := q.agent
	possible := q.failures == 0 || !q.probing && !now.Before(q.until)
	return possible && !q.searched && !q.listing && a.known && !a.standby && len(a.queues) > 1
}

// oldest is the oldest segment of each timeline in pg_wal. mu is held.
func (a *Agent) oldest() map[pg.Timeline]pg.SegmentNo {
	first := map[pg.Timeline]pg.SegmentNo{}
	for _, e := range a.files {
		if n, ok := first[e.timeline]; e.kind == pg.FileSegment && !e.gone && (!ok || e.number < n) {
			first[e.timeline] = e.number
		}
	}
	return first
}

// search looks for segments behind pg_wal's oldest that this repository lacks,
// though it has an older one, and that another repository has; they go into the
// table. What lies before the oldest that it has, it has removed by its
// retention, or never had.
func (q *queue) search(ctx context.Context) {
	a := q.agent
	a.mu.Lock()
	oldest, system := a.oldest(), a.cluster.SystemID
	a.mu.Unlock()
	found := map[pg.Timeline][]pg.SegmentNo{}
	var err error
	for t, n := range oldest {
		if n == 0 {
			continue
		}
		s := &stretch{system: system, timeline: t, from: n - min(n, lookBack), to: n - 1}
		if found[t], err = q.holes(ctx, s); err != nil {
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.change()
	if !q.listed(ctx, err) {
		return
	}
	q.searched = true
	for t, numbers := range found {
		for _, n := range numbers {
			q.offerHole(t, n)
		}
		if len(numbers) > 0 {
			q.log.Warn("segments that pg_wal has no more are missing here and will be copied from another repository",
				zap.Uint32("timeline", uint32(t)), zap.Int("segments", len(numbers)))
		}
	}
}

// holes are the segments of a stretch that the repository lacks behind the
// first that it has, as far as others have them.
func (q *queue) holes(ctx context.Context, s *stretch) ([]pg.SegmentNo, error) {
	have, err := q.present(ctx, s)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	first := slices.Min(slices.Collect(maps.Keys(have)))
	missing := map[pg.SegmentNo]bool{}
	for _, other := range q.agent.queues {
		if other == q {
			continue
		}
		theirs, err := other.present(ctx, s)
		if err != nil {
			continue // it is no help now; its own queue will tell
		}
		for n := range theirs {
			if n > first && !have[n] {
				missing[n] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(missing)), nil
}

// offerHole puts a segment into the table that only this repository lacks. mu
// is held.
func (q *queue) offerHole(t pg.Timeline, n pg.SegmentNo) {
	a := q.agent
	size := a.cluster.SegmentSize
	name := string(size.Name(t, n))
	if a.files[name] != nil {
		return
	}
	e := &entry{
		walFile: walFile{name: name, kind: pg.FileSegment, timeline: t, number: n, id: identity{size: int64(size)}},
		gone:    true, places: make([]place, len(a.queues)),
	}
	for i := range e.places {
		e.places[i].dropped = true // nobody waits
		if i != q.index {
			e.places[i].state = there
		}
	}
	a.files[name] = e
}
