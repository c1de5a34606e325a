package page

import (
	"fmt"
	"html/template"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

// The lanes of the picture of backups, in pixels from its top.
const (
	fullLane         = 15
	differentialLane = 41
	incrementalLane  = 65
	backupsHeight    = 80
	// bin is the width, in percent, in which backups of one lane become one mark.
	bin = 0.6
	// crowded is how wide a chain must be to have its backups tied to it.
	crowded = 3.0
)

// lane is where backups of a type stand.
func lane(t repo.BackupType) int {
	switch t {
	case repo.Full:
		return fullLane
	case repo.Differential:
		return differentialLane
	}
	return incrementalLane
}

// point is a backup in the picture, or several that are too close to be told
// apart.
type point struct {
	x           float64
	lane        int
	count       int
	first, last *api.Backup
	pinned      bool
	bad         int64 // pages
	root        repo.Label
}

// link is the horizontal line from a full or a differential to the last backup
// that needs it.
type link struct {
	from, to float64
	lane     int
}

// drawBackups draws the backups with their chains: fulls on top, differentials
// below, incrementals at the bottom, each hanging from the line of the backup
// that it needs. Backups that would overlap become one mark that says how many.
func drawBackups(r *api.Repository, s scale, ticks []tick) template.HTML {
	points, links := arrange(r, s)
	var d drawing
	d.begin("backups", backupsHeight, backupsLabel(r))
	d.grid(s, ticks, backupsHeight)
	for _, l := range links {
		d.line("chain", l.from, l.lane, l.to, l.lane)
	}
	for i := range points {
		p := &points[i]
		if l, ok := links[p.root]; ok && p.lane != l.lane && l.to-l.from >= crowded/2 {
			d.line("chain", p.x, l.lane, p.x, p.lane-6)
		}
	}
	for i := range points {
		points[i].draw(&d, s.now)
	}
	return d.end()
}

// arrange places the backups that can be seen.
func arrange(r *api.Repository, s scale) ([]point, map[repo.Label]link) {
	links := map[repo.Label]link{}
	roots := map[repo.Label]repo.Label{}
	types := make(map[repo.Label]repo.BackupType, len(r.Backups))
	at := make(map[repo.Label]float64, len(r.Backups))
	for i := range r.Backups {
		b := &r.Backups[i]
		types[b.Label], at[b.Label] = b.Type, s.x(b.Stop)
	}
	var points []point
	last := map[int]int{} // lane → index of its newest point
	for i := len(r.Backups) - 1; i >= 0; i-- {
		b := &r.Backups[i]
		x := at[b.Label]
		root := b.Parent
		if types[root] == repo.Incremental {
			root = roots[root] // parents are older, so theirs is known
		}
		roots[b.Label] = root
		if _, there := types[root]; there && root != "" && x > 0 {
			l, ok := links[root]
			if !ok {
				l = link{from: at[root], lane: lane(types[root])}
			}
			l.to = x
			links[root] = l
		}
		if x < 0 {
			continue
		}
		y := lane(b.Type)
		if n, ok := last[y]; ok && x-points[n].x < bin {
			points[n].add(b)
			continue
		}
		last[y] = len(points)
		points = append(points, point{x: x, lane: y, root: root, first: b})
		points[len(points)-1].add(b)
	}
	return points, links
}

func (p *point) add(b *api.Backup) {
	p.count++
	p.last = b
	p.pinned = p.pinned || !b.PinnedUntil.IsZero()
	p.bad += b.PageErrors
}

func (p *point) draw(d *drawing, now time.Time) {
	class := "mark"
	if p.count > 1 {
		class += " many"
	}
	shape := map[int]string{fullLane: "shape-full", differentialLane: "shape-diff", incrementalLane: "shape-incr"}[p.lane]
	d.mark(shape, class, p.x, p.lane, p.title(now))
	if p.pinned {
		d.mark("shape-pin", "pin", p.x, p.lane, "")
	}
	if p.bad > 0 {
		d.mark("shape-bad", "bad", p.x, p.lane, "")
	}
}

func (p *point) title(now time.Time) (text string) {
	b := p.last
	stop := shortTime(b.Stop.In(now.Location()), now)
	if p.count > 1 {
		text = fmt.Sprintf("%d %s backups, %s to %s", p.count, b.Type, shortTime(p.first.Stop.In(now.Location()), now), stop)
	} else {
		text = fmt.Sprintf("%s\n%s, %s, took %s\n%s, %s stored",
			b.Label, b.Type, stop, spell(b.Stop.Sub(b.Start)), bytesText(b.Bytes), bytesText(b.StoredBytes))
	}
	if p.pinned && p.count == 1 {
		text += "\npinned until " + b.PinnedUntil.In(now.Location()).Format("2 Jan 2006")
	} else if p.pinned {
		text += "\npinned"
	}
	if p.bad > 0 {
		text += "\n" + plural(int(p.bad), "page", "pages") + " with a wrong checksum"
	}
	return text
}

// backupsLabel says the picture in words.
func backupsLabel(r *api.Repository) string {
	count := map[repo.BackupType]int{}
	for i := range r.Backups {
		count[r.Backups[i].Type]++
	}
	return fmt.Sprintf("Time line of backups: %d full, %d differential, %d incremental",
		count[repo.Full], count[repo.Differential], count[repo.Incremental])
}
