package repo

import (
	"maps"
	"slices"

	"github.com/walkeep/walkeep/pg"
)

// Holdings is what a repository holds of one cluster, as plain data: the input
// of everything that judges what can be restored. [Epoch.Holdings] reads it;
// tests make it by hand.
type Holdings struct {
	SystemID    pg.SystemID
	SegmentSize pg.SegmentSize
	// Backups are the committed backups, in any order.
	Backups []Summary
	// Damaged tells which summaries and history files are left out because
	// they cannot be read back: *DamageError, joined. nil: none.
	Damaged error
	// Runs are the complete segments, per timeline ascending and disjoint:
	// From is the first byte of the first segment, To the first byte after
	// the last.
	Runs map[pg.Timeline][]Run
	// Histories are the timeline history files.
	Histories map[pg.Timeline]pg.History
	// Partials are the incomplete segments, by name and then by how far they go.
	Partials []Partial
	// Conflicts are the files whose name was taken, by name.
	Conflicts []Conflict
}

// Has reports whether a complete segment is there.
func (h Holdings) Has(name pg.SegmentName) bool {
	n, err := name.Number(h.SegmentSize)
	start := h.SegmentSize.Start(n)
	return err == nil && slices.ContainsFunc(h.Runs[name.Timeline()], func(r Run) bool { return r.From <= start && start < r.To })
}

// Timelines are all timelines that a backup, a segment or a history file
// speaks of, ascending.
func (h Holdings) Timelines() []pg.Timeline {
	seen := map[pg.Timeline]bool{}
	for _, b := range h.Backups {
		seen[b.Timeline] = true
	}
	for t := range h.Runs {
		seen[t] = true
	}
	for t := range h.Histories {
		seen[t] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// Line is the way from the beginning of the cluster to the newest moment of
// timeline t, oldest first: the timelines that recovery follows when t is its
// target. Timeline 1 has no history file; if that of another timeline is not
// in the repository, the line knows nothing but t itself.
func (h Holdings) Line(t pg.Timeline) Line {
	if hist, ok := h.Histories[t]; ok {
		return hist.Path()
	}
	return Line{{Timeline: t, From: 0, To: pg.MaxLSN}}
}

// Line is a path through timelines, oldest first; each span ends where the
// next one begins, the last one at [pg.MaxLSN].
type Line []pg.TimelineSpan

// Timeline is the last timeline of the line, the one that recovery is told to
// aim for.
func (l Line) Timeline() pg.Timeline {
	if len(l) == 0 {
		return 0
	}
	return l[len(l)-1].Timeline
}

// At is the timeline that the byte before lsn was written on.
func (l Line) At(lsn pg.LSN) pg.Timeline {
	for _, s := range l {
		if lsn <= s.To {
			return s.Timeline
		}
	}
	return l.Timeline()
}

// Holds reports whether the byte before lsn on timeline t is part of the line.
// With a backup's timeline and stop LSN it says whether the backup is usable
// on the line: one whose end lies beyond the point where the line left its
// timeline belongs to another branch.
func (l Line) Holds(t pg.Timeline, lsn pg.LSN) bool {
	for _, s := range l {
		if s.Timeline == t {
			return s.From < lsn && lsn <= s.To
		}
	}
	return false
}

// SegmentRange is consecutive segments of one timeline, First to Last, both
// included.
type SegmentRange struct {
	Timeline    pg.Timeline
	First, Last pg.SegmentNo
}

// Count is the number of segments.
func (r SegmentRange) Count() int { return int(r.Last-r.First) + 1 }

// Reach is how far the WAL goes without a hole.
type Reach struct {
	// Ranges are the segments, in the order of recovery. Empty if the very
	// first one is missing.
	Ranges []SegmentRange
	// End is the first byte after the last of them (their first byte, if
	// there are none).
	End pg.LSN
	// Timeline and Missing name the segment that is not there; it comes right
	// after Ranges.
	Timeline pg.Timeline
	Missing  pg.SegmentNo
	// Beyond is set if WAL of the line exists after the missing segment: then
	// the end is a gap, not the end of what was archived. It is the first
	// byte of it.
	Beyond pg.LSN
}

// Gap reports whether WAL of the line follows after what is missing.
func (r Reach) Gap() bool { return r.Beyond != 0 }

// noLimit is above every segment's number.
const noLimit pg.SegmentNo = 1<<64 - 1

// Segments is the number of segments.
func (r Reach) Segments() int {
	n := 0
	for _, s := range r.Ranges {
		n += s.Count()
	}
	return n
}

// Reach follows the line from the segment that holds from, for as long as
// every segment is there.
//
// The segment in which a timeline was left is read from its successor: the
// server looks for the newest timeline of its history that reaches into a
// segment (xlogrecovery.c, XLogFileReadAnyTLI), and a promoted server copies
// the old WAL up to the switch into its first segment. The old timeline's own
// copy may be partial, missing, or hold what another server wrote after the
// switch; it does not count.
func (h Holdings) Reach(l Line, from pg.LSN) Reach {
	at := h.SegmentSize.SegmentOf(from)
	r := Reach{End: h.SegmentSize.Start(at), Timeline: l.Timeline(), Missing: at}
	for i, s := range l {
		limit := noLimit
		if i < len(l)-1 {
			limit = h.SegmentSize.SegmentOf(s.To)
		}
		if at >= limit {
			continue
		}
		next := h.follow(s.Timeline, at, limit)
		if next > at {
			r.Ranges = append(r.Ranges, SegmentRange{s.Timeline, at, next - 1})
		}
		at = next
		if at < limit {
			r.Timeline = s.Timeline
			break
		}
	}
	r.End, r.Missing = h.SegmentSize.Start(at), at
	r.Beyond = h.beyond(l, at)
	return r
}

// PartialAt is the partial segment that goes on where a reach ends, the longest
// one: the last bytes of a timeline whose server died before it finished the
// segment. Not where whole segments follow behind: there only the whole one
// helps.
func (h Holdings) PartialAt(l Line, r Reach) (best Partial, ok bool) {
	if r.Gap() || r.Timeline != l.Timeline() {
		return best, false
	}
	name := h.SegmentSize.Name(r.Timeline, r.Missing)
	for _, p := range h.Partials {
		if p.Segment == name && p.ValidTo > max(r.End, best.ValidTo) {
			best, ok = p, true
		}
	}
	return best, ok
}

// follow is the first segment from at on, and below limit, that timeline t
// does not have; limit if there is none.
func (h Holdings) follow(t pg.Timeline, at, limit pg.SegmentNo) pg.SegmentNo {
	for _, r := range h.Runs[t] {
		first, end := h.SegmentSize.SegmentOf(r.From), h.SegmentSize.SegmentOf(r.To)
		if first <= at && at < end {
			return min(end, limit)
		}
	}
	return at
}

// beyond is the first byte of WAL of the line after segment missing, or 0.
func (h Holdings) beyond(l Line, missing pg.SegmentNo) pg.LSN {
	for i, s := range l {
		limit := noLimit
		if i < len(l)-1 {
			limit = h.SegmentSize.SegmentOf(s.To)
		}
		begin := h.SegmentSize.SegmentOf(s.From)
		for _, r := range h.Runs[s.Timeline] {
			first := max(h.SegmentSize.SegmentOf(r.From), begin, missing+1)
			if first < min(h.SegmentSize.SegmentOf(r.To), limit) {
				return h.SegmentSize.Start(first)
			}
		}
	}
	return 0
}
