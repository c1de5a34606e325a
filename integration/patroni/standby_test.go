package patroni

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStandbyCluster: two clusters under Patroni, of which the second knows
// nothing of the first but the repository. It follows, takes over when the
// first is lost, and the first comes back as its standby cluster, by a restore in
// place. Then they change places again.
func TestStandbyCluster(t *testing.T) { onMajors(t, testStandbyCluster) }

func testStandbyCluster(t *testing.T, major int) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	s := newSite(t, ctx)
	replica := s.docs.block("replica")["postgresql"].(map[string]any)
	standby := s.docs.block("standby")["bootstrap"].(map[string]any)["dcs"].(map[string]any)
	east := newCluster(t, ctx, s.network, Options{Major: major, Nodes: 1, SegmentMB: 1, Dynamic: s.docs.block("dynamic"), PostgreSQL: replica, Prepare: s.hippo})
	here := east.Nodes[0]
	s.text(ctx, here, "create table t as select 1 as i")
	s.walkeep(ctx, here, "backup", "--repo", "repo1", "--type", "full")

	west := newCluster(t, ctx, s.network, Options{
		Scope: "hippo-west", Major: major, Nodes: 2, SegmentMB: 1, Standby: true, PostgreSQL: replica, Prepare: s.hippo,
		Dynamic: merge(s.docs.block("dynamic"), standby),
	})
	there, err := west.WaitLeader(ctx)
	require.NoError(t, err)
	const sum = "select sum(i) from t"
	for i, want := range []string{"3", "6", "10"} {
		s.text(ctx, here, "insert into t values ("+string(rune('2'+i))+")")
		s.archived(ctx, here)
		for _, node := range west.Nodes {
			s.becomes(ctx, node, sum, want)
		}
	}
	require.Equal(t, "0", s.text(ctx, there, "select count(*) from pg_stat_wal_receiver"), "it streams")
	require.DirExists(t, filepath.Join(there.Disk, ".walkeep-spool"), "get reads ahead")

	// The first is lost, with what it had not archived.
	s.text(ctx, here, "insert into t values (100)")
	here.PowerOff()
	there, err = west.Promote(ctx)
	require.NoError(t, err)
	require.Equal(t, "10", s.text(ctx, there, sum))
	s.text(ctx, there, "insert into t values (5)")
	s.archived(ctx, there)

	// back makes a node, whose server does not run, the standby leader of its cluster.
	back := func(c *Cluster, node *Node) {
		t.Helper()
		require.NoError(t, c.Demote(ctx, node, standby["standby_cluster"].(map[string]any)))
		pgdata := c.LocalDataDir()
		s.walkeep(ctx, node, "wal", "push", filepath.Join(pgdata, "pg_wal"))
		s.walkeep(ctx, node, "restore", "--pgdata", pgdata, "--delta", "--type", "standby", "--archive-mode", "keep")
		require.NoError(t, node.StartPatroni())
	}
	require.NoError(t, here.Boot())
	dir := inode(t, here.DataDir)
	_, err = here.Run(ctx, "rm", "-f", filepath.Join(east.LocalDataDir(), "postmaster.pid")) // the machine was off: nobody uses it
	require.NoError(t, err)
	back(east, here)
	_, err = east.WaitHealthy(ctx)
	require.NoError(t, err)
	s.becomes(ctx, here, sum, "15")
	s.text(ctx, there, "insert into t values (6)")
	s.archived(ctx, there)
	s.becomes(ctx, here, sum, "21")
	require.Equal(t, dir, inode(t, here.DataDir))

	// And in order: the second stops, everything is archived, the first takes over.
	s.text(ctx, there, "insert into t values (7)")
	for _, node := range west.Nodes {
		if node != there {
			require.NoError(t, node.StopPatroni(ctx))
		}
	}
	require.NoError(t, there.StopPatroni(ctx))
	s.becomes(ctx, here, sum, "28")
	here, err = east.Promote(ctx)
	require.NoError(t, err)
	s.text(ctx, here, "insert into t values (8)")
	s.archived(ctx, here)
	require.Equal(t, "36", s.text(ctx, here, sum))
}
