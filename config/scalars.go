package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/robfig/cron/v3"
)

// A scalar is a value with a text form of its own. expects completes the
// sentence "expected …" when the text is wrong.
type scalar interface {
	UnmarshalText([]byte) error
	expects() string
}

// Duration is a span of time, written as Go does (300ms, 1h30m) or in days (7d).
type Duration time.Duration

func (*Duration) expects() string { return "a duration such as 500ms, 30s, 5m, 2h or 7d" }

// UnmarshalText reads a duration above zero.
func (d *Duration) UnmarshalText(b []byte) error {
	s := string(b)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err == nil && n > 0 {
			*d = Duration(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("not a duration")
	}
	if v <= 0 {
		return errors.New("not above zero")
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes Go's form without parts that are zero: 5m, not 5m0s.
func (d Duration) MarshalText() ([]byte, error) {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return []byte(s), nil
}

// ByteRate is a number of bytes in a second. 50MB is 50,000,000, 50MiB is
// 52,428,800.
type ByteRate int64

func (*ByteRate) expects() string {
	return "a number of bytes in a second such as 500kB, 50MB or 1GiB"
}

// UnmarshalText reads a rate of at least 1 kB; "/s" at the end is allowed.
func (r *ByteRate) UnmarshalText(b []byte) error {
	v, err := humanize.ParseBytes(strings.TrimSuffix(string(b), "/s"))
	switch {
	case err != nil:
		return errors.New("not a number of bytes")
	case v < 1000:
		return errors.New("less than 1kB a second")
	case v > 1<<50:
		return errors.New("more than any store can take")
	}
	*r = ByteRate(v)
	return nil
}

// MarshalText writes the largest unit that is exact.
func (r ByteRate) MarshalText() ([]byte, error) { return exactBytes(int64(r)), nil }

// ByteSize is a number of bytes. 50MB is 50,000,000, 50MiB is 52,428,800.
type ByteSize int64

func (*ByteSize) expects() string { return "a number of bytes such as 500MB or 1GiB" }

// UnmarshalText reads a size of at least 1 MB.
func (s *ByteSize) UnmarshalText(b []byte) error {
	v, err := humanize.ParseBytes(string(b))
	switch {
	case err != nil:
		return errors.New("not a number of bytes")
	case v < 1_000_000:
		return errors.New("less than 1MB")
	case v > 1<<50:
		return errors.New("more than any disk has")
	}
	*s = ByteSize(v)
	return nil
}

// MarshalText writes the largest unit that is exact.
func (s ByteSize) MarshalText() ([]byte, error) { return exactBytes(int64(s)), nil }

func exactBytes(n int64) []byte {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Appendf(nil, "%d%s", n/u.size, u.name)
		}
	}
	return strconv.AppendInt(nil, n, 10)
}

// Require is archive.require. The zero value means all repositories.
type Require struct{ number int }

// RequireNumber asks for n repositories, 0 for all.
func RequireNumber(n int) Require { return Require{n} }

// All reports whether every repository is required.
func (r Require) All() bool { return r.number == 0 }

// Number is how many repositories are required, or 0 for all of them.
func (r Require) Number() int { return r.number }

func (*Require) expects() string { return "all, or a number from 1 to 4" }

// UnmarshalText reads "all" or a number.
func (r *Require) UnmarshalText(b []byte) error {
	if string(b) == "all" {
		r.number = 0
		return nil
	}
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 1 || n > MaxRepos {
		return errors.New("not a number of repositories")
	}
	r.number = n
	return nil
}

// MarshalText is the reverse of UnmarshalText.
func (r Require) MarshalText() ([]byte, error) {
	if r.All() {
		return []byte("all"), nil
	}
	return strconv.AppendInt(nil, int64(r.number), 10), nil
}

// TimeZone is a zone by its IANA name. The zero value is the machine's zone.
type TimeZone struct{ location *time.Location }

// Location is the zone; the machine's own if none was named.
func (z TimeZone) Location() *time.Location {
	if z.location == nil {
		return time.Local
	}
	return z.location
}

// IsZero reports whether no zone was named.
func (z TimeZone) IsZero() bool { return z.location == nil }

func (*TimeZone) expects() string { return "the IANA name of a time zone such as UTC or Europe/Berlin" }

// UnmarshalText looks the zone up.
func (z *TimeZone) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		return errors.New("empty")
	}
	l, err := time.LoadLocation(string(b))
	if err != nil {
		return errors.New("unknown time zone")
	}
	z.location = l
	return nil
}

