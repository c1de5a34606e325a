package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// wholeNode is a node with segments 3 to 7 of timeline 1 in its pg_wal.
func wholeNode(t *testing.T, id pg.SystemID) (node, []string) {
	t.Helper()
	n := newNode(t, id, pg.StateArchiveRecovery)
	s := waltest.New(id)
	for i := range 5 {
		s.Commit(700+uint32(i), noon)
		s.Fill(i)
	}
	var paths []string
	for i := range 5 {
		name, b := s.Segment(i)
		paths = append(paths, n.file(t, string(name), b))
	}
	return n, paths
}

func pushAll(t *testing.T, store object.Store, paths ...string) {
	t.Helper()
	a := newArchive(t, archive.Options{}, store)
	for _, p := range paths {
		_, err := a.Push(ctx, p)
		require.NoError(t, err)
	}
}

func epochIn(t *testing.T, name string, store object.Store) *repo.Epoch {
	return repository(t, name, store, nil).Epoch(cluster)
}

func missingOf(t *testing.T, e *repo.Epoch) []pg.SegmentNo {
	t.Helper()
	m, err := e.MissingSegments(ctx, 1, 3, 7)
	require.NoError(t, err)
	return m
}

var middle = []repo.SegmentRange{{Timeline: 1, First: 4, Last: 6}}

// badSource gives what it should not.
type badSource struct {
	name  string
	fetch func(name repo.WALName, w io.Writer) error
}

func (s badSource) Name() string { return s.name }
func (s badSource) Fetch(_ context.Context, name repo.WALName, w io.Writer) error {
	return s.fetch(name, w)
}

// Whatever the sources give, only the right segments get in.
func TestRepair(t *testing.T) {
	_, paths := wholeNode(t, cluster)
	foreign, _ := wholeNode(t, cluster+1)
	good, bad := memory.New(), memory.New()
	pushAll(t, good, paths...)
	pushAll(t, bad, paths[0], paths[4])
	read := func(name repo.WALName) []byte {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(paths[0]), name.Name))
		require.NoError(t, err)
		return b
	}
	write := func(change func([]byte) []byte) func(repo.WALName, io.Writer) error {
		return func(name repo.WALName, w io.Writer) error {
			_, err := w.Write(change(read(name)))
			return err
		}
	}
	wrong := []archive.Source{
		archive.DirSource("pg_wal of a stranger", filepath.Join(foreign.dir, "pg_wal")),
		badSource{"truncated", write(func(b []byte) []byte { return b[:len(b)/2] })},
		badSource{"flipped", write(func(b []byte) []byte { b[len(b)/2] ^= 1; return b })},
		badSource{"too long", write(func(b []byte) []byte { return append(b, 0) })},
		badSource{"recycled", func(_ repo.WALName, w io.Writer) error {
			_, err := w.Write(read(repo.SegmentFile("000000010000000000000003")))
			return err
		}},
		badSource{"half written", write(func(b []byte) []byte { clear(b[600<<10:]); return b })},
		badSource{"empty", write(func([]byte) []byte { return nil })},
		badSource{"breaks", func(_ repo.WALName, w io.Writer) error { return errors.New("cut off") }},
		badSource{"lacks", func(repo.WALName, io.Writer) error { return archive.ErrSourceLacks }},
	}
	target := epochIn(t, "repo2", bad)
	o := archive.RepairOptions{Target: target, Missing: middle, Sources: wrong, TempDir: t.TempDir()}
	report, err := archive.Repair(ctx, o)
	require.NoError(t, err)
	require.Empty(t, report.Repaired)
	require.Len(t, report.Failed, 3)
	require.Equal(t, "000000010000000000000004", report.Failed[0].Name.Name)
	for _, s := range wrong {
		require.ErrorContains(t, report.Failed[0].Err, s.Name())
	}
	require.Equal(t, []pg.SegmentNo{4, 5, 6}, missingOf(t, target), "nothing wrong got in")

	// A dry run says so and stores nothing; one that cannot be asked may help.
	o.Sources = append([]archive.Source{wrong[0], wrong[8]}, archive.SiblingSource(epochIn(t, "repo1", good)))
	o.DryRun = true
	report, err = archive.Repair(ctx, o)
	require.NoError(t, err)
	require.Len(t, report.Repaired, 3)
	require.Equal(t, "pg_wal of a stranger", report.Repaired[0].Source, "it has files of these names")
	require.Equal(t, []pg.SegmentNo{4, 5, 6}, missingOf(t, target))
	o.Sources = o.Sources[1:]
	report, err = archive.Repair(ctx, o)
	require.NoError(t, err)
	require.True(t, report.Repaired[0].Possible)

	o.DryRun, o.Sources = false, append(wrong, archive.SiblingSource(epochIn(t, "repo1", good)))
	report, err = archive.Repair(ctx, o)
	require.NoError(t, err)
	require.Empty(t, report.Failed)
	require.Len(t, report.Repaired, 3)
	require.Equal(t, "repo1", report.Repaired[2].Source)
	for _, path := range paths {
		got, _, err := get(t, newArchive(t, archive.Options{}, bad), filepath.Base(path))
		require.NoError(t, err)
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
	left, err := os.ReadDir(o.TempDir)
	require.NoError(t, err)
	require.Empty(t, left)

	// A source that only fails is not asked for each segment again.
	asked := 0
	o.Sources = []archive.Source{badSource{"dead", func(repo.WALName, io.Writer) error { asked++; return errors.New("dead") }}}
	o.Missing, o.Workers = []repo.SegmentRange{{Timeline: 1, First: 20, Last: 60}}, 1
	report, err = archive.Repair(ctx, o)
	require.NoError(t, err)
	require.Len(t, report.Failed, 41)
	require.Equal(t, 3, asked)
}

