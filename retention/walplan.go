package retention

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// EpochPlan is what becomes of the WAL of one system identifier.
type EpochPlan struct {
	SystemID pg.SystemID   `json:"system_identifier"`
	WAL      []WALDecision `json:"wal"` // by timeline and position; touches every archived segment once
	// Partials and HistoryFiles are the incomplete segments and the server's
	// backup history files that go.
	Partials     []PartialDecision `json:"partials"`
	HistoryFiles []string          `json:"history_files"`
}

// WALDecision is what becomes of a run of archived segments.
type WALDecision struct {
	Timeline pg.Timeline    `json:"timeline"`
	First    pg.SegmentName `json:"first"`
	Last     pg.SegmentName `json:"last"`
	Segments int            `json:"segments"`
	Keep     bool           `json:"keep"`
	Reason   string         `json:"reason"`

	from, to pg.SegmentNo
}

// PartialDecision is an incomplete segment that goes, and why.
type PartialDecision struct {
	Segment pg.SegmentName `json:"segment"`
	ValidTo pg.LSN         `json:"valid_to"`
	Reason  string         `json:"reason"`

	partial repo.Partial
}

// stretch is segments that must stay.
type stretch struct {
	t        pg.Timeline
	from, to pg.SegmentNo // both included
	why      string
}

// maxSegment is above every segment's number.
const maxSegment pg.SegmentNo = 1<<64 - 1

// planWAL decides about WAL, given which backups stay.
func (d *decider) planWAL(p *Plan) {
	anchors := d.anchors()
	for i, e := range d.state.Epochs {
		ep := EpochPlan{SystemID: e.Holdings.SystemID, WAL: []WALDecision{}, Partials: []PartialDecision{}, HistoryFiles: []string{}}
		all, why := d.allWAL(i)
		var keep []stretch
		if !all {
			keep = d.neededWAL(i, anchors)
		}
		stays := func(t pg.Timeline, n pg.SegmentNo) (string, bool) {
			if all {
				return why, true
			}
			for _, s := range keep {
				if s.t == t && s.from <= n && n <= s.to {
					return s.why, true
				}
			}
			return "", false
		}
		h := e.Holdings
		for _, t := range h.Timelines() {
			for _, run := range h.Runs[t] {
				ep.WAL = append(ep.WAL, cutRun(h.SegmentSize, run, keep, all, why)...)
			}
		}
		ep.Partials = append(ep.Partials, partials(e, stays)...)
		for _, name := range e.HistoryFiles {
			segment, err := pg.ParseSegmentName(name[:min(len(name), 24)])
			if err != nil {
				continue
			}
			n, err := segment.Number(h.SegmentSize)
			if err != nil {
				continue
			}
			if _, ok := stays(segment.Timeline(), n); !ok {
				ep.HistoryFiles = append(ep.HistoryFiles, name)
			}
		}
		p.Epochs = append(p.Epochs, ep)
	}
}

// allWAL reports whether all WAL of an epoch stays, and why.
func (d *decider) allWAL(epoch int) (bool, string) {
	e := d.state.Epochs[epoch]
	if e.Holdings.Damaged != nil || len(e.Unreadable) > 0 {
		return true, "something that says what is needed is damaged"
	}
	usable, kept := false, false
	for _, b := range d.all {
		if b.epoch == epoch && b.kept() {
			kept = true
			usable = usable || b.unusable == ""
		}
	}
	switch {
	case usable:
		return false, ""
	case kept:
		return true, "no backup that stays can be restored now"
	case epoch == len(d.state.Epochs)-1:
		return true, "there is no backup yet"
	}
	return false, ""
}

// anchor finds the oldest backup from which on all WAL stays. Backups count
// across epochs. The result is the place in d.all; len(d.all) if there is none.
func (d *decider) anchor() int {
	if d.policy.WAL > 0 {
		counted, at := 0, len(d.all)
		for i, b := range slices.Backward(d.all) {
			if !b.kept() || b.unusable != "" || !b.claimed && !b.finest || !d.countsForWAL(b.sum.Type) {
				continue
			}
			if counted == d.policy.WAL {
				break
			}
			counted, at = counted+1, i
		}
		if counted > 0 {
			return at
		}
	}
	for _, chosen := range []func(*decided) bool{
		func(b *decided) bool { return b.claimed && b.sum.Type == repo.Full },
		func(b *decided) bool { return b.finest },
		func(*decided) bool { return true },
	} {
		for i, b := range d.all {
			if b.kept() && b.unusable == "" && chosen(b) {
				return i
			}
		}
	}
	return len(d.all)
}

func (d *decider) countsForWAL(t repo.BackupType) bool {
	switch d.policy.WALType {
	case repo.Incremental:
		return true
	case repo.Differential:
		return t != repo.Incremental
	}
	return t == repo.Full
}

// anchors says of each backup that stays whether all WAL behind it stays too.
// What is being restored needs it although the policy does not promise it.
func (d *decider) anchors() map[*decided]bool {
	first := d.anchor()
	for i, b := range d.all {
		if b.inUse && b.unusable == "" {
			first = min(first, i)
		}
	}
	set := map[*decided]bool{}
	for i, b := range d.all {
		if i >= first && b.kept() && b.unusable == "" {
			set[b] = true
		}
	}
	return set
}

