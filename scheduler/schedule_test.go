package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func zone(t *testing.T, name string) *time.Location {
	l, err := time.LoadLocation(name)
	require.NoError(t, err)
	return l
}

func times(t *testing.T, text string, l *time.Location, from, to string) (found []string) {
	s, err := ParseSchedule(text, l)
	require.NoError(t, err)
	at, err := time.ParseInLocation(time.DateTime, from, l)
	require.NoError(t, err)
	end, err := time.ParseInLocation(time.DateTime, to, l)
	require.NoError(t, err)
	for at = s.Next(at); !at.IsZero() && at.Before(end); at = s.Next(at) {
		found = append(found, at.Format("01-02 15:04 MST"))
	}
	return found
}

// On the days on which clocks change, no run is lost and none comes twice.
func TestDaylightSaving(t *testing.T) {
	berlin := zone(t, "Europe/Berlin") // 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00
	require.Equal(t, []string{"03-28 02:30 CET", "03-29 03:00 CEST", "03-30 02:30 CEST"},
		times(t, "30 2 * * *", berlin, "2026-03-28 00:00:00", "2026-03-31 00:00:00"))
	require.Equal(t, []string{"10-24 02:30 CEST", "10-25 02:30 CEST", "10-26 02:30 CET"},
		times(t, "30 2 * * *", berlin, "2026-10-24 00:00:00", "2026-10-27 00:00:00"))
	require.Equal(t, []string{"03-29 03:00 CEST"}, times(t, "0,30 2,3 29 3 *", berlin, "2026-03-29 00:00:00", "2026-03-29 03:15:00"))
	require.Equal(t, []string{"10-25 02:00 CEST", "10-25 03:00 CET"}, times(t, "0 2,3 25 10 *", berlin, "2026-10-25 00:00:00", "2026-10-26 00:00:00"))
	require.Len(t, times(t, "0 * * * *", berlin, "2026-03-28 23:59:59", "2026-03-30 00:00:00"), 23)
	require.Len(t, times(t, "@hourly", berlin, "2026-10-24 23:59:59", "2026-10-26 00:00:00"), 25)
	require.Len(t, times(t, "*/15 * * * *", berlin, "2026-10-24 23:59:59", "2026-10-26 00:00:00"), 100)
	// Lord Howe changes by half an hour, Santiago at midnight.
	require.Equal(t, []string{"04-05 01:45 +11"}, times(t, "45 1 5 4 *", zone(t, "Australia/Lord_Howe"), "2026-04-01 00:00:00", "2026-04-10 00:00:00"))
	require.Equal(t, []string{"09-05 00:00 -04", "09-06 01:00 -03", "09-07 00:00 -03"},
		times(t, "@daily", zone(t, "America/Santiago"), "2026-09-04 12:00:00", "2026-09-07 12:00:00"))
	for _, l := range []*time.Location{berlin, zone(t, "America/Santiago"), zone(t, "Australia/Lord_Howe"), zone(t, "America/New_York"), time.UTC} {
		for _, text := range []string{"30 2 * * *", "0 0 * * *", "15 1 * * *", "0 3 * * *", "59 23 * * *"} {
			require.Len(t, times(t, text, l, "2026-01-01 00:30:00", "2027-01-01 00:30:00"), 365, "%s in %s", text, l)
		}
	}
}
