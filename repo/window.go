package repo

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// Window is an unbroken range of moments that can be restored to.
//
// It begins where its first backup ends, because only then is a restored
// cluster consistent, and goes as far as the WAL behind that backup does
// without a hole. A repository has several if its WAL has gaps, or branches.
type Window struct {
	// Timeline is the timeline at the end of the window, and the target
	// timeline with which all of it can be reached.
	Timeline pg.Timeline `json:"timeline"`
	// Backups are the backups inside, oldest first; at least one.
	Backups []Label `json:"backups"`
	// Earliest and Latest are the first and last target times. Latest is a
	// microsecond (the server's resolution) before the last transaction known:
	// the server stops at a time only when it meets a later transaction, and
	// without one recovery fails. If no transaction ended since the end of the
	// first backup, Latest is Earliest, and only what needs no time can be
	// reached: the backup's end, an LSN, the end of WAL.
	Earliest time.Time `json:"earliest"`
	Latest   time.Time `json:"latest"`
	// From and To are the same in the WAL: the stop of the first backup, and
	// the first byte after the last segment. A target LSN lies below To.
	From pg.LSN `json:"from_lsn"`
	To   pg.LSN `json:"to_lsn"`
	// Gap is set if WAL follows behind a hole.
	Gap bool `json:"gap,omitempty"`
	// Partial is what a partial segment adds behind To, if there is one: it is
	// used only by a restore that asks for it.
	Partial *WindowPartial `json:"partial,omitempty"`
}

// WindowPartial is what can be reached besides with a partial segment.
type WindowPartial struct {
	Segment pg.SegmentName `json:"segment"`
	ValidTo pg.LSN         `json:"valid_to"` // end of its last record
	// Latest is its last transaction; zero if there is none, or its head cannot
	// be read.
	Latest time.Time `json:"latest,omitzero"`
}

// stretch is a Window before its times are looked up.
type stretch struct {
	line    Line
	reach   Reach // from the first backup
	backups []Summary
	partial *Partial // that goes on where it ends; nil if none does
}

// end is how far it goes, at most.
func (s stretch) end() pg.LSN {
	if s.partial != nil {
		return s.partial.ValidTo
	}
	return s.reach.End
}

// stretches finds the windows without reading any head, by timeline and then
// by position.
func (h Holdings) stretches() []stretch {
	var all []stretch
	for _, t := range h.Timelines() {
		line := h.Line(t)
		var on []Summary
		for _, b := range h.Backups {
			if line.Holds(b.Timeline, b.StopLSN) {
				on = append(on, b)
			}
		}
		slices.SortFunc(on, func(a, b Summary) int {
			return cmp.Or(cmp.Compare(a.StartLSN, b.StartLSN), cmp.Compare(a.StopLSN, b.StopLSN))
		})
		for _, b := range on {
			r := h.Reach(line, b.StartLSN)
			if r.End < b.StopLSN {
				continue // its own WAL is not whole: nothing can be restored from it
			}
			if n := len(all) - 1; n >= 0 && all[n].line.Timeline() == t && all[n].reach.End == r.End {
				all[n].backups = append(all[n].backups, b)
				continue
			}
			s := stretch{line: line, reach: r, backups: []Summary{b}}
			if p, ok := h.PartialAt(line, r); ok {
				s.partial = &p
			}
			all = append(all, s)
		}
	}
	return slices.DeleteFunc(all, func(s stretch) bool { return h.shownBy(all, s) })
}

// shownBy reports whether a stretch of another timeline has all of s: that is
// so for the part of a timeline that lies before its successor left it.
func (h Holdings) shownBy(all []stretch, s stretch) bool {
	end := s.end()
	at := s.line.At(end)
	for _, o := range all {
		t := o.line.Timeline()
		if t == s.line.Timeline() || !o.line.Holds(at, end) || !o.has(s.backups[0].Label) {
			continue
		}
		if o.end() > end || o.end() == end && t > s.line.Timeline() {
			return true
		}
	}
	return false
}

func (s stretch) has(l Label) bool {
	return slices.ContainsFunc(s.backups, func(b Summary) bool { return b.Label == l })
}

