package pg

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const someLabel = `START WAL LOCATION: 2/A000028 (file 00000003000000020000000A)
CHECKPOINT LOCATION: 2/A000060
BACKUP METHOD: streamed
BACKUP FROM: standby
START TIME: 2026-11-22 19:44:02 CET
LABEL: nightly: with colons
START TIMELINE: 3
`

func TestParseBackupLabel(t *testing.T) {
	l, err := ParseBackupLabel([]byte(someLabel))
	require.NoError(t, err)
	require.Equal(t, BackupLabel{
		StartLSN: 0x20A000028, StartSegment: "00000003000000020000000A", StartTimeline: 3, CheckpointLSN: 0x20A000060,
		Method: "streamed", FromStandby: true, StartTime: "2026-11-22 19:44:02 CET", Label: "nightly: with colons",
	}, l)

	l, err = ParseBackupLabel([]byte(strings.ReplaceAll(someLabel, "standby", "primary") +
		"STOP WAL LOCATION: 2/A000158 (file 00000003000000020000000A)\nSTOP TIME: later\nSTOP TIMELINE: 3\n"))
	require.NoError(t, err)
	require.False(t, l.FromStandby)
	require.Equal(t, LSN(0x20A000158), l.StopLSN)
	require.Equal(t, SegmentName("00000003000000020000000A"), l.StopSegment)
	require.Equal(t, Timeline(3), l.StopTimeline)
	require.Equal(t, "later", l.StopTime)

	l, err = ParseBackupLabel([]byte(someLabel + "INCREMENTAL FROM LSN: 2/9000028\nINCREMENTAL FROM TLI: 2\nSOMETHING OF 19: x\n"))
	require.NoError(t, err)
	require.Equal(t, LSN(0x209000028), l.IncrementalFromLSN)
	require.Equal(t, Timeline(2), l.IncrementalFromTimeline)

	l, err = ParseBackupLabel([]byte(strings.Replace(someLabel, "nightly: with colons", "", 1)))
	require.NoError(t, err, "an empty label")
	require.Empty(t, l.Label)
}

func TestParseBackupLabelRefuses(t *testing.T) {
	for name, change := range map[string][2]string{
		"no start":         {"START WAL LOCATION", "XSTART WAL LOCATION"},
		"no checkpoint":    {"CHECKPOINT LOCATION", "X"},
		"no timeline":      {"START TIMELINE: 3\n", ""},
		"timeline 0":       {"TIMELINE: 3", "TIMELINE: 0"},
		"timeline in hex":  {"TIMELINE: 3", "TIMELINE: 0xA"},
		"other timeline":   {"TIMELINE: 3", "TIMELINE: 4"},
		"bad LSN":          {"2/A000060", "2A000060"},
		"bad file":         {"00000003000000020000000A", "00000003000000020000000"},
		"after the file":   {"0A)", "0A) and more"},
		"wrong source":     {"standby", "elsewhere"},
		"a line twice":     {"BACKUP METHOD: streamed\n", "BACKUP METHOD: streamed\nBACKUP METHOD: streamed\n"},
		"early checkpoint": {"2/A000060", "2/A000020"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(someLabel, change[0], change[1], 1)
			require.NotEqual(t, someLabel, text)
			_, err := ParseBackupLabel([]byte(text))
			require.Error(t, err)
		})
	}
	_, err := ParseBackupLabel([]byte(someLabel + strings.Repeat("x", maxBackupLabel)))
	require.Error(t, err)
	_, err = ParseBackupLabel(nil)
	require.Error(t, err)
}

func FuzzParseBackupLabel(f *testing.F) {
	f.Add([]byte(someLabel))
	f.Add([]byte(someLabel + "STOP WAL LOCATION: 2/A000158 (file 00000003000000020000000A)\nSTOP TIMELINE: 3\n"))
	f.Add([]byte("START WAL LOCATION: 0/0 (file )"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseBackupLabel(b)
		if err != nil {
			require.Zero(t, l)
			return
		}
		require.NotZero(t, l.StartTimeline)
		require.Equal(t, l.StartTimeline, l.StartSegment.Timeline())
	})
}
