package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

var hang = faulty.Rule{Fault: faulty.Delay, Delay: 10 * time.Minute}

// TestArchivesWhatIsDone: segments that the server takes for archived are
// archived, and so is what comes later.
func TestArchivesWhatIsDone(t *testing.T) {
	store := memory.New()
	n := newNode(t, pg.StateArchiveRecovery)
	names := n.segments(t, 0, 3, ".done")
	a := start(t, n, Options{}, store)
	has(t, store, names...)
	names = append(names, n.segments(t, 4, 4, ".done")...)
	require.NoError(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", string(names[4]))))
	has(t, store, names...)
	s := a.Status()
	require.Equal(t, int64(5), s.Repos[0].Pushed)
	require.Zero(t, s.Repos[0].Waiting)
	require.True(t, s.Standby)
}

// TestTwoNodes: what one node stored the other finds, and a third, which starts
// later, sees in one listing.
func TestTwoNodes(t *testing.T) {
	store := faulty.New(memory.New())
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 11, ".done")
	first := start(t, n, Options{}, store)
	has(t, store, names...)
	first.until(t, "an empty queue", func(s Status) bool { return s.Repos[0].Waiting == 0 })
	require.NoError(t, first.stop())

	before, puts := store.Count(""), store.Count(faulty.Put)
	again := start(t, n, Options{}, store)
	again.until(t, "an empty queue", func(s Status) bool { return s.Repos[0].Waiting == 0 })
	require.Less(t, store.Count("")-before, 6, "not a request for each segment")
	require.Equal(t, puts, store.Count(faulty.Put))
	require.NoError(t, again.stop())

	few := newNode(t, pg.StateArchiveRecovery)
	few.stream = n.stream
	few.segments(t, 8, 9, ".done")
	other := start(t, few, Options{}, store)
	s := other.until(t, "two found", func(s Status) bool { return s.Repos[0].Deduplicated == 2 })
	require.Zero(t, s.Repos[0].Pushed)
	require.Equal(t, puts, store.Count(faulty.Put))
}

// TestDeadRepository: with require 1, one repository that fails, or never
// answers, holds up nothing; when it is back it gets what it missed, also what
// pg_wal has no more.
func TestDeadRepository(t *testing.T) {
	for name, rule := range map[string]faulty.Rule{"fails": {Fault: faulty.Fail}, "hangs": hang} {
		t.Run(name, func(t *testing.T) {
			alive, dead := memory.New(), faulty.New(memory.New(), rule)
			n := newNode(t, pg.StateProduction)
			names := n.segments(t, 0, 4, ".ready")
			a := start(t, n, Options{Require: 1, Workers: 2}, alive, dead)
			for _, name := range names {
				require.NoError(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", string(name))))
			}
			has(t, alive, names...)
			s := a.until(t, "a survey", func(s Status) bool { return true })
			require.Equal(t, 5, s.Repos[1].Waiting)
			require.Zero(t, s.Repos[1].Pushed)
			if name == "hangs" {
				return // until its request ends it cannot be told from a slow one
			}
			n.remove(t, names[:3]...)
			dead.SetRules()
			has(t, dead, names...)
			s = a.until(t, "empty queues", func(s Status) bool { return s.Repos[1].Waiting == 0 })
			require.True(t, s.Repos[1].Healthy)
			require.EqualValues(t, 5, s.Repos[1].Repaired+s.Repos[1].Pushed+s.Repos[1].Deduplicated)
			require.GreaterOrEqual(t, s.Repos[1].Repaired, int64(2))
			require.Empty(t, s.Repos[1].Gaps)
		})
	}
}

// TestRequireAll: while one of two required repositories fails, the server is
// told so, and told why.
func TestRequireAll(t *testing.T) {
	alive, dead := memory.New(), faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 1, ".ready")
	a := start(t, n, Options{}, alive, dead)
	path := filepath.Join(n.dir, "pg_wal", string(names[0]))
	err := a.Push(context.Background(), path)
	require.ErrorIs(t, err, faulty.ErrFault)
	require.ErrorContains(t, err, "repo2")
	require.ErrorContains(t, err, "of 2 repositories have it, 2 must")
	has(t, alive, names...)
	dead.SetRules()
	a.until(t, "empty queues", func(s Status) bool { return s.Repos[1].Waiting == 0 })
	require.NoError(t, a.Push(context.Background(), path))
}

