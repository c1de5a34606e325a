package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestMatrix does the main job on every supported PostgreSQL, every kind of
// store, plain and encrypted: archive, a full backup into four repositories at
// once, and from each of them a restore to a time and one to a name.
func TestMatrix(t *testing.T) {
	for _, major := range postgres.Majors() {
		for _, encrypted := range []bool{false, true} {
			name := fmt.Sprintf("%d/%s", major, map[bool]string{false: "plain", true: "encrypted"}[encrypted])
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				matrixCell(t, major, encrypted)
			})
		}
	}
}

func matrixCell(t *testing.T, major int, encrypted bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	env := postgres.New(t)
	h := newHistory(t, ctx, env, major, fourRepos(t, env, encrypted))

	for i, kind := range kinds {
		repo := fmt.Sprintf("repo%d", i+1)
		t.Run(kind, func(t *testing.T) {
			toTime := h.restore(t, repo, "--target-time", h.beforeLate.Format(time.RFC3339Nano))
			toTime.expect(t, ctx, map[string]int{"early": 1000, "moved": 500, "doomed": 10})

			toName := h.restore(t, repo, "--target-name", "before_drop")
			toName.expect(t, ctx, map[string]int{"early": 2000, "moved": 500, "doomed": 10})
		})
	}
}

// history is a server with a backup in every repository and a past worth
// going back to:
//
//	1000 rows in early, 500 in moved (in a tablespace), 10 in doomed
//	full backup
//	beforeLate
//	1000 more rows in early
//	restore point before_drop
//	drop table doomed
//	more commits, all archived
type history struct {
	env        *postgres.Env
	site       *walkeep.Site
	server     *postgres.Server
	space      string // directory of the tablespace
	label      string
	beforeLate time.Time
}

func newHistory(t *testing.T, ctx context.Context, env *postgres.Env, major int, repos string) *history {
	h := &history{env: env, space: env.TempDir(t, "space")}
	var err error
	h.site, err = walkeep.NewSite(env, "cluster: hippo\n"+repos)
	require.NoError(t, err)
	h.server = env.Primary(t, postgres.Options{Major: major, Checksums: true, Settings: h.site.ArchiveSettings()})
	require.NoError(t, h.site.Configure(fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg, conninfo: %q, pgdata: %s}\n%s",
		h.server.ConnInfo(), h.server.DataDir, repos)))

	h.server.MustExec(t, fmt.Sprintf("create tablespace side location '%s'", h.space))
	h.server.MustExec(t, `
		create table early as select i, repeat('x', i % 100) as t from generate_series(1, 1000) i;
		create table moved tablespace side as select i from generate_series(1, 500) i;
		create table doomed as select i from generate_series(1, 10) i;
		create unlogged table fleeting as select i from generate_series(1, 10) i`)
	h.label = h.site.Must(t, 0, "backup", "--repo", "repo1,repo2,repo3,repo4", "--type", "full").LastLine()

	h.server.MustExec(t, "select 1 from pg_switch_wal()")
	h.beforeLate = h.now(t, ctx)
	h.server.MustExec(t, "insert into early select i, 'late' from generate_series(1001, 2000) i")
	h.server.MustExec(t, "select pg_create_restore_point('before_drop')")
	h.server.MustExec(t, "drop table doomed")
	h.server.MustExec(t, "create table after as select 1 as i")
	last, err := h.server.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, h.server.WaitArchived(ctx, last))
	return h
}

// now is the server's clock, with a moment of rest on both sides so that it
// lies between two commits, whatever their rounding.
func (h *history) now(t *testing.T, ctx context.Context) (at time.Time) {
	time.Sleep(20 * time.Millisecond)
	conn, err := h.server.Connect(ctx)
	require.NoError(t, err)
	defer conn.Close(ctx)
	require.NoError(t, conn.QueryRow(ctx, "select clock_timestamp()").Scan(&at))
	time.Sleep(20 * time.Millisecond)
	return at
}

// clone is a restored data directory, started.
type clone struct {
	*postgres.Server
	env *postgres.Env
}

// restore makes a clone, has it verified by PostgreSQL's own programs where
// they are there, and starts it. It is promoted when it reaches the target.
func (h *history) restore(t *testing.T, repo string, target ...string) *clone {
	dir := filepath.Join(h.env.TempDir(t, "clone"), "data")
	space := filepath.Join(filepath.Dir(dir), "space")
	args := append([]string{
		"restore", "--pgdata", dir, "--repo", repo, "--target-action", "promote", "--tablespace-map", "side=" + space,
	}, target...)
	plan := h.site.Must(t, 0, append(args, "--dry-run")...)
	require.Contains(t, plan.Stdout, h.label)
	require.NoDirExists(t, dir, "a dry run touches nothing")
	h.site.Must(t, 0, args...)

	if verify := h.server.Install.Path("pg_verifybackup"); verify != "" {
		_, err := h.env.Run(context.Background(), verify, "-n", dir)
		require.NoError(t, err)
	}
	s, err := h.env.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() {
		_ = s.Stop(context.Background(), postgres.Immediate)
		os.RemoveAll(filepath.Dir(dir))
	})
	return &clone{Server: s, env: h.env}
}

// expect waits for the end of recovery and compares the row counts.
func (c *clone) expect(t *testing.T, ctx context.Context, rows map[string]int) {
	t.Helper()
	conn, err := c.Connect(ctx)
	require.NoError(t, err)
	defer conn.Close(ctx)
	require.Eventually(t, func() bool {
		var recovering bool
		return conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&recovering) == nil && !recovering
	}, time.Minute, 50*time.Millisecond, "the clone did not reach its target")
	for table, want := range rows {
		var got int
		require.NoError(t, conn.QueryRow(ctx, "select count(*) from "+table).Scan(&got), table)
		require.Equal(t, want, got, table)
	}
	var archive string
	require.NoError(t, conn.QueryRow(ctx, "show archive_mode").Scan(&archive))
	require.Equal(t, "off", archive, "a clone does not archive into its source's repositories")
	if amcheck := c.Install.Path("pg_amcheck"); amcheck != "" {
		_, err := c.env.Run(ctx, amcheck, "--install-missing", "--all", "--parent-check", "--heapallindexed",
			"--host", "127.0.0.1", "--port", fmt.Sprint(c.Port), "--username", "postgres")
		require.NoError(t, err)
	}
}
