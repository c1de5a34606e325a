package restore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// TargetKind is where recovery stops.
type TargetKind string

// The kinds, by the names of the server's recovery_target_… settings.
const (
	TargetEnd       TargetKind = "end"       // the end of WAL
	TargetImmediate TargetKind = "immediate" // as soon as the backup is consistent
	TargetTime      TargetKind = "time"
	TargetLSN       TargetKind = "lsn"
	TargetXID       TargetKind = "xid"
	TargetName      TargetKind = "name"
)

// Action is recovery_target_action: what the server does at the target.
type Action string

// The actions.
const (
	Promote  Action = "promote"
	Pause    Action = "pause"
	Shutdown Action = "shutdown"
)

// ParseAction reads "promote", "pause" or "shutdown".
func ParseAction(s string) (Action, error) {
	switch a := Action(s); a {
	case Promote, Pause, Shutdown:
		return a, nil
	}
	return "", fmt.Errorf("unknown target action %q (expected promote, pause or shutdown)", s)
}

// TimelineChoice is recovery_target_timeline: latest, current, or a number.
// The zero value is latest.
type TimelineChoice struct {
	current bool
	number  pg.Timeline
}

// CurrentTimeline is the timeline of the backup.
func CurrentTimeline() TimelineChoice { return TimelineChoice{current: true} }

// TimelineNumber is one timeline.
func TimelineNumber(t pg.Timeline) TimelineChoice { return TimelineChoice{number: t} }

// ParseTimelineChoice reads "latest", "current", or a decimal number.
func ParseTimelineChoice(s string) (TimelineChoice, error) {
	switch s {
	case "", "latest":
		return TimelineChoice{}, nil
	case "current":
		return CurrentTimeline(), nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return TimelineChoice{}, fmt.Errorf("not a target timeline: %q (expected a number, latest or current)", s)
	}
	return TimelineNumber(pg.Timeline(n)), nil
}

// String is the form that ParseTimelineChoice reads.
func (c TimelineChoice) String() string {
	switch {
	case c.current:
		return "current"
	case c.number != 0:
		return strconv.FormatUint(uint64(c.number), 10)
	default:
		return "latest"
	}
}

// Target is the moment to restore to. The zero value is the end of WAL.
type Target struct {
	Kind TargetKind // "" is TargetEnd
	Time time.Time  // of TargetTime; the server knows microseconds
	LSN  pg.LSN     // of TargetLSN
	XID  uint32     // of TargetXID
	Name string     // of TargetName, at most 63 bytes
	// Exclusive stops right before the target instead of right after it. For
	// TargetTime, TargetLSN and TargetXID only.
	Exclusive bool
	Action    Action // "" is Promote
	Timeline  TimelineChoice
}

// maxNameLength is the server's MAXFNAMELEN without the final zero.
const maxNameLength = 63

// normalize fills in defaults and says what makes no sense.
func (t *Target) normalize() error {
	if t.Kind == "" {
		t.Kind = TargetEnd
	}
	if t.Action == "" {
		t.Action = Promote
	}
	t.Time = t.Time.Truncate(time.Microsecond)
	switch t.Kind {
	case TargetEnd, TargetImmediate, TargetName:
		if t.Exclusive {
			return fmt.Errorf("a target %s is always inclusive", t.Kind)
		}
		if t.Kind == TargetEnd && t.Action != Promote {
			return fmt.Errorf("a target action needs a target: the server always promotes at the end of WAL")
		}
	case TargetTime, TargetLSN, TargetXID:
	default:
		return fmt.Errorf("unknown target %q", t.Kind)
	}
	if t.Kind == TargetTime && t.Time.IsZero() {
		return errors.New("no target time")
	}
	if t.Kind == TargetName && (t.Name == "" || len(t.Name) > maxNameLength || strings.ContainsAny(t.Name, "\n\r\x00")) {
		return fmt.Errorf("not the name of a restore point: %q (1 to %d bytes)", t.Name, maxNameLength)
	}
	return nil
}

// TimeFormat is how times are shown to people: as the server shows them.
const TimeFormat = "2006-01-02 15:04:05.999999-07:00"

func showTime(t time.Time, loc *time.Location) string { return t.In(loc).Format(TimeFormat) }

// text describes the target in a few words.
func (t Target) text(loc *time.Location) string {
	s := ""
	switch t.Kind {
	case TargetImmediate:
		s = "the end of the backup"
	case TargetTime:
		s = "time " + showTime(t.Time, loc)
	case TargetLSN:
		s = "LSN " + t.LSN.String()
	case TargetXID:
		s = fmt.Sprintf("transaction %d", t.XID)
	case TargetName:
		s = fmt.Sprintf("restore point %q", t.Name)
	default:
		s = "the end of WAL"
	}
	if t.Exclusive {
		s += ", exclusive"
	}
	return s
}

var timeLayouts = []string{
	"2006-01-02 15:04:05.999999999Z07:00",
	"2006-01-02 15:04:05.999999999Z0700",
	"2006-01-02 15:04:05.999999999Z07",
	"2006-01-02 15:04:05.999999999 Z07:00",
	"2006-01-02 15:04:05.999999999 Z0700",
	"2006-01-02 15:04:05.999999999 Z07",
	"2006-01-02 15:04Z07:00",
	"2006-01-02 15:04Z07",
}

var localTimeLayouts = []string{
	"2006-01-02 15:04:05.999999999",
	"2006-01-02 15:04",
	"2006-01-02",
}

// ParseTime reads a target time: as PostgreSQL prints it, or RFC 3339. A time
// without an offset is meant in loc. Names of zones other than UTC are refused,
// because abbreviations mean different things to different programs.
func ParseTime(s string, loc *time.Location) (time.Time, error) {
	t := strings.TrimSpace(s)
	if len(t) > 10 && (t[10] == 'T' || t[10] == 't') {
		t = t[:10] + " " + t[11:]
	}
	for _, utc := range []string{" UTC", " GMT", "UTC", "GMT", "z"} {
		if r, ok := strings.CutSuffix(t, utc); ok {
			t = r + "Z"
			break
		}
	}
	for _, l := range timeLayouts {
		if v, err := time.Parse(l, t); err == nil {
			return v, nil
		}
	}
	for _, l := range localTimeLayouts {
		if v, err := time.ParseInLocation(l, t, loc); err == nil {
			return v, nil
		}
	}
	return time.Time{}, fmt.Errorf("not a time: %q (expected something like 2026-11-22 14:30:00.5+00)", s)
}
