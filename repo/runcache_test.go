package repo

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object/faulty"
)

// Segments come and go at random, as archiving, repair and expiry make them;
// what is remembered is always what is listed.
func TestRunCacheAgainstListing(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	e := testEpoch(t, testRepo(t, store, nil, codec.Codec{}))
	now := testTime
	c := NewRunCache(t.TempDir(), func() time.Time { return now }, nil)
	r := rand.New(rand.NewPCG(3, 4))
	newest := map[pg.Timeline]pg.SegmentNo{1: 4090, 2: 4094}
	oldest := map[pg.Timeline]pg.SegmentNo{1: 4090, 2: 4094}
	for range 300 {
		tl := pg.Timeline(r.IntN(2) + 1)
		switch r.IntN(5) {
		case 0, 1: // archived, now and then not
			for range r.IntN(4) {
				if n := newest[tl]; r.IntN(4) > 0 {
					put(t, store, e.segmentKey(pg.SegmentSize(mib).Name(tl, n)), []byte("x"))
				}
				newest[tl]++
			}
		case 2: // repaired
			n := oldest[tl] + pg.SegmentNo(r.IntN(int(newest[tl]-oldest[tl])+1))
			if n < newest[tl] {
				put(t, store, e.segmentKey(pg.SegmentSize(mib).Name(tl, n)), []byte("x"))
			}
		case 3: // expired
			for range r.IntN(3) {
				require.NoError(t, store.Delete(ctx, e.segmentKey(pg.SegmentSize(mib).Name(tl, oldest[tl]))))
				oldest[tl] = min(oldest[tl]+1, newest[tl])
			}
		case 4: // a whole stretch, from one of its ends
			runs, err := e.Runs(ctx, tl)
			require.NoError(t, err)
			if len(runs) > 3 && r.IntN(2) == 0 {
				run := runs[r.IntN(len(runs))]
				for at := run.From; at < run.To; at += mib {
					require.NoError(t, store.Delete(ctx, e.segmentKey(pg.SegmentSize(mib).Name(tl, pg.SegmentNo(at/mib)))))
				}
			}
		}
		now = now.Add(time.Minute)
		want, err := e.Holdings(ctx)
		require.NoError(t, err)
		got, err := e.CachedHoldings(ctx, c)
		require.NoError(t, err)
		require.Equal(t, want.Runs, got.Runs)
	}
}

// What goes from the middle of a run is found where the archive is small, and
// else in turn, or at once after a backup that went away.
func TestRunCacheForgets(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	e := testEpoch(t, testRepo(t, store, nil, codec.Codec{}))
	for n := range pg.SegmentNo(3 * recheck) {
		put(t, store, segmentKeyOf(e, n+1), []byte("x"))
	}
	_, err := writeBackup(ctx, e, testLabel, testFiles())
	require.NoError(t, err)
	now, dir := testTime, t.TempDir()
	c := NewRunCache(dir, func() time.Time { return now }, nil)
	runs := func() int {
		h, err := e.CachedHoldings(ctx, c)
		require.NoError(t, err)
		return len(h.Runs[1])
	}
	require.Equal(t, 1, runs())
	require.NoError(t, store.Delete(ctx, e.summaryKey(testLabel)))
	require.Equal(t, 1, runs(), "its WAL goes after the backup")
	require.NoError(t, store.Delete(ctx, segmentKeyOf(e, 3*recheck-5)))
	now = now.Add(30 * time.Minute)
	require.Equal(t, 2, runs())

	now = now.Add(2 * time.Hour)
	require.Equal(t, 2, runs())
	require.NoError(t, store.Delete(ctx, segmentKeyOf(e, 2*recheck-5)))
	looks := 1
	for ; runs() == 2; looks++ {
		require.Less(t, looks, 4)
	}
	require.NoError(t, store.Delete(ctx, segmentKeyOf(e, 2*recheck+9)))
	now = now.Add(runsExpire + time.Second)
	require.Equal(t, 4, runs(), "once a day all is listed")

	// A file that is not whole, or of another repository, is not used.
	files, err := filepath.Glob(filepath.Join(dir, "wal-*.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	for _, b := range []string{"", "{", `{"format":1}`, `{"format":1,"runs":{"1":[[5,3]]}}`} {
		require.NoError(t, os.WriteFile(files[0], []byte(b), 0o600))
		require.Equal(t, 4, runs())
	}
	// Nowhere to remember it is no failure.
	blocked := NewRunCache(filepath.Join(files[0], "x"), nil, nil)
	_, err = e.CachedHoldings(ctx, blocked)
	require.NoError(t, err)
}

func segmentKeyOf(e *Epoch, n pg.SegmentNo) string {
	return e.segmentKey(pg.SegmentSize(mib).Name(1, n))
}

// Ten thousand segments are listed once.
func TestRunCacheIsIncremental(t *testing.T) {
	ctx := context.Background()
	store := faulty.New(newMemory())
	e := testEpoch(t, testRepo(t, store, nil, codec.Codec{}))
	for n := range pg.SegmentNo(10000) {
		put(t, store, segmentKeyOf(e, n+1), []byte("x"))
	}
	c := NewRunCache(t.TempDir(), nil, nil)
	_, err := e.CachedHoldings(ctx, c)
	require.NoError(t, err)
	before := len(store.Calls())
	h, err := e.CachedHoldings(ctx, c)
	require.NoError(t, err)
	require.Equal(t, 10000, h.Runs[1][0].Segments)
	require.Less(t, len(store.Calls())-before, 15, "requests")
	loseMiddle := func(n pg.SegmentNo) {
		require.NoError(t, store.Delete(ctx, segmentKeyOf(e, n)))
	}
	loseMiddle(5000)
	for range 3 {
		h, err = e.CachedHoldings(ctx, c)
		require.NoError(t, err)
	}
	require.Len(t, h.Runs[1], 2)
}
