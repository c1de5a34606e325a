package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
)

// HeadSource reads the head of one complete segment. [Epoch] is one.
type HeadSource interface {
	SegmentHead(ctx context.Context, name pg.SegmentName) (WALHead, error)
}

// SegmentHead reads the head of a complete segment: [Epoch.WALHead] for those
// who only deal with these.
func (e *Epoch) SegmentHead(ctx context.Context, name pg.SegmentName) (WALHead, error) {
	return e.WALHead(ctx, SegmentFile(name))
}

// PartialHead reads the head of a partial segment.
func (e *Epoch) PartialHead(ctx context.Context, p Partial) (WALHead, error) {
	return e.WALHead(ctx, PartialFile(p.Segment, p.ValidTo))
}

// lastOf is the last transaction of a partial segment, zero if it has none or
// that is not to be told.
func (c *HeadCache) lastOf(ctx context.Context, p Partial) (time.Time, error) {
	from, ok := c.from.(interface {
		PartialHead(ctx context.Context, p Partial) (WALHead, error)
	})
	if !ok {
		return time.Time{}, nil
	}
	h, err := from.PartialHead(ctx, p)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrIntegrity), errors.Is(err, ErrNoIdentity):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, err
	case h.LastCommit == nil:
		return time.Time{}, nil
	}
	return *h.LastCommit, nil
}

// HeadCache remembers heads, so that several searches over the same WAL read
// each one once. Several goroutines may use it.
type HeadCache struct {
	from  HeadSource
	mu    sync.Mutex // guards known
	known map[pg.SegmentName]WALHead
}

// NewHeadCache reads heads from a source, each once.
func NewHeadCache(from HeadSource) *HeadCache {
	return &HeadCache{from: from, known: map[pg.SegmentName]WALHead{}}
}

// SegmentHead is the remembered head, or the source's.
func (c *HeadCache) SegmentHead(ctx context.Context, name pg.SegmentName) (WALHead, error) {
	if h, ok := c.has(name); ok {
		return h, nil
	}
	h, err := c.from.SegmentHead(ctx, name)
	if err != nil {
		return WALHead{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[name] = h
	return h, nil
}

// Len is how many heads are remembered.
func (c *HeadCache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.known)
}

func (c *HeadCache) has(name pg.SegmentName) (WALHead, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.known[name]
	return h, ok
}

// headReaders is how many heads are read at a time: each is one small request
// whose cost is the round trip.
const headReaders = 16

// Moments searches the commits, restore points and transactions of a stretch
// of WAL by the heads of its segments, reading as few of them as it can and
// each at most once. Positions count the segments of the stretch from 0.
type Moments struct {
	size   pg.SegmentSize
	ranges []SegmentRange
	heads  *HeadCache
}

// NewMoments makes a Moments over the segments of ranges, in their order,
// which follow one another without a hole.
func NewMoments(size pg.SegmentSize, ranges []SegmentRange, heads *HeadCache) *Moments {
	return &Moments{size: size, ranges: ranges, heads: heads}
}

// Len is the number of segments.
func (m *Moments) Len() int {
	n := 0
	for _, r := range m.ranges {
		n += r.Count()
	}
	return n
}

// Segment is the name of the segment at a position, and its first byte.
func (m *Moments) Segment(i int) (pg.SegmentName, pg.LSN) {
	for _, r := range m.ranges {
		if i < r.Count() {
			n := r.First + pg.SegmentNo(i)
			return m.size.Name(r.Timeline, n), m.size.Start(n)
		}
		i -= r.Count()
	}
	panic(fmt.Sprintf("repo: no segment at position %d", i))
}

// Position is where in the stretch the segment stands that holds the byte at
// lsn; below 0 or Len() and above if it lies outside.
func (m *Moments) Position(lsn pg.LSN) int {
	if len(m.ranges) == 0 {
		return 0
	}
	// Segments follow one another without a hole, across timelines too.
	return int(int64(m.size.SegmentOf(lsn)) - int64(m.ranges[0].First))
}

// Head is the head of the segment at a position.
func (m *Moments) Head(ctx context.Context, i int) (WALHead, error) {
	name, _ := m.Segment(i)
	h, err := m.heads.SegmentHead(ctx, name)
	if err != nil {
		return WALHead{}, fmt.Errorf("read the head of segment %s: %w", name, err)
	}
	return h, nil
}

// read gets the heads of positions lo to hi-1.
func (m *Moments) read(ctx context.Context, lo, hi int) ([]WALHead, error) {
	got := make([]WALHead, hi-lo)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(headReaders)
	for i := range got {
		name, _ := m.Segment(lo + i)
		if h, ok := m.heads.has(name); ok {
			got[i] = h
			continue
		}
		g.Go(func() (err error) {
			got[i], err = m.Head(ctx, lo+i)
			return err
		})
	}
	return got, g.Wait()
}

// LastCommit is the time of the last transaction that ended in positions lo to
// hi-1, with its position; zero if none did. Aborts count like commits, as
// they do for the server's recovery target. It reads backwards, more at a time
// the longer it finds nothing.
func (m *Moments) LastCommit(ctx context.Context, lo, hi int) (at time.Time, pos int, err error) {
	for n := 1; hi > lo; n = min(2*n, 256) {
		from := max(lo, hi-n)
		heads, err := m.read(ctx, from, hi)
		if err != nil {
			return time.Time{}, 0, err
		}
		for i := hi - 1; i >= from; i-- {
			if c := heads[i-from].LastCommit; c != nil && !c.IsZero() {
				return *c, i, nil
			}
		}
		hi = from
	}
	return time.Time{}, 0, nil
}

// FirstPast is the first position from lo to hi-1 in which a transaction ended
// at a time for which past is true; past must be false up to some moment and
// true from then on. ok is false if there is none. Commit times can run
// backwards by as much as a backend is delayed between taking the time and
// writing the record, so near a segment's border the neighbour may be named.
func (m *Moments) FirstPast(ctx context.Context, lo, hi int, past func(time.Time) bool) (pos int, ok bool, err error) {
	last, at, err := m.LastCommit(ctx, lo, hi)
	if err != nil || last.IsZero() || !past(last) {
		return 0, false, err
	}
	// Invariant: nothing before lo is past, something in lo..at is, at the
	// latest at at.
	for lo < at {
		mid := lo + (at-lo)/2
		c, i, err := m.LastCommit(ctx, lo, mid+1)
		switch {
		case err != nil:
			return 0, false, err
		case !c.IsZero() && past(c):
			at = i
		default:
			lo = mid + 1
		}
	}
	return at, true, nil
}

// Each calls fn with the heads of positions lo to hi-1, in order, until it
// returns false. It reads ahead, not further than a few hundred heads.
func (m *Moments) Each(ctx context.Context, lo, hi int, fn func(pos int, h WALHead) bool) error {
	for n := headReaders; lo < hi; n = min(2*n, 256) {
		to := min(hi, lo+n)
		heads, err := m.read(ctx, lo, to)
		if err != nil {
			return err
		}
		for _, h := range heads {
			if !fn(lo, h) {
				return nil
			}
			lo++
		}
	}
	return nil
}
