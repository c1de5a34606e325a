package archive_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestRefused(t *testing.T) {
	store := faulty.New(memory.New())
	a := newArchive(t, archive.Options{}, store)
	n := newNode(t, cluster, pg.StateProduction)
	name, b := segment()
	broken := append([]byte(nil), b...)
	broken[500000] ^= 1
	otherID := waltest.New(cluster + 1)
	otherID.Fill(0)
	_, foreign := otherID.Segment(0)
	_, part, _ := unfinished(100)
	for what, path := range map[string]string{
		"damaged":              n.file(t, name, broken),
		"other cluster":        newNode(t, cluster, pg.StateProduction).file(t, name, foreign),
		"other name":           newNode(t, cluster, pg.StateProduction).file(t, "000000010000000000000004", b),
		"zeroes":               newNode(t, cluster, pg.StateProduction).file(t, name, make([]byte, 1<<20)),
		"empty":                newNode(t, cluster, pg.StateProduction).file(t, name, nil),
		"cut off":              newNode(t, cluster, pg.StateProduction).file(t, name, b[:600000]),
		"ends early, primary":  newNode(t, cluster, pg.StateProduction).file(t, name, part),
		"unknown name":         n.file(t, "pg_internal.init", b),
		"broken history":       n.file(t, "00000002.history", []byte("1\t0/30")),
		"cut history":          n.file(t, "00000003.history", []byte("1\t0/3000000\tx\nb")),
		"empty history":        n.file(t, "00000004.history", nil),
		"label without an end": n.file(t, "000000010000000000000003.00000028.backup", []byte(label("000000010000000000000003", false))),
		"label of another":     n.file(t, "000000010000000000000004.00000028.backup", []byte(label("000000010000000000000003", true))),
	} {
		_, err := a.Push(ctx, path)
		require.ErrorIs(t, err, archive.ErrRefused, what)
	}
	for _, c := range store.Calls() {
		require.Equal(t, faulty.Get, c.Op, "nothing is written")
	}

	_, err := a.Push(ctx, filepath.Join(n.dir, "pg_wal", "00000001000000000000000A"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A file that the server made for later use under a timeline that it has left
// since is handed over by its archiver in the end. There is nothing to store, and
// an error would stop the archiver for ever. If the timeline should have written
// the segment, it is refused.
func TestLeftover(t *testing.T) {
	_, old := segment() // segment 3 of timeline 1
	const name = "00000002000000000000000A"
	for what, c := range map[string]struct {
		timeline pg.Timeline // of the server
		history  string      // of that timeline
		content  []byte
		refused  bool
	}{
		"recycled":                   {3, "1\t0/300000\twhy\n2\t0/800000\twhy\n", old, false},
		"zeroes":                     {3, "1\t0/300000\twhy\n2\t0/800000\twhy\n", make([]byte, 1<<20), false},
		"left at its beginning":      {3, "1\t0/300000\twhy\n2\t0/A00000\twhy\n", old, false},
		"not an ancestor":            {3, "1\t0/300000\twhy\n", old, false},
		"left in it":                 {3, "1\t0/300000\twhy\n2\t0/AFFFFF\twhy\n", old, false},
		"left at its end":            {3, "1\t0/300000\twhy\n2\t0/B00000\twhy\n", old, true},
		"left later":                 {3, "1\t0/300000\twhy\n2\t0/F00000\twhy\n", old, true},
		"no history":                 {3, "", old, true},
		"the timeline of the server": {2, "1\t0/300000\twhy\n", old, true},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, cluster, pg.StateProduction)
			require.NoError(t, waltest.WriteControl(n.dir, waltest.Control(cluster, pg.StateProduction, c.timeline, 1<<20)))
			if c.history != "" {
				n.file(t, pg.HistoryName(c.timeline), []byte(c.history))
			}
			store := faulty.New(memory.New())
			r, err := newArchive(t, archive.Options{}, store).Push(ctx, n.file(t, name, c.content))
			if c.refused {
				require.ErrorIs(t, err, archive.ErrRefused)
			} else {
				require.NoError(t, err)
				require.Equal(t, []archive.Outcome{archive.Nothing}, outcomes(r))
			}
			for _, call := range store.Calls() {
				require.Equal(t, faulty.Get, call.Op, "nothing is written")
			}
		})
	}
}

// A repository that holds one cluster does not take another's WAL, however
// sure the other is of itself.
func TestOtherClusterInRepository(t *testing.T) {
	store := memory.New()
	a := newArchive(t, archive.Options{}, store)
	name, b := segment()
	_, err := a.Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.NoError(t, err)

	s := waltest.New(cluster + 1)
	s.Fill(0)
	_, foreign := s.Segment(0)
	path := newNode(t, cluster+1, pg.StateProduction).file(t, name, foreign)
	_, err = a.Push(ctx, path)
	require.ErrorIs(t, err, archive.ErrRefused)
	require.ErrorContains(t, err, "pg_upgrade")

	// After pg_upgrade a backup begins the new epoch; then the WAL is welcome.
	_, err = repository(t, "repo1", store, nil).EnsureEpoch(ctx, repo.EpochInfo{SystemID: cluster + 1, PGMajor: 15, SegmentSize: 1 << 20})
	require.NoError(t, err)
	_, err = a.Push(ctx, path)
	require.NoError(t, err)

	// Without a pg_control to say which one is meant, neither is served.
	_, err = a.Get(ctx, name, filepath.Join(t.TempDir(), "x"))
	require.ErrorContains(t, err, "2 clusters")
	require.NotErrorIs(t, err, archive.ErrNotArchived)

	other, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "rhino"})
	require.NoError(t, err)
	wrong, err := archive.New(archive.Options{Repos: []*repo.Repository{other}})
	require.NoError(t, err)
	_, err = wrong.Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, "000000020000000000000003", onTimeline(b, 2)))
	require.ErrorIs(t, err, repo.ErrMismatch)
	_, _, err = get(t, wrong, "000000020000000000000009")
	require.ErrorIs(t, err, repo.ErrMismatch)
	require.NotErrorIs(t, err, archive.ErrNotArchived)
}
