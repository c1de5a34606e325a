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

// TestPreparedBeforeFailover goes back to a moment just before a failover, at
// which a prepared transaction was open. The segment of that moment is there
// under the new timeline's name only, and the server looks for the other one.
func TestPreparedBeforeFailover(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			env := postgres.New(t)
			repos := "repos:\n  - {name: repo1, filesystem: {path: " + env.TempDir(t, "repo") + "}}\n"
			site, err := walkeep.NewSite(env, "cluster: hippo\n"+repos)
			require.NoError(t, err)
			settings := site.ArchiveSettings()
			settings["max_prepared_transactions"] = "5"
			primary := env.Primary(t, postgres.Options{Major: major, Settings: settings})
			require.NoError(t, site.Configure(fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg, conninfo: %q, pgdata: %s}\n%s",
				primary.ConnInfo(), primary.DataDir, repos)))
			primary.MustExec(t, "create table t as select 1 as i")
			standby := env.StartStandby(t, primary, postgres.Options{Name: "standby", Settings: map[string]string{"archive_mode": "always"}})
			site.Must(t, 0, "backup", "--type", "full")
			_, err = primary.SwitchWAL(ctx)
			require.NoError(t, err)

			conn, err := primary.Connect(ctx)
			require.NoError(t, err)
			for _, sql := range []string{"begin", "insert into t values (2)", "prepare transaction 'p'", "select pg_create_restore_point('before')", "insert into t values (3)"} {
				_, err := conn.Exec(ctx, sql)
				require.NoError(t, err, sql)
			}
			var at string
			require.NoError(t, conn.QueryRow(ctx, "select clock_timestamp()::text").Scan(&at))
			_, err = conn.Exec(ctx, "insert into t values (4)")
			require.NoError(t, err)
			require.NoError(t, conn.Close(ctx))
			lsn, err := primary.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitReplay(ctx, lsn))
			require.NoError(t, primary.Kill9())
			require.NoError(t, standby.Promote(ctx))
			last, err := standby.SwitchWAL(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitArchived(ctx, last))

			for _, c := range []struct { // each of these becomes a timeline of its own
				target []string
				rows   string
			}{
				{[]string{"--target-name", "before"}, "1"},
				{[]string{"--target-time", at}, "2"},
				{nil, "3"},
			} {
				dir := filepath.Join(env.TempDir(t, "clone"), "data")
				restore := append([]string{"restore", "--pgdata", dir, "--archive-mode", "keep", "--target-timeline", "2"}, c.target...)
				site.Must(t, 0, restore...)
				// What was put into pg_wal is archived, under the next timeline's name.
				site.Must(t, 0, append(restore, "--delta")...)
				clone, err := env.Open(dir, nil)
				require.NoError(t, err)
				require.NoError(t, clone.Start(ctx))
				require.NoError(t, clone.WaitFor(ctx, "select not pg_is_in_recovery()"), c.target)
				require.Equal(t, c.rows, clone.MustText(t, "select count(*)::text from t"), c.target)
				clone.MustExec(t, "commit prepared 'p'")
				require.Equal(t, "t", clone.MustText(t, "select exists (select from t where i = 2)"))
				// What was put there for that is not archived.
				clone.MustExec(t, "checkpoint")
				switched, err := clone.SwitchWAL(ctx)
				require.NoError(t, err)
				require.NoError(t, clone.WaitArchived(ctx, switched))
				require.Equal(t, "0", clone.MustText(t, "select failed_count::text from pg_stat_archiver"))
				require.NoError(t, clone.Kill9())
			}
			out := site.Must(t, 0, "wal", "status").Stdout
			require.NotContains(t, out, "conflict")
		})
	}
}
