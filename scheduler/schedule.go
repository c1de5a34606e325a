package scheduler

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is times of the wall clock of a zone.
type Schedule struct {
	text   string
	spec   cron.Schedule
	zone   *time.Location
	hourly bool // every hour: then hours are real ones
}

// parser reads five fields, six with seconds first, and names.
var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseSchedule reads cron's five fields, six with seconds first, or a name
// such as @daily.
func ParseSchedule(text string, zone *time.Location) (*Schedule, error) {
	spec, err := parser.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", text, err)
	}
	if zone == nil {
		zone = time.UTC
	}
	fields := strings.Fields(text)
	hourly := text == "@hourly"
	if n := len(fields); n == 5 || n == 6 {
		hourly = fields[n-4] == "*" || fields[n-4] == "*/1"
	}
	return &Schedule{text: text, spec: spec, zone: zone, hourly: hourly}, nil
}

// String is the schedule as it was written.
func (s *Schedule) String() string { return s.text }

// Next is the first time after t; zero if there is none.
//
// A schedule that names hours runs once for each wall clock time that it
// names, on every day: when clocks go forward over it, at the moment they do;
// when they go back over it, the first time. One for every hour runs every hour,
// 23 or 25 times on such days.
func (s *Schedule) Next(t time.Time) time.Time {
	if s.hourly {
		return s.spec.Next(t.In(s.zone))
	}
	// The cron library goes by the clock of a zone: it would lose the times that
	// are skipped and double those that come twice. So it works in UTC on what
	// the wall clock shows, and we find the moment.
	wall := asUTC(t.In(s.zone))
	for range 1000 {
		wall = s.spec.Next(wall)
		if wall.IsZero() {
			return time.Time{}
		}
		if at := s.moment(wall); at.After(t) {
			return at
		}
	}
	return time.Time{}
}

// asUTC is a moment in UTC at which clocks show the same.
func asUTC(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// moment is when the clocks of the zone first show a time, or skip it.
func (s *Schedule) moment(wall time.Time) time.Time {
	at := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, s.zone)
	start, end := at.ZoneBounds()
	switch shown := asUTC(at); {
	case shown.After(wall): // skipped; at is behind the change
		return start.In(s.zone)
	case shown.Before(wall): // skipped; at is before it
		return end.In(s.zone)
	}
	// Shown twice? Then also with the offset before the change.
	if !start.IsZero() {
		_, before := start.Add(-time.Second).In(s.zone).Zone()
		_, now := at.Zone()
		if early := at.Add(time.Duration(now-before) * time.Second); early.Before(start) {
			return early.In(s.zone)
		}
	}
	return at
}
