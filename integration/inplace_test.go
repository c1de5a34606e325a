package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestInPlace restores over the directory of a server that crashed, and over
// that of an old primary that went on alone after a standby was promoted.
func TestInPlace(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			inPlace(t, ctx, major)
		})
	}
}

func inPlace(t *testing.T, ctx context.Context, major int) {
	env := postgres.New(t)
	repo := "repos:\n  - {name: repo1, filesystem: {path: " + env.TempDir(t, "repo") + "}}\n"
	site, err := walkeep.NewSite(env, "cluster: hippo\n"+repo)
	require.NoError(t, err)
	primary := env.Primary(t, postgres.Options{Major: major, Checksums: true, Settings: site.ArchiveSettings()})
	require.NoError(t, site.Configure(fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg, conninfo: %q, pgdata: %s}\n%s",
		primary.ConnInfo(), primary.DataDir, repo)))
	space := env.TempDir(t, "space")
	primary.MustExec(t, "create tablespace fast location '"+space+"'")
	primary.MustExec(t, "create table t tablespace fast as select i, md5(i::text) m from generate_series(1, 20000) i")
	site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full")
	primary.MustExec(t, "insert into t values (0, 'after the backup')")
	last, err := primary.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, primary.WaitArchived(ctx, last))
	args := []string{"restore", "--pgdata", primary.DataDir, "--delta", "--archive-mode", "keep"}

	// A running server is not touched.
	r := site.Must(t, 1, args...)
	require.Contains(t, r.Stderr, "stop it first")
	require.Equal(t, "20001", primary.MustText(t, "select count(*)::text from t"))

	// It crashes, and its files are damaged. What it wrote last is in no repository.
	primary.MustExec(t, "insert into t values (-4, 'not archived')")
	require.NoError(t, primary.Kill9())
	for _, pattern := range []string{"base/*/1259", "global/1262", "pg_xact/0000"} {
		found, err := filepath.Glob(filepath.Join(primary.DataDir, pattern))
		require.NoError(t, err)
		for _, f := range found {
			require.NoError(t, os.Truncate(f, 4096))
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(primary.DataDir, "notes"), []byte("mine"), 0o600))
	require.NoError(t, env.Own(filepath.Join(primary.DataDir, "notes")))
	if r, err = site.Run(ctx, args...); r.Code != 2 { // in a container
		require.Contains(t, r.Stderr, "postmaster.pid")
		require.NoError(t, os.Remove(filepath.Join(primary.DataDir, "postmaster.pid")))
	}
	require.NoError(t, err)
	r = site.Must(t, 2, args...)
	push := "walkeep wal push " + filepath.Join(primary.DataDir, "pg_wal")
	require.Contains(t, r.Stderr, push)
	require.Contains(t, r.Stderr, "Nothing was touched")
	site.Must(t, 0, strings.Fields(push)[1:]...)
	site.Must(t, 0, append(args, "--keep", "notes", "--use-partial")...)
	if verify := primary.Install.Path("pg_verifybackup"); fileExists(verify) {
		_, err := env.Run(ctx, verify, "-n", primary.DataDir)
		require.NoError(t, err)
	}
	require.NoError(t, primary.Start(ctx))
	require.NoError(t, primary.WaitFor(ctx, "select not pg_is_in_recovery()"))
	require.Equal(t, "20002", primary.MustText(t, "select count(*)::text from t"))
	if amcheck := primary.Install.Path("pg_amcheck"); amcheck != "" {
		_, err = env.Run(ctx, amcheck, "--install-missing", "-h", "127.0.0.1", "-p", fmt.Sprint(primary.Port), "-U", "postgres", "-d", "postgres")
		require.NoError(t, err)
	}

	// What the restore wrote would hold for standbys made of this server too. It
	// is gone, but for what the user wanted.
	conf, err := os.ReadFile(filepath.Join(primary.DataDir, "postgresql.auto.conf"))
	require.NoError(t, err)
	require.NotRegexp(t, `(?m)^(recovery|restore)_`, string(conf))

	// A standby is promoted behind the primary's back, and the primary goes on.
	standby := env.StartStandby(t, primary, postgres.Options{Major: major, Settings: site.ArchiveSettings()})
	primary.MustExec(t, "insert into t values (-1, 'both')")
	lsn, err := primary.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, standby.WaitReplay(ctx, lsn))
	primary.MustExec(t, "alter system set archive_mode = off") // it is cut off from the repository too
	require.NoError(t, primary.Stop(ctx, postgres.Immediate))
	require.NoError(t, standby.Promote(ctx))
	standby.MustExec(t, "insert into t values (-2, 'new primary')")
	last, err = standby.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, standby.WaitArchived(ctx, last))
	require.NoError(t, primary.Start(ctx))
	primary.MustExec(t, "delete from t where i > 10000")
	primary.MustExec(t, "create table diverged as select 1")
	primary.MustExec(t, "checkpoint")
	require.NoError(t, primary.Stop(ctx, postgres.Fast))

	// What only it has is in no repository, and is not wanted.
	args = []string{"restore", "--pgdata", primary.DataDir, "--delta", "--type", "standby", "--primary-conninfo", standby.ConnInfo()}
	r = site.Must(t, 2, args...)
	require.Contains(t, r.Stderr, "--discard-wal")
	site.Must(t, 0, append(args, "--discard-wal")...)
	require.NoError(t, primary.Start(ctx))
	lsn, err = standby.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, primary.WaitReplay(ctx, lsn))
	standby.MustExec(t, "insert into t values (-3, 'streamed')")
	require.NoError(t, primary.WaitFor(ctx, "select count(*) = 20005 from t"))
	require.Equal(t, "t", primary.MustText(t, "select pg_is_in_recovery() and to_regclass('diverged') is null"))
	require.NoError(t, primary.WaitFor(ctx, "select count(*) = 1 from pg_stat_wal_receiver where status = 'streaming'"))
}
