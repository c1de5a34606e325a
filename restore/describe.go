package restore

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// WriteText describes the plan to people, times shown in loc.
func (p *Plan) WriteText(w io.Writer, loc *time.Location) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	b.WriteString("Restore plan\n")
	row("repository", "%s, system identifier %s", p.Repository, p.SystemID)
	row("backup", "%s, %s, PostgreSQL %d, %s in %d %s", p.Backup.Label, p.Backup.Type, p.Backup.PGVersion/10000,
		bytesText(p.Backup.Bytes), p.Backup.Files, plural(int(p.Backup.Files), "file"))
	row("", "ended %s at %s on timeline %d", showTime(p.Backup.Stop, loc), p.Backup.StopLSN, p.Backup.Timeline)
	then := string(p.Target.Action)
	if p.Standby {
		then = "follow as a standby"
	}
	row("target", "%s, then %s", p.Target.text(loc), then)
	row("timeline", "%s", p.pathText())
	row("WAL", "%d %s, no gap", p.Segments(), plural(p.Segments(), "segment"))
	for _, r := range p.WAL {
		row("", "%s to %s", p.SegmentSize.Name(r.Timeline, r.First), p.SegmentSize.Name(r.Timeline, r.Last))
	}
	if p.Partial != nil {
		row("", "and partial segment %s, valid to %s", p.Partial.Segment, p.Partial.ValidTo)
	}
	row("stops", "%s", p.stopText(loc))
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "Warning: %s\n", w)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Plan) pathText() string {
	if len(p.Path) < 2 {
		return fmt.Sprintf("%d", p.Timeline)
	}
	var parts []string
	for _, s := range p.Path[:len(p.Path)-1] {
		parts = append(parts, fmt.Sprintf("%d until %s", s.Timeline, s.To))
	}
	return fmt.Sprintf("%s, then %d", strings.Join(parts, ", "), p.Path[len(p.Path)-1].Timeline)
}

func (p *Plan) stopText(loc *time.Location) string {
	s := "in segment " + string(p.Stop.Segment)
	switch p.Target.Kind {
	case TargetEnd:
		s = fmt.Sprintf("at %s, the end of the WAL that is there", p.Stop.LSN)
		if p.Stop.Last != nil {
			s += ", last transaction " + showTime(p.Stop.Last.Time, loc)
		}
	case TargetLSN, TargetName, TargetImmediate:
		s += ", at " + p.Stop.LSN.String()
		if p.Stop.Last != nil {
			s += ", made " + showTime(p.Stop.Last.Time, loc)
		}
	case TargetXID:
		s += ", likely"
	}
	return s
}

// bytesText is a size for people, in powers of 1024.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

// planJSON is the form of a plan for programs.
type planJSON struct {
	Repository      string       `json:"repository"`
	SystemID        pg.SystemID  `json:"system_identifier"`
	Backup          backupJSON   `json:"backup"`
	Target          targetJSON   `json:"target"`
	Standby         bool         `json:"standby,omitempty"`
	Timeline        pg.Timeline  `json:"timeline"`
	TimelineSetting string       `json:"recovery_target_timeline"`
	Path            []spanJSON   `json:"path"`
	WAL             []rangeJSON  `json:"wal"`
	Segments        int          `json:"segments"`
	Partial         *partialJSON `json:"partial,omitempty"`
	Stop            planStopJSON `json:"stop"`
	Warnings        []string     `json:"warnings"`
}

type backupJSON struct {
	Label     repo.Label      `json:"label"`
	Type      repo.BackupType `json:"type"`
	Start     time.Time       `json:"start"`
	Stop      time.Time       `json:"stop"`
	StartLSN  pg.LSN          `json:"start_lsn"`
	StopLSN   pg.LSN          `json:"stop_lsn"`
	Timeline  pg.Timeline     `json:"timeline"`
	PGVersion int             `json:"pg_version"`
	Bytes     int64           `json:"bytes"`
	Files     int64           `json:"files"`
}

