package archive_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestSameRecordsOtherPadding(t *testing.T) {
	store := memory.New()
	a := newArchive(t, archive.Options{}, store)
	name, b := switched()
	_, err := a.Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.NoError(t, err)
	other := append([]byte(nil), b...)
	for i := len(other) - 30000; i < len(other); i++ {
		other[i] = 0x5A
	}
	r, err := a.Push(ctx, newNode(t, cluster, pg.StateArchiveRecovery).file(t, name, other))
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Present}, outcomes(r))
	got, _, err := get(t, a, name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got), "the first stays")

	// The head says how far the records go and what they are: one small read,
	// so that a node which cannot decrypt can tell too.
	head, err := repository(t, "repo1", store, nil).Epoch(cluster).WALHead(ctx, repo.SegmentFile(pg.SegmentName(name)))
	require.NoError(t, err)
	require.Len(t, head.RecordsXXH3, 32)
	require.Empty(t, conflicts(t, store))

	// An older object has no such digest in its head.
	old := memory.New()
	e, err := repository(t, "repo1", old, nil).EnsureEpoch(ctx, repo.EpochInfo{SystemID: cluster, PGMajor: 15, SegmentSize: 1 << 20})
	require.NoError(t, err)
	head.RecordsXXH3 = ""
	require.NoError(t, repository(t, "repo1", old, nil).Init(ctx))
	require.NoError(t, e.PutWAL(ctx, head, bytes.NewReader(b)))
	r, err = newArchive(t, archive.Options{}, old).Push(ctx, newNode(t, cluster, pg.StateArchiveRecovery).file(t, name, other))
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Present}, outcomes(r))
}

// conflicts are the file names under conflict/, of timeline 0: all.
func conflicts(t *testing.T, store object.Store) (names []repo.WALName) {
	t.Helper()
	found, err := repository(t, "repo1", store, nil).Epoch(cluster).Conflicts(ctx, 0)
	require.NoError(t, err)
	for _, c := range found {
		names = append(names, c.Name)
	}
	return names
}

// other is a complete segment of that name with other transactions.
func otherSegment() []byte {
	s := waltest.New(cluster)
	s.Commit(701, noon)
	s.Fill(0)
	_, b := s.Segment(0)
	return b
}

// The first stays and is what get brings; the others are kept beside it; the
// archiver goes on.
func TestConflict(t *testing.T) {
	store := memory.New()
	logs, seen := observer.New(zap.ErrorLevel)
	a := newArchive(t, archive.Options{Log: zap.New(logs)}, store)
	name, b := segment()
	_, err := a.Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.NoError(t, err)
	_, shorter := switched()
	for i, other := range [][]byte{otherSegment(), shorter} {
		path := newNode(t, cluster, pg.StateProduction).file(t, name, other)
		for range 2 { // the second time it is there
			r, err := a.Push(ctx, path)
			require.NoError(t, err)
			require.Equal(t, []archive.Outcome{archive.Conflict}, outcomes(r))
			c := r.Repos[0].Conflict
			require.NotNil(t, c)
			require.False(t, c.History())
			require.Contains(t, c.Error(), c.Stored)
			require.Contains(t, c.Error(), c.Local)
			require.NotEqual(t, c.Local, c.Stored)
			require.Equal(t, wal.DigestOf(other).String(), c.Local)
			require.Len(t, conflicts(t, store), i+1)

			var kept bytes.Buffer
			_, err = repository(t, "repo1", store, nil).Epoch(cluster).GetWAL(ctx, repo.SegmentFile(pg.SegmentName(name)).Conflicting(c.Local), &kept)
			require.NoError(t, err)
			require.True(t, bytes.Equal(other, kept.Bytes()))
		}
	}
	require.Equal(t, 4, seen.FilterMessage("conflicting WAL").Len())
	got, _, err := get(t, a, name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got))
}

// Damage of what is stored is not hidden by a conflict, nor taken for one.
func TestConflictWithDamage(t *testing.T) {
	name, b := segment()
	store := memory.New()
	_, err := newArchive(t, archive.Options{}, store).Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.NoError(t, err)
	flip(t, store, func(size int64) int64 { return size / 2 })
	r, err := newArchive(t, archive.Options{}, store).Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, otherSegment()))
	require.NoError(t, err)
	require.Equal(t, archive.Conflict, r.Repos[0].Outcome)
	require.ErrorIs(t, r.Repos[0].Conflict, repo.ErrIntegrity)
	require.ErrorContains(t, r.Repos[0].Conflict, "damaged")
	_, _, err = get(t, newArchive(t, archive.Options{}, store), name)
	require.ErrorIs(t, err, repo.ErrIntegrity, "the other one is not served instead")

	flip(t, store, func(int64) int64 { return 40 }) // its head
	_, err = newArchive(t, archive.Options{}, store).Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.ErrorIs(t, err, repo.ErrIntegrity)
}