// neededWAL is the WAL of an epoch that stays.
func (d *decider) neededWAL(epoch int, anchors map[*decided]bool) (keep []stretch) {
	h := d.state.Epochs[epoch].Holdings
	newest := pg.Timeline(0) // of a backup with all its WAL
	for b := range anchors {
		if b.epoch == epoch {
			newest = max(newest, b.sum.Timeline)
		}
	}
	for _, t := range h.Timelines() {
		line := h.Line(t)
		var oldest *decided
		for _, b := range d.all {
			if b.epoch == epoch && anchors[b] && line.Holds(b.sum.Timeline, b.sum.StopLSN) &&
				(oldest == nil || b.sum.StartLSN < oldest.sum.StartLSN) {
				oldest = b
			}
		}
		if oldest != nil {
			keep = append(keep, along(h, line, oldest.sum.StartLSN, pg.MaxLSN, fmt.Sprintf("from %s on", oldest.sum.Label))...)
			continue
		}
		// Nothing that stays leads to this timeline. If it is a new one, its
		// first backup, or its history file, may be on its way.
		_, known := h.Histories[t]
		switch {
		case t > newest && newest != 0:
			keep = append(keep, stretch{t, 0, maxSegment, "of a timeline that is newer than every backup"})
		case !known && t != 1:
			keep = append(keep, stretch{t, 0, maxSegment, "of a timeline whose history file is not there"})
		}
	}
	for _, b := range d.all {
		if b.epoch == epoch && b.kept() && !anchors[b] {
			keep = append(keep, along(h, h.Line(b.sum.Timeline), b.sum.StartLSN, b.sum.StopLSN, "makes "+string(b.sum.Label)+" consistent")...)
		}
	}
	return keep
}

// along is the WAL of a line from one position to another. Of a segment in
// which a timeline was left, both timelines' copies stay.
func along(h repo.Holdings, line repo.Line, from, to pg.LSN, why string) (keep []stretch) {
	size := h.SegmentSize
	for _, s := range line {
		lo, hi := max(from, s.From), min(to, s.To)
		if lo > hi || lo == hi && lo != from {
			continue
		}
		last := maxSegment
		if hi != pg.MaxLSN {
			last = size.SegmentOf(hi)
		}
		keep = append(keep, stretch{s.Timeline, size.SegmentOf(lo), last, why})
	}
	return keep
}

// cutRun cuts a run of segments where what becomes of them changes.
func cutRun(size pg.SegmentSize, run repo.Run, keep []stretch, all bool, why string) (list []WALDecision) {
	from, to := size.SegmentOf(run.From), size.SegmentOf(run.To)-1
	add := func(from, to pg.SegmentNo, keep bool, why string) {
		list = append(list, WALDecision{
			Timeline: run.Timeline, First: size.Name(run.Timeline, from), Last: size.Name(run.Timeline, to),
			Segments: int(to-from) + 1, Keep: keep, Reason: why, from: from, to: to,
		})
	}
	if all {
		add(from, to, true, why)
		return list
	}
	var mine []stretch
	for _, s := range keep {
		if s.t == run.Timeline && s.to >= from && s.from <= to {
			mine = append(mine, s)
		}
	}
	// The longest first, so that its reason covers the most.
	slices.SortStableFunc(mine, func(a, b stretch) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to), cmp.Compare(a.why, b.why))
	})
	at := from
	for _, s := range mine {
		if at > to || s.to < at {
			continue
		}
		if s.from > at {
			add(at, s.from-1, false, "no backup that stays needs it")
			at = s.from
		}
		end := min(s.to, to)
		if n := len(list); n > 0 && list[n-1].Keep && list[n-1].Reason == s.why {
			list = list[:n-1]
			at = size.SegmentOf(run.From) + pg.SegmentNo(count(list))
		}
		add(at, end, true, s.why)
		at = end + 1
	}
	if at <= to {
		add(at, to, false, "no backup that stays needs it")
	}
	return list
}

func count(list []WALDecision) (n int) {
	for _, w := range list {
		n += w.Segments
	}
	return n
}

// partials finds the incomplete segments that go: garbage beside the whole
// segment or a longer one, and what nothing needs.
func partials(e EpochState, stays func(pg.Timeline, pg.SegmentNo) (string, bool)) (gone []PartialDecision) {
	h := e.Holdings
	longest := map[pg.SegmentName]pg.LSN{}
	for _, p := range e.Partials {
		longest[p.Segment] = max(longest[p.Segment], p.ValidTo)
	}
	for _, p := range e.Partials {
		n, err := p.Segment.Number(h.SegmentSize)
		if err != nil {
			continue
		}
		t := p.Segment.Timeline()
		_, needed := stays(t, n)
		why := ""
		switch {
		case holds(h, t, n):
			why = "the whole segment is there"
		case longest[p.Segment] > p.ValidTo:
			why = "a longer one is there"
		case !needed:
			why = "no backup that stays needs it"
		default:
			continue
		}
		gone = append(gone, PartialDecision{Segment: p.Segment, ValidTo: p.ValidTo, Reason: why, partial: p})
	}
	return gone
}

func holds(h repo.Holdings, t pg.Timeline, n pg.SegmentNo) bool {
	at := h.SegmentSize.Start(n)
	return slices.ContainsFunc(h.Runs[t], func(r repo.Run) bool { return r.From <= at && at < r.To })
}
