package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// barWidth is the width of the picture, in characters.
const barWidth = 60

// printWALStatus writes a status for people: the tables, a picture of each
// timeline, and then what needs attention.
func printWALStatus(w io.Writer, s *walStatus, zone *time.Location) error {
	p := &table{w: w, zone: zone}
	p.linef("cluster %s%s", s.Cluster, s.where())
	for _, r := range s.Repos {
		p.linef("")
		p.linef("%s (%s): %s", r.Name, r.location, r.verdict())
		if r.Error != nil {
			p.linef("  %s", strings.ReplaceAll(*r.Error, "\n", "\n  "))
		}
		if len(r.Timelines) == 0 {
			continue
		}
		p.walTimelines(r)
		p.picture(r.coverage)
		p.walFindings(r)
	}
	return p.err
}

func (s *walStatus) where() string {
	switch {
	case s.SystemID == nil:
		return ": nothing is archived"
	case s.NowFrom != nil:
		return fmt.Sprintf(", system identifier %s, at timeline %d, %s (says %s)", *s.SystemID, s.Now.Timeline, s.Now.LSN, *s.NowFrom)
	}
	return fmt.Sprintf(", system identifier %s, archived to timeline %d, %s (no node says where it is now)", *s.SystemID, s.Now.Timeline, s.Now.LSN)
}

// verdict is the repository in one line.
func (r walStatusRepo) verdict() string {
	missing, behind := 0, 0
	for _, t := range r.Timelines {
		missing, behind = missing+t.Missing, behind+t.Behind
	}
	var all []string
	switch {
	case r.Status == repoEmpty:
		return "empty"
	case r.Status != repoOK:
		all = append(all, strings.ToUpper(string(r.Status)))
	}
	if missing > 0 {
		all = append(all, fmt.Sprintf("%s MISSING", segmentsText(missing)))
	}
	if len(r.MissingHistories) > 0 {
		all = append(all, "HISTORY FILE MISSING")
	}
	if len(r.Conflicts) > 0 {
		all = append(all, fmt.Sprintf("%d IN CONFLICT", len(r.Conflicts)))
	}
	for _, b := range r.Branches {
		if b.Live {
			all = append(all, "LIVE BRANCHES")
			break
		}
	}
	if len(all) == 0 {
		all = append(all, "whole")
	}
	if behind > 0 {
		all = append(all, segmentsText(behind)+" behind")
	}
	return strings.Join(all, ", ")
}

func (p *table) walTimelines(r walStatusRepo) {
	rows := [][]string{{"timeline", "from", "to", "segments", "missing", "behind", "began"}}
	for _, t := range r.Timelines {
		row := []string{fmt.Sprint(t.Timeline), lsnText(t.From), lsnText(t.To), fmt.Sprint(t.Segments), dash(t.Missing), dash(t.Behind), ""}
		if t.Parent != nil {
			row[6] = fmt.Sprintf("left timeline %d at %s", *t.Parent, *t.Switch)
		}
		rows = append(rows, row)
	}
	p.rows(rows)
}

func lsnText(l *pg.LSN) string {
	if l == nil {
		return "-"
	}
	return l.String()
}

func dash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// The cells of a bar, the most important last: it wins where several fall
// into one cell.
const (
	cellNothing = ' '
	cellSpare   = '+'
	cellHave    = '#'
	cellBehind  = '>'
	cellGap     = '!'
)

// picture draws a bar for each timeline, all on one scale.
func (p *table) picture(c archive.Coverage) {
	lo, hi := pg.SegmentNo(1<<64-1), pg.SegmentNo(0)
	for _, t := range c.Timelines {
		for _, rs := range [][]repo.SegmentRange{t.Have, t.Needed} {
			for _, r := range rs {
				lo, hi = min(lo, r.First), max(hi, r.Last+1)
			}
		}
	}
	if lo >= hi {
		return
	}
	p.linef("")
	for _, t := range c.Timelines {
		p.linef("  %4d |%s|", t.Timeline, bar(t, lo, hi))
	}
	p.linef("        %s to %s: # archived, + not needed by a backup, ! MISSING, > not there yet", c.SegmentSize.Start(lo), c.SegmentSize.Start(hi))
}

// bar is one timeline between segments lo and hi. Every gap is seen, however
// small it is on that scale.
func bar(t archive.TimelineCoverage, lo, hi pg.SegmentNo) string {
	width := min(uint64(barWidth), uint64(hi-lo))
	cells := []rune(strings.Repeat(string(cellNothing), int(width)))
	draw := func(all []repo.SegmentRange, cell rune) {
		for _, r := range all {
			first, last := uint64(r.First-lo)*width/uint64(hi-lo), uint64(r.Last-lo)*width/uint64(hi-lo)
			for i := first; i <= last; i++ {
				cells[i] = cell
			}
		}
	}
	draw(t.Have, cellSpare)
	draw(t.Needed, cellHave)
	draw(t.Behind, cellBehind)
	draw(t.Gaps, cellGap)
	return string(cells)
}

// walFindings says what needs attention.
func (p *table) walFindings(r walStatusRepo) {
	for _, g := range r.Gaps {
		p.linef("  GAP on timeline %d: %s to %s, %s, %s to %s", g.Timeline, g.From, g.To, segmentsText(g.Segments), g.First, g.Last)
		p.linef("      %s", p.sides(g))
	}
	for _, h := range r.MissingHistories {
		p.linef("  MISSING: %s", h)
	}
	for _, t := range r.Timelines {
		for _, one := range t.Partials {
			p.linef("  partial segment %s, valid to %s", one.Segment, one.ValidTo)
		}
	}
	for _, b := range r.Branches {
		p.linef("  branch: %s", b)
	}
	p.conflicts(r.Conflicts)
}

// sides says what can be restored before and after a gap.
func (p *table) sides(g walGap) string {
	before, after := "nothing can be restored before it", "nothing after it, until the next backup"
	if g.Before != nil {
		before = "can be restored up to " + p.exact(*g.Before)
	}
	if g.After != nil {
		after = "from " + p.exact(*g.After) + " after it"
	}
	return before + "; " + after
}

// maxConflicts is how many conflicts are shown one by one.
const maxConflicts = 10

func (p *table) conflicts(all []walConflict) {
	for _, c := range all {
		if pg.KindOf(c.File) == pg.FileHistory {
			p.linef("  TWO SERVERS CHOSE THE SAME TIMELINE: a second %s", c)
		}
	}
	for i, c := range all {
		if i == maxConflicts {
			p.linef("  … and %d more in conflict", len(all)-i)
			break
		}
		if pg.KindOf(c.File) != pg.FileHistory {
			p.linef("  in conflict: a second %s", c)
		}
	}
}