// Whatever call fails while a conflict is stored: success only if it is kept.
func TestConflictEveryCallFails(t *testing.T) {
	name, b := segment()
	other := otherSegment()
	first, path := newNode(t, cluster, pg.StateProduction).file(t, name, b), newNode(t, cluster, pg.StateProduction).file(t, name, other)
	for _, fault := range []faulty.Fault{faulty.Fail, faulty.Deny, faulty.LoseAnswer, faulty.Truncate} {
		for k := 1; k <= 5; k++ {
			below := memory.New()
			_, err := newArchive(t, archive.Options{}, below).Push(ctx, first)
			require.NoError(t, err)
			r, err := newArchive(t, archive.Options{}, faulty.New(below, faulty.Rule{At: k, Fault: fault})).Push(ctx, path)
			if err == nil {
				require.Equal(t, archive.Conflict, r.Repos[0].Outcome, "%s %d", fault, k)
				require.Len(t, conflicts(t, below), 1)
			}
			_, err = newArchive(t, archive.Options{}, below).Push(ctx, path)
			require.NoError(t, err)
			require.Len(t, conflicts(t, below), 1)
			got, _, err := get(t, newArchive(t, archive.Options{}, below), name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, got))
		}
	}
}

// promoted is a node of timeline 2 that left timeline 1 at lsn, with its
// segments 4 to 6 in pg_wal.
func promoted(t *testing.T, lsn string, xid uint32) (n node, history string, segments []string) {
	t.Helper()
	n = newNode(t, cluster, pg.StateArchiveRecovery)
	history = n.file(t, "00000002.history", []byte("1\t"+lsn+"\tno recovery target specified\n"))
	s := waltest.New(cluster)
	s.Timeline, s.First = 2, 4
	for i := range 3 {
		s.Commit(xid+uint32(i), noon)
		s.Fill(i)
	}
	for i := range 3 {
		name, b := s.Segment(i)
		segments = append(segments, n.file(t, string(name), b))
	}
	return n, history, segments
}

// Two servers choose timeline 2. All of the second one's goes under conflict/,
// also where the name is free: nothing is lost and nothing is mixed.
func TestHistoryConflict(t *testing.T) {
	store := memory.New()
	logs, seen := observer.New(zap.ErrorLevel)
	_, history, mine := promoted(t, "0/480000", 700)
	_, theirHistory, theirs := promoted(t, "0/490000", 800)
	a := newArchive(t, archive.Options{}, store)
	b := newArchive(t, archive.Options{Log: zap.New(logs)}, store)
	outcome := func(a *archive.Archive, path string) archive.Outcome {
		r, err := a.Push(ctx, path)
		require.NoError(t, err)
		return r.Repos[0].Outcome
	}
	// The history file goes with the first segment, if it was not there.
	require.Equal(t, archive.Stored, outcome(a, mine[0]))
	require.Equal(t, archive.Present, outcome(a, history))

	r, err := b.Push(ctx, theirHistory)
	require.NoError(t, err)
	require.Equal(t, archive.Conflict, r.Repos[0].Outcome)
	require.True(t, r.Repos[0].Conflict.History())
	require.ErrorContains(t, r.Repos[0].Conflict, "TWO SERVERS CHOSE TIMELINE 2")
	require.Equal(t, 1, seen.FilterMessage("two servers chose the same timeline").Len())

	for _, path := range theirs { // the second is the faster one
		require.Equal(t, archive.Conflict, outcome(b, path))
	}
	for i, path := range mine {
		require.Equal(t, map[bool]archive.Outcome{true: archive.Present, false: archive.Stored}[i == 0], outcome(a, path))
		require.Equal(t, archive.Conflict, outcome(b, theirs[i]))
		got, _, err := get(t, a, filepath.Base(path))
		require.NoError(t, err)
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
	require.Len(t, conflicts(t, store), 4)
	got, _, err := get(t, a, "00000002.history")
	require.NoError(t, err)
	require.Contains(t, string(got), "0/480000")

	// A node that has no history file has nothing to object.
	require.NoError(t, os.Remove(history))
	require.Equal(t, archive.Present, outcome(newArchive(t, archive.Options{}, store), mine[0]))
}
