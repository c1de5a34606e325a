package patroni

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/postgres"
	discover "github.com/walkeep/walkeep/pg/patroni"
)

// newNetwork makes one with etcd that lives as long as the test.
func newNetwork(t *testing.T, ctx context.Context, env *postgres.Env) *Network {
	n, err := NewNetwork(env)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.StartEtcd(ctx))
	return n
}

// newCluster makes one, with the logs shown if the test fails.
func newCluster(t *testing.T, ctx context.Context, n *Network, o Options) *Cluster {
	c, err := NewCluster(ctx, n, o)
	if c != nil {
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(c.Logs(60))
			}
		})
	}
	require.NoError(t, err)
	return c
}

// onMajors runs a test on the versions that every way back is tested on.
func onMajors(t *testing.T, test func(t *testing.T, major int)) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			test(t, major)
		})
	}
}

// TestPatroni: the harness does what it says: a switchover, a power failure, a
// machine that comes back, a cut cable. A service that knows no more than Patroni's
// addresses follows it all, and has its backups taken by the agents.
func TestPatroni(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	c := newCluster(t, ctx, newNetwork(t, ctx, postgres.New(t)), Options{SegmentMB: 1})

	first, err := c.WaitLeader(ctx)
	require.NoError(t, err)
	require.Equal(t, "pg-0", first.Name)
	_, err = first.Text(ctx, "create table t as select 1 as i")
	require.NoError(t, err)

	s := serve(t, ctx, c)
	before := s.backup("pg-0")

	require.NoError(t, c.Switchover(ctx, first, c.Nodes[1]))
	second, err := c.WaitHealthy(ctx)
	require.NoError(t, err)
	require.Equal(t, "pg-1", second.Name)

	second.PowerOff()
	_, err = second.Text(ctx, "select 1")
	require.Error(t, err)
	third, err := c.WaitOtherLeader(ctx, second)
	require.NoError(t, err)
	_, err = third.Text(ctx, "insert into t values (2)")
	require.NoError(t, err)
	s.until(second.Name+" is gone", func(s *api.Snapshot) bool {
		i := slices.IndexFunc(s.Nodes, func(n api.Node) bool { return n.Name == second.Name })
		return i < 0 || !s.Nodes[i].Up
	})
	after := s.backup(third.Name)
	require.Greater(t, after.Timeline, before.Timeline)
	require.NoError(t, second.StartPatroni())
	_, err = c.WaitHealthy(ctx)
	require.NoError(t, err)

	sum, err := third.Text(ctx, "select sum(i) from t")
	require.NoError(t, err)
	require.Equal(t, "3", sum)

	// What walkeep makes of Patroni's answer; the first URL is nobody's.
	urls := []string{"http://10.255.255.1:8008"}
	for _, n := range c.Nodes {
		urls = append(urls, "http://"+n.IP+":8008")
	}
	var members []discover.Member
	for settled := false; !settled; { // the healed one may still be starting
		members, err = discover.Members(ctx, discover.Options{URLs: urls, Timeout: 2 * time.Second, Transport: c.client.Transport})
		require.NoError(t, err)
		settled = len(members) == len(c.Nodes)
		for _, m := range members {
			settled = settled && m.Running() && m.Timeline == members[0].Timeline
		}
		require.NoError(t, ctx.Err())
		time.Sleep(50 * time.Millisecond)
	}
	for _, m := range members {
		require.True(t, m.Running(), "%+v", m)
		require.Equal(t, m.Name == third.Name, m.Leader(), "%+v", m)
		require.Equal(t, c.Node(m.Name).IP, m.Host)
		require.Equal(t, members[0].Timeline, m.Timeline)
		require.NotZero(t, m.Timeline)
	}

	// A cut cable: not seen from outside any more, and alive inside.
	require.NoError(t, second.Cut())
	short, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	_, err = second.Text(short, "select 1")
	require.Error(t, err)
	cfg, err := second.Config(second.Machine)
	require.NoError(t, err)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx))
}
