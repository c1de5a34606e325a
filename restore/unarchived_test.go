package restore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// archive stores a segment, or what is valid of it, as somebody pushes it.
func (s *synthetic) archive(name pg.SegmentName, content []byte, validTo pg.LSN) {
	s.t.Helper()
	size := pg.SegmentSize(1 << 20)
	n, err := name.Number(size)
	require.NoError(s.t, err)
	kind := pg.FileSegment
	if validTo != 0 {
		kind, content = pg.FilePartial, content[:validTo-size.Start(n)]
	}
	digest := wal.DigestOf(content)
	require.NoError(s.t, s.epoch.PutWAL(s.t.Context(), repo.WALHead{
		Kind: repo.WALKind(kind), Name: string(name), SystemID: syntheticID, Timeline: name.Timeline(), SegmentSize: size, PGMajor: 15,
		XXH3: digest.String(), Length: int64(len(content)), Start: size.Start(n),
		ValidTo: max(validTo, size.Start(n)), Complete: validTo == 0,
	}, bytes.NewReader(content)))
}

// archiveHistory stores the history of timeline 2, which left 1 at an LSN.
func (s *synthetic) archiveHistory(at pg.LSN) {
	s.t.Helper()
	content := []byte(fmt.Sprintf("1\t%s\tno recovery target specified\n", at))
	digest := wal.DigestOf(content)
	require.NoError(s.t, s.epoch.PutWAL(s.t.Context(), repo.WALHead{
		Kind: repo.WALKind(pg.FileHistory), Name: pg.HistoryName(2), SystemID: syntheticID, Timeline: 2,
		XXH3: digest.String(), Length: int64(len(content)),
	}, bytes.NewReader(content)))
}

// What the next timeline begins with is not lost with the segment of the one before,
// as a restore to a moment before a failover puts it into pg_wal.
func TestDeltaKnowsWhatFollowed(t *testing.T) {
	p := newInPlace(t, rand.New(rand.NewPCG(41, 1)))
	require.NoError(t, p.restore(t, deltaOptions(p.dir)))
	stream := waltest.New(syntheticID)
	stream.Size, stream.First = 1<<20, 3
	end := stream.Commit(700, epoch0)
	name, b := stream.Segment(0)
	left := filepath.Join(p.dir, "pg_wal", string(name))
	require.NoError(t, os.WriteFile(left, b, 0o600))
	lacks := func() bool {
		u := &unarchived{id: syntheticID, size: 1 << 20}
		require.Empty(t, u.ask(t.Context(), p.s.epoch, nil, zap.NewNop()))
		segments, _, err := u.in(t.Context(), filepath.Join(p.dir, "pg_wal"))
		require.NoError(t, err)
		return len(segments) > 0
	}
	require.True(t, lacks())
	p.s.archiveHistory(end + 8)
	require.True(t, lacks(), "there is no segment of timeline 2")
	stream.Noise(20)
	_, other := stream.Segment(0)
	const second = pg.SegmentName("000000020000000000000003")
	other[end-stream.Size.Start(3)-1] ^= 1
	p.s.archive(second, other, 0)
	require.True(t, lacks(), "another server wrote the timeline")
	other[end-stream.Size.Start(3)-1] ^= 1
	require.NoError(t, p.s.store.Delete(t.Context(), keysWith(t, p.s.store, string(second))...))
	p.s.archive(second, other, 0)
	require.False(t, lacks())

	stream.Commit(701, epoch0) // behind the switch point
	_, b = stream.Segment(0)
	require.NoError(t, os.WriteFile(left, b, 0o600))
	require.True(t, lacks())
}

