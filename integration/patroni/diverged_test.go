package patroni

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDivergedPrimary: an old primary that went on after a failover becomes a
// replica by a restore in place, where pg_rewind is not to be had: once by
// Patroni itself, which would remove the data directory, and once by hand; and
// where pg_rewind fails half way and leaves a directory that is of no use to it.
func TestDivergedPrimary(t *testing.T) { onMajors(t, testDivergedPrimary) }

func testDivergedPrimary(t *testing.T, major int) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	s := newSite(t, ctx)
	method := s.docs.block("delta")["postgresql"].(map[string]any)
	c := newCluster(t, ctx, s.network, Options{
		Major: major, Nodes: 2, SegmentMB: 1, PostgreSQL: method, Prepare: s.hippo,
		Dynamic: merge(s.docs.block("dynamic"), map[string]any{"postgresql": map[string]any{"use_pg_rewind": false}}),
	})
	s.text(ctx, c.Nodes[0], "create table t as select 1 as i; create table still as select i, md5(i::text) from generate_series(1, 5000) i")
	s.walkeep(ctx, c.Nodes[0], "backup", "--repo", "repo1", "--type", "full")

	// diverge fails over to the other node while the old primary goes on.
	diverge := func(old *Node) *Node {
		t.Helper()
		require.Positive(t, old.KillPatroni())
		now, err := c.WaitOtherLeader(ctx, old)
		require.NoError(t, err)
		s.text(ctx, old, "insert into t values (-1); delete from still; create table diverged as select 1; checkpoint")
		s.text(ctx, now, "insert into t values (2)")
		s.archived(ctx, now)
		return now
	}
	follows := func(node *Node, rows string) {
		t.Helper()
		_, err := c.WaitHealthy(ctx)
		require.NoError(t, err)
		s.becomes(ctx, node, "select string_agg(i::text, ' ' order by i) from t", rows)
		require.Equal(t, "5000", s.text(ctx, node, "select count(*) from still"))
		require.Equal(t, "t", s.text(ctx, node, "select to_regclass('diverged') is null"))
		require.Equal(t, "on", s.text(ctx, node, "show archive_mode"))
	}

	pgdata := c.LocalDataDir()
	stop := func(node *Node, how string) {
		t.Helper()
		_, err := node.Run(ctx, filepath.Join(c.bin, "pg_ctl"), "-D", pgdata, "stop", "-m", how, "-w")
		require.NoError(t, err)
	}

	// Patroni does it. The directory is the same one.
	old := c.Nodes[0]
	first := inode(t, old.DataDir)
	now := diverge(old)
	stop(old, "fast")
	require.NoError(t, old.StartPatroni())
	follows(old, "1 2")
	log := old.Log(100000)
	for _, says := range []string{"reinitializing due to diverged timelines", "Leaving data directory uncleaned", "replica has been created using walkeep"} {
		require.Contains(t, log, says)
	}
	require.Equal(t, first, inode(t, old.DataDir))

	// By hand: recipe E of docs/restore.md, before Patroni is started again. A
	// server that crashed Patroni 3.0 would start in vain, again and again.
	old = now
	diverge(old)
	stop(old, "immediate")
	s.walkeep(ctx, old, "wal", "push", filepath.Join(pgdata, "pg_wal"))
	s.walkeep(ctx, old, "restore", "--pgdata", pgdata, "--delta", "--type", "standby", "--archive-mode", "keep")
	require.NoError(t, old.StartPatroni())
	follows(old, "1 2 2")
	require.NotContains(t, old.Log(100000), "reinitializing")
	require.Equal(t, 0, strings.Count(old.Log(100000), "Removing data directory"))

	// pg_rewind cannot write a file that the server keeps read-only, such as a key,
	// and leaves a directory that is of no use to it (its documentation, "Warning").
	for _, node := range c.Nodes {
		_, err := node.Run(ctx, "sh", "-c", "echo secret >"+pgdata+"/server.key && chmod 400 "+pgdata+"/server.key")
		require.NoError(t, err)
	}
	old, err := c.WaitHealthy(ctx)
	require.NoError(t, err)
	now = diverge(old)
	stop(old, "fast")
	rewind := []string{"--target-pgdata", pgdata, "--source-server", "host=" + now.IP + " user=postgres dbname=postgres"}
	_, err = old.Run(ctx, filepath.Join(c.bin, "pg_rewind"), rewind...)
	require.ErrorContains(t, err, `/server.key": Permission denied`)
	same := inode(t, old.DataDir)
	s.walkeep(ctx, old, "wal", "push", filepath.Join(pgdata, "pg_wal"))
	s.walkeep(ctx, old, "restore", "--pgdata", pgdata, "--delta", "--type", "standby", "--archive-mode", "keep")
	require.NoError(t, old.StartPatroni())
	follows(old, "1 2 2 2")
	require.Equal(t, same, inode(t, old.DataDir))
}

// inode is that of a directory: another one after it was removed.
func inode(t *testing.T, dir string) uint64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "global"))
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}
