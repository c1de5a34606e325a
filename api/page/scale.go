package page

import (
	"net/http"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

// span is how much of the past the pictures show.
type span string

// The spans.
const (
	spanRecent span = "recent" // since the full backup before the newest one
	spanWeek   span = "week"
	spanMonth  span = "month"
	spanYear   span = "year"
	spanAll    span = "all"
)

var spans = []struct {
	span span
	text string
}{
	{spanRecent, "recent"}, {spanWeek, "week"}, {spanMonth, "month"}, {spanYear, "year"}, {spanAll, "all"},
}

// spanOf is the span that a request asks for.
func spanOf(r *http.Request) span {
	asked := span(r.URL.Query().Get("span"))
	for _, s := range spans {
		if s.span == asked {
			return asked
		}
	}
	return spanRecent
}

// scale maps moments to the width of a picture, in percent.
type scale struct {
	from, to, now time.Time
}

// margin is the part of the width that is left free behind now.
const margin = 0.02

// newScale is the scale of one repository's pictures.
func newScale(r *api.Repository, of span, now time.Time) scale {
	day := 24 * time.Hour
	var from time.Time
	switch of {
	case spanWeek:
		from = now.Add(-7 * day)
	case spanMonth:
		from = now.AddDate(0, -1, 0)
	case spanYear:
		from = now.AddDate(-1, 0, 0)
	case spanAll:
		from = oldest(r, now)
	default:
		from = recent(r, now)
	}
	length := max(now.Sub(from), time.Hour)
	from = now.Add(-length - time.Duration(float64(length)*margin))
	return scale{from: from, to: now.Add(time.Duration(float64(length) * margin)), now: now}
}

// oldest is when the first thing in the repository is from.
func oldest(r *api.Repository, now time.Time) time.Time {
	first := now
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	if n := len(r.Backups); n > 0 {
		earlier(r.Backups[n-1].Start)
	}
	for _, t := range r.Timelines {
		earlier(t.FirstCommit)
	}
	return first
}

// recent is the start of the full backup before the newest one, so that a whole
// chain can be seen; of the oldest if there is one only.
func recent(r *api.Repository, now time.Time) time.Time {
	fulls := 0
	for _, b := range r.Backups {
		if b.Type != repo.Full {
			continue
		}
		if fulls++; fulls == 2 {
			return b.Start
		}
	}
	return oldest(r, now)
}

// x is where a moment stands, in percent of the width; below 0 or above 100 if
// it is outside, but not far.
func (s scale) x(t time.Time) float64 {
	p := float64(t.Sub(s.from)) / float64(s.to.Sub(s.from)) * 100
	return min(max(p, -1), 101)
}

// tick is a mark of the axis.
type tick struct {
	x    float64
	text string
	// second is set for every other one; phones leave these out.
	second bool
}

// steps are the distances of ticks, from short to long; each is cut to calendar
// units, so that ticks stand at full hours, days and months.
var steps = []struct {
	length time.Duration
	format string
	next   func(time.Time) time.Time
}{
	{10 * time.Minute, "15:04", every(10 * time.Minute)},
	{30 * time.Minute, "15:04", every(30 * time.Minute)},
	{time.Hour, "15:04", every(time.Hour)},
	{3 * time.Hour, "15:04", hours(3)},
	{6 * time.Hour, "Mon 15:04", hours(6)},
	{12 * time.Hour, "Mon 15:04", hours(12)},
	{24 * time.Hour, "2 Jan", days(1)},
	{2 * 24 * time.Hour, "2 Jan", days(2)},
	{7 * 24 * time.Hour, "2 Jan", days(7)},
	{14 * 24 * time.Hour, "2 Jan", days(14)},
	{31 * 24 * time.Hour, "Jan", months(1)},
	{91 * 24 * time.Hour, "Jan 2006", months(3)},
	{182 * 24 * time.Hour, "Jan 2006", months(6)},
	{365 * 24 * time.Hour, "2006", months(12)},
}

// maxTicks is how many labels fit side by side on a desktop.
const maxTicks = 9

func (s scale) ticks() (ticks []tick) {
	step := steps[len(steps)-1]
	for _, st := range steps {
		if s.to.Sub(s.from)/st.length <= maxTicks {
			step = st
			break
		}
	}
	for t := step.next(s.from); !t.After(s.now) && len(ticks) < 4*maxTicks; t = step.next(t) {
		ticks = append(ticks, tick{x: s.x(t), text: t.Format(step.format), second: len(ticks)%2 == 1})
	}
	return ticks
}

func every(d time.Duration) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return t.Truncate(d).Add(d) }
}

// hours steps along the hours of the day in the zone of t, also where the day
// has 23 or 25 of them.
func hours(n int) func(time.Time) time.Time {
	return func(t time.Time) time.Time {
		y, m, d := t.Date()
		for h := t.Hour() - t.Hour()%n + n; ; h += n {
			if next := time.Date(y, m, d, h, 0, 0, 0, t.Location()); next.After(t) {
				return next
			}
		}
	}
}

func days(n int) func(time.Time) time.Time {
	return func(t time.Time) time.Time {
		y, m, d := t.Date()
		return time.Date(y, m, d+n, 0, 0, 0, 0, t.Location())
	}
}

func months(n int) func(time.Time) time.Time {
	return func(t time.Time) time.Time {
		y, m, _ := t.Date()
		first := (int(m)-1)/n*n + n + 1
		return time.Date(y, time.Month(first), 1, 0, 0, 0, 0, t.Location())
	}
}
