package serve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/postgres"
)

// TestFailoverDuringBackup: while the service has a scheduled backup taken, the
// server that it reads is restarted, then dies and is replaced, then is a
// standby that is promoted. The attempt fails and leaves no backup; the next
// one, of the same due time, finds the right server. What comes out is restored.
func TestFailoverDuringBackup(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	w := newWorld(t, ctx, 1, "6MB")
	w.servers[0].MustExec(t, "create table t as select generate_series(1, 1000) as i")
	quick := func(from, due string) string {
		return strings.Replace(w.config(fmt.Sprintf(`, schedules: {full: "%s"}`, due)), "postgres: {", "postgres: {backup-from: "+from+", ", 1)
	}
	const never = "0 0 0 1 1 *"
	text := quick("primary", never)
	s, site := serve(t, w.env, w.tokens, "interval: 2s, probe: 1s, lease: 4s, backoff: 1s, attempts: 9", text)
	whole, err := os.ReadFile(site.Config)
	require.NoError(t, err)
	head := strings.TrimSuffix(string(whole), text)

	// interrupted has a backup come due, does something in the middle of its first
	// attempt, and returns the run that took the backup after all.
	interrupted := func(from, node string, hit func()) api.Run {
		t.Helper()
		s.until(t, "the nodes", func(s *api.Snapshot) bool {
			for _, n := range s.Nodes {
				if n.Name == node {
					return s.Leading && n.Up && n.Agent != nil && n.Agent.Up
				}
			}
			return false
		})
		due := time.Now().UTC().Add(3 * time.Second).Truncate(time.Second)
		require.NoError(t, site.Configure(head+quick(from, due.Format("5 4 15 2 1 *"))))
		s.Signal(syscall.SIGHUP)
		of := func(s *api.Snapshot, attempt int) api.Run {
			for _, r := range s.Runs {
				if r.Kind == "full" && !r.Manual && r.Attempt >= attempt && !r.Due.Before(due) {
					return r
				}
			}
			return api.Run{}
		}
		first := of(s.until(t, "the first attempt under way", func(s *api.Snapshot) bool { return of(s, 1).CopiedBytes > 0 }), 1)
		require.Equal(t, node, first.Node)
		require.Equal(t, 1, first.Attempt)
		backups := len(w.backups(t, 0))
		hit()
		snap := s.until(t, "the end of the first attempt", func(s *api.Snapshot) bool { return ended(s, first.ID) })
		require.Equal(t, api.Failed, runOf(snap, first.ID).State)
		t.Logf("%s: %s", node, runOf(snap, first.ID).Error)
		snap = s.until(t, "a later attempt that takes the backup", func(s *api.Snapshot) bool { return of(s, 2).State == api.Done })
		require.Len(t, w.backups(t, 0), backups+1)
		return of(snap, 2)
	}

	run := interrupted("primary", "pg-0", func() {
		require.NoError(t, w.servers[0].Stop(ctx, postgres.Immediate))
		require.NoError(t, w.servers[0].Start(ctx))
	})
	require.Equal(t, "pg-0", run.Node)

	run = interrupted("primary", "pg-0", func() {
		require.NoError(t, w.servers[0].Stop(ctx, postgres.Immediate))
		require.NoError(t, w.servers[1].Promote(ctx))
	})
	require.Equal(t, "pg-1", run.Node)

	w.servers = append(w.servers, w.env.StartStandby(t, w.servers[1], postgres.Options{}))
	w.addAgent(t)
	w.startAgent(t, 2)
	require.NoError(t, site.Configure(head+quick("standby", never)))
	s.Signal(syscall.SIGHUP)
	run = interrupted("prefer-standby", "pg-2", func() {
		require.NoError(t, w.servers[1].Stop(ctx, postgres.Immediate))
		require.NoError(t, w.servers[2].Promote(ctx))
	})
	require.Equal(t, "pg-2", run.Node)
	w.requireOrder(t, 0)

	w.servers[2].MustExec(t, "insert into t values (0)")
	_, err = w.servers[2].SwitchWAL(ctx)
	require.NoError(t, err)
	s.until(t, "its WAL", func(s *api.Snapshot) bool {
		return repoOf(s, "repo1").Behind == 0 && len(repoOf(s, "repo1").Gaps) == 0
	})
	dir := filepath.Join(w.env.TempDir(t, "restored"), "data")
	site.Must(t, 0, "restore", "--repo", "repo1", "--backup", string(run.Label), "--pgdata", dir)
	restored, err := w.env.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, restored.Start(ctx))
	require.NoError(t, restored.WaitFor(ctx, "select not pg_is_in_recovery()"))
	require.Equal(t, "1000", restored.MustText(t, "select count(*)::text from t where i > 0"))
	require.NoError(t, restored.Stop(ctx, postgres.Immediate))
}
