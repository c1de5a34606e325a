package archive

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Position is a place in the WAL.
type Position struct {
	Timeline pg.Timeline `json:"timeline"`
	LSN      pg.LSN      `json:"lsn"`
}

// Gap is a run of segments that are needed and not there.
type Gap struct {
	Timeline pg.Timeline    `json:"timeline"`
	First    pg.SegmentName `json:"first"`
	Last     pg.SegmentName `json:"last"`
	From     pg.LSN         `json:"from"`
	To       pg.LSN         `json:"to"` // exclusive
	Segments int            `json:"segments"`
}

// Sides are the last moment before the gap and the first one behind it that can
// be restored to; zero if there is none.
func (g Gap) Sides(windows []repo.Window) (before, after time.Time) {
	for _, w := range windows {
		if w.To <= g.From && w.Latest.After(before) {
			before = w.Latest.UTC()
		}
		if w.From >= g.To && (after.IsZero() || w.Earliest.Before(after)) {
			after = w.Earliest.UTC()
		}
	}
	return before, after
}

func newGap(size pg.SegmentSize, r repo.SegmentRange) Gap {
	return Gap{
		Timeline: r.Timeline, First: size.Name(r.Timeline, r.First), Last: size.Name(r.Timeline, r.Last),
		From: size.Start(r.First), To: size.Start(r.Last + 1), Segments: r.Count(),
	}
}

// Coverage is what one repository holds of the WAL that it should hold. It is
// computed from plain data, by [Cover].
type Coverage struct {
	SystemID    pg.SystemID
	SegmentSize pg.SegmentSize
	// Now is what the coverage was judged against: where the cluster is, or as
	// far as is archived.
	Now       Position
	Timelines []TimelineCoverage // ascending
	// Missing is all that is needed and not there, in order: of gaps and of
	// what is behind.
	Missing []repo.SegmentRange
	// Histories are the history files that are needed and not there.
	Histories []pg.Timeline
	Branches  []Branch
	Conflicts []repo.Conflict
}

// TimelineCoverage is one timeline of a Coverage. The ranges are ascending and
// disjoint.
type TimelineCoverage struct {
	Timeline pg.Timeline
	Parent   pg.Timeline // 0 if none is known
	Switch   pg.LSN      // where it left its parent
	Have     []repo.SegmentRange
	Needed   []repo.SegmentRange
	Gaps     []repo.SegmentRange
	// Behind is what the cluster has written since the last segment that is
	// there: on its way, or not. It is no gap: nothing lies behind it.
	Behind   []repo.SegmentRange
	Partials []repo.Partial // the longest of each segment that is not there whole
}

// Gaps are those of all timelines, in order.
func (c *Coverage) Gaps() []Gap {
	return c.gather(func(t TimelineCoverage) []repo.SegmentRange { return t.Gaps })
}

// Behind is the newest WAL that is not there yet.
func (c *Coverage) Behind() []Gap {
	return c.gather(func(t TimelineCoverage) []repo.SegmentRange { return t.Behind })
}

func (c *Coverage) gather(of func(TimelineCoverage) []repo.SegmentRange) []Gap {
	gaps := []Gap{}
	for _, t := range c.Timelines {
		for _, r := range of(t) {
			gaps = append(gaps, newGap(c.SegmentSize, r))
		}
	}
	return gaps
}

// Cover computes the coverage of a repository. now is where the cluster is; the
// zero value: as far as the newest timeline is archived. histories are those
// that are known from elsewhere, for a repository that lacks some.
//
// Needed is the WAL from the start of the oldest backup, along the timelines
// that led from it to now; in a repository without backups, from the first
// segment that there is, since one that is being taken may begin anywhere. The
// segment in which a timeline was left is needed of its successor only (see
// [repo.Holdings.Reach]), and the one that is being written is not there yet. A
// backup on another line, of a branch that was given up, needs its own WAL,
// from its start to its stop.
func Cover(h repo.Holdings, now Position, histories map[pg.Timeline]pg.History) Coverage {
	own := h.Histories
	h.Histories = maps.Clone(own)
	if h.Histories == nil {
		h.Histories = map[pg.Timeline]pg.History{}
	}
	for t, history := range histories {
		if _, ok := own[t]; !ok {
			h.Histories[t] = history
		}
	}
	c := Coverage{SystemID: h.SystemID, SegmentSize: h.SegmentSize, Conflicts: h.Conflicts, Branches: Branches(h)}
	if now.Timeline == 0 {
		now = newest(h)
	}
	c.Now = now
	line := h.Line(now.Timeline)
	need := ranges{}
	from, found := pg.MaxLSN, false
	for _, b := range h.Backups {
		if line.Holds(b.Timeline, b.StopLSN) {
			from, found = min(from, b.StartLSN), true
			need.add(along(h.SegmentSize, line, b.StartLSN, b.StopLSN-1, true))
			continue
		}
		need.add(along(h.SegmentSize, h.Line(b.Timeline), b.StartLSN, b.StopLSN-1, true))
	}
	if !found {
		from, found = first(h, line)
	}
	if found {
		need.add(along(h.SegmentSize, line, from, max(now.LSN, archivedTo(h, now.Timeline)), false))
	}
	c.missingHistories(own, line)
	c.judge(h, need)
	return c
}

// newest is the end of what is archived of the newest timeline.
func newest(h repo.Holdings) Position {
	ts := h.Timelines()
	if len(ts) == 0 {
		return Position{}
	}
	t := ts[len(ts)-1]
	p := Position{Timeline: t, LSN: archivedTo(h, t)}
	if line := h.Line(t); p.LSN == 0 && len(line) > 0 {
		p.LSN = line[len(line)-1].From
	}
	return p
}

