package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestLineage(t *testing.T) {
	// Timeline 3 left timeline 2 at 0/5000000, which had left 1 at 0/3000000.
	h := pg.History{Timeline: 3, Entries: []pg.HistoryEntry{{Timeline: 1, End: 0x3000000}, {Timeline: 2, End: 0x5000000}}}
	l := lineage{line: h.Path(), history: h, at: 0x7000000, major: 15, kind: repo.Incremental}
	s := func(timeline pg.Timeline, stop pg.LSN) repo.Summary {
		return repo.Summary{Type: repo.Full, Timeline: timeline, StopLSN: stop, PGVersion: 150004}
	}
	for name, c := range map[string]struct {
		s  repo.Summary
		ok bool
	}{
		"own timeline":                 {s(3, 0x6000000), true},
		"an ancestor":                  {s(1, 0x2000000), true},
		"an ancestor up to its end":    {s(2, 0x5000000), true},
		"an ancestor after we left it": {s(2, 0x5000008), false},
		"before its timeline began":    {s(3, 0x4000000), false},
		"another branch":               {s(4, 0x6000000), false},
		"beyond where we are":          {s(3, 0x7000008), false},
		"another version":              {repo.Summary{Timeline: 3, StopLSN: 0x6000000, PGVersion: 140009}, false},
	} {
		require.Equal(t, c.ok, l.refuses(c.s) == "", name)
	}
	l.kind = repo.Differential
	require.Empty(t, l.refuses(s(3, 0x6000000)))
	inc := s(3, 0x6000000)
	inc.Type = repo.Incremental
	require.NotEmpty(t, l.refuses(inc))
}

// A parent that is not whole any more, or not to be relied on, is passed over
// for the next better one, and the result says why.
func TestNextBetterParent(t *testing.T) {
	ctx := context.Background()
	for _, lost := range []string{"/pack/", "/manifest"} {
		t.Run(lost, func(t *testing.T) {
			c := tiny(t)
			store := memory.New()
			r := repository(t, "repo1", store, codec.Default())
			o := c.options(r)
			full, err := Run(ctx, o)
			require.NoError(t, err)
			o.Type = repo.Incremental
			c.advance(0x2100000)
			first, err := Run(ctx, o)
			require.NoError(t, err)
			var keys []string
			require.NoError(t, store.List(ctx, "", object.ListOptions{}, func(i object.Info) error {
				if strings.Contains(i.Key, string(first.Label)+lost) {
					keys = append(keys, i.Key)
				}
				return nil
			}))
			require.NotEmpty(t, keys)
			require.NoError(t, store.Delete(ctx, keys...))
			c.advance(0x2100000)
			second, err := Run(ctx, o)
			require.NoError(t, err)
			require.Equal(t, full.Label, second.Repos[0].Summary.Parent)
			require.Len(t, second.Repos[0].Notes, 1)
			require.Contains(t, second.Repos[0].Notes[0], string(first.Label))
		})
	}
}

