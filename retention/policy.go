package retention

import (
	"fmt"
	"strings"

	"github.com/walkeep/walkeep/repo"
)

// Policy says what one repository keeps. The zero value keeps everything.
type Policy struct {
	// Full is how many full backups stay, or, with FullByTime, how many days
	// (of 24 hours). 0: all, unless Keep is set.
	Full       int  `json:"full,omitempty"`
	FullByTime bool `json:"full_by_time,omitempty"`
	// Differential is how many differential backups stay; full ones count. 0:
	// all.
	Differential int `json:"differential,omitempty"`
	// WAL is of how many backups the WAL stays without a hole up to now; of
	// older ones only what makes them consistent does. 0: of all that the full
	// rule keeps.
	WAL int `json:"wal,omitempty"`
	// WALType says which backups WAL counts: "" and full, full ones;
	// differential, these too; incremental, all.
	WALType repo.BackupType `json:"wal_type,omitempty"`
	// Keep is grandfather-father-son.
	Keep Periods `json:"keep,omitzero"`
}

// Periods keep the newest backup, of whatever type, of each of the last so
// many days, weeks (ISO 8601), months and years that have one.
type Periods struct {
	Daily   int `json:"daily,omitempty"`
	Weekly  int `json:"weekly,omitempty"`
	Monthly int `json:"monthly,omitempty"`
	Yearly  int `json:"yearly,omitempty"`
}

// IsZero reports whether nothing is kept by periods.
func (p Periods) IsZero() bool { return p == Periods{} }

// Validate refuses a policy that means nothing.
func (p Policy) Validate() error {
	for _, n := range []int{p.Full, p.Differential, p.WAL, p.Keep.Daily, p.Keep.Weekly, p.Keep.Monthly, p.Keep.Yearly} {
		if n < 0 {
			return fmt.Errorf("retention: a negative number: %d", n)
		}
	}
	if p.FullByTime && p.Full == 0 {
		return fmt.Errorf("retention: full backups by time without a number of days")
	}
	switch p.WALType {
	case "", repo.Full, repo.Differential, repo.Incremental:
	default:
		return fmt.Errorf("retention: WAL of backups of type %q", p.WALType)
	}
	return nil
}

// String is the policy in the words of the configuration.
func (p Policy) String() string {
	var parts []string
	add := func(name string, n int) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", name, n))
		}
	}
	add("full", p.Full)
	if p.FullByTime {
		parts = append(parts, "full-type: time")
	}
	add("differential", p.Differential)
	add("wal", p.WAL)
	if p.WAL > 0 && p.WALType != "" {
		parts = append(parts, "wal-type: "+string(p.WALType))
	}
	var keep []string
	for _, k := range p.Keep.kinds() {
		if k.n > 0 {
			keep = append(keep, fmt.Sprintf("%s: %d", k.name, k.n))
		}
	}
	if len(keep) > 0 {
		parts = append(parts, "keep: {"+strings.Join(keep, ", ")+"}")
	}
	if len(parts) == 0 {
		return "keep everything"
	}
	return strings.Join(parts, ", ")
}