func archivedTo(h repo.Holdings, t pg.Timeline) pg.LSN {
	if runs := h.Runs[t]; len(runs) > 0 {
		return runs[len(runs)-1].To
	}
	return 0
}

// first is the first byte archived of a line.
func first(h repo.Holdings, line repo.Line) (pg.LSN, bool) {
	for i, s := range line {
		for _, r := range h.Runs[s.Timeline] {
			at := max(r.From, h.SegmentSize.Start(h.SegmentSize.SegmentOf(s.From)))
			if at < r.To && (i == len(line)-1 || h.SegmentSize.SegmentOf(at) < h.SegmentSize.SegmentOf(s.To)) {
				return at, true
			}
		}
	}
	return 0, false
}

// along lists the segments of a line from the one that holds from to the one
// that holds to, itself included only if whole.
func along(size pg.SegmentSize, line repo.Line, from, to pg.LSN, whole bool) (all []repo.SegmentRange) {
	at, end := size.SegmentOf(from), size.SegmentOf(to)
	if whole {
		end++
	}
	for i, s := range line {
		limit := end
		if i < len(line)-1 {
			limit = min(end, size.SegmentOf(s.To))
		}
		if at < limit {
			all = append(all, repo.SegmentRange{Timeline: s.Timeline, First: at, Last: limit - 1})
			at = limit
		}
	}
	return all
}

// ranges are segments, per timeline.
type ranges map[pg.Timeline][]repo.SegmentRange

func (r ranges) add(all []repo.SegmentRange) {
	for _, s := range all {
		r[s.Timeline] = append(r[s.Timeline], s)
	}
}

// tidy sorts ranges of one timeline and joins what touches.
func tidy(all []repo.SegmentRange) []repo.SegmentRange {
	slices.SortFunc(all, func(a, b repo.SegmentRange) int { return cmp.Compare(a.First, b.First) })
	var joined []repo.SegmentRange
	for _, s := range all {
		if n := len(joined); n > 0 && s.First <= joined[n-1].Last+1 {
			joined[n-1].Last = max(joined[n-1].Last, s.Last)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// minus is what of need is not in have; both tidy.
func minus(need, have []repo.SegmentRange) (rest []repo.SegmentRange) {
	for _, n := range need {
		at := n.First
		for _, h := range have {
			if h.Last < at || h.First > n.Last {
				continue
			}
			if h.First > at {
				rest = append(rest, repo.SegmentRange{Timeline: n.Timeline, First: at, Last: h.First - 1})
			}
			at = h.Last + 1
		}
		if at <= n.Last {
			rest = append(rest, repo.SegmentRange{Timeline: n.Timeline, First: at, Last: n.Last})
		}
	}
	return rest
}

func (c *Coverage) missingHistories(own map[pg.Timeline]pg.History, line repo.Line) {
	for _, s := range append(slices.Clone(line), pg.TimelineSpan{Timeline: c.Now.Timeline}) {
		if _, ok := own[s.Timeline]; !ok && s.Timeline > 1 && !slices.Contains(c.Histories, s.Timeline) {
			c.Histories = append(c.Histories, s.Timeline)
		}
	}
}

// judge fills in the timelines.
func (c *Coverage) judge(h repo.Holdings, need ranges) {
	known := map[pg.Timeline]bool{}
	for _, t := range h.Timelines() {
		known[t] = true
	}
	for t := range need {
		known[t] = true
	}
	for _, t := range slices.Sorted(maps.Keys(known)) {
		tc := TimelineCoverage{Timeline: t, Needed: tidy(need[t]), Partials: longest(h, t)}
		if line := h.Line(t); len(line) > 1 {
			tc.Parent, tc.Switch = line[len(line)-2].Timeline, line[len(line)-2].To
		}
		for _, r := range h.Runs[t] {
			tc.Have = append(tc.Have, repo.SegmentRange{Timeline: t, First: h.SegmentSize.SegmentOf(r.From), Last: h.SegmentSize.SegmentOf(r.To) - 1})
		}
		for _, m := range minus(tc.Needed, tc.Have) {
			c.Missing = append(c.Missing, m)
			if t == c.Now.Timeline && h.SegmentSize.Start(m.First) >= max(archivedTo(h, t), c.backedUpTo(h, t)) {
				tc.Behind = append(tc.Behind, m)
				continue
			}
			tc.Gaps = append(tc.Gaps, m)
		}
		c.Timelines = append(c.Timelines, tc)
	}
}

// backedUpTo is the end of the last backup on a timeline: its own WAL is never
// merely behind.
func (c *Coverage) backedUpTo(h repo.Holdings, t pg.Timeline) (to pg.LSN) {
	for _, b := range h.Backups {
		if b.Timeline == t {
			to = max(to, b.StopLSN)
		}
	}
	return to
}

// longest are the partial segments of a timeline that say something: of each
// segment that is not there whole the longest.
func longest(h repo.Holdings, t pg.Timeline) (best []repo.Partial) {
	for _, p := range h.Partials {
		if p.Segment.Timeline() != t || h.Has(p.Segment) {
			continue
		}
		if n := len(best); n > 0 && best[n-1].Segment == p.Segment {
			best[n-1] = p // they come in order of how far they go
			continue
		}
		best = append(best, p)
	}
	return best
}