// A standby without a new restartpoint has nothing to add.
func TestNothingNew(t *testing.T) {
	ctx := context.Background()
	c := tiny(t)
	r := repository(t, "repo1", memory.New(), codec.Default())
	o := c.options(r)
	_, err := Run(ctx, o)
	require.NoError(t, err)
	o.Type = repo.Incremental
	_, err = Run(ctx, o)
	require.ErrorIs(t, err, ErrNothingNew)
	all, err := r.Epoch(testSystem).Backups(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
}

func TestForcedRung(t *testing.T) {
	ctx := context.Background()
	c := tiny(t)
	r := repository(t, "repo1", memory.New(), codec.Default())
	o := c.options(r)
	_, err := Run(ctx, o)
	require.NoError(t, err)
	o.Type = repo.Incremental
	for _, d := range []Detect{DetectSummaries, DetectChanges} {
		c.advance(0x2100000)
		o.Detect = d
		_, err = Run(ctx, o)
		var e *DetectError
		require.True(t, errors.As(err, &e), "%v", err)
		require.Equal(t, d, e.Detect)
	}
	o.Detect = DetectWhole
	result, err := Run(ctx, o)
	require.NoError(t, err)
	require.Equal(t, repo.Incremental, result.Repos[0].Summary.Type)
	require.Empty(t, result.Repos[0].Summary.References)
}

// Upstream's ec756e59 and 5787f878: a standby summarizes WAL before it replays
// it, and after a promotion some was skipped on the new timeline. Summaries
// count for the timeline that they are of, and all of it must be covered.
func TestSummariesAfterPromotion(t *testing.T) {
	want := []span{{1, 0x1000000, 0x3000000}, {2, 0x3000000, 0x6000000}}
	one := server.Summary{Timeline: 1, Start: 0x800000, End: 0x4000000} // beyond the switch
	_, missing, why := coverWith([]server.Summary{one, {Timeline: 2, Start: 0x4000000, End: 0x6000000}}, want)
	require.NotEmpty(t, why)
	require.Equal(t, pg.LSN(0x3000000), missing)
	cover, _, why := coverWith([]server.Summary{one, {Timeline: 2, Start: 0x4000000, End: 0x6000000}, {Timeline: 2, Start: 0x3000000, End: 0x4000000}}, want)
	require.Empty(t, why)
	require.Len(t, cover, 3)
	_, _, why = coverWith(nil, want)
	require.NotEmpty(t, why)
}

// Upstream's second bug: a relation that was cut and grew again, by pages of
// which no record speaks, because they were added in bulk.
func TestCutAndGrown(t *testing.T) {
	c := newChangeSet(131072)
	r := relation{1663, 5, 16384}
	c.limit(r, 131072+10)
	c.block(r, 3)
	c.block(r, 131072+12)
	set, whole := c.of(r, 0)
	require.False(t, whole)
	require.True(t, set.has(3))
	require.Equal(t, 1, set.count())
	_, whole = c.of(r, 1)
	require.True(t, whole, "the file that holds the place of the cut")
	_, whole = c.of(r, 2)
	require.True(t, whole, "and those behind it")
	set, whole = c.of(relation{1663, 5, 16385}, 0)
	require.False(t, whole)
	require.True(t, set.empty())
	c.limit(relation{1663, 6, 0}, 0)
	_, whole = c.of(relation{1663, 6, 1259}, 0)
	require.True(t, whole, "a database made anew")
}

// Upstream's third bug: pages of visibility maps change without WAL that says
// so. Maps are whole on every rung.
func TestMapsAreWhole(t *testing.T) {
	p := &planner{rung: DetectChanges, changes: newChangeSet(131072)}
	for _, name := range []string{"base/5/16384_vm", "base/5/16384_fsm", "base/5/16384_init", "pg_xact/0000", "base/5/pg_filenode.map"} {
		e := entry{path: name, kind: kindFile, size: 8192}
		if rel, ok := parseRelFile(filepath.Base(name)); ok {
			e.relation, e.fork = true, rel.fork
		}
		require.Nil(t, p.plan(e), name)
	}
}

// A file that its times prove to be untouched is not read.
func TestUntouched(t *testing.T) {
	c := tiny(t)
	st, err := os.Stat(filepath.Join(c.dir, "base/5/16384"))
	require.NoError(t, err)
	e := newEntry("base/5/16384", kindFile, st)
	place := Local(c.dir).place()
	require.NotNil(t, place)
	p := &planner{place: place, pgdata: c.dir}
	parent := &parent{header: repo.Header{PGData: c.dir, Place: Local(c.dir).place(), Start: e.ctime.Add(timeSlack + 1)}}
	from := &parentFile{entry: repo.FileEntry{MTime: e.mtime, Size: e.size}}
	if e.mtime.Nanosecond()%1e6 == 0 {
		e.mtime = e.mtime.Add(1)
		from.entry.MTime = e.mtime
	}
	require.True(t, p.untouched(e, parent, from))
	parent.header.Start = e.ctime.Add(timeSlack)
	require.False(t, p.untouched(e, parent, from), "too close")
	parent.header.Start = e.ctime.Add(timeSlack + 1)
	from.entry.MTime = e.mtime.Add(1)
	require.False(t, p.untouched(e, parent, from))
	from.entry.MTime = e.mtime
	parent.header.Place.Host = "another"
	require.False(t, p.untouched(e, parent, from))
}
