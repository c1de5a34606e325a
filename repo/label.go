package repo

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// BackupType says what a backup needs to be complete.
type BackupType string

// The types. In a repository every manifest is complete in itself; the type
// says whose packs it uses.
const (
	Full         BackupType = "full"
	Differential BackupType = "differential"
	Incremental  BackupType = "incremental"
)

// ParseBackupType reads "full", "differential" or "incremental".
func ParseBackupType(s string) (BackupType, error) {
	switch t := BackupType(s); t {
	case Full, Differential, Incremental:
		return t, nil
	}
	return "", fmt.Errorf("unknown backup type %q (expected full, differential or incremental)", s)
}

func (t BackupType) letter() byte {
	switch t {
	case Full:
		return 'F'
	case Differential:
		return 'D'
	default:
		return 'I'
	}
}

// Label names a backup the way pgBackRest does: 20261122-010000F, and for the
// ones that need a full: 20261122-010000F_20261123-010000D (or I). The time is
// when the backup began, in UTC, so that labels of one full sort by time.
type Label string

const labelTime = "20060102-150405"

// NewLabel makes the label of a backup of type t that begins at a moment.
// parent is the backup that it builds on, ignored for a full.
func NewLabel(t BackupType, parent Label, at time.Time) (Label, error) {
	own := at.UTC().Format(labelTime) + string(t.letter())
	if t == Full {
		return ParseLabel(own)
	}
	if _, err := ParseLabel(string(parent)); err != nil {
		return "", fmt.Errorf("label of a %s backup: its parent: %w", t, err)
	}
	return ParseLabel(string(parent.Full()) + "_" + own)
}

// ParseLabel accepts exactly what NewLabel makes.
func ParseLabel(s string) (Label, error) {
	bad := fmt.Errorf("not a backup label: %q (expected something like 20261122-010000F)", s)
	full, rest, dependent := strings.Cut(s, "_")
	if !labelPart(full, "F") || dependent && !labelPart(rest, "DI") {
		return "", bad
	}
	return Label(s), nil
}

func labelPart(s, letters string) bool {
	if len(s) != len(labelTime)+1 || !strings.Contains(letters, s[len(s)-1:]) {
		return false
	}
	t, err := time.Parse(labelTime, s[:len(s)-1])
	return err == nil && t.Format(labelTime) == s[:len(s)-1] && t.Year() >= 1
}

// Type is the type in the label.
func (l Label) Type() BackupType {
	if l == "" {
		return ""
	}
	switch l[len(l)-1] {
	case 'F':
		return Full
	case 'D':
		return Differential
	default:
		return Incremental
	}
}

// Full is the label of the full backup that this one depends on, or is.
func (l Label) Full() Label {
	full, _, _ := strings.Cut(string(l), "_")
	return Label(full)
}

// Time is when the backup began, to the second, in UTC.
func (l Label) Time() time.Time {
	s := string(l)
	if i := strings.IndexByte(s, '_'); i >= 0 {
		s = s[i+1:]
	}
	t, _ := time.Parse(labelTime, strings.TrimRight(s, "FDI"))
	return t
}

// UnmarshalJSON accepts a label, or "" for none.
func (l *Label) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("backup label: %w", err)
	}
	if s != "" {
		if _, err := ParseLabel(s); err != nil {
			return err
		}
	}
	*l = Label(s)
	return nil
}
