package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/prefix"
)

// TestFailoverLeavesNoHole: every node archives. The primary's archiver fails,
// the primary dies, a standby with archive_mode=always takes over; a third
// server that knows nothing but the archive follows through the failover.
func TestFailoverLeavesNoHole(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			env := postgres.New(t)
			dir := env.TempDir(t, "repo")
			site, err := walkeep.NewSite(env, fmt.Sprintf("cluster: hippo\nrepos:\n  - name: repo1\n    filesystem: {path: %s}\n", dir))
			require.NoError(t, err)
			primary := env.Primary(t, postgres.Options{Major: major, Settings: site.ArchiveSettings()})
			primary.MustExec(t, "create table t as select 1 as i")
			standby := env.StartStandby(t, primary, postgres.Options{Name: "standby", Settings: map[string]string{"archive_mode": "always"}})
			follower, err := env.Standby(ctx, primary, postgres.Options{Name: "follower", NotFromPrimary: true, Settings: map[string]string{
				"archive_mode":    "off",
				"restore_command": fmt.Sprintf(`%s --config %s get "%%f" "%%p"`, site.Programs.WAL(), site.Config),
			}})
			require.NoError(t, err)

			// From here on the primary archives nothing.
			require.NoError(t, primary.Configure(map[string]string{"archive_command": "false"}))
			require.NoError(t, primary.Reload(ctx))
			for range 3 {
				primary.MustExec(t, "insert into t select 1 from generate_series(1, 1000)")
				_, err := primary.SwitchWAL(ctx)
				require.NoError(t, err)
			}
			primary.MustExec(t, "insert into t select 1 from generate_series(1, 999)") // stays in an unfinished segment
			at, err := primary.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitReplay(ctx, at))
			require.NoError(t, primary.Kill9())

			require.NoError(t, standby.Promote(ctx))
			standby.MustExec(t, "insert into t select 1 from generate_series(1, 1000)")
			last, err := standby.SwitchWAL(ctx)
			require.NoError(t, err)
			require.Equal(t, pg.Timeline(2), last.Timeline())
			require.NoError(t, standby.WaitArchived(ctx, last))

			require.NoError(t, follower.Start(ctx))
			require.NoError(t, follower.WaitFor(ctx, "select count(*) = 5000 from t"))
			require.Equal(t, "t", follower.MustText(t, "select pg_is_in_recovery()"))

			checkArchived(t, ctx, dir, standby, last)
		})
	}
}

// checkArchived looks into the repository: timeline 1 without a gap up to the
// segment of the promotion, of which only partial ones are there.
func checkArchived(t *testing.T, ctx context.Context, dir string, s *postgres.Server, last pg.SegmentName) {
	below, err := filesystem.New(filesystem.Options{Path: dir})
	require.NoError(t, err)
	store, err := prefix.New(below, "hippo")
	require.NoError(t, err)
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "hippo"})
	require.NoError(t, err)
	id, err := s.SystemID(ctx)
	require.NoError(t, err)
	e := r.Epoch(id)
	histories, err := e.Histories(ctx)
	require.NoError(t, err)
	require.Contains(t, histories, pg.Timeline(2))
	fork := histories[2].Entries[0].End
	size := pg.DefaultSegmentSize
	runs, err := e.Runs(ctx, 1)
	require.NoError(t, err)
	require.Len(t, runs, 1, "one run, no gap")
	require.Equal(t, size.Start(size.SegmentOf(fork)), runs[0].To)
	n, err := last.Number(size)
	require.NoError(t, err)
	missing, err := e.MissingSegments(ctx, 2, size.SegmentOf(fork), n)
	require.NoError(t, err)
	require.Empty(t, missing)
	partials, err := e.Partials(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, partials)
	for _, p := range partials {
		require.Equal(t, size.Name(1, size.SegmentOf(fork)), p.Segment)
		require.LessOrEqual(t, p.ValidTo, fork)
	}
	left, err := filepath.Glob(filepath.Join(s.DataDir, "pg_wal", ".walkeep*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
