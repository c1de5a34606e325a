package repo

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/codec"
)

const mib = 1 << 20

// putSegments archives segments of a timeline; each holds a commit at its
// number in minutes after testTime.
func putSegments(t testing.TB, e *Epoch, timeline pg.Timeline, numbers ...pg.SegmentNo) {
	for _, n := range numbers {
		at := testTime.Add(time.Duration(n) * time.Minute)
		putWAL(t, e, segment(timeline, n), []byte{byte(n)}, func(h *WALHead) { h.LastCommit, h.Commits = &at, 1 })
	}
}

func TestCoverage(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		store := newMemory()
		e := testEpoch(t, testRepo(t, store, keys, codec.Codec{}))
		// 4096 segments of 1 MiB to a directory.
		putSegments(t, e, 1, 1, 2, 3, 6, 7, 4095, 4096, 4097)
		putSegments(t, e, 3, 9)
		putWAL(t, e, HistoryFile(2), []byte("1\t0/300000\tno recovery target specified\n"), nil)
		putWAL(t, e, HistoryFile(3), []byte("1\t0/300000\tx\n\n2\t0/800000\tx\n"), nil)
		putWAL(t, e, PartialFile(pg.SegmentSize(mib).Name(1, 8), 8*mib+5), []byte("p"), nil)
		put(t, store, e.walPrefix(1)+"00000000/x", []byte("not ours"))
		put(t, store, e.prefix("partial")+"x", []byte("not ours"))

		timelines, err := e.Timelines(ctx)
		require.NoError(t, err)
		require.Equal(t, []pg.Timeline{1, 2, 3}, timelines)

		runs, err := e.Runs(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, []Run{
			{Timeline: 1, From: mib, To: 4 * mib, Segments: 3},
			{Timeline: 1, From: 6 * mib, To: 8 * mib, Segments: 2},
			{Timeline: 1, From: 4095 * mib, To: 4098 * mib, Segments: 3},
		}, runs)
		runs, err = e.Runs(ctx, 2)
		require.NoError(t, err)
		require.Empty(t, runs)

		coverage, err := e.Coverage(ctx)
		require.NoError(t, err)
		require.Equal(t, []TimelineCoverage{
			{Timeline: 1, From: mib, To: 4098 * mib, Segments: 8, Gaps: []Gap{{4 * mib, 6 * mib}, {8 * mib, 4095 * mib}}},
			{Timeline: 3, From: 9 * mib, To: 10 * mib, Segments: 1, Gaps: []Gap{}},
		}, coverage)

		missing, err := e.MissingSegments(ctx, 1, 0, 8)
		require.NoError(t, err)
		require.Equal(t, []pg.SegmentNo{0, 4, 5, 8}, missing)
		missing, err = e.MissingSegments(ctx, 1, 4095, 4097)
		require.NoError(t, err)
		require.Empty(t, missing)

		var seen []pg.SegmentNo
		collect := func(n pg.SegmentNo) error {
			seen = append(seen, n)
			return nil
		}
		require.NoError(t, e.Segments(ctx, 1, 3, 4096, collect))
		require.Equal(t, []pg.SegmentNo{3, 6, 7, 4095, 4096}, seen)
		seen = nil
		require.NoError(t, e.Segments(ctx, 1, 4097, math.MaxUint64, collect))
		require.Equal(t, []pg.SegmentNo{4097}, seen)
		stop := errors.New("stop")
		require.ErrorIs(t, e.Segments(ctx, 1, 0, 9, func(pg.SegmentNo) error { return stop }), stop)

		partials, err := e.Partials(ctx)
		require.NoError(t, err)
		require.Len(t, partials, 1)
		require.Equal(t, pg.LSN(8*mib+5), partials[0].ValidTo)

		histories, err := e.Histories(ctx)
		require.NoError(t, err)
		require.Len(t, histories, 2)
		require.Len(t, histories[3].Entries, 2)
	})
}

func TestBadHistory(t *testing.T) {
	e := testEpoch(t, testRepo(t, newMemory(), nil, codec.Codec{}))
	putWAL(t, e, HistoryFile(2), []byte("nonsense\n"), nil)
	putWAL(t, e, HistoryFile(3), []byte("1\t0/300000\tx\n"), nil)
	histories, err := e.Histories(context.Background())
	require.ErrorIs(t, err, pg.ErrBadHistory)
	require.ErrorIs(t, err, ErrIntegrity)
	require.Len(t, histories, 1)

	e = testEpoch(t, testRepo(t, newMemory(), nil, codec.Codec{}))
	putWAL(t, e, HistoryFile(2), make([]byte, maxHistory+1), nil)
	_, err = e.Histories(context.Background())
	require.Error(t, err)
}