// TestQueueLimit: beyond the limit the oldest segments are dropped, and nobody
// waits for them any more; the gap is in the status until it is filled.
func TestQueueLimit(t *testing.T) {
	alive, dead := memory.New(), faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 5, ".ready")
	a := start(t, n, Options{QueueLimit: 2 * int64(segmentSize)}, alive, dead)
	has(t, alive, names...)
	a.until(t, "drops", func(s Status) bool { return s.Repos[1].Dropped == 4 })
	for _, name := range names[:4] {
		require.NoError(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", string(name))))
	}
	require.Error(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", string(names[5]))))
	s := a.Status()
	require.Equal(t, []Gap{{First: names[0], Last: names[3]}}, s.Repos[1].Gaps)
	require.EqualValues(t, 4, s.Repos[1].Dropped)
	require.Zero(t, s.Repos[0].Dropped)
	n.remove(t, names[:4]...)
	a.until(t, "a survey", func(s Status) bool { return true })
	dead.SetRules()
	has(t, dead, names...)
	s = a.until(t, "no gap", func(s Status) bool { return len(s.Repos[1].Gaps) == 0 })
	require.EqualValues(t, 4, s.Repos[1].Dropped)
}

// TestLost: what neither pg_wal nor another repository has stays a gap.
func TestLost(t *testing.T) {
	dead := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 4, ".ready")
	a := start(t, n, Options{QueueLimit: int64(segmentSize)}, dead)
	a.until(t, "drops", func(s Status) bool { return s.Repos[0].Dropped >= 3 })
	n.remove(t, names[0], names[1])
	dead.SetRules()
	s := a.until(t, "the loss", func(s Status) bool { return len(s.Repos[0].Gaps) == 1 && s.Repos[0].Gaps[0].Lost })
	require.Equal(t, Gap{First: names[0], Last: names[1], Lost: true}, s.Repos[0].Gaps[0])
}

// TestHolesOfAnEarlierLife: an agent that was not there when a repository was
// away finds what that one missed.
func TestHolesOfAnEarlierLife(t *testing.T) {
	whole, holey := memory.New(), memory.New()
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 5, ".done")
	both, err := archive.New(archive.Options{Repos: repositories(t, whole, holey)})
	require.NoError(t, err)
	one, err := archive.New(archive.Options{Repos: repositories(t, whole)})
	require.NoError(t, err)
	for i, name := range names {
		a := both
		if i == 0 || i == 2 || i == 3 { // the first is before all that the other has
			a = one
		}
		_, err := a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", string(name)))
		require.NoError(t, err)
	}
	n.remove(t, names[:5]...)
	a := start(t, n, Options{}, whole, holey)
	has(t, holey, names[1:]...)
	a.until(t, "repairs", func(s Status) bool { return s.Repos[1].Repaired == 2 && s.Repos[0].Repaired == 0 })
}

