package page

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// How many rows a repository has at most; what is left out is counted.
const (
	maxTimelines = 8
	maxWindows   = 4
)

const barHeight = 26

// row is one line of pictures with the words to its left.
type row struct {
	Label, Note string
	Class       string
	Picture     template.HTML
}

// windowRows draws what can be restored to. Windows of branches, which share
// moments, stand below one another.
func windowRows(r *api.Repository, s scale, ticks []tick) []row {
	if len(r.Windows) == 0 {
		var d drawing
		d.begin("window", barHeight, "No moment can be restored to")
		d.grid(s, ticks, barHeight)
		return []row{{Label: "Recovery window", Note: "none", Picture: d.end()}}
	}
	var rows []row
	for _, windows := range lanes(r.Windows) {
		var d drawing
		d.begin("window", barHeight, windowsLabel(windows, s.now))
		d.grid(s, ticks, barHeight)
		for _, w := range windows {
			from, to := s.x(w.Earliest), s.x(w.Latest)
			if to < 0 {
				continue
			}
			d.rect("open", from, to, 0.4, 7, 12, windowTitle(w, s.now))
			d.line("edge", max(from, 0), 4, max(from, 0), 22)
			d.line("edge", to, 4, to, 22)
		}
		rows = append(rows, row{Picture: d.end()})
	}
	rows[0].Label = "Recovery window"
	if len(rows) > 1 {
		rows[0].Note = "and branches"
	}
	if len(rows) > maxWindows {
		rows = rows[:maxWindows]
	}
	return rows
}

// lanes puts windows that overlap into lanes of their own, the one that reaches
// furthest first.
func lanes(windows []repo.Window) (lanes [][]repo.Window) {
	sorted := slices.Clone(windows)
	slices.SortStableFunc(sorted, func(a, b repo.Window) int { return b.Latest.Compare(a.Latest) })
next:
	for _, w := range sorted {
		for i, l := range lanes {
			if !w.Latest.After(l[len(l)-1].Earliest) {
				lanes[i] = append(l, w)
				continue next
			}
		}
		lanes = append(lanes, []repo.Window{w})
	}
	return lanes
}

func windowTitle(w repo.Window, now time.Time) string {
	return fmt.Sprintf("%s to %s\ntimeline %d, %s", shortTime(w.Earliest.In(now.Location()), now),
		shortTime(w.Latest.In(now.Location()), now), w.Timeline, plural(len(w.Backups), "backup", "backups"))
}

func windowsLabel(windows []repo.Window, now time.Time) string {
	text := "Recovery window:"
	for i, w := range windows[:min(len(windows), maxGaps)] {
		if i > 0 {
			text += ";"
		}
		text += fmt.Sprintf(" %s to %s", shortTime(w.Earliest.In(now.Location()), now), shortTime(w.Latest.In(now.Location()), now))
	}
	return text
}

