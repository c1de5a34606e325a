package pg

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// BackupLabel is what a backup_label file says, or a backup history file
// ("….backup" in pg_wal), which has the same lines and three more
// (xlogbackup.c, build_backup_content).
type BackupLabel struct {
	StartLSN      LSN         // where replay of the backup begins
	StartSegment  SegmentName // the segment that holds it
	StartTimeline Timeline
	CheckpointLSN LSN    // the checkpoint record to begin with
	Method        string // "streamed"; "pg_start_backup" for 14's exclusive backups
	FromStandby   bool
	// StartTime is the server's text, in its log_timezone, whose abbreviation
	// need not be unique: for people only.
	StartTime string
	Label     string

	// Set in the label of an incremental backup of the server's own (17+),
	// which is of no use before pg_combinebackup: zero otherwise.
	IncrementalFromLSN      LSN
	IncrementalFromTimeline Timeline

	// Set in a backup history file only.
	StopLSN      LSN
	StopSegment  SegmentName
	StopTimeline Timeline
	StopTime     string
}

// maxBackupLabel bounds what is parsed: a label is at most 1 KiB long.
const maxBackupLabel = 64 << 10

// ParseBackupLabel reads a backup_label or a backup history file. The lines
// that recovery needs, and the timeline, which every supported version writes,
// must be there once. Lines that it does not know are passed over, so that a
// newer server's label can be read.
func ParseBackupLabel(b []byte) (BackupLabel, error) {
	var l BackupLabel
	if len(b) > maxBackupLabel {
		return l, fmt.Errorf("backup label: %d bytes are too many", len(b))
	}
	seen := map[string]bool{}
	for n, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			key, value = strings.TrimSuffix(line, ":"), ""
		}
		known, err := l.set(key, value)
		switch {
		case err != nil:
			return BackupLabel{}, fmt.Errorf("backup label, line %d: %s: %w", n+1, key, err)
		case known && seen[key]:
			return BackupLabel{}, fmt.Errorf("backup label, line %d: a second %q", n+1, key)
		case known:
			seen[key] = true
		}
	}
	for _, key := range []string{"START WAL LOCATION", "CHECKPOINT LOCATION", "START TIMELINE"} {
		if !seen[key] {
			return BackupLabel{}, fmt.Errorf("backup label: no line %q", key)
		}
	}
	if t := l.StartSegment.Timeline(); t != l.StartTimeline {
		return BackupLabel{}, fmt.Errorf("backup label: segment %s is not of timeline %d", l.StartSegment, l.StartTimeline)
	}
	if l.CheckpointLSN < l.StartLSN {
		return BackupLabel{}, fmt.Errorf("backup label: checkpoint at %s lies before the start at %s", l.CheckpointLSN, l.StartLSN)
	}
	return l, nil
}

// set stores one line and says whether it knows it.
func (l *BackupLabel) set(key, value string) (known bool, err error) {
	switch key {
	case "START WAL LOCATION":
		l.StartLSN, l.StartSegment, err = parseLocation(value)
	case "STOP WAL LOCATION":
		l.StopLSN, l.StopSegment, err = parseLocation(value)
	case "CHECKPOINT LOCATION":
		l.CheckpointLSN, err = ParseLSN(value)
	case "INCREMENTAL FROM LSN":
		l.IncrementalFromLSN, err = ParseLSN(value)
	case "START TIMELINE":
		l.StartTimeline, err = parseDecimalTimeline(value)
	case "STOP TIMELINE":
		l.StopTimeline, err = parseDecimalTimeline(value)
	case "INCREMENTAL FROM TLI":
		l.IncrementalFromTimeline, err = parseDecimalTimeline(value)
	case "BACKUP METHOD":
		l.Method = value
	case "BACKUP FROM":
		switch value {
		case "primary", "master": // "master" until 13
		case "standby":
			l.FromStandby = true
		default:
			err = fmt.Errorf("neither primary nor standby: %q", value)
		}
	case "START TIME":
		l.StartTime = value
	case "STOP TIME":
		l.StopTime = value
	case "LABEL":
		l.Label = value
	default:
		return false, nil
	}
	return true, err
}

// parseLocation reads "0/2000028 (file 000000010000000000000002)".
func parseLocation(s string) (LSN, SegmentName, error) {
	at, file, ok := strings.Cut(s, " (file ")
	name, rest, closed := strings.Cut(file, ")")
	if !ok || !closed || rest != "" {
		return 0, "", fmt.Errorf("not an LSN and a file: %q", s)
	}
	lsn, err1 := ParseLSN(at)
	segment, err2 := ParseSegmentName(name)
	return lsn, segment, errors.Join(err1, err2)
}

func parseDecimalTimeline(s string) (Timeline, error) {
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("not a timeline: %q", s)
	}
	return Timeline(v), nil
}
