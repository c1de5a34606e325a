package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// Two repositories; each loses segments of its own. Both are repaired, from one
// another and from the server's pg_wal, and restored from alone.
func TestRepair(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	env := postgres.New(t)
	dirs := []string{env.TempDir(t, "one"), env.TempDir(t, "two")}
	// repo2 has another codec and is encrypted: what is copied is made anew.
	repos := fmt.Sprintf("repos:\n  - {name: repo1, filesystem: {path: %s}, compression: {codec: lz4}}\n  - {name: repo2, filesystem: {path: %s}, encryption: {identity-file: %s}}\n",
		dirs[0], dirs[1], identityFile(t, env, env.TempDir(t, "secrets")))
	site, err := walkeep.NewSite(env, "cluster: hippo\n"+repos)
	require.NoError(t, err)
	settings := site.ArchiveSettings()
	settings["wal_keep_size"] = "1GB"
	server := env.Primary(t, postgres.Options{Checksums: true, Settings: settings})
	configure := func(repos string) {
		require.NoError(t, site.Configure(fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg, conninfo: %q, pgdata: %s}\n%s",
			server.ConnInfo(), server.DataDir, repos)))
	}
	configure(repos)
	server.MustExec(t, "create table t (i int)")
	for _, name := range []string{"repo1", "repo2"} {
		site.Must(t, 0, "backup", "--repo", name, "--type", "full")
	}
	for i := range 8 {
		server.MustExec(t, fmt.Sprintf("insert into t values (%d)", i))
		last, err := server.SwitchWAL(ctx)
		require.NoError(t, err)
		require.NoError(t, server.WaitArchived(ctx, last))
	}
	status := func(code int) (s struct {
		Repos []struct {
			Gaps []struct {
				First, Last string
				Segments    int
			}
		}
	},
	) {
		require.NoError(t, json.Unmarshal([]byte(site.Must(t, code, "wal", "status", "--json").Stdout), &s))
		return s
	}
	for _, r := range status(0).Repos {
		require.Empty(t, r.Gaps)
	}

	segments := func(dir string) []string {
		all, err := filepath.Glob(filepath.Join(dir, "hippo/*/wal/00000001/*/*"))
		require.NoError(t, err)
		return all
	}
	all := [][]string{segments(dirs[0]), segments(dirs[1])}
	n := len(all[0])
	lose := func(repo int, from, to int) { // counted from the last one
		for _, path := range all[repo][n-from : n-to] {
			require.NoError(t, os.Remove(path))
		}
	}
	lose(0, 6, 4)
	lose(1, 3, 2)
	// What both lost, only the server has.
	lose(0, 2, 1)
	lose(1, 2, 1)
	damaged := status(1)
	require.Len(t, damaged.Repos[0].Gaps, 2)
	require.Equal(t, 2, damaged.Repos[0].Gaps[0].Segments)
	require.Equal(t, filepath.Base(all[0][n-6]), damaged.Repos[0].Gaps[0].First)
	site.Must(t, 0, "wal", "repair", "--dry-run")
	require.Len(t, status(1).Repos[0].Gaps, 2, "a dry run stores nothing")

	out := site.Must(t, 0, "wal", "repair").Stdout
	require.Contains(t, out, filepath.Base(all[0][n-6])+" from repo2")
	require.Contains(t, out, filepath.Base(all[1][n-3])+" from repo1")
	require.Contains(t, out, filepath.Base(all[0][n-2])+" from pg_wal of pg")
	for _, r := range status(0).Repos {
		require.Empty(t, r.Gaps)
	}

	// The server dies, and what is in its last segment is in no archive but as a
	// partial one. Recovery reads it only when it is told to.
	server.MustExec(t, "insert into t values (8)")
	last, err := server.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, server.WaitArchived(ctx, last))
	server.MustExec(t, "insert into t values (9)")
	name := server.MustText(t, "select pg_walfile_name(pg_current_wal_insert_lsn())")
	require.NoError(t, server.Kill9())
	content, err := os.ReadFile(filepath.Join(server.DataDir, "pg_wal", name))
	require.NoError(t, err)
	partial := filepath.Join(server.DataDir, "pg_wal", name+".partial")
	writeOwned(t, env, partial, content)
	site.Must(t, 0, "wal", "push", partial)
	require.Contains(t, site.Must(t, 0, "list").Stdout, "with --use-partial to ")
	require.Contains(t, site.Must(t, 0, "wal", "status").Stdout, "partial segment "+name)

	// Each alone restores all of it.
	for i, name := range []string{"repo1", "repo2"} {
		hidden := dirs[1-i] + ".gone"
		require.NoError(t, os.Rename(filepath.Join(dirs[1-i], "hippo"), hidden))
		dir := filepath.Join(env.TempDir(t, "clone"), "data")
		site.Must(t, 0, append([]string{"restore", "--repo", name, "--pgdata", dir}, [][]string{nil, {"--use-partial"}}[i]...)...)
		clone, err := env.Open(dir, nil)
		require.NoError(t, err)
		require.NoError(t, clone.Start(ctx))
		require.NoError(t, clone.WaitFor(ctx, "select not pg_is_in_recovery()"))
		require.Equal(t, fmt.Sprint(9+i), clone.MustText(t, "select count(*)::text from t"), name)
		require.NoError(t, clone.Stop(ctx, postgres.Fast))
		require.NoError(t, os.Rename(hidden, filepath.Join(dirs[1-i], "hippo")))
	}
}
