package serve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/postgres"
)

// TestPage looks at a real service with Chromium: an operator signs in, takes a
// backup, sees it begin and end; then a repository dies, and the page says so.
// promtool reads the metrics. PAGE_PICTURES names a directory for the pictures.
func TestPage(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	env := postgres.New(t)
	one, two, run := env.TempDir(t, "one"), env.TempDir(t, "two"), env.TempDir(t, "run")
	_, tokens := secrets(t, env)
	p, err := env.InitDB(ctx, postgres.Options{Major: 17, SegmentSize: 1 << 20, NoFsync: true})
	require.NoError(t, err)
	s, site := serve(t, env, tokens, "interval: 1s, probe: 1s", fmt.Sprintf(`cluster: hippo
timezone: UTC
postgres: {nodes: [{name: pg-0, conninfo: "%s", pgdata: %s}]}
agent: {socket: %s, rescan: 1s}
archive: {require: 1}
repos:
  - {name: repo1, filesystem: {path: %s}, schedules: {full: "0 0 1 1 *"}, retention: {full: 2}}
  - {name: repo2, filesystem: {path: %s}}
`, p.ConnInfo(), p.DataDir, filepath.Join(run, "agent.sock"), one, two))
	require.NoError(t, p.Configure(site.ArchiveSettings()))
	require.NoError(t, p.Start(ctx))
	s.until(t, "the agent of the service", func(s *api.Snapshot) bool {
		return s.Leading && len(s.Nodes) == 1 && s.Nodes[0].Agent != nil && len(s.Nodes[0].Agent.Queues) == 2
	})

	browse := func(step string) { browse(ctx, t, s, step) }
	browse("backup")
	snap := s.until(t, "the backup that was asked for", func(s *api.Snapshot) bool { return len(repoOf(s, "repo1").Backups) == 1 })
	require.Equal(t, "asked for on the page", repoOf(snap, "repo1").Backups[0].Annotations["note"])

	metrics := scrape(ctx, t, s)
	for _, want := range []string{
		`walkeep_backups{cluster="hippo",repo="repo1",type="full"} 1`, `walkeep_leader{cluster="hippo"} 1`,
		`walkeep_repository_up{cluster="hippo",repo="repo2"} 1`, `walkeep_run_last_success{cluster="hippo",kind="full",repo="repo1"} 1`,
	} {
		require.Contains(t, metrics, want)
	}
	check := exec.CommandContext(ctx, "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(ofOurs(metrics))
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)

	require.NoError(t, os.Chmod(two, 0))
	t.Cleanup(func() { _ = os.Chmod(two, 0o700) })
	s.until(t, "a dead repository", func(s *api.Snapshot) bool { return repoOf(s, "repo2").Error != "" })
	browse("dead")
	require.Contains(t, scrape(ctx, t, s), `walkeep_repository_up{cluster="hippo",repo="repo2"} 0`)
	require.NoError(t, os.Chmod(two, 0o700))
	s.until(t, "all well again", func(s *api.Snapshot) bool { return s.Level == api.OK })
	browse("well")
}

// browse does a step of testdata/page.mjs, and takes a picture.
func browse(ctx context.Context, t *testing.T, s *served, step string, args ...string) {
	t.Helper()
	pictures := os.Getenv("PAGE_PICTURES")
	if pictures == "" {
		pictures = t.TempDir()
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	args = append([]string{"testdata/page.mjs", step, s.url, s.token, filepath.Join(pictures, "serve-"+step+".png")}, args...)
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Env = append(os.Environ(), "PLAYWRIGHT="+filepath.Join(root, ".cache/browser/node_modules/playwright-core/index.mjs"), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func scrape(ctx context.Context, t *testing.T, s *served) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_ = resp.Body.Close()
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode, "metrics are for viewers")
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// ofOurs leaves out the metrics of Go and of the process: promtool has an
// opinion on their names, too.
func ofOurs(metrics string) string {
	var b strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "walkeep_") {
			b.WriteString(line)
		}
	}
	return b.String()
}