// MarshalText is the name of the zone.
func (z TimeZone) MarshalText() ([]byte, error) { return []byte(z.Location().String()), nil }

// Cron is a schedule in cron's notation. The zero value never starts.
type Cron struct {
	text     string
	schedule cron.Schedule
}

// Next is the first time after t at which the schedule starts, in t's zone; the
// zero time if there is no schedule.
func (c Cron) Next(t time.Time) time.Time {
	if c.schedule == nil {
		return time.Time{}
	}
	return c.schedule.Next(t)
}

// String is the schedule as it was written.
func (c Cron) String() string { return c.text }

// IsZero reports whether there is no schedule.
func (c Cron) IsZero() bool { return c.schedule == nil }

// cronParser reads five fields, six with seconds first, and names.
var cronParser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

func (*Cron) expects() string {
	return `cron's five fields such as "0 1 * * 0" (minute hour day month weekday), six with seconds first, or @hourly, @daily, @weekly, @monthly`
}

// UnmarshalText reads the fields or one of the names.
func (c *Cron) UnmarshalText(b []byte) error {
	s := strings.TrimSpace(string(b))
	switch {
	case strings.HasPrefix(s, "TZ=") || strings.HasPrefix(s, "CRON_TZ="):
		return errors.New("a time zone belongs into the field timezone")
	case strings.HasPrefix(s, "@every"):
		// It counts from the start of the service, so a missed run could not
		// be told from one that is not due.
		return errors.New("@every is not supported")
	}
	schedule, err := cronParser.Parse(s)
	if err != nil {
		return err
	}
	if schedule.Next(time.Unix(0, 0).UTC()).IsZero() {
		return errors.New("it never starts")
	}
	c.text, c.schedule = s, schedule
	return nil
}

// MarshalText is the reverse of UnmarshalText.
func (c Cron) MarshalText() ([]byte, error) { return []byte(c.text), nil }

func (*VerifyLevel) expects() string { return "exists, stored or full" }

// UnmarshalText accepts the values of verify-level.
func (l *VerifyLevel) UnmarshalText(b []byte) error {
	*l = VerifyLevel(b)
	switch *l {
	case VerifyExists, VerifyStored, VerifyFull:
		return nil
	}
	return errors.New("unknown value")
}

func (*BackupFrom) expects() string { return "prefer-standby, standby or primary" }

// UnmarshalText accepts the values of backup-from.
func (f *BackupFrom) UnmarshalText(b []byte) error {
	*f = BackupFrom(b)
	switch *f {
	case PreferStandby, FromStandby, FromPrimary:
		return nil
	}
	return errors.New("unknown value")
}

func (*BackupSource) expects() string { return "auto, files or sql" }

// UnmarshalText accepts the values of backup-source.
func (s *BackupSource) UnmarshalText(b []byte) error {
	*s = BackupSource(b)
	switch *s {
	case SourceAuto, SourceFiles, SourceSQL:
		return nil
	}
	return errors.New("unknown value")
}

// MarshalText is the value.
func (s BackupSource) MarshalText() ([]byte, error) { return []byte(s), nil }

func (*RetentionType) expects() string { return "count or time" }

// UnmarshalText accepts the values of full-type.
func (t *RetentionType) UnmarshalText(b []byte) error {
	*t = RetentionType(b)
	switch *t {
	case RetainCount, RetainTime:
		return nil
	}
	return errors.New("unknown value")
}

func (*WALRetentionType) expects() string { return "full, differential or incremental" }

// UnmarshalText accepts the values of wal-type.
func (t *WALRetentionType) UnmarshalText(b []byte) error {
	*t = WALRetentionType(b)
	switch *t {
	case WALOfFull, WALOfDifferential, WALOfIncremental:
		return nil
	}
	return errors.New("unknown value")
}
