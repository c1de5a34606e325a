package pg

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseHistory(t *testing.T) {
	h, err := ParseHistory(4, []byte("# comment\n\n1\t0/9000000\tno recovery target specified\n  2 \t 0/A0000A0\tbefore 2026-11-22 01:00:00+00\r\n3\t1/0"))
	require.NoError(t, err)
	require.Equal(t, History{Timeline: 4, Entries: []HistoryEntry{
		{1, 0x9000000, "no recovery target specified"},
		{2, 0xA0000A0, "before 2026-11-22 01:00:00+00"},
		{3, 1 << 32, ""},
	}}, h)
	require.Equal(t, []TimelineSpan{{1, 0, 0x9000000}, {2, 0x9000000, 0xA0000A0}, {3, 0xA0000A0, 1 << 32}, {4, 1 << 32, MaxLSN}}, h.Path())

	require.True(t, h.Contains(1, 0x8FFFFFF))
	require.False(t, h.Contains(1, 0x9000000))
	require.True(t, h.Contains(2, 0x9000000))
	require.True(t, h.Contains(4, 5<<32))
	require.False(t, h.Contains(5, 5<<32))
}

// Recovery aimed at timeline 2 that stopped before timeline 2 began: the
// server still names 2 as the parent, with the earlier switch point.
func TestHistoryPathSkipsEmptySpans(t *testing.T) {
	h, err := ParseHistory(3, []byte("1\t0/9000000\ta\n2\t0/5000000\tb\n"))
	require.NoError(t, err)
	require.Equal(t, []TimelineSpan{{1, 0, 0x5000000}, {3, 0x5000000, MaxLSN}}, h.Path())
	require.False(t, h.Contains(1, 0x6000000))
	require.True(t, h.Contains(3, 0x6000000))
}

func TestHistoryOfFirstTimeline(t *testing.T) {
	h, err := ParseHistory(1, nil)
	require.NoError(t, err)
	require.Equal(t, []TimelineSpan{{1, 0, MaxLSN}}, h.Path())
}

func TestParseHistoryRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no switch point":   "1\n",
		"bad switch point":  "1\t0-9000000\tx\n",
		"too many digits":   "1\t0/123456789\tx\n",
		"not a number":      "one\t0/9000000\tx\n",
		"timeline 0":        "0\t0/9000000\tx\n",
		"descending":        "2\t0/9000000\tx\n1\t0/A000000\tx\n",
		"twice":             "2\t0/9000000\tx\n2\t0/A000000\tx\n",
		"own timeline":      "3\t0/9000000\tx\n",
		"zeroes after":      "1\t0/9000000\tx\n" + strings.Repeat("\x00", 100),
		"beyond 32 bits":    "4294967296\t0/9000000\tx\n",
		"control character": "1\x01\t0/9000000\tx\n",
	} {
		_, err := ParseHistory(3, []byte(text))
		require.ErrorIs(t, err, ErrBadHistory, name)
	}
	_, err := ParseHistory(0, nil)
	require.ErrorIs(t, err, ErrBadHistory)
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(3), []byte("1\t0/9000000\tno recovery target specified\n\n2\t0/A0000A0\tx\n"))
	f.Add(uint32(2), []byte("# c\n1 0/0"))
	f.Fuzz(func(t *testing.T, tli uint32, b []byte) {
		h, err := ParseHistory(Timeline(tli), b)
		if err != nil {
			require.ErrorIs(t, err, ErrBadHistory)
			return
		}
		path := h.Path()
		require.NotEmpty(t, path)
		var at LSN
		for _, s := range path {
			require.Equal(t, at, s.From)
			require.Less(t, s.From, s.To)
			at = s.To
		}
		require.Equal(t, MaxLSN, at)
	})
}
