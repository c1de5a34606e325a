package backup

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestNeededWAL(t *testing.T) {
	const mb = 1 << 20
	const size = pg.SegmentSize(16 * mb)
	seg := func(n, off int) pg.LSN { return pg.LSN(n*16*mb + off) }
	span := func(tl pg.Timeline, from, to pg.LSN) pg.TimelineSpan {
		return pg.TimelineSpan{Timeline: tl, From: from, To: to}
	}
	for _, c := range []struct {
		name        string
		path        []pg.TimelineSpan
		first, last pg.Timeline
		start, stop pg.LSN
		want        []walRange
	}{
		{name: "one segment", first: 1, last: 1, start: seg(4, 40), stop: seg(4, 400), want: []walRange{{1, 4, 4}}},
		{name: "stop on a boundary", first: 3, last: 3, start: seg(4, 40), stop: seg(6, 0), want: []walRange{{3, 4, 5}}},
		{
			name: "the timeline changed in mid-segment", first: 1, last: 2, start: seg(4, 40), stop: seg(8, 1),
			path: []pg.TimelineSpan{span(1, 0, seg(6, 77)), span(2, seg(6, 77), ^pg.LSN(0))},
			want: []walRange{{1, 4, 5}, {2, 6, 8}},
		},
		{
			name: "in the very segment of the start", first: 1, last: 2, start: seg(4, 40), stop: seg(4, 400),
			path: []pg.TimelineSpan{span(1, 0, seg(4, 77)), span(2, seg(4, 77), ^pg.LSN(0))},
			want: []walRange{{2, 4, 4}},
		},
		{
			name: "two changes, one before the start", first: 2, last: 4, start: seg(4, 40), stop: seg(9, 9),
			path: []pg.TimelineSpan{span(1, 0, seg(2, 0)), span(2, seg(2, 0), seg(5, 1)), span(3, seg(5, 1), seg(7, 0)), span(4, seg(7, 0), ^pg.LSN(0))},
			want: []walRange{{2, 4, 4}, {3, 5, 6}, {4, 7, 9}},
		},
		{
			name: "two changes in one segment", first: 1, last: 3, start: seg(4, 40), stop: seg(5, 9),
			path: []pg.TimelineSpan{span(1, 0, seg(4, 50)), span(2, seg(4, 50), seg(4, 60)), span(3, seg(4, 60), ^pg.LSN(0))},
			want: []walRange{{3, 4, 5}},
		},
	} {
		got, err := neededWAL(c.path, c.first, c.last, c.start, c.stop, size)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, got, c.name)
	}
	_, err := neededWAL([]pg.TimelineSpan{span(1, 0, seg(4, 77)), span(2, seg(4, 77), ^pg.LSN(0))}, 5, 2, seg(4, 40), seg(5, 0), size)
	require.ErrorContains(t, err, "does not lead from timeline 5")
}

func TestSegmentList(t *testing.T) {
	size := pg.DefaultSegmentSize
	var all []pg.SegmentName
	for n := range 5 {
		all = append(all, size.Name(1, pg.SegmentNo(n)))
	}
	require.Equal(t, "000000010000000000000000", segmentList(all[:1]))
	require.Equal(t, "000000010000000000000000, 000000010000000000000001, 000000010000000000000002 and 2 more up to 000000010000000000000004", segmentList(all))
}

// An archiver that fails, or is far behind, does not hold up a backup: what it
// needs it stores itself, from the newest segment on, and says so.
func TestBackupStoresItsWAL(t *testing.T) {
	c := newCluster(t)
	c.noWAL = true
	r := repository(t, "repo1", memory.New(), codec.Codec{})
	o := c.options(r)
	var pushed []string
	fails := true
	o.Push = func(_ context.Context, i int, path string) error {
		require.Zero(t, i)
		require.Equal(t, filepath.Join(c.dir, "pg_wal"), filepath.Dir(path))
		pushed = append(pushed, filepath.Base(path))
		if fails {
			return errors.New("gone")
		}
		c.archive(c.epoch[0])
		return nil
	}
	res, err := Run(t.Context(), o)
	require.ErrorContains(t, err, "was not archived within")
	require.Len(t, pushed, 3, "each once")
	require.Empty(t, res.Repos[0].Notes)

	pushed, fails = nil, false
	res, err = Run(t.Context(), o)
	require.NoError(t, err)
	require.NotEmpty(t, pushed)
	require.Len(t, res.Repos[0].Notes, 1)
	require.Contains(t, res.Repos[0].Notes[0], "archiving fails on fake:5432")

	// With an archiver that works nothing is said.
	c.noWAL = false
	res, err = Run(t.Context(), o)
	require.NoError(t, err)
	require.Empty(t, res.Repos[0].Notes)
}

func TestPushNewestFirst(t *testing.T) {
	var all, pushed []pg.SegmentName
	for n := range 4 {
		all = append(all, pg.DefaultSegmentSize.Name(1, pg.SegmentNo(n)))
	}
	w := walWait{log: zap.NewNop(), push: func(_ context.Context, n pg.SegmentName) error {
		pushed = append(pushed, n)
		if n == all[2] {
			return errors.New("gone")
		}
		return nil
	}}
	tried := map[pg.SegmentName]bool{}
	require.True(t, w.pushNewest(t.Context(), all, tried))
	slices.Reverse(pushed)
	require.Equal(t, all, pushed)
	require.False(t, w.pushNewest(t.Context(), all, tried), "each once")
}

// Pushing counts as progress, however long it takes.
func TestPushIsProgress(t *testing.T) {
	c := newCluster(t)
	c.noWAL = true
	o := c.options(repository(t, "repo1", memory.New(), codec.Codec{}))
	o.ArchiveTimeout = time.Second
	pushes := 0
	o.Push = func(context.Context, int, string) error {
		if pushes++; pushes == 3 { // the last of them is left to the archiver
			time.AfterFunc(o.ArchiveTimeout/3, func() { c.archive(c.epoch[0]) })
			return errors.New("gone")
		}
		time.Sleep(2 * o.ArchiveTimeout)
		return nil
	}
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 3, pushes)
}