// A restore in place is refused for as long as pg_wal has what is nowhere else,
// and touches nothing then.
func TestDeltaRefusesToLoseWAL(t *testing.T) {
	p := newInPlace(t, rand.New(rand.NewPCG(40, 1)))
	require.NoError(t, p.restore(t, deltaOptions(p.dir)))
	stream := waltest.New(syntheticID)
	stream.Size, stream.First = 1<<20, 3
	var end pg.LSN
	for i := range 3 {
		end = stream.Commit(uint32(700+i), epoch0)
		if i < 2 {
			stream.Switch()
		}
	}
	dir := filepath.Join(p.dir, "pg_wal")
	put := func(name string, b []byte) { require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600)) }
	segments := map[pg.SegmentName][]byte{}
	fill := func() {
		for i := range 3 {
			name, b := stream.Segment(i)
			segments[name] = b
			put(string(name), b)
		}
		_, old := stream.Segment(0)
		put("000000010000000000000009", old) // kept by the server for later use
		put("00000001000000000000000A", make([]byte, 1<<20))
		put("xlogtemp.77", old)
	}
	fill()
	put("00000002.history", []byte("1\t0/400000\tno recovery target specified\n"))
	put("00000003.history", nil) // pg_rewind died here
	other := newSynthetic(t, nil)
	plan := func() *Plan {
		pl := p.s.plan(p.sum)
		pl.SegmentSize = 1 << 20
		return pl
	}
	try := func() (*UnarchivedError, error) {
		o := deltaOptions(p.dir)
		o.Archives = []*repo.Repository{p.s.epoch.Repository(), other.epoch.Repository()}
		before := readTree(t, p.dir)
		_, err := Run(t.Context(), plan(), o)
		var u *UnarchivedError
		if err == nil {
			return nil, nil
		}
		require.ErrorAs(t, err, &u)
		require.ErrorIs(t, err, ErrWALNotArchived)
		require.Equal(t, before, readTree(t, p.dir))
		return u, err
	}
	const first, second, third = pg.SegmentName("000000010000000000000003"), pg.SegmentName("000000010000000000000004"), pg.SegmentName("000000010000000000000005")
	u, err := try()
	require.ErrorContains(t, err, "walkeep wal push "+dir)
	require.Equal(t, []Unarchived{{Segment: first}, {Segment: second}, {Segment: third, ValidTo: end, Last: epoch0.UTC().Truncate(time.Microsecond)}}, u.Segments)
	require.Equal(t, []string{"00000002.history"}, u.Histories)

	// One repository has this, the other that.
	p.s.archive(first, segments[first], 0)
	other.archive(second, segments[second], 0)
	require.NoError(t, os.Remove(filepath.Join(dir, "00000002.history")))
	u, _ = try()
	require.Len(t, u.Segments, 1)
	require.Equal(t, third, u.Segments[0].Segment)
	p.s.archive(third, segments[third], end-8) // not all of it
	u, _ = try()
	require.Len(t, u.Segments, 1)
	other.archive(third, segments[third], end)
	u, _ = try()
	require.Nil(t, u)

	// Not wanted. A restart of an interrupted restore is judged alike.
	fill()
	stream.Commit(800, epoch0)
	name, b := stream.Segment(2)
	put(string(name), b)
	u, _ = try()
	require.Len(t, u.Segments, 1)
	o := deltaOptions(p.dir)
	o.DiscardWAL = true
	_, err = Run(t.Context(), plan(), o)
	require.NoError(t, err)
	p.requireRestored(t)

	// Nothing in it that anybody waits for.
	quiet := waltest.New(syntheticID)
	quiet.Size, quiet.First = 1<<20, 6
	quiet.Noise(20)
	name, b = quiet.Segment(0)
	put(string(name), b)
	u, _ = try()
	require.Nil(t, u)

	// A repository that does not answer may have it.
	fill()
	put(string(third), func() []byte { _, b := stream.Segment(2); return b }())
	dead := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
	o = deltaOptions(p.dir)
	o.Archives = []*repo.Repository{p.s.epoch.Repository(), openAs(t, "repo2", dead)}
	_, err = Run(t.Context(), plan(), o)
	require.ErrorAs(t, err, &u)
	require.Equal(t, []string{"repo2"}, u.Unread)
	require.ErrorContains(t, err, "repo2")
	require.Error(t, func() error { o := options(p.dir); o.DiscardWAL = true; return o.normalize() }())
}

func openAs(t *testing.T, name string, store object.Store) *repo.Repository {
	t.Helper()
	r, err := repo.Open(repo.Options{Name: name, Store: store, Cluster: "test", TempDir: t.TempDir()})
	require.NoError(t, err)
	return r
}

// readTree is all of a directory.
func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))
	return all
}