// TestRefusals: what must not be archived is refused, and told again when asked
// again; a path elsewhere is not ours.
func TestRefusals(t *testing.T) {
	store := memory.New()
	n := newNode(t, pg.StateProduction)
	name, _ := waltest.New(cluster).Segment(0)
	damaged := n.segments(t, 0, 0, "")[0]
	_, content := n.stream.Segment(0)
	content[len(content)/2] ^= 1
	path := n.file(t, string(damaged), content, ".ready")
	require.Equal(t, name, damaged)
	a := start(t, n, Options{}, store)
	for range 2 {
		require.ErrorIs(t, a.Push(context.Background(), path), archive.ErrRefused)
	}
	require.Equal(t, string(damaged), a.Status().Refused[0].File)

	other := newNode(t, pg.StateProduction)
	elsewhere := other.file(t, string(damaged), content, "")
	require.ErrorIs(t, a.Push(context.Background(), elsewhere), ErrElsewhere)
	require.ErrorIs(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal/../../pg_wal", string(damaged))), ErrElsewhere)
	require.ErrorContains(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", "../PG_VERSION")), "none that PostgreSQL archives")
	require.ErrorIs(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", "000000010000000000000099")), os.ErrNotExist)
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(n.dir, "pg_wal", "000000010000000000000099")))
	require.ErrorContains(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", "000000010000000000000099")), "not a regular file")

	// Written anew, it is another file.
	_, content = n.stream.Segment(0)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	require.NoError(t, a.Push(context.Background(), path))
	has(t, store, damaged)

	// A link to the data directory leads to the same pg_wal.
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(n.dir, link))
	require.NoError(t, a.Push(context.Background(), filepath.Join(link, "pg_wal", string(damaged))))
}

// TestWrongCluster: an agent whose repositories, or options, or whose data
// directory of a moment ago, are of another cluster ends and names both.
func TestWrongCluster(t *testing.T) {
	ends := func(a *Agent) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return a.Run(ctx)
	}
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 0, "")
	store := memory.New()
	first := start(t, n, Options{}, store)
	require.NoError(t, first.Push(context.Background(), filepath.Join(n.dir, "pg_wal", string(names[0]))))

	other := newNode(t, pg.StateProduction)
	other.control(t, cluster+1, pg.StateProduction, 1)
	for _, o := range []Options{{}, {SystemID: cluster}} {
		o.PGData, o.Repos = other.dir, repositories(t, store)
		a, err := New(o)
		require.NoError(t, err)
		err = ends(a)
		require.ErrorIs(t, err, ErrOtherCluster)
		require.ErrorContains(t, err, "7400000000000000001")
		require.ErrorContains(t, err, "7400000000000000002")
	}

	// A second agent on the same directory.
	a, err := New(Options{PGData: n.dir, Repos: repositories(t, store)})
	require.NoError(t, err)
	require.ErrorIs(t, ends(a), ErrRunning)

	// The directory becomes another cluster's.
	moved := newNode(t, pg.StateProduction)
	a, err = New(Options{PGData: moved.dir, Repos: repositories(t, store), Rescan: 10 * time.Millisecond})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- ends(a) }()
	require.Eventually(t, func() bool { return a.Status().Surveyed != nil }, time.Minute, 5*time.Millisecond)
	moved.control(t, cluster+1, pg.StateProduction, 1)
	require.ErrorIs(t, <-done, ErrOtherCluster)
}

// TestDirectoryComesLater: the agent may start before its server exists, and the
// server may be made anew under it.
func TestDirectoryComesLater(t *testing.T) {
	store := memory.New()
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 2, ".ready")
	away := n.dir + ".away"
	require.NoError(t, os.Rename(n.dir, away))
	a, err := New(Options{PGData: n.dir, Repos: repositories(t, store), Rescan: 10 * time.Millisecond})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-done) }()
	require.Eventually(t, func() bool { return a.Status().Trouble != "" }, time.Minute, 5*time.Millisecond)
	require.ErrorIs(t, a.Push(ctx, filepath.Join(away, "pg_wal", string(names[0]))), ErrElsewhere)
	require.NoError(t, os.Rename(away, n.dir))
	has(t, store, names...)
	require.NoError(t, os.RemoveAll(n.dir))
	require.Eventually(t, func() bool { return a.Status().Trouble != "" }, time.Minute, 5*time.Millisecond)
	again := newNode(t, pg.StateProduction)
	again.stream = n.stream
	names = append(names, again.segments(t, 3, 4, ".ready")...)
	require.NoError(t, os.Rename(again.dir, n.dir))
	has(t, store, names...)
}

// TestConflict: other WAL under the same name is kept beside what is there, does
// not hold up the server, and is in the status.
func TestConflict(t *testing.T) {
	store := memory.New()
	n := newNode(t, pg.StateProduction)
	name := n.segments(t, 0, 0, ".ready")[0]
	a := start(t, n, Options{}, store)
	require.NoError(t, a.Push(context.Background(), filepath.Join(n.dir, "pg_wal", string(name))))

	other := newNode(t, pg.StateProduction)
	other.stream.Commit(700, time.Unix(1e9, 0))
	path := filepath.Join(other.dir, "pg_wal", string(other.segments(t, 0, 0, ".ready")[0]))
	b := start(t, other, Options{}, store)
	require.NoError(t, b.Push(context.Background(), path))
	s := b.Status().Repos[0]
	require.EqualValues(t, 1, s.Conflicting)
	require.Equal(t, []string{string(name)}, s.Conflicts)
}
