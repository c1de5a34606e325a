package serve

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/postgres"
)

// TestLocal: one process beside one server is agent and service: it archives,
// runs what is scheduled, catches up, pauses, expires, fills a gap, shows a
// configuration that it did not take, and ends in order.
func TestLocal(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	env := postgres.New(t)
	one, two, run := env.TempDir(t, "one"), env.TempDir(t, "two"), env.TempDir(t, "run")
	_, tokens := secrets(t, env)
	p, err := env.InitDB(ctx, postgres.Options{Major: 15, SegmentSize: 1 << 20, NoFsync: true})
	require.NoError(t, err)
	socket := filepath.Join(run, "agent.sock")
	yaml := func(schedules string) string {
		return fmt.Sprintf(`cluster: hippo
timezone: UTC
postgres: {nodes: [{name: pg-0, conninfo: "%s", pgdata: %s}]}
agent: {socket: %s, rescan: 1s}
archive: {require: 1}
repos:
  - {name: repo1, filesystem: {path: %s}, retention: {full: 1}, schedules: {%s}}
  - {name: repo2, filesystem: {path: %s}}
`, p.ConnInfo(), p.DataDir, socket, one, schedules, two)
	}
	const often = "interval: 2s, probe: 1s, backoff: 1s"
	// archive_command goes through the agent that the service is.
	s, site := serve(t, env, tokens, often, yaml(`full: "0 0 1 1 *"`))
	require.NoError(t, p.Configure(site.ArchiveSettings()))
	require.NoError(t, p.Start(ctx))
	s.until(t, "the agent of the service", func(s *api.Snapshot) bool {
		return s.Leading && len(s.Nodes) == 1 && s.Nodes[0].Role == "primary" && s.Nodes[0].Agent != nil && len(s.Nodes[0].Agent.Queues) == 2
	})

	// By hand, and what follows.
	first := s.backup(t, "repo1", "full")
	snap := s.until(t, "a backup and its expiry", func(s *api.Snapshot) bool {
		return runOf(s, first.ID).State == api.Done && !repoOf(s, "repo1").Expired.IsZero() && len(repoOf(s, "repo1").Backups) == 1
	})
	require.Equal(t, runOf(snap, first.ID).Label, repoOf(snap, "repo1").Backups[0].Label)
	require.Equal(t, "pg-0", runOf(snap, first.ID).Node)
	require.Equal(t, first.ID, repoOf(snap, "repo1").Backups[0].Annotations["walkeep.run"])

	// A schedule that comes with a reload; retention keeps one.
	current := yaml(`full: "0 0 1 1 *"`)
	configure := func(text string) {
		t.Helper()
		b, err := os.ReadFile(site.Config)
		require.NoError(t, err)
		section := string(b[:len(b)-len(current)])
		current = text
		require.NoError(t, site.Configure(section+text))
		s.Signal(syscall.SIGHUP)
	}
	configure(yaml(`full: "*/3 * * * * *", incremental: "* * * * * *"`))
	s.until(t, "scheduled backups that replace the first", func(s *api.Snapshot) bool {
		r := repoOf(s, "repo1")
		return len(r.Backups) > 0 && r.Backups[len(r.Backups)-1].Label > runOf(s, first.ID).Label && len(s.Next) == 2
	})
	code, err := s.ask(http.MethodPost, "/v1/pause", nil, nil)
	require.NoError(t, err)
	require.Less(t, code, 300)
	snap = s.until(t, "a pause", func(s *api.Snapshot) bool {
		for _, r := range s.Runs {
			if !r.Final() {
				return false
			}
		}
		return repoOf(s, "repo1").Paused && repoOf(s, "repo2").Paused
	})
	newest := snap.Runs[0].ID
	configure(yaml("full: nonsense"))
	snap = s.until(t, "a refused configuration", func(s *api.Snapshot) bool { return len(s.Problems) > 0 })
	require.Equal(t, "config-invalid", problems(snap))
	require.Equal(t, newest, snap.Runs[0].ID, "nothing ran during the pause")
	require.Equal(t, "*/3 * * * * *", repoOf(snap, "repo1").Schedules["full"])
	configure(yaml(""))
	s.until(t, "a valid configuration", func(s *api.Snapshot) bool { return len(s.Problems) == 0 && len(s.Next) == 0 })
	code, err = s.ask(http.MethodPost, "/v1/resume", nil, nil)
	require.NoError(t, err)
	require.Less(t, code, 300)

	// A gap: it is filled from the other repository, or from pg_wal.
	var lost string
	for i := range 4 {
		name, err := p.SwitchWAL(ctx)
		require.NoError(t, err)
		for _, dir := range []string{one, two} {
			var found []string
			require.Eventually(t, func() bool {
				found, err = filepath.Glob(filepath.Join(dir, "hippo", "*", "wal", "*", "*", string(name)))
				return err == nil && len(found) == 1
			}, patience, 50*time.Millisecond)
			if i == 2 && dir == one {
				lost = found[0]
			}
		}
	}
	require.NoError(t, os.Remove(lost))
	s.until(t, "the gap filled", func(s *api.Snapshot) bool {
		_, err := os.Stat(lost)
		return err == nil && len(repoOf(s, "repo1").Gaps) == 0 && problems(s) == ""
	})

	// SIGTERM during a run ends it, and gives the lead back.
	s.backup(t, "repo2", "full")
	s.Signal(syscall.SIGTERM)
	s.Ends(t, 0, patience)
	runs, err := open(t, two).Runs(ctx, time.Time{})
	require.NoError(t, err)
	for _, r := range runs {
		require.False(t, r.Running(), "%+v", r)
	}
	leases, err := filepath.Glob(filepath.Join(one, "hippo", "lease", "*"))
	require.NoError(t, err)
	require.Empty(t, leases)
}
