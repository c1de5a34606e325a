package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/restore"
)

// printList writes a listing for people.
func printList(w io.Writer, l listing, zone *time.Location) error {
	p := &table{w: w, zone: zone}
	p.linef("cluster %s", l.Cluster)
	for _, r := range l.Repos {
		p.linef("")
		p.linef("%s (%s)", r.Name, r.location)
		switch {
		case r.Status == repoEmpty:
			p.linef("  empty: no backup and no WAL")
			continue
		case r.Error != nil:
			p.linef("  %s: %s", strings.ToUpper(string(r.Status)), strings.ReplaceAll(*r.Error, "\n", "\n  "))
			if r.Status == repoError {
				continue
			}
		}
		p.backups(r.Backups)
		p.coverage(r.WAL)
		p.windows(r.windows)
		p.conflicts(r.Conflicts)
		p.drills(r.Drills)
	}
	return p.err
}

// drills shows the newest rehearsal, and the newest that passed if that is
// another one.
func (p *table) drills(all []repo.Drill) {
	passed, last := repo.LastDrills(all)
	if last == nil {
		return
	}
	p.linef("  %s  %s", last.Started.In(p.zone).Format(restore.TimeFormat), strings.ReplaceAll(drillText(*last, p.zone), "\n", "\n    "))
	if passed != last && passed != nil {
		p.linef("  %s  %s", passed.Started.In(p.zone).Format(restore.TimeFormat), drillText(*passed, p.zone))
	}
}

// table writes lines and aligned columns, and keeps the first error.
type table struct {
	w    io.Writer
	zone *time.Location
	err  error
}

func (p *table) linef(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format+"\n", args...); err != nil && p.err == nil {
		p.err = err
	}
}

// rows writes aligned columns. The first row is the heading.
func (p *table) rows(rows [][]string) {
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, "  "+strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	if err := t.Flush(); err != nil && p.err == nil {
		p.err = err
	}
}

func (p *table) backups(backups []listedBackup) {
	if len(backups) == 0 {
		p.linef("  no backups")
		return
	}
	rows := [][]string{{"backup", "type", "finished", "took", "size", "stored", "timeline", "start LSN", "stop LSN", "notes"}}
	for _, b := range backups {
		rows = append(rows, []string{
			string(b.Label), string(b.Type), p.second(b.Stop), took(b.Start, b.Stop), size(b.Bytes), size(b.StoredBytes),
			fmt.Sprint(b.Timeline), b.StartLSN.String(), b.StopLSN.String(), notes(b),
		})
	}
	p.rows(rows)
}

func (p *table) coverage(wal []repo.TimelineCoverage) {
	if len(wal) == 0 {
		p.linef("  no WAL")
		return
	}
	rows := [][]string{{"WAL of timeline", "from", "to", "segments", "gaps"}}
	for _, t := range wal {
		row := []string{fmt.Sprint(t.Timeline), t.From.String(), t.To.String(), fmt.Sprint(t.Segments), "none"}
		for i, g := range t.Gaps {
			if i > 0 {
				rows = append(rows, row)
				row = make([]string, len(row))
			}
			row[len(row)-1] = fmt.Sprintf("%s to %s", g.From, g.To)
		}
		rows = append(rows, row)
	}
	p.rows(rows)
}

func (p *table) windows(windows []repo.Window) {
	if len(windows) == 0 {
		p.linef("  recovery window: none, nothing can be restored")
		return
	}
	rows := [][]string{{"recovery window from", "to", "timeline", ""}}
	for _, w := range windows {
		note := ""
		if w.Gap {
			note = "then a gap"
		}
		if w.Partial != nil {
			note = fmt.Sprintf("with --use-partial to %s", w.Partial.ValidTo)
			if !w.Partial.Latest.IsZero() {
				note += ", " + p.exact(w.Partial.Latest)
			}
		}
		rows = append(rows, []string{p.exact(w.Earliest), p.exact(w.Latest), fmt.Sprint(w.Timeline), note})
	}
	p.rows(rows)
}

// second is a time for people, with its offset.
func (p *table) second(t time.Time) string {
	return t.In(p.zone).Format("2006-01-02 15:04:05-07:00")
}

// exact is a time that can be given to --target-time: PostgreSQL counts
// microseconds.
func (p *table) exact(t time.Time) string {
	return t.In(p.zone).Format("2006-01-02 15:04:05.999999-07:00")
}

// took is the time that a backup needed, to the second.
func took(start, stop time.Time) string { return stop.Sub(start).Round(time.Second).String() }

// size is a number of bytes for people.
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func notes(b listedBackup) string {
	var all []string
	if b.PageErrors > 0 {
		all = append(all, fmt.Sprintf("%d BAD PAGES", b.PageErrors))
	}
	all = append(all, annotations(b.Annotations)...)
	return strings.Join(all, ", ")
}
