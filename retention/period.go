package retention

import (
	"fmt"
	"time"
)

// periodKind is one of daily, weekly, monthly, yearly.
type periodKind struct {
	name string
	n    int
	of   func(time.Time) string // the period that a moment is in
}

// kinds are all kinds, the shortest first.
func (p Periods) kinds() []periodKind {
	return []periodKind{
		{"daily", p.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{"weekly", p.Weekly, func(t time.Time) string {
			year, week := t.ISOWeek()
			return fmt.Sprintf("%d-W%02d", year, week)
		}},
		{"monthly", p.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{"yearly", p.Yearly, func(t time.Time) string { return t.Format("2006") }},
	}
}

// keepPeriods keeps the newest backup of each of the last n periods.
func (d *decider) keepPeriods() {
	finest := true
	for _, kind := range d.policy.Keep.kinds() {
		if kind.n == 0 {
			continue
		}
		last, found := "", 0
		for _, b := range d.newestFirst() {
			if b.unusable != "" {
				continue
			}
			period := kind.of(b.sum.Stop.In(d.zone))
			if period == last {
				continue
			}
			if found == kind.n {
				break
			}
			last, found = period, found+1
			b.keep("%s %d of %d: the last one in %s", kind.name, found, kind.n, period)
			if finest {
				b.finest = true
			}
		}
		finest = false
	}
}
