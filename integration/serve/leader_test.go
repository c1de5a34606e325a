package serve

import (
	"context"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/repo"
)

// TestLeaders: of two services one leads. Killed in the middle of a backup, it is
// replaced, and the backup at the agent goes on under the other. Stopped in the
// middle of one and woken up again, it does no harm. The servers fail over, and
// the next backup is taken where the primary is then.
func TestLeaders(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	w := newWorld(t, ctx, 2, "6MB")
	const quick = "interval: 2s, probe: 1s, lease: 4s, backoff: 1s"
	config := w.config(", schedules: {incremental: \"*/2 * * * * *\", full: \"0 0 1 1 *\"}, retention: {full: 2}")
	one, site := serve(t, w.env, w.tokens, quick, config)
	snap := one.until(t, "a leader and two nodes with agents", func(s *api.Snapshot) bool {
		return s.Leading && len(s.Nodes) == 2 && s.Nodes[0].Agent.Up && s.Nodes[1].Agent.Up && s.Nodes[1].Role == "standby" && s.Nodes[1].Lag >= 0
	})
	first := snap.Leader
	two, _ := serve(t, w.env, w.tokens, quick, config)
	two.until(t, "a follower", func(s *api.Snapshot) bool { return !s.Leading && s.Leader == first })
	code, err := two.ask(http.MethodPost, "/v1/backups", map[string]string{"repo": "repo2", "type": "full"}, nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, code, 400)

	// Killed.
	run := one.backup(t, "repo2", "full")
	one.until(t, "a backup under way", func(s *api.Snapshot) bool { return runOf(s, run.ID).CopiedBytes > 0 })
	one.Kill(syscall.SIGKILL)
	snap = two.until(t, "the backup adopted", func(s *api.Snapshot) bool {
		return s.Leading && runOf(s, run.ID).State == api.Running && runOf(s, run.ID).CopiedBytes > 0
	})
	require.Equal(t, "pg-1", runOf(snap, run.ID).Node)
	two.until(t, "its end", func(s *api.Snapshot) bool { return ended(s, run.ID) && len(repoOf(s, "repo2").Backups) == 1 })
	require.Len(t, w.backups(t, 1), 1)
	require.Equal(t, run.ID, w.backups(t, 1)[0].Annotations["walkeep.run"])

	// Stopped, and woken up.
	three := serveAt(t, site, one.url[len("http://"):])
	snap = two.until(t, "a lead", func(s *api.Snapshot) bool { return s.Leading })
	second := snap.Leader
	run = two.backup(t, "repo2", "full")
	two.until(t, "the backup under way", func(s *api.Snapshot) bool { return runOf(s, run.ID).Node != "" })
	stopped := time.Now()
	two.Signal(syscall.SIGSTOP)
	snap = three.until(t, "another lead, and the end of the run", func(s *api.Snapshot) bool { return s.Leading && ended(s, run.ID) })
	require.Equal(t, api.Done, runOf(snap, run.ID).State, runOf(snap, run.ID).Error)
	third := snap.Leader
	require.NotEqual(t, second, third)
	began := func(s *api.Snapshot) (n int) {
		for _, r := range s.Runs {
			if r.Kind == "incremental" && r.State == api.Done && r.By == third {
				n++
			}
		}
		return n
	}
	three.until(t, "scheduled backups by the third", func(s *api.Snapshot) bool { return began(s) >= 2 })
	before := began(three.until(t, "a snapshot", func(*api.Snapshot) bool { return true }))
	two.Signal(syscall.SIGCONT)
	two.until(t, "that the second follows", func(s *api.Snapshot) bool { return !s.Leading && s.Leader == third })
	three.until(t, "more by the third", func(s *api.Snapshot) bool { return s.Leading && began(s) >= before+3 })
	for _, r := range w.requireOrder(t, 0) {
		require.False(t, r.By == second && r.Started.After(stopped.Add(time.Second)), "the one that slept began %+v", r)
	}
	w.requireOrder(t, 1)
	require.Len(t, w.backups(t, 1), 2)

	// The servers fail over.
	require.NoError(t, w.servers[0].Stop(ctx, postgres.Immediate))
	require.NoError(t, w.servers[1].Promote(ctx))
	three.until(t, "the new primary", func(s *api.Snapshot) bool {
		return !s.Nodes[0].Up && s.Nodes[1].Role == "primary" && s.Nodes[1].Timeline == 2
	})
	run = three.backup(t, "repo2", "full")
	snap = three.until(t, "a backup of the new primary", func(s *api.Snapshot) bool { return ended(s, run.ID) })
	require.Equal(t, api.Done, runOf(snap, run.ID).State, runOf(snap, run.ID).Error)
	require.Equal(t, "pg-1", runOf(snap, run.ID).Node)

	// Cancelled, at the agent.
	run = three.backup(t, "repo2", "full")
	three.until(t, "a backup under way", func(s *api.Snapshot) bool { return runOf(s, run.ID).CopiedBytes > 0 })
	code, err = three.ask(http.MethodPost, "/v1/runs/"+run.ID+"/cancel", nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, code)
	snap = three.until(t, "its end", func(s *api.Snapshot) bool { return ended(s, run.ID) })
	require.Equal(t, api.Cancelled, runOf(snap, run.ID).State)

	// The agent dies: the run is lost, and says so.
	run = three.backup(t, "repo2", "full")
	three.until(t, "a backup under way", func(s *api.Snapshot) bool { return runOf(s, run.ID).CopiedBytes > 0 })
	w.agents[1].Signal(syscall.SIGKILL)
	<-w.agents[1].Done
	w.startAgent(t, 1)
	snap = three.until(t, "the end of the run", func(s *api.Snapshot) bool { return ended(s, run.ID) })
	require.Equal(t, api.Failed, runOf(snap, run.ID).State)
	require.Contains(t, runOf(snap, run.ID).Error, "restarted")

	// SIGTERM during a backup at an agent hands it over.
	three.until(t, "the agent", func(s *api.Snapshot) bool { return s.Nodes[1].Agent.Up })
	run = three.backup(t, "repo2", "full")
	three.until(t, "a backup under way", func(s *api.Snapshot) bool { return runOf(s, run.ID).CopiedBytes > 0 })
	three.Signal(syscall.SIGTERM)
	three.Ends(t, 0, patience)
	snap = two.until(t, "the end under the second", func(s *api.Snapshot) bool { return s.Leading && ended(s, run.ID) })
	require.Equal(t, api.Done, runOf(snap, run.ID).State, runOf(snap, run.ID).Error)
	for _, r := range w.requireOrder(t, 1) {
		require.True(t, r.Outcome != repo.RunLost, "%+v", r)
	}
}