// Windows finds what can be restored to, by timeline and then by position. It
// reads few heads: those of the last segments with a transaction.
func (h Holdings) Windows(ctx context.Context, heads *HeadCache) ([]Window, error) {
	var ws []Window
	for _, s := range h.stretches() {
		first := s.backups[0]
		w := Window{
			Timeline: s.line.Timeline(),
			Earliest: first.EarliestTarget(),
			Latest:   first.EarliestTarget(),
			From:     first.StopLSN,
			To:       s.reach.End,
			Gap:      s.reach.Gap(),
		}
		for _, b := range s.backups {
			w.Backups = append(w.Backups, b.Label)
		}
		m := NewMoments(h.SegmentSize, s.reach.Ranges, heads)
		at, _, err := m.LastCommit(ctx, m.Position(first.StopLSN-1), m.Len())
		if err != nil {
			return nil, err
		}
		if at = at.Add(-time.Microsecond); at.After(w.Latest) {
			w.Latest = at
		}
		if p := s.partial; p != nil {
			w.Partial = &WindowPartial{Segment: p.Segment, ValidTo: p.ValidTo}
			if w.Partial.Latest, err = heads.lastOf(ctx, *p); err != nil {
				return nil, err
			}
		}
		ws = append(ws, w)
	}
	return ws, nil
}

// EarliestTarget is the first target time that can be reached from the backup:
// its stop, rounded up to the server's microseconds.
func (s Summary) EarliestTarget() time.Time {
	t := s.Stop.Truncate(time.Microsecond)
	if t.Before(s.Stop) {
		t = t.Add(time.Microsecond)
	}
	return t
}

// Holdings reads what the repository holds of this cluster: the lists, the
// summaries and the history files, no WAL.
func (e *Epoch) Holdings(ctx context.Context) (Holdings, error) {
	h, err := e.withoutRuns(ctx, nil)
	if err != nil {
		return Holdings{}, err
	}
	timelines, err := e.Timelines(ctx)
	if err != nil {
		return Holdings{}, err
	}
	for _, t := range timelines {
		if h.Runs[t], err = e.Runs(ctx, t); err != nil {
			return Holdings{}, err
		}
	}
	return h, nil
}

// withoutRuns reads all of the Holdings but the segments, of which there are
// many. c, which may be nil, has what was read before.
func (e *Epoch) withoutRuns(ctx context.Context, c *RunCache) (Holdings, error) {
	info, err := e.Info(ctx)
	if err != nil {
		return Holdings{}, err
	}
	h := Holdings{SystemID: info.SystemID, SegmentSize: info.SegmentSize, Runs: map[pg.Timeline][]Run{}}
	var damaged []error
	if h.Backups, err = e.backups(ctx, c); err != nil {
		damaged = append(damaged, err)
	}
	if h.Histories, err = e.histories(ctx, c); err != nil {
		damaged = append(damaged, err)
	}
	for _, err := range damaged {
		if !onlyDamage(err) {
			return Holdings{}, err
		}
	}
	h.Damaged = errors.Join(damaged...)
	if h.Partials, err = e.Partials(ctx); err != nil {
		return Holdings{}, err
	}
	h.Conflicts, err = e.Conflicts(ctx, 0)
	return h, err
}

// onlyDamage reports whether every part of a joined error is about damage: not
// one that a repository which cannot be reached now would give.
func onlyDamage(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if _, is := err.(*DamageError); !is {
			for _, e := range joined.Unwrap() {
				if !onlyDamage(e) {
					return false
				}
			}
			return true
		}
	}
	return errors.Is(err, ErrIntegrity)
}

// RecoveryWindow is the whole of what can be restored to: from the end of the
// oldest usable backup to the last transaction that can be reached from the
// newest. Between them there may be gaps: [Holdings.Windows] tells. Both are
// zero if nothing can be restored.
func (e *Epoch) RecoveryWindow(ctx context.Context) (earliest, latest time.Time, err error) {
	h, err := e.Holdings(ctx)
	if err != nil {
		return time.Time{}, time.Time{}, err
	}
	ws, err := h.Windows(ctx, NewHeadCache(e))
	for _, w := range ws {
		if earliest.IsZero() || w.Earliest.Before(earliest) {
			earliest = w.Earliest
		}
		if w.Latest.After(latest) {
			latest = w.Latest
		}
	}
	return earliest, latest, err
}
