package pg

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the WAL stream, in bytes since its beginning.
// PostgreSQL's XLogRecPtr (access/xlogdefs.h).
type LSN uint64

// ParseLSN reads PostgreSQL's text form, two hexadecimal halves joined by a
// slash: "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok || !isHex(hi) || !isHex(lo) {
		return 0, fmt.Errorf("not an LSN: %q (expected something like 16/B374D848)", s)
	}
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("not an LSN: %q (each half has at most 8 hexadecimal digits)", s)
	}
	return LSN(h<<32 | l), nil
}

// String is PostgreSQL's text form, "16/B374D848".
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText and UnmarshalText make an LSN its text form in JSON and YAML.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err == nil {
		*l = v
	}
	return err
}

// Timeline is a timeline ID, 1 or more. PostgreSQL's TimeLineID.
type Timeline uint32

// ParseTimeline reads the eight upper-case hexadecimal digits that WAL file
// names carry.
func ParseTimeline(s string) (Timeline, error) {
	if len(s) != 8 || !isUpperHex(s) {
		return 0, fmt.Errorf("not a timeline in eight hexadecimal digits: %q", s)
	}
	v, err := strconv.ParseUint(s, 16, 32)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("not a timeline: %q", s)
	}
	return Timeline(v), nil
}

// Hex is the form in file names, "0000000A"; %d and JSON give the number.
func (t Timeline) Hex() string { return fmt.Sprintf("%08X", uint32(t)) }

// SystemID identifies a cluster since its initdb (pg_control's
// system_identifier). In JSON it is a string, because JavaScript's and jq's
// numbers lose its low bits.
type SystemID uint64

// String is the decimal form that PostgreSQL prints.
func (s SystemID) String() string { return strconv.FormatUint(uint64(s), 10) }

// MarshalJSON writes the decimal form as a string.
func (s SystemID) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON is the reverse of MarshalJSON.
func (s *SystemID) UnmarshalJSON(b []byte) error {
	var t string
	if err := json.Unmarshal(b, &t); err != nil {
		return fmt.Errorf("system identifier: %w", err)
	}
	v, err := ParseSystemID(t)
	if err == nil {
		*s = v
	}
	return err
}

// ParseSystemID reads the decimal form.
func ParseSystemID(s string) (SystemID, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil || v == 0 || s != strconv.FormatUint(v, 10) {
		return 0, fmt.Errorf("not a system identifier: %q", s)
	}
	return SystemID(v), nil
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return s != ""
}

func isUpperHex(s string) bool { return isHex(s) && strings.ToUpper(s) == s }