// From one repository's timeline 2 nothing goes into another timeline 2.
func TestRepairOtherTimeline(t *testing.T) {
	_, history, mine := promoted(t, "0/480000", 700)
	theirNode, theirHistory, theirs := promoted(t, "0/490000", 800)
	ours, other := memory.New(), memory.New()
	pushAll(t, ours, history, mine[0])
	pushAll(t, other, theirHistory, theirs[1])
	o := archive.RepairOptions{
		Target:  epochIn(t, "repo1", ours),
		Missing: []repo.SegmentRange{{Timeline: 2, First: 5, Last: 5}},
		Sources: []archive.Source{archive.SiblingSource(epochIn(t, "repo2", other)), archive.DirSource("pg_wal", filepath.Join(theirNode.dir, "pg_wal"))},
	}
	report, err := archive.Repair(ctx, o)
	require.NoError(t, err)
	require.Len(t, report.Failed, 1)
	require.ErrorContains(t, report.Failed[0].Err, "its timeline 2 is another one")

	// A repository that lacks the history file gets it first.
	empty := memory.New()
	_, paths := wholeNode(t, cluster)
	pushAll(t, empty, paths[0])
	o.Target, o.Histories = epochIn(t, "repo3", empty), []pg.Timeline{2}
	report, err = archive.Repair(ctx, o)
	require.NoError(t, err)
	require.Len(t, report.Repaired, 2)
	got, _, err := get(t, newArchive(t, archive.Options{}, empty), "00000002.history")
	require.NoError(t, err)
	require.Contains(t, string(got), "0/490000")
}

// Whatever call of the target fails: what is there is right, and the next
// repair finishes the work.
func TestRepairEveryCallFails(t *testing.T) {
	_, paths := wholeNode(t, cluster)
	good := memory.New()
	pushAll(t, good, paths...)
	for _, fault := range []faulty.Fault{faulty.Fail, faulty.Deny, faulty.LoseAnswer, faulty.Truncate} {
		for k := 1; k <= 5; k++ {
			bad := memory.New()
			pushAll(t, bad, paths[0], paths[4])
			repair := func(s object.Store) error {
				_, err := archive.Repair(ctx, archive.RepairOptions{
					Target: epochIn(t, "repo2", s), Missing: middle, Sources: []archive.Source{archive.SiblingSource(epochIn(t, "repo1", good))},
				})
				return err
			}
			first := repair(faulty.New(bad, faulty.Rule{At: k, Fault: fault, Bytes: 5000}))
			if first == nil {
				require.Empty(t, missingOf(t, epochIn(t, "repo2", bad)), "%s %d", fault, k)
			}
			require.NoError(t, repair(bad))
			wholeAgain(t, bad, paths)
		}
	}
}

func wholeAgain(t *testing.T, store object.Store, paths []string) {
	t.Helper()
	for _, path := range paths {
		var got bytes.Buffer
		_, err := epochIn(t, "repo2", store).GetWAL(ctx, repo.SegmentFile(pg.SegmentName(filepath.Base(path))), &got)
		require.NoError(t, err)
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got.Bytes()))
	}
}

// kill -9 in the middle of a repair, at every call.
func TestRepairKilled(t *testing.T) {
	_, paths := wholeNode(t, cluster)
	good := t.TempDir()
	_, out, err := runChild(t, "push", "", good, t.TempDir(), paths[0])
	require.NoError(t, err, out)
	store, err := filesystem.New(filesystem.Options{Path: good})
	require.NoError(t, err)
	pushAll(t, store, paths...)
	killedEver := 0
	for k, more := 1, true; more; k++ {
		more = false
		for _, fault := range []string{"kill", "kill:10000", "kill-after"} {
			dir := t.TempDir()
			_, out, err := runChild(t, "push", "", t.TempDir(), dir, paths[0])
			require.NoError(t, err, out)
			killed, _, err := runChild(t, "repair", fmt.Sprintf("#%d=%s", k, fault), good, dir)
			if killed {
				killedEver++
				more = true
			} else if err != nil { // the body ended before the 10000th byte
				more = true
			}
			_, out, err = runChild(t, "repair", "", good, dir)
			require.NoError(t, err, out)
			below, err := filesystem.New(filesystem.Options{Path: dir})
			require.NoError(t, err)
			wholeAgain(t, below, paths[:4])
		}
	}
	require.GreaterOrEqual(t, killedEver, 6)
}