// timelineRows draws the WAL that is there, a row for each timeline, the newest
// on top. Timelines that ended before the picture begins are left out, and old
// ones before those with gaps are.
func timelineRows(r *api.Repository, s scale, ticks []tick) (rows []row, hidden int) {
	gaps := map[pg.Timeline][]api.Gap{}
	for _, g := range r.Gaps {
		gaps[g.Timeline] = append(gaps[g.Timeline], g)
	}
	lines := slices.Clone(r.Timelines)
	slices.SortStableFunc(lines, func(a, b api.Timeline) int {
		if a, b := len(gaps[a.Timeline]) > 0, len(gaps[b.Timeline]) > 0; a != b {
			if a {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Timeline, a.Timeline)
	})
	lines = slices.DeleteFunc(lines, func(t api.Timeline) bool {
		return len(gaps[t.Timeline]) == 0 && !t.LastCommit.IsZero() && s.x(t.LastCommit) < 0
	})
	lines = lines[:min(len(lines), maxTimelines)]
	hidden = len(r.Timelines) - len(lines)
	slices.SortFunc(lines, func(a, b api.Timeline) int { return cmp.Compare(b.Timeline, a.Timeline) })
	for i := range lines {
		rows = append(rows, timelineRow(&lines[i], gaps[lines[i].Timeline], i == 0, s, ticks))
	}
	return rows, hidden
}

// timelineRow draws one timeline; current says that the cluster may be on it.
func timelineRow(t *api.Timeline, gaps []api.Gap, current bool, s scale, ticks []tick) row {
	out := row{Label: fmt.Sprintf("Timeline %d", t.Timeline), Class: "whole"}
	if t.Parent > 0 {
		out.Note = fmt.Sprintf("from %d at %s", t.Parent, t.Switch)
	}
	words := fmt.Sprintf("WAL of timeline %d: %s, without a gap", t.Timeline, plural(t.Segments, "segment", "segments"))
	if len(gaps) > 0 {
		words = fmt.Sprintf("WAL of timeline %d: %s, %s", t.Timeline, plural(t.Segments, "segment", "segments"), plural(len(gaps), "gap", "gaps"))
		out.Class, out.Note = "holed", plural(len(gaps), "gap", "gaps")
	}
	var d drawing
	d.begin("coverage", barHeight, words)
	d.grid(s, ticks, barHeight)
	clock := newClock(t, gaps, s.now)
	if !current {
		clock.now = clock.last
	}
	if !t.FirstCommit.IsZero() {
		last := t.LastCommit
		if last.IsZero() {
			last = t.FirstCommit
		}
		if to := s.x(last); to >= 0 {
			d.rect("held", s.x(t.FirstCommit), to, 0.4, 8, 10, words)
		}
	}
	if earlier := drawGaps(&d, gaps, clock, s); earlier == len(gaps) && earlier > 0 {
		out.Note += ", earlier"
	}
	if out.Note == "" && t.FirstCommit.IsZero() {
		out.Note = "no transaction"
	}
	out.Picture = d.end()
	return out
}

// drawGaps draws gaps; those that would overlap become one. It returns how many
// lie before the picture begins.
func drawGaps(d *drawing, gaps []api.Gap, clock clock, s scale) (earlier int) {
	const least = 0.8 // percent: a gap of a second in a year must still be seen
	var from, to float64
	var title string
	count := 0
	flush := func() {
		if count > 1 {
			title = plural(count, "gap", "gaps") + ", shown as one"
		}
		if count > 0 {
			d.rect("hole", from, to, least, 3, 20, title)
		}
	}
	for _, g := range gaps {
		x1, x2 := s.x(clock.before(g)), s.x(clock.after(g))
		if x2 < x1 {
			x1, x2 = x2, x1
		}
		if x2 < 0 {
			earlier++
			continue
		}
		if count > 0 && x1 < max(to, from+least) {
			to = max(to, x2)
			count++
			continue
		}
		flush()
		from, to, title, count = x1, x2, gapTitle(g), 1
	}
	flush()
	return earlier
}

func gapTitle(g api.Gap) string {
	return fmt.Sprintf("gap: %s missing\n%s to %s", plural(g.Segments, "segment", "segments"), g.Start, g.End)
}

// clock tells, for a position in the WAL of a timeline, when it was written:
// between moments that are known, in proportion.
type clock struct {
	from, to    pg.LSN
	first, last time.Time
	now         time.Time // until when a gap at the end lasts
}

func newClock(t *api.Timeline, gaps []api.Gap, now time.Time) clock {
	c := clock{first: t.FirstCommit, last: t.LastCommit, now: now}
	if n := len(t.Runs); n > 0 {
		c.from, c.to = t.Runs[0].From, t.Runs[n-1].To
	}
	if c.last.IsZero() {
		c.last = now
	}
	if c.first.IsZero() {
		c.first = c.last
		for _, g := range gaps {
			if !g.Before.IsZero() && g.Before.Before(c.first) {
				c.first = g.Before
			}
		}
	}
	return c
}

func (c clock) before(g api.Gap) time.Time {
	if !g.Before.IsZero() {
		return g.Before
	}
	return c.at(g.Start)
}

// after is where the gap ends; one that nothing follows lasts until now, on the
// timeline that the cluster is on.
func (c clock) after(g api.Gap) time.Time {
	switch {
	case !g.After.IsZero():
		return g.After
	case c.to > 0 && g.End >= c.to:
		return c.now
	}
	return c.at(g.End)
}

func (c clock) at(l pg.LSN) time.Time {
	switch {
	case c.to <= c.from || l <= c.from:
		return c.first
	case l >= c.to:
		return c.last
	}
	return c.first.Add(time.Duration(float64(c.last.Sub(c.first)) * float64(l-c.from) / float64(c.to-c.from)))
}

// drawAxis draws the labels of the axis.
func drawAxis(s scale, ticks []tick) template.HTML {
	const height = 18
	var d drawing
	d.begin("axis", height, "From "+shortTime(s.from, s.now)+" to now")
	for _, t := range ticks {
		class := "tick"
		if t.second {
			class += " second"
		}
		if t.x > 2 && t.x < 92 {
			d.text(class, t.x, 13, t.text)
		}
	}
	d.text("tick now", s.x(s.now), 13, "now")
	return d.end()
}