type targetJSON struct {
	Kind      TargetKind `json:"type"`
	Value     string     `json:"value,omitempty"`
	Exclusive bool       `json:"exclusive,omitempty"`
	Action    Action     `json:"action"`
	Timeline  string     `json:"timeline"`
}

type partialJSON struct {
	Segment pg.SegmentName `json:"segment"`
	ValidTo pg.LSN         `json:"valid_to"`
}

type spanJSON struct {
	Timeline pg.Timeline `json:"timeline"`
	From     pg.LSN      `json:"from"`
	To       pg.LSN      `json:"to"`
}

type rangeJSON struct {
	Timeline pg.Timeline    `json:"timeline"`
	First    pg.SegmentName `json:"first"`
	Last     pg.SegmentName `json:"last"`
	Segments int            `json:"segments"`
}

type planStopJSON struct {
	Segment pg.SegmentName `json:"segment"`
	LSN     pg.LSN         `json:"lsn"`
	Time    time.Time      `json:"time,omitzero"`
	Likely  bool           `json:"likely,omitempty"`
}

// Value is the target as its recovery setting spells it, "" for the end of
// WAL and immediate.
func (t Target) Value() string {
	switch t.Kind {
	case TargetTime:
		return t.Time.UTC().Format("2006-01-02 15:04:05.999999-07")
	case TargetLSN:
		return t.LSN.String()
	case TargetXID:
		return fmt.Sprint(t.XID)
	case TargetName:
		return t.Name
	default:
		return ""
	}
}

// MarshalJSON describes the plan to programs.
func (p *Plan) MarshalJSON() ([]byte, error) {
	b := p.Backup
	j := planJSON{
		Repository: p.Repository,
		SystemID:   p.SystemID,
		Backup: backupJSON{
			Label: b.Label, Type: b.Type, Start: b.Start, Stop: b.Stop, StartLSN: b.StartLSN, StopLSN: b.StopLSN,
			Timeline: b.Timeline, PGVersion: b.PGVersion, Bytes: b.Bytes, Files: b.Files,
		},
		Target: targetJSON{
			Kind: p.Target.Kind, Value: p.Target.Value(), Exclusive: p.Target.Exclusive,
			Action: p.Target.Action, Timeline: p.Target.Timeline.String(),
		},
		Standby:         p.Standby,
		Timeline:        p.Timeline,
		TimelineSetting: p.TimelineSetting,
		Segments:        p.Segments(),
		Stop:            planStopJSON{Segment: p.Stop.Segment, LSN: p.Stop.LSN, Likely: p.Stop.Likely},
		Warnings:        append([]string{}, p.Warnings...),
	}
	if p.Stop.Last != nil {
		j.Stop.Time = p.Stop.Last.Time
	}
	if p.Partial != nil {
		j.Partial = &partialJSON{p.Partial.Segment, p.Partial.ValidTo}
	}
	for _, s := range p.Path {
		j.Path = append(j.Path, spanJSON(s))
	}
	for _, r := range p.WAL {
		j.WAL = append(j.WAL, rangeJSON{
			r.Timeline, p.SegmentSize.Name(r.Timeline, r.First), p.SegmentSize.Name(r.Timeline, r.Last), r.Count(),
		})
	}
	return json.Marshal(j)
}

// Outlook tells what the server will do once it is started.
func (p *Plan) Outlook(loc *time.Location) string {
	s := fmt.Sprintf("It will recover along timeline %d to %s", p.Timeline, p.Target.text(loc))
	if p.Target.Kind == TargetEnd && p.Stop.Last != nil {
		s += fmt.Sprintf(" (%s, last transaction %s)", p.Stop.LSN, showTime(p.Stop.Last.Time, loc))
	}
	if p.Standby {
		return s + ",\nand then follow as a standby, open for reading, until it is promoted."
	}
	switch p.Target.Action {
	case Pause:
		return s + ",\nand wait there, open for reading, until pg_wal_replay_resume() is called."
	case Shutdown:
		return s + ",\nand shut down there."
	default:
		return s + ",\nand then open for writing, on a new timeline."
	}
}
