package repo

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
)

const segment1M = pg.LSN(1 << 20)

// fakeHeads has one transaction in some segments.
type fakeHeads map[pg.SegmentName]time.Time

func (f fakeHeads) SegmentHead(_ context.Context, n pg.SegmentName) (WALHead, error) {
	h := WALHead{Name: string(n)}
	if at, ok := f[n]; ok {
		h.FirstCommit, h.LastCommit = &at, &at
	}
	return h, nil
}

func runs(t pg.Timeline, bounds ...pg.LSN) (rs []Run) {
	for i := 0; i < len(bounds); i += 2 {
		rs = append(rs, Run{Timeline: t, From: bounds[i] * segment1M, To: bounds[i+1] * segment1M, Segments: int(bounds[i+1] - bounds[i])})
	}
	return rs
}

func failover(t pg.Timeline, parent pg.Timeline, at pg.LSN) pg.History {
	return pg.History{Timeline: t, Entries: []pg.HistoryEntry{{Timeline: parent, End: at}}}
}

func TestReach(t *testing.T) {
	two := map[pg.Timeline]pg.History{2: failover(2, 1, 5*segment1M+100)}
	edge := map[pg.Timeline]pg.History{2: failover(2, 1, 5*segment1M)}
	for _, test := range []struct {
		name      string
		histories map[pg.Timeline]pg.History
		one, two  []Run
		line      pg.Timeline
		from      pg.LSN
		want      Reach
	}{
		{
			"one run", nil, runs(1, 1, 9), nil, 1, 3*segment1M + 7,
			Reach{[]SegmentRange{{1, 3, 8}}, 9 * segment1M, 1, 9, 0},
		},
		{
			"gap", nil, runs(1, 1, 4, 6, 9), nil, 1, segment1M,
			Reach{[]SegmentRange{{1, 1, 3}}, 4 * segment1M, 1, 4, 6 * segment1M},
		},
		{
			"the first is missing", nil, runs(1, 4, 6), nil, 1, 3 * segment1M,
			Reach{nil, 3 * segment1M, 1, 3, 4 * segment1M},
		},
		{
			"switch inside a segment", two, runs(1, 1, 5), runs(2, 5, 8), 2, segment1M,
			Reach{[]SegmentRange{{1, 1, 4}, {2, 5, 7}}, 8 * segment1M, 2, 8, 0},
		},
		{
			"the old timeline's own last segment does not count", two, runs(1, 1, 7), runs(2, 6, 8), 2, segment1M,
			Reach{[]SegmentRange{{1, 1, 4}}, 5 * segment1M, 2, 5, 6 * segment1M},
		},
		{
			"switch between segments", edge, runs(1, 1, 5), runs(2, 5, 8), 2, segment1M,
			Reach{[]SegmentRange{{1, 1, 4}, {2, 5, 7}}, 8 * segment1M, 2, 8, 0},
		},
		{
			"from the segment of the switch", two, runs(1, 1, 5), runs(2, 5, 8), 2, 5*segment1M + 10,
			Reach{[]SegmentRange{{2, 5, 7}}, 8 * segment1M, 2, 8, 0},
		},
		{
			"the other branch", two, runs(1, 1, 7), runs(2, 5, 8), 1, segment1M,
			Reach{[]SegmentRange{{1, 1, 6}}, 7 * segment1M, 1, 7, 0},
		},
		{
			"gap before the switch", two, runs(1, 1, 3), runs(2, 5, 8), 2, segment1M,
			Reach{[]SegmentRange{{1, 1, 2}}, 3 * segment1M, 1, 3, 5 * segment1M},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := Holdings{SegmentSize: 1 << 20, Histories: test.histories, Runs: map[pg.Timeline][]Run{1: test.one, 2: test.two}}
			require.Equal(t, test.want, h.Reach(h.Line(test.line), test.from))
		})
	}
}

