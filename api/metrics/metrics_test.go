package metrics

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/scenes"
)

type shower struct {
	api.Service
	snapshot *api.Snapshot
}

func (s shower) Snapshot() *api.Snapshot { return s.snapshot }

func fixedNow() time.Time { return scenes.Now }

func scrape(t *testing.T, s *api.Snapshot) string {
	t.Helper()
	h, err := Handler(shower{snapshot: s}, fixedNow)
	require.NoError(t, err)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, w.Code, "%s", body)
	return string(body)
}

func TestValues(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot *api.Snapshot
		has      []string
	}{
		"all well": {scenes.AllWell(), []string{
			`walkeep_level{cluster="hippo"} 0`,
			`walkeep_leader{cluster="hippo"} 1`,
			`walkeep_info{cluster="hippo",version="1.0.0"} 1`,
			`walkeep_repository_up{cluster="hippo",repo="repo1"} 1`,
			`walkeep_backups{cluster="hippo",repo="repo1",type="full"} 6`,
			`walkeep_backup_since_last_completion_seconds{cluster="hippo",repo="repo1",type="incremental"} 725`,
			// Sunday's full ended 01:23, the differential one of Monday 01:00:35.
			`walkeep_backup_since_last_completion_seconds{cluster="hippo",repo="repo1",type="full"} 92980`,
			`walkeep_backup_since_last_completion_seconds{cluster="hippo",repo="repo1",type="differential"} 7925`,
			`walkeep_backup_last_duration_seconds{cluster="hippo",repo="repo1",type="full"} 1380`,
			`walkeep_agent_deduplicated_total{cluster="hippo",node="hippo-0",repo="repo1"} 3630`,
			`walkeep_wal_gaps{cluster="hippo",repo="repo2"} 0`,
			`walkeep_run_last_success{cluster="hippo",kind="incremental",repo="repo1"} 1`,
			`walkeep_verify_since_last_completion_seconds{cluster="hippo",repo="repo1"} 93600`,
			`walkeep_node_lag_bytes{cluster="hippo",node="hippo-2"} 4808`,
			`walkeep_drill_last_success{cluster="hippo",repo="repo1"} 1`,
			`walkeep_drill_since_last_success_seconds{cluster="hippo",repo="repo1"} 162000`,
			`walkeep_drill_last_duration_seconds{cluster="hippo",part="recovery",repo="repo1"} 74`,
			"process_resident_memory_bytes",
		}},
		"gaps": {scenes.WithGap(), []string{
			`walkeep_level{cluster="hippo"} 2`,
			`walkeep_wal_gaps{cluster="hippo",repo="repo2"} 2`,
			`walkeep_wal_gap_segments{cluster="hippo",repo="repo2"} 4`,
			`walkeep_wal_conflicts{cluster="hippo",repo="repo2"} 1`,
			`walkeep_wal_behind_segments{cluster="hippo",repo="repo2"} 7`,
			`walkeep_wal_behind_seconds{cluster="hippo",repo="repo2"} 240`,
			`walkeep_agent_queue_files{cluster="hippo",node="hippo-2",repo="repo2"} 7`,
			`walkeep_agent_queue_oldest_seconds{cluster="hippo",node="hippo-2",repo="repo2"} 240`,
			`walkeep_drill_last_success{cluster="hippo",repo="repo2"} 0`,
			`walkeep_drill_since_last_success_seconds{cluster="hippo",repo="repo2"} 163200`,
			`walkeep_problem{cluster="hippo",code="wal-gap",level="critical",node="",repo="repo2"} 1`,
		}},
		"dead repository": {scenes.DeadRepository(), []string{
			`walkeep_repository_up{cluster="hippo",repo="repo1"} 0`,
			`walkeep_node_up{cluster="hippo",node="hippo-2",role="unknown"} 0`,
			`walkeep_agent_up{cluster="hippo",node="hippo-2"} 0`,
			`walkeep_run_last_success{cluster="hippo",kind="incremental",repo="repo1"} 0`,
		}},
		"running": {scenes.Running(), []string{
			`walkeep_runs{cluster="hippo",kind="full",repo="repo1",state="running"} 1`,
			`walkeep_runs{cluster="hippo",kind="incremental",repo="repo1",state="queued"} 1`,
			`walkeep_repository_paused{cluster="hippo",repo="repo2"} 1`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			body := scrape(t, c.snapshot)
			for _, want := range c.has {
				require.Contains(t, body, want)
			}
			problems, err := testutil.CollectAndLint(NewCollector(shower{snapshot: c.snapshot}, fixedNow))
			require.NoError(t, err)
			require.Empty(t, problems)
		})
	}
}

// TestOddSnapshots: what is strange must not spoil the whole scrape.
func TestOddSnapshots(t *testing.T) {
	scrape(t, nil)
	scrape(t, &api.Snapshot{})
	s := scenes.Running()
	s.Problems = append(s.Problems, api.Problem{Code: "x"}, api.Problem{Code: "x"}, api.Problem{Code: "\xff"})
	s.Repos = append(s.Repos, s.Repos[0])
	s.Nodes = append(s.Nodes, s.Nodes...)
	s.Runs = append(s.Runs, s.Runs...)
	s.Next = append(s.Next, s.Next...)
	require.Contains(t, scrape(t, s), "walkeep_level")
}

func BenchmarkScrape(b *testing.B) {
	h, err := Handler(shower{snapshot: scenes.Large()}, fixedNow)
	require.NoError(b, err)
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil))
	}
}
