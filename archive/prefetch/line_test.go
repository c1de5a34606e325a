package prefetch

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
)

func TestFollowing(t *testing.T) {
	const size pg.SegmentSize = 16 << 20
	history := func(t pg.Timeline, entries ...pg.HistoryEntry) pg.History {
		return pg.History{Timeline: t, Entries: entries}
	}
	at := func(n pg.SegmentNo) pg.LSN { return size.Start(n) + 5000 }
	// 2 leaves 1 in segment 12, 3 leaves 2 in segment 13; 4 left 1 in segment 10.
	two := history(2, pg.HistoryEntry{Timeline: 1, End: at(12)})
	three := history(3, pg.HistoryEntry{Timeline: 1, End: at(12)}, pg.HistoryEntry{Timeline: 2, End: at(13)})
	four := history(4, pg.HistoryEntry{Timeline: 1, End: at(10)})
	type seg struct {
		t pg.Timeline
		n pg.SegmentNo
	}
	for name, c := range map[string]struct {
		asked     seg
		histories []pg.History
		want      []seg
	}{
		"one timeline":         {seg{1, 254}, nil, []seg{{1, 255}, {1, 256}, {1, 257}, {1, 258}}},
		"across a switch":      {seg{1, 10}, []pg.History{two}, []seg{{1, 11}, {2, 12}, {2, 13}, {2, 14}}},
		"across two":           {seg{1, 10}, []pg.History{two, three}, []seg{{1, 11}, {2, 12}, {3, 13}, {3, 14}}},
		"behind a switch":      {seg{2, 12}, []pg.History{two}, []seg{{2, 13}, {2, 14}, {2, 15}, {2, 16}}},
		"not on that branch":   {seg{1, 11}, []pg.History{two, four}, []seg{{2, 12}, {2, 13}, {2, 14}, {2, 15}}},
		"newest that agrees":   {seg{1, 8}, []pg.History{two, four}, []seg{{1, 9}, {4, 10}, {4, 11}, {4, 12}}},
		"no history fits":      {seg{1, 20}, []pg.History{two}, []seg{{1, 21}, {1, 22}, {1, 23}, {1, 24}}},
		"history of the past":  {seg{5, 20}, []pg.History{two}, []seg{{5, 21}, {5, 22}, {5, 23}, {5, 24}}},
		"switch in what comes": {seg{2, 12}, []pg.History{three}, []seg{{3, 13}, {3, 14}, {3, 15}, {3, 16}}},
	} {
		var want []pg.SegmentName
		for _, s := range c.want {
			want = append(want, size.Name(s.t, s.n))
		}
		require.Equal(t, want, following(size.Name(c.asked.t, c.asked.n), size, c.histories, 4), name)
	}
	require.Empty(t, following("0000000100000000000001FF", size, nil, 4), "no such segment in this cluster")
	require.True(t, backwards("000000010000000000000005", "000000010000000000000004", size))
	require.False(t, backwards("000000010000000000000005", "000000020000000000000005", size))
}

func FuzzParseReady(f *testing.F) {
	f.Add("000000010000000000000005.00112233445566778899aabbccddeeff.ready")
	f.Add("000000010000000000000005.part")
	f.Fuzz(func(t *testing.T, name string) {
		segment, sum, ok := parseReady(name)
		if ok {
			require.Equal(t, name, string(segment)+"."+sum+readyEnd)
		}
	})
}
