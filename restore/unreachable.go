package restore

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Errors that callers branch on with errors.Is.
var (
	// ErrUnreachable: the target cannot be reached; the error is an
	// *UnreachableError.
	ErrUnreachable = errors.New("the target cannot be reached")
	// ErrNoBackup: there is no backup, or none of that label.
	ErrNoBackup = errors.New("no backup to restore from")
	// ErrNotEmpty: the target directory, or a tablespace's, has files in it
	// that are not ours.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrServerRunning: a server runs in the target directory.
	ErrServerRunning = errors.New("a server is running there")
	// ErrNoSpace: the file system is too small, or full.
	ErrNoSpace = errors.New("not enough space")
	// ErrBadRequest: what was asked for makes no sense.
	ErrBadRequest = errors.New("bad request")
)

// Moment is one moment of the cluster, known by its time, its place, or both.
type Moment struct {
	Repository string      `json:"repository,omitempty"`
	Timeline   pg.Timeline `json:"timeline,omitempty"`
	Time       time.Time   `json:"time,omitzero"`
	LSN        pg.LSN      `json:"lsn,omitzero"`
}

// Refusal is why a repository cannot reach the target.
type Refusal struct {
	Repository string        `json:"repository"`
	SystemID   pg.SystemID   `json:"system_identifier,omitempty"`
	Why        string        `json:"why"`
	Windows    []repo.Window `json:"windows"`
}

// UnreachableError says why a target cannot be reached, and what can.
type UnreachableError struct {
	Target   Target
	Refusals []Refusal
	// Before and After are the nearest moments around a target time or LSN
	// that can be reached; nil if there is none on that side.
	Before, After *Moment
}

// Is makes errors.Is(err, ErrUnreachable) true.
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// Error is Text with times in UTC.
func (e *UnreachableError) Error() string { return e.Text(time.UTC) }

// Text is the whole story, several lines, times shown in loc.
func (e *UnreachableError) Text(loc *time.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s cannot be reached", e.Target.text(loc))
	for _, r := range e.Refusals {
		fmt.Fprintf(&b, "\n  %s: %s", r.Repository, r.Why)
	}
	windows := false
	for _, r := range e.Refusals {
		for _, w := range r.Windows {
			if !windows {
				b.WriteString("\nwhat can be reached:")
				windows = true
			}
			fmt.Fprintf(&b, "\n  %s, timeline %d: %s", r.Repository, w.Timeline, windowText(w, loc))
		}
	}
	if !windows {
		b.WriteString("\nnothing can be reached: no backup has all of its own WAL")
	}
	for _, m := range []struct {
		word string
		at   *Moment
	}{{"before", e.Before}, {"after", e.After}} {
		if m.at != nil {
			fmt.Fprintf(&b, "\nnearest %s it: %s", m.word, m.at.text(e.Target.Kind, loc))
		}
	}
	return b.String()
}

func (m *Moment) text(k TargetKind, loc *time.Location) string {
	s := m.LSN.String()
	if k == TargetTime {
		s = showTime(m.Time, loc)
	}
	return fmt.Sprintf("%s (%s, timeline %d)", s, m.Repository, m.Timeline)
}

func windowText(w repo.Window, loc *time.Location) string {
	s := fmt.Sprintf("%s to %s (%s to %s), from %d %s", showTime(w.Earliest, loc), showTime(w.Latest, loc), w.From, w.To,
		len(w.Backups), plural(len(w.Backups), "backup"))
	if w.Gap {
		s += ", then a gap"
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// nearest fills in Before and After from the windows.
func (e *UnreachableError) nearest() {
	if e.Target.Kind != TargetTime && e.Target.Kind != TargetLSN {
		return
	}
	for _, r := range e.Refusals {
		for _, w := range r.Windows {
			first := &Moment{Repository: r.Repository, Timeline: w.Timeline, Time: w.Earliest, LSN: w.From}
			// The last position below the end: To itself is the first byte
			// that nothing follows.
			last := &Moment{Repository: r.Repository, Timeline: w.Timeline, Time: w.Latest, LSN: w.To - 1}
			switch {
			case e.isAfterTarget(first):
				if e.After == nil || e.less(first, e.After) {
					e.After = first
				}
			case !e.isAfterTarget(last):
				if e.Before == nil || e.less(e.Before, last) {
					e.Before = last
				}
			}
		}
	}
}

func (e *UnreachableError) isAfterTarget(m *Moment) bool {
	if e.Target.Kind == TargetTime {
		return m.Time.After(e.Target.Time)
	}
	return m.LSN > e.Target.LSN
}

func (e *UnreachableError) less(a, b *Moment) bool {
	if e.Target.Kind == TargetTime {
		return a.Time.Before(b.Time)
	}
	return a.LSN < b.LSN
}
