package serve

import (
	"context"
	"encoding/json"
	"flag"
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
	"github.com/walkeep/walkeep/repo"
)

// length of TestAfternoon, besides beginning and end: `make afternoon`.
var length = flag.Duration("afternoon", 30*time.Second, "how long the schedules of TestAfternoon run")

// TestAfternoon: an afternoon's schedule with all that can happen in it: a leader
// is killed, a repository dies and comes back, the servers fail over. It ends
// with the backups, the retention and the coverage that the configuration
// promises, with a page that shows them, and with a restore. PAGE_PICTURES names a
// directory for the picture.
func TestAfternoon(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience+*length)
	defer cancel()
	w := newWorld(t, ctx, 3, "")
	keep := []int{2, 1, 3}
	config := w.config(
		fmt.Sprintf(`, schedules: {full: "*/12 * * * * *", differential: "*/4 * * * * *"}, retention: {full: %d}`, keep[0]),
		fmt.Sprintf(`, schedules: {full: "5-59/15 * * * * *", incremental: "*/3 * * * * *"}, retention: {full: %d}`, keep[1]),
		fmt.Sprintf(`, schedules: {full: "*/10 * * * * *", verify: "7-59/20 * * * * *"}, retention: {full: %d}`, keep[2]),
	)
	const quick = "interval: 2s, probe: 1s, lease: 4s, backoff: 1s, attempts: 5"
	p := w.servers[0]
	p.MustExec(t, "create table t (i int)")
	one, site := serve(t, w.env, w.tokens, quick, config)
	one.until(t, "a leader", func(s *api.Snapshot) bool { return s.Leading })
	two, _ := serve(t, w.env, w.tokens, quick, config)
	leader, other := one, two

	begun := time.Now()
	part := func(f float64) time.Time { return begun.Add(time.Duration(f * float64(*length))) }
	primary := p
	rows := 0
	work := func(until time.Time) {
		for time.Now().Before(until) {
			rows++
			primary.MustExec(t, "insert into t values ($1)", rows)
			primary.MustExec(t, "checkpoint")
			_, err := primary.SwitchWAL(ctx)
			require.NoError(t, err)
			time.Sleep(300 * time.Millisecond) // the pace of the work, nothing hangs on it
		}
	}
	backupsOf := func(s *api.Snapshot, name string, from time.Time) (n int) {
		for _, b := range repoOf(s, name).Backups {
			if b.Start.After(from) {
				n++
			}
		}
		return n
	}
	has := func(s *served, from time.Time, names ...string) {
		t.Helper()
		for _, name := range names {
			s.until(t, "a backup in "+name, func(s *api.Snapshot) bool { return backupsOf(s, name, from) > 0 })
		}
	}

	work(part(0.2))
	has(leader, begun, "repo1", "repo2", "repo3")
	leader.Kill(syscall.SIGKILL)
	other.until(t, "the other leads", func(s *api.Snapshot) bool { return s.Leading })
	leader, other = other, serveAt(t, site, leader.url[len("http://"):])
	at := time.Now()
	work(part(0.4))
	has(leader, at, "repo1", "repo2", "repo3")

	require.NoError(t, os.Chmod(w.dirs[1], 0))
	t.Cleanup(func() { _ = os.Chmod(w.dirs[1], 0o700) })
	at = time.Now()
	work(part(0.6))
	leader.until(t, "that the repository is away", func(s *api.Snapshot) bool {
		return len(s.Problems) > 0 && s.Problems[0].Code == "repository-down" && s.Problems[0].Repo == "repo2"
	})
	has(leader, at, "repo1", "repo3")
	require.NoError(t, os.Chmod(w.dirs[1], 0o700))
	at = time.Now()
	has(leader, at, "repo2")

	w.servers[1].MustExec(t, "checkpoint")
	require.NoError(t, primary.Stop(ctx, postgres.Immediate))
	primary = w.servers[1]
	require.NoError(t, primary.Promote(ctx))
	at = time.Now()
	work(part(1))
	has(leader, at, "repo1", "repo2", "repo3")

	// The end of the day: what runs ends, and everything is as it should be.
	code, err := other.ask(http.MethodPost, "/v1/pause", nil, nil)
	require.NoError(t, err)
	require.Less(t, code, 300, "a follower may pause")
	leader.until(t, "rest", func(s *api.Snapshot) bool {
		for _, r := range s.Runs {
			if !r.Final() {
				return false
			}
		}
		return repoOf(s, "repo1").Paused && repoOf(s, "repo2").Paused && repoOf(s, "repo3").Paused
	})
	for _, what := range []string{"expire", "verify"} {
		for i := range w.dirs {
			name := fmt.Sprintf("repo%d", i+1)
			code, err := leader.ask(http.MethodPost, "/v1/repos/"+name+"/"+what, map[string]any{}, nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusAccepted, code)
			leader.until(t, what+" of "+name, func(s *api.Snapshot) bool {
				for _, r := range s.Runs { // the newest first
					if r.Repo == name && r.Kind == what && r.Started.After(at) {
						return r.State == api.Done && r.Manual
					}
				}
				return false
			})
		}
	}
	snap := leader.until(t, "coverage without a gap", func(s *api.Snapshot) bool {
		for _, r := range s.Repos {
			if len(r.Gaps) > 0 || r.Behind > 0 || r.Error != "" || len(r.Windows) == 0 {
				return false
			}
		}
		return problems(s) == "node-down pg-0"
	})
	for i, r := range snap.Repos {
		fulls := 0
		for _, b := range r.Backups {
			if b.Type == repo.Full {
				fulls++
			}
		}
		require.Equal(t, keep[i], fulls, r.Name)
		require.Len(t, r.Windows, 1, r.Name)
		require.Equal(t, len(w.backups(t, i)), len(r.Backups), r.Name)
		w.requireOrder(t, i)
	}
	fulls, err := json.Marshal(map[string]int{"repo1": keep[0], "repo2": keep[1], "repo3": keep[2]})
	require.NoError(t, err)
	browse(ctx, t, leader, "afternoon", string(fulls))
	for i := range w.dirs {
		dir := filepath.Join(w.env.TempDir(t, "restored"), "data")
		name := fmt.Sprintf("repo%d", i+1)
		site.Must(t, 0, "restore", "--repo", name, "--pgdata", dir)
		restored, err := w.env.Open(dir, nil)
		require.NoError(t, err)
		require.NoError(t, restored.Start(ctx))
		require.NoError(t, restored.WaitFor(ctx, "select not pg_is_in_recovery()"))
		require.Equal(t, fmt.Sprint(rows), restored.MustText(t, "select count(*)::text from t"), name)
		require.NoError(t, restored.Stop(ctx, postgres.Immediate))
	}
	t.Logf("%d rows, %d runs shown, backups: %d, %d, %d", rows, len(snap.Runs), len(snap.Repos[0].Backups), len(snap.Repos[1].Backups), len(snap.Repos[2].Backups))
}
