package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/client"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/internal/traces/tracestest"
)

// requireTraces: the run of a backup is a trace, with the phases of the backup,
// and requests are some.
func requireTraces(t *testing.T, c *tracestest.Collector, run api.Run) {
	t.Helper()
	trace := ""
	for _, s := range c.Named("run full") {
		if s.Attributes["walkeep.run"] == run.ID {
			require.Equal(t, "repo1", s.Attributes["walkeep.repository"])
			require.Equal(t, string(run.Label), s.Attributes["walkeep.label"])
			trace = s.Trace
		}
	}
	require.NotEmpty(t, trace)
	for _, name := range []string{"backup", "copying", "ending the backup"} {
		require.True(t, slices.ContainsFunc(c.Named(name), func(s tracestest.Span) bool { return s.Trace == trace }), name)
	}
	require.NotEmpty(t, c.Named("POST /v1/backups"))
	require.NotEmpty(t, c.Named("GET /v1/runs/{run}/events"))
	require.NotEmpty(t, c.Named("run verify"))
}

// TestREST: a service of a real server, as a program sees it that speaks HTTP,
// and as a person who uses walkeep --server from a machine that has no
// configuration.
func TestREST(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	env := postgres.New(t)
	one, two, run := env.TempDir(t, "one"), env.TempDir(t, "two"), env.TempDir(t, "run")
	_, tokens := secrets(t, env)
	p, err := env.InitDB(ctx, postgres.Options{Major: 17, SegmentSize: 1 << 20, NoFsync: true})
	require.NoError(t, err)
	// A backup into repo2 takes seconds: it can be looked at and cancelled.
	collector := tracestest.New(t)
	s, site := serve(t, env, tokens, "interval: 2s, probe: 1s, backoff: 1s, traces: \""+collector.URL+"\"", fmt.Sprintf(`cluster: hippo
timezone: UTC
postgres: {nodes: [{name: pg-0, conninfo: "%s", pgdata: %s}]}
agent: {socket: %s, rescan: 1s}
archive: {require: 1}
repos:
  - {name: repo1, filesystem: {path: %s}, retention: {full: 2}}
  - {name: repo2, filesystem: {path: %s}, limit: {upload: 200kB}}
`, p.ConnInfo(), p.DataDir, filepath.Join(run, "agent.sock"), one, two))
	require.NoError(t, p.Configure(site.ArchiveSettings()))
	require.NoError(t, p.Start(ctx))
	s.until(t, "a node that can be backed up", func(s *api.Snapshot) bool {
		return s.Leading && len(s.Nodes) == 1 && s.Nodes[0].Role == "primary"
	})

	// By HTTP: what docs/rest.md shows.
	post := func(key, body string) (*http.Response, string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/backups", strings.NewReader(body))
		require.NoError(t, err)
		r.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "Idempotency-Key": {key}}
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp, string(b)
	}
	const body = `{"repo": "repo1", "type": "full", "annotations": {"ticket": "OPS-12"}}`
	resp, said := post("before-upgrade-7", body)
	require.Equal(t, http.StatusAccepted, resp.StatusCode, said)
	where := resp.Header.Get("Location")
	c, err := client.New(client.Options{URL: s.url, TokenFile: tokens})
	require.NoError(t, err)
	events := 0
	done, err := c.Follow(ctx, strings.TrimPrefix(where, "/v1/runs/"), func(api.Run) { events++ })
	require.NoError(t, err)
	require.Equal(t, api.Done, done.State, done.Error)
	require.NotEmpty(t, done.Label)
	require.Positive(t, events)
	again, said := post("before-upgrade-7", body)
	require.Equal(t, where, again.Header.Get("Location"), said)
	list, err := c.Backups(ctx, client.BackupQuery{Annotation: "ticket=OPS-12"})
	require.NoError(t, err)
	require.Len(t, list, 1, "the same key begins nothing")
	require.Equal(t, done.Label, list[0].Label)
	answer, err := c.CanRestore(ctx, api.RestoreQuestion{At: list[0].Stop.AddDate(-1, 0, 0)})
	require.NoError(t, err)
	require.False(t, answer.Possible)
	for _, path := range []string{"/", "/metrics", "/v1/openapi.json", "/v1/wal", "/v1/windows", "/v1/gaps", "/readyz"} {
		code, err := s.ask(http.MethodGet, path, nil, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, code, path)
	}
	resp, said = post("x", `{"repo": "repo1", "type": "weekly"}`)
	require.Equal(t, http.StatusUnprocessableEntity, resp.StatusCode, said)

	// By walkeep, which takes the configuration for nothing.
	remote := func(args ...string) []string {
		return append([]string{"--config", "/nowhere", "--server", s.url, "--token-file", tokens}, args...)
	}
	made := site.Must(t, 0, remote("backup", "--repo", "repo1", "--type", "incremental")...)
	require.Contains(t, made.LastLine(), string(done.Label)+"_")
	require.Contains(t, made.Stderr, "incremental backup into repo1: run ")
	require.Contains(t, site.Must(t, 0, remote("list", "--repo", "repo1")...).Stdout, made.LastLine())
	require.Contains(t, site.Must(t, 0, "list", "--repo", "repo1").Stdout, made.LastLine(), "as the repository itself says")
	shown := site.Must(t, 0, remote("show", made.LastLine())...).Stdout
	require.Contains(t, shown, "needs  "+string(done.Label))
	require.Contains(t, shown, site.Must(t, 0, "show", made.LastLine()).Stdout, "all that there is without a service")
	require.Contains(t, site.Must(t, 0, remote("expire", "--repo", "repo1", "--dry-run")...).Stdout, "nothing was removed")
	require.Contains(t, site.Must(t, 0, remote("verify", "--repo", "repo1")...).Stdout, "repo1: done\n  level stored: 2 backups")
	require.Contains(t, site.Must(t, 0, remote("wal", "repair", "--repo", "repo1")...).Stdout, "nothing is missing")
	packs, err := filepath.Glob(filepath.Join(one, "hippo", "*", "backup", string(done.Label), "pack", "*"))
	require.NoError(t, err)
	require.NoError(t, os.Rename(packs[0], packs[0]+".away"))
	site.Must(t, 6, "verify", "--repo", "repo1", "--level", "exists")
	damaged := site.Must(t, 6, remote("verify", "--repo", "repo1")...)
	require.Contains(t, damaged.Stdout, "repo1: failed")
	require.Contains(t, damaged.Stdout, "PROBLEM: ")
	require.NoError(t, os.Rename(packs[0]+".away", packs[0]))
	site.Must(t, 0, remote("wal", "status", "--repo", "repo1")...)
	site.Must(t, 3, remote("show", "20200101-000000F")...)
	require.Contains(t, site.Must(t, 0, remote("pause")...).Stdout, "paused: repo1, repo2")
	require.Contains(t, site.Must(t, 0, remote("resume")...).Stdout, "paused: none")

	// Ctrl-C ends the looking, not the backup; a second one is in the way of it.
	cmd := site.Command(ctx, remote("backup", "--repo", "repo2", "--type", "full")...)
	looking := &walkeep.Log{}
	cmd.Stderr = looking
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	var id string
	s.until(t, "the backup under way", func(s *api.Snapshot) bool {
		id = s.Runs[0].ID
		return s.Runs[0].Repo == "repo2" && s.Runs[0].State == api.Running && strings.Contains(looking.String(), id)
	})
	site.Must(t, 5, remote("backup", "--repo", "repo2", "--type", "full")...)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), looking)
	require.Contains(t, looking.String(), "walkeep run cancel "+id)
	require.Empty(t, out.String())
	still, err := c.Run(ctx, id)
	require.NoError(t, err)
	require.False(t, still.Final(), "%+v", still)
	require.Contains(t, site.Must(t, 0, remote("run", "cancel", id)...).Stdout, id+": cancelled")
	require.Contains(t, site.Must(t, 0, remote("runs", "--state", "cancelled")...).Stdout, id)
	list, err = c.Backups(ctx, client.BackupQuery{Repo: "repo2"})
	require.NoError(t, err)
	require.Empty(t, list)

	// In order: streams end with the service.
	s.Signal(syscall.SIGTERM)
	s.Ends(t, 0, patience)
	_, err = c.Health(ctx)
	require.ErrorIs(t, err, client.ErrUnreachable)
	requireTraces(t, collector, done)
	site.Must(t, 1, remote("list")...)
}
