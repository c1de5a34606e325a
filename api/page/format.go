package page

import (
	"fmt"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
)

// bytesText is a size for people, in units of 1024.
func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// numberText groups thousands.
func numberText(n int) string { return humanize.Comma(int64(n)) }

// spell is a span of time in one or two units, rounded down.
func spell(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than a second"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	case d < 730*24*time.Hour:
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	default:
		return strconv.Itoa(int(d/(365*24*time.Hour))) + " years"
	}
}

// moment is a point in time as the page shows it.
type moment struct {
	t, now time.Time
}

// Some reports whether there is one.
func (m moment) Some() bool { return !m.t.IsZero() }

// ISO is for machines.
func (m moment) ISO() string { return m.t.UTC().Format(time.RFC3339) }

// Full is the whole of it.
func (m moment) Full() string { return m.t.Format("Mon 2 Jan 2006 15:04:05 MST") }

// Ago is how long ago it was, or how far ahead it is.
func (m moment) Ago() string {
	d := m.now.Sub(m.t)
	switch {
	case d < 0:
		return "in " + spell(-d)
	case d < time.Second:
		return "just now"
	}
	return spell(d) + " ago"
}

// Short is the time of day today, else the day with it, else with the year.
func (m moment) Short() string { return shortTime(m.t, m.now) }

func shortTime(t, now time.Time) string {
	y, mo, d := t.Date()
	ny, nmo, nd := now.Date()
	switch {
	case y == ny && mo == nmo && d == nd:
		return t.Format("15:04:05")
	case now.Sub(t).Abs() < 300*24*time.Hour:
		return t.Format("2 Jan 15:04")
	}
	return t.Format("2 Jan 2006 15:04")
}

// plural is "1 gap" or "3 gaps".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%s %s", numberText(n), many)
}
