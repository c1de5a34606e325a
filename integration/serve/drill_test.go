package serve

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/postgres"
)

// TestDrills: a service rehearses restores, when asked to and by its schedule.
// Snapshot, REST, metrics and page show the last one and the last that passed;
// one that fails is a problem until the next one passes.
func TestDrills(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	env := postgres.New(t)
	one, run, scratch := env.TempDir(t, "one"), env.TempDir(t, "run"), env.TempDir(t, "scratch")
	_, tokens := secrets(t, env)
	p, err := env.InitDB(ctx, postgres.Options{Major: 18, SegmentSize: 1 << 20, NoFsync: true})
	require.NoError(t, err)
	yaml := func(schedules, check string) string {
		return fmt.Sprintf(`cluster: hippo
timezone: UTC
postgres: {nodes: [{name: pg-0, conninfo: "%s", pgdata: %s}]}
agent: {socket: %s, rescan: 1s}
drills: {scratch: %s, bindir: %s, amcheck: false, checks: [{name: orders, database: postgres, sql: "%s"}]}
repos:
  - {name: repo1, filesystem: {path: %s}, schedules: {%s}}
`, p.ConnInfo(), p.DataDir, filepath.Join(run, "agent.sock"), scratch, filepath.Dir(p.Install.Path("postgres")), check, one, schedules)
	}
	current := yaml("", "select count(*) = 100 from orders")
	s, site := serve(t, env, tokens, "interval: 1s, probe: 1s, backoff: 1s", current)
	require.NoError(t, p.Configure(site.ArchiveSettings()))
	require.NoError(t, p.Start(ctx))
	p.MustExec(t, "create table orders as select i from generate_series(1, 100) i")
	s.until(t, "the agent of the service", func(s *api.Snapshot) bool {
		return s.Leading && len(s.Nodes) == 1 && s.Nodes[0].Role == "primary" && s.Nodes[0].Agent != nil && len(s.Nodes[0].Agent.Queues) == 1
	})
	backup := s.backup(t, "repo1", "full")
	snap := s.until(t, "a backup", func(s *api.Snapshot) bool { return runOf(s, backup.ID).State == api.Done })
	label := runOf(snap, backup.ID).Label
	require.Nil(t, repoOf(snap, "repo1").Drill)
	require.NotContains(t, scrape(ctx, t, s), "walkeep_drill_")

	// By hand.
	var started api.Run
	code, err := s.ask(http.MethodPost, "/v1/repos/repo1/drill", nil, &started)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, code)
	require.Equal(t, "drill", started.Kind)
	snap = s.until(t, "a rehearsal", func(s *api.Snapshot) bool {
		return ended(s, started.ID) && repoOf(s, "repo1").Drill != nil
	})
	require.Equal(t, api.Done, runOf(snap, started.ID).State, "%+v", runOf(snap, started.ID))
	first := *repoOf(snap, "repo1").Drill
	require.True(t, first.Passed, "%+v", first)
	require.Equal(t, label, first.Backup)
	require.Positive(t, first.Took())
	require.Equal(t, first, *repoOf(snap, "repo1").DrillPassed)
	require.Equal(t, api.OK, snap.Level, problems(snap))

	// By the schedule, of what does not hold any more.
	configure := func(text string) {
		t.Helper()
		b, err := os.ReadFile(site.Config)
		require.NoError(t, err)
		section := strings.TrimSuffix(string(b), current)
		current = text
		require.NoError(t, site.Configure(section+text))
		s.Signal(syscall.SIGHUP)
	}
	configure(yaml(`drill: "*/2 * * * * *"`, "select count(*) = 99 from orders"))
	snap = s.until(t, "a rehearsal that fails", func(s *api.Snapshot) bool { return problems(s) == "drill-failed repo1" })
	require.Equal(t, api.Critical, repoOf(snap, "repo1").Level)
	require.Contains(t, snap.Problems[0].Text, "orders: it yields false")
	require.False(t, repoOf(snap, "repo1").Drill.Passed)
	require.True(t, repoOf(snap, "repo1").DrillPassed.Ended.Equal(first.Ended))
	var state api.RepositoryState
	code, err = s.ask(http.MethodGet, "/v1/repos/repo1", nil, &state)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "orders: it yields false", state.Drill.Error)
	require.True(t, state.DrillPassed.Passed)
	metrics := scrape(ctx, t, s)
	require.Contains(t, metrics, `walkeep_drill_last_success{cluster="hippo",repo="repo1"} 0`)
	require.Contains(t, metrics, `walkeep_drill_last_duration_seconds{cluster="hippo",part="recovery",repo="repo1"} `)

	// And of what does again: by the schedule, and all is well.
	configure(yaml(`drill: "*/2 * * * * *"`, "select count(*) = 100 from orders"))
	s.until(t, "a rehearsal that passes", func(s *api.Snapshot) bool {
		r := repoOf(s, "repo1")
		return problems(s) == "" && r.Drill.Passed && r.Drill.Ended.After(first.Ended)
	})
	configure(yaml("", "select true"))
	s.until(t, "no schedule, and nothing under way", func(s *api.Snapshot) bool {
		for _, r := range s.Runs {
			if !r.Final() {
				return false
			}
		}
		return len(s.Next) == 0
	})
	require.Contains(t, scrape(ctx, t, s), `walkeep_drill_last_success{cluster="hippo",repo="repo1"} 1`)
	left, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Empty(t, left)
}
