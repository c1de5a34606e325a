package page

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// repoView is a repository in words and pictures.
type repoView struct {
	Name, Location string
	Level          api.Level
	Word           string
	Error          string
	Paused         bool
	LookedAt       moment
	Latest         []latestView // of each type
	Window         *windowView
	WALText        string
	WALClass       string
	Stored         string
	Verified       moment
	Expired        moment
	Drill          drillView
	Rows           []row
	Axis           template.HTML
	HiddenLines    int
	Gaps           []gapView
	MoreGaps       int
	Conflicts      []string
	MoreConflicts  int
	Backups        []backupView
	Count          int
	Schedules      []scheduleView
	Retention      string
}

type latestView struct {
	Type string
	At   moment
}

type gapView struct {
	Timeline pg.Timeline
	From, To string
	Segments string
	Before   moment
	After    moment
}

type backupView struct {
	Label, Type, Took, Size, Stored, From string
	Stop                                  moment
	Pinned                                string
	PageErrors                            string
	Annotations                           string
}

// drillView is the last rehearsal of a restore that passed, and whether a later
// one failed.
type drillView struct {
	Passed moment
	Took   string // until the server was open
	Failed moment // zero: it did not
}

func newDrillView(r *api.Repository, at func(time.Time) moment) (v drillView) {
	if d := r.DrillPassed; d != nil {
		v.Passed, v.Took = at(d.Ended), spell(d.Took())
	}
	if d := r.Drill; d != nil && !d.Passed {
		v.Failed = at(d.Ended)
	}
	return v
}

type scheduleView struct{ Kind, Cron string }

func newRepoView(s *api.Snapshot, r *api.Repository, of span, now time.Time) repoView {
	at := func(t time.Time) moment { return moment{t.In(now.Location()), now} }
	v := repoView{
		Name: r.Name, Location: r.Location, Level: level(r.Level), Error: cut(r.Error), Paused: r.Paused,
		LookedAt: at(r.LookedAt), Verified: at(r.Verified), Expired: at(r.Expired), Drill: newDrillView(r, at),
		Stored: bytesText(r.StoredBytes), Count: len(r.Backups), Retention: r.Retention,
	}
	v.Word = map[api.Level]string{api.OK: "well", api.Warning: "needs attention", api.Critical: "not well"}[v.Level]
	v.latest(r, at)
	v.Window = newWindowView(&api.Snapshot{Repos: []api.Repository{*r}}, now)
	v.wal(s, r, now)
	v.pictures(r, of, now)
	for _, g := range r.Gaps[:min(len(r.Gaps), maxGaps)] {
		v.Gaps = append(v.Gaps, gapView{g.Timeline, g.Start.String(), g.End.String(), plural(g.Segments, "segment", "segments"), at(g.Before), at(g.After)})
	}
	v.MoreGaps = len(r.Gaps) - len(v.Gaps)
	v.Conflicts = r.Conflicts[:min(len(r.Conflicts), maxGaps)]
	v.MoreConflicts = len(r.Conflicts) - len(v.Conflicts)
	for i := range r.Backups[:min(len(r.Backups), maxBackups)] {
		v.Backups = append(v.Backups, newBackupView(&r.Backups[i], at))
	}
	for kind, cron := range r.Schedules {
		v.Schedules = append(v.Schedules, scheduleView{kind, cron})
	}
	slices.SortFunc(v.Schedules, func(a, b scheduleView) int { return scheduleRank(a.Kind) - scheduleRank(b.Kind) })
	return v
}

// scheduleRank puts backups first, from full to incremental.
func scheduleRank(kind string) int {
	order := []string{"full", "differential", "incremental", "expire", "verify", "repair", "drill"}
	if i := slices.Index(order, kind); i >= 0 {
		return i
	}
	return len(order)
}

// latest are the newest backups of the types that the repository has.
func (v *repoView) latest(r *api.Repository, at func(time.Time) moment) {
	for _, t := range []repo.BackupType{repo.Full, repo.Differential, repo.Incremental} {
		i := slices.IndexFunc(r.Backups, func(b api.Backup) bool { return b.Type == t })
		if i >= 0 {
			v.Latest = append(v.Latest, latestView{string(t), at(r.Backups[i].Stop)})
		}
	}
}

// wal says whether the archive keeps up.
func (v *repoView) wal(s *api.Snapshot, r *api.Repository, now time.Time) {
	switch {
	case r.Behind > 0:
		v.WALText = plural(r.Behind, "segment", "segments") + " behind"
		if !r.BehindSince.IsZero() {
			v.WALText += " for " + spell(now.Sub(r.BehindSince))
		}
		v.WALClass = "warning"
	case r.Error != "":
		v.WALText = "unknown"
	case !slices.ContainsFunc(s.Nodes, func(n api.Node) bool { return n.Up }):
		v.WALText = "no node to compare with"
	default:
		v.WALText = "up to date"
	}
}

func (v *repoView) pictures(r *api.Repository, of span, now time.Time) {
	scale := newScale(r, of, now)
	ticks := scale.ticks()
	v.Rows = append(v.Rows, row{Label: "Backups", Class: "legend", Picture: drawBackups(r, scale, ticks)})
	v.Rows = append(v.Rows, windowRows(r, scale, ticks)...)
	lines, hidden := timelineRows(r, scale, ticks)
	v.Rows = append(v.Rows, lines...)
	v.HiddenLines = hidden
	v.Axis = drawAxis(scale, ticks)
}

func newBackupView(b *api.Backup, at func(time.Time) moment) backupView {
	v := backupView{
		Label: string(b.Label), Type: string(b.Type), Took: spell(b.Stop.Sub(b.Start)), Size: bytesText(b.Bytes),
		Stored: bytesText(b.StoredBytes), From: b.From, Stop: at(b.Stop),
	}
	if !b.PinnedUntil.IsZero() {
		v.Pinned = "pinned until " + at(b.PinnedUntil).t.Format("2 Jan 2006")
	}
	if b.PageErrors > 0 {
		v.PageErrors = plural(int(b.PageErrors), "bad page", "bad pages")
	}
	var notes []string
	for k, text := range b.Annotations {
		notes = append(notes, fmt.Sprintf("%s=%s", k, text))
	}
	slices.Sort(notes)
	v.Annotations = cut(strings.Join(notes, ", "))
	return v
}