func TestWindows(t *testing.T) {
	base := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return base.Add(time.Duration(minutes) * time.Minute) }
	backup := func(hour int, tl pg.Timeline, start pg.LSN, minutes int) Summary {
		return Summary{Label: Label(base.Add(time.Duration(hour)*time.Hour).Format(labelTime) + "F"), Timeline: tl, StartLSN: start * segment1M, StopLSN: start*segment1M + 50, Stop: at(minutes)}
	}
	h := Holdings{
		SegmentSize: 1 << 20, Histories: map[pg.Timeline]pg.History{2: failover(2, 1, 5*segment1M+100)},
		Runs:    map[pg.Timeline][]Run{1: runs(1, 1, 5), 2: runs(2, 5, 8, 9, 12)},
		Backups: []Summary{backup(1, 1, 1, 10), backup(2, 1, 3, 30), backup(3, 2, 8, 80), backup(4, 2, 10, 100)},
	}
	heads := fakeHeads{"000000020000000000000006": at(60), "00000002000000000000000A": at(99), "000000010000000000000004": at(40)}
	ws, err := h.Windows(t.Context(), NewHeadCache(heads))
	require.NoError(t, err)
	require.Equal(t, []Window{
		{Timeline: 2, Backups: []Label{h.Backups[0].Label, h.Backups[1].Label}, Earliest: at(10), Latest: at(60).Add(-time.Microsecond), From: segment1M + 50, To: 8 * segment1M, Gap: true},
		// Nothing ended since: only the end of the backup is left. The backup
		// before it lacks its own segment, and is not in any window.
		{Timeline: 2, Backups: []Label{h.Backups[3].Label}, Earliest: at(100), Latest: at(100), From: 10*segment1M + 50, To: 12 * segment1M},
	}, ws)

	// The old primary goes on: a branch with a window of its own.
	h.Runs[1] = runs(1, 1, 7)
	heads["000000010000000000000006"] = at(70)
	ws, err = h.Windows(t.Context(), NewHeadCache(heads))
	require.NoError(t, err)
	require.Len(t, ws, 3)
	require.Equal(t, pg.Timeline(1), ws[0].Timeline)
	require.Equal(t, at(70).Add(-time.Microsecond), ws[0].Latest)

	none, err := Holdings{SegmentSize: 1 << 20}.Windows(t.Context(), NewHeadCache(heads))
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestEarliestTarget(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 1000, time.UTC)
	require.Equal(t, at, Summary{Stop: at}.EarliestTarget())
	require.Equal(t, at.Add(time.Microsecond), Summary{Stop: at.Add(1)}.EarliestTarget())
}

func TestMoments(t *testing.T) {
	base := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	heads := fakeHeads{}
	ranges := []SegmentRange{{1, 3, 9}, {2, 10, 999}}
	size := pg.SegmentSize(1 << 20)
	m := NewMoments(size, ranges, NewHeadCache(heads))
	require.Equal(t, 997, m.Len())
	ends := map[int]time.Time{}
	for _, i := range []int{0, 1, 5, 7, 300, 301, 302, 800} {
		name, first := m.Segment(i)
		require.Equal(t, i, m.Position(first))
		require.Equal(t, i, m.Position(first+segment1M-1))
		ends[i] = base.Add(time.Duration(i) * time.Minute)
		heads[name] = ends[i]
	}
	last, pos, err := m.LastCommit(t.Context(), 0, m.Len())
	require.NoError(t, err)
	require.Equal(t, ends[800], last)
	require.Equal(t, 800, pos)
	last, _, err = m.LastCommit(t.Context(), 8, 300)
	require.NoError(t, err)
	require.Zero(t, last)
	for minute := -1; minute < 803; minute += 3 {
		want := -1
		for i := range m.Len() {
			if at, ok := ends[i]; ok && at.After(base.Add(time.Duration(minute)*time.Minute)) {
				want = i
				break
			}
		}
		got, ok, err := m.FirstPast(t.Context(), 0, m.Len(), func(c time.Time) bool { return c.After(base.Add(time.Duration(minute) * time.Minute)) })
		require.NoError(t, err)
		require.Equal(t, want >= 0, ok)
		if ok {
			require.Equal(t, want, got, minute)
		}
	}
	var seen []int
	require.NoError(t, m.Each(t.Context(), 4, 400, func(pos int, h WALHead) bool {
		if h.LastCommit != nil {
			seen = append(seen, pos)
		}
		return pos != 301
	}))
	require.Equal(t, []int{5, 7, 300, 301}, seen)
}
