package serve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// documentedGrants is the SQL of docs/configuration.md: of 13 and 14, or of what
// is newer.
func documentedGrants(t *testing.T, major int) string {
	b, err := os.ReadFile("../../docs/configuration.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```sql\n(CREATE ROLE walkeep.*?)```").FindAllStringSubmatch(string(b), -1)
	require.Len(t, blocks, 2)
	if major < 15 {
		return blocks[1][1]
	}
	return blocks[0][1]
}

// TestOverSQL: a service that can reach nothing but the servers' ports takes a full
// and an incremental backup of the standby, and when that is gone a differential
// one of the primary, with the documented privileges alone.
func TestOverSQL(t *testing.T) {
	for _, major := range []int{13, postgres.DebianMajor} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			overSQL(t, major)
		})
	}
}

func overSQL(t *testing.T, major int) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	env := postgres.New(t)
	dir := env.TempDir(t, "repo")
	_, tokens := secrets(t, env)
	repos := fmt.Sprintf("repos:\n  - {name: repo1, filesystem: {path: %s}}\n", dir)
	// What archives knows the repository only.
	archiver, err := walkeep.NewSite(env, "cluster: hippo\n"+repos)
	require.NoError(t, err)
	p := env.Primary(t, postgres.Options{Major: major, SegmentSize: 1 << 20, Checksums: true, NoFsync: true, Settings: archiver.ArchiveSettings()})
	p.MustExec(t, documentedGrants(t, major))
	p.MustExec(t, "create table t as select g i, repeat('x', 200) s from generate_series(1, 20000) g")
	s := env.StartStandby(t, p, postgres.Options{Settings: map[string]string{"archive_mode": "off"}})
	require.NoError(t, s.Exec(ctx, "checkpoint"))

	service, site := serve(t, env, tokens, "interval: 2s, probe: 1s", fmt.Sprintf(`cluster: hippo
postgres:
  nodes:
    - {name: pg-0, conninfo: "%s", pgdata: /nonexistent}
    - {name: pg-1, conninfo: "%s", pgdata: /nonexistent}
agent: {socket: /nonexistent/socket}
%s`, p.ConnInfoFor("walkeep", "postgres"), s.ConnInfoFor("walkeep", "postgres"), repos))
	service.until(t, "two nodes", func(s *api.Snapshot) bool {
		return s.Leading && len(s.Nodes) == 2 && s.Nodes[0].Up && s.Nodes[1].Up
	})
	take := func(kind, node string) string {
		t.Helper()
		run := service.backup(t, "repo1", kind)
		snap := service.until(t, "a "+kind+" backup", func(s *api.Snapshot) bool { return ended(s, run.ID) })
		run = runOf(snap, run.ID)
		require.Equal(t, api.Done, run.State, "%+v", run)
		require.NotEmpty(t, run.Label)
		require.Equal(t, node, run.Node)
		return string(run.Label)
	}
	full := take("full", "pg-1")
	p.MustExec(t, "update t set s = 'y' where i % 100 = 0; checkpoint")
	lsn, err := p.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, s.WaitReplay(ctx, lsn))
	require.NoError(t, s.Exec(ctx, "checkpoint"))
	incremental := take("incremental", "pg-1")
	require.True(t, strings.HasPrefix(incremental, full+"_") && strings.HasSuffix(incremental, "I"), incremental)
	require.NoError(t, s.Stop(ctx, postgres.Fast))
	service.until(t, "a lost standby", func(s *api.Snapshot) bool { return !s.Nodes[1].Up })
	p.MustExec(t, "update t set s = 'z' where i % 100 = 1")
	differential := take("differential", "pg-0")
	require.True(t, strings.HasSuffix(differential, "D"), differential)

	debian, err := postgres.Debian()
	require.NoError(t, err)
	for label, from := range map[string]string{incremental: "standby pg-1, " + s.DataDir + ", read over SQL", differential: "primary pg-0, " + p.DataDir + ", read over SQL"} {
		require.Contains(t, site.Must(t, 0, "show", label).Stdout, from)
		clone := filepath.Join(env.TempDir(t, "clone"), "data")
		site.Must(t, 0, "restore", "--pgdata", clone, "--backup", label)
		_, err = env.Run(ctx, debian.Path("pg_verifybackup"), "-n", clone)
		require.NoError(t, err)
		r, err := env.Open(clone, map[string]string{"archive_mode": "off"})
		require.NoError(t, err)
		require.NoError(t, r.Start(ctx))
		require.NoError(t, r.WaitFor(ctx, "select not pg_is_in_recovery()"))
		require.Equal(t, "20000 200", r.MustText(t, "select count(*) || ' ' || count(*) filter (where s = 'y') from t"))
		if major == debian.Major {
			_, err = env.Run(ctx, debian.Path("pg_amcheck"), "--install-missing", "--heapallindexed", "-h", "127.0.0.1", "-p", fmt.Sprint(r.Port), "-U", "postgres", "-d", "postgres")
			require.NoError(t, err)
		}
		require.NoError(t, r.Stop(ctx, postgres.Immediate))
	}
}
