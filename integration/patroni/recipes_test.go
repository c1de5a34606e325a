package patroni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

func TestMain(m *testing.M) {
	code := m.Run()
	walkeep.Clean()
	os.Exit(code)
}

// recipes are the blocks of docs/patroni.md that are marked as tested, with the
// paths of a test instead of those of a real machine.
type recipes struct {
	t    *testing.T
	page string
	path *strings.Replacer
}

func readRecipes(t *testing.T, n *Network, p walkeep.Programs) recipes {
	page, err := os.ReadFile("../../docs/patroni.md")
	require.NoError(t, err)
	return recipes{t, string(page), strings.NewReplacer(
		"/usr/local/bin/", p.Dir+"/", "/etc/walkeep/", n.Local+"/", "/var/lib/postgresql/15/main", filepath.Join(n.Local, "pgdata"))}
}

// block is the one of that name, after more replacements.
func (r recipes) block(name string, replace ...string) (m map[string]any) {
	_, rest, ok := strings.Cut(r.page, "<!-- tested: "+name+" -->\n```yaml\n")
	require.True(r.t, ok, name)
	text, _, _ := strings.Cut(rest, "```")
	text = strings.NewReplacer(replace...).Replace(r.path.Replace(text))
	require.NoError(r.t, yaml.Unmarshal([]byte(text), &m))
	return m
}

// site is a network with one repository, and walkeep for its nodes.
type site struct {
	t        *testing.T
	network  *Network
	programs walkeep.Programs
	docs     recipes
	repo     string
	env      *postgres.Env
}

func newSite(t *testing.T, ctx context.Context) *site {
	programs, err := walkeep.Build()
	require.NoError(t, err)
	env := postgres.New(t)
	n := newNetwork(t, ctx, env)
	repo, err := env.Mkdir("repo")
	require.NoError(t, err)
	return &site{t, n, programs, readRecipes(t, n, programs), repo, env}
}

// write writes a configuration of walkeep onto a machine.
func (s *site) write(m *Machine, file, cluster string) error {
	path := filepath.Join(m.Disk, file)
	text := fmt.Sprintf("cluster: %s\npostgres:\n  nodes:\n    - {name: here, conninfo: \"host=127.0.0.1 user=postgres sslmode=disable\", pgdata: %s}\n"+
		"repos:\n  - name: repo1\n    filesystem: {path: %s}\n", cluster, filepath.Join(s.network.Local, "pgdata"), s.repo)
	return errors.Join(os.WriteFile(path, []byte(text), 0o600), s.env.Own(path))
}

// hippo puts the configuration of the cluster hippo onto a node.
func (s *site) hippo(node *Node) error { return s.write(node.Machine, "walkeep.yaml", "hippo") }

// walkeep runs it on a node.
func (s *site) walkeep(ctx context.Context, node *Node, args ...string) string {
	s.t.Helper()
	out, err := node.Run(ctx, s.programs.Walkeep(), append([]string{"--config", filepath.Join(s.network.Local, "walkeep.yaml")}, args...)...)
	require.NoError(s.t, err)
	return out
}

// text runs statements on a node.
func (s *site) text(ctx context.Context, node *Node, sql string) string {
	s.t.Helper()
	out, err := node.Text(ctx, sql)
	require.NoError(s.t, err)
	return out
}

// becomes waits for an answer of a node.
func (s *site) becomes(ctx context.Context, node *Node, sql, want string) {
	s.t.Helper()
	var got string
	var err error
	for ctx.Err() == nil {
		if got, err = node.Text(ctx, sql); err == nil && got == want {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.Fail(s.t, "not in time", "%s: %s: %q, %v", node.Name, sql, got, err)
}

// archived ends the segment and waits until it is archived.
func (s *site) archived(ctx context.Context, node *Node) {
	s.t.Helper()
	last := s.text(ctx, node, "select pg_walfile_name(pg_switch_wal())")
	s.becomes(ctx, node, "select last_archived_wal >= '"+last+"' from pg_stat_archiver", "t")
}

// TestRecipes does what docs/patroni.md says: archiving through the dynamic
// configuration, a replica out of the repository, and a clone at a moment, made
// by Patroni.
func TestRecipes(t *testing.T) { onMajors(t, testRecipes) }

func testRecipes(t *testing.T, major int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s := newSite(t, ctx)
	n, docs := s.network, s.docs
	replica := docs.block("replica")["postgresql"].(map[string]any)
	c := newCluster(t, ctx, n, Options{
		Major: major, Nodes: 2, SegmentMB: 1, Dynamic: docs.block("dynamic"), PostgreSQL: replica,
		Prepare: s.hippo,
	})
	leader, standby := c.Nodes[0], c.Nodes[1]
	text := func(node *Node, sql string) string { return s.text(ctx, node, sql) }
	text(leader, "create table t as select 1 as i")
	s.walkeep(ctx, leader, "backup", "--repo", "repo1", "--type", "full")
	text(leader, "insert into t values (2); select pg_switch_wal()")

	// A replica made anew comes out of the repository, and archives.
	require.NoError(t, c.Reinitialize(ctx, standby))
	require.Eventually(t, func() bool { return strings.Contains(standby.Log(10000), "replica has been created using walkeep") },
		time.Minute, 100*time.Millisecond)
	_, err := c.WaitHealthy(ctx)
	require.NoError(t, err)
	require.Contains(t, text(standby, "show restore_command"), "walkeep-wal")
	require.Equal(t, "latest", text(standby, "show recovery_target_timeline"))
	require.Equal(t, "on", text(standby, "show archive_mode"))
	require.NoError(t, c.Switchover(ctx, leader, standby))
	now, err := c.WaitHealthy(ctx)
	require.NoError(t, err)
	require.Equal(t, standby, now)
	require.Equal(t, "2", text(standby, "select count(*) from t"))

	// A clone at a moment.
	text(standby, "insert into t values (3)")
	moment := text(standby, "select clock_timestamp()")
	text(standby, "insert into t values (4)")
	s.archived(ctx, standby)
	clone := newCluster(t, ctx, n, Options{
		Scope: "hippo-clone", Major: major, Nodes: 1, SegmentMB: 1, Dynamic: docs.block("dynamic"),
		Bootstrap: docs.block("bootstrap", "2026-11-22 14:30:00+00", moment)["bootstrap"].(map[string]any),
		Prepare: func(node *Node) error {
			return errors.Join(s.write(node.Machine, "hippo.yaml", "hippo"), s.write(node.Machine, "walkeep.yaml", "hippo-clone"))
		},
	})
	require.Equal(t, "3", text(clone.Nodes[0], "select count(*) from t"))
	require.Equal(t, "on", text(clone.Nodes[0], "show archive_mode"))
	text(clone.Nodes[0], "select pg_switch_wal()")
	require.Eventually(t, func() bool {
		return text(clone.Nodes[0], "select archived_count > 0 from pg_stat_archiver") == "t"
	}, time.Minute, 100*time.Millisecond)
	require.DirExists(t, filepath.Join(s.repo, "hippo-clone"))
}
