package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/agent"
	"github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/integration/ports"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// TestOtherMachines: what a machine without a data directory does with nodes:
// it fills gaps by replication and from an agent, and has an agent take a
// backup.
func TestOtherMachines(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	env := postgres.New(t)
	dir, other := env.TempDir(t, "repo"), env.TempDir(t, "other")
	tls, run := env.TempDir(t, "tls"), env.TempDir(t, "run")
	require.NoError(t, stores.MakeCertificates(tls))
	socket := filepath.Join(run, "agent.sock")
	ca := filepath.Join(tls, "ca.pem")
	tokens := filepath.Join(env.TempDir(t, "secrets"), "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte("a token for this test alone\n"), 0o600))
	address := ports.For(t).Address()

	p, err := env.InitDB(ctx, postgres.Options{Major: 15, SegmentSize: 1 << 20, NoFsync: true})
	require.NoError(t, err)
	config := func(conninfo, pgdata, url, repoDir, more string) string {
		return fmt.Sprintf(`cluster: hippo
postgres: {nodes: [{name: pg-0, conninfo: "%s", pgdata: %s%s}]}
agent: {socket: %s, listen: "%s", tls: {cert-file: %s, key-file: %s, ca-file: %s}, token-file: %s}
repos: [{name: repo1, filesystem: {path: %s}}]
%s`, conninfo, pgdata, url, socket, address, filepath.Join(tls, "cert.pem"), filepath.Join(tls, "key.pem"), ca, tokens, repoDir, more)
	}
	require.NoError(t, env.Own(tokens, tls))
	here, err := walkeep.NewSite(env, config(p.ConnInfo(), p.DataDir, "", dir, ""))
	require.NoError(t, err)
	require.NoError(t, p.Configure(here.ArchiveSettings()))
	require.NoError(t, p.Start(ctx))
	here.Must(t, 0, "backup", "--repo", "repo1")
	var names []pg.SegmentName
	for range 3 {
		name, err := p.SwitchWAL(ctx)
		require.NoError(t, err)
		require.NoError(t, p.WaitArchived(ctx, name))
		names = append(names, name)
	}
	e := epochIn(t, dir, p)
	lose := func(name pg.SegmentName) {
		found, err := filepath.Glob(filepath.Join(dir, "hippo", "*", "wal", "*", "*", string(name)))
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.NoError(t, os.Remove(found[0]))
		_, err = e.WALHead(ctx, repo.SegmentFile(name))
		require.ErrorIs(t, err, repo.ErrNotFound)
	}

	// By replication.
	elsewhere, err := walkeep.NewSite(env, config(p.ConnInfo(), "/nonexistent/pgdata", "", dir, ""))
	require.NoError(t, err)
	lose(names[0])
	r := elsewhere.Must(t, 0, "wal", "repair")
	require.Contains(t, r.Stdout, "replication from pg-0")
	_, err = e.WALHead(ctx, repo.SegmentFile(names[0]))
	require.NoError(t, err)

	// From the agent, which has a repository of its own; nobody can connect to
	// the server.
	beside, err := walkeep.NewSite(env, config(p.ConnInfo(), p.DataDir, "", other, ""))
	require.NoError(t, err)
	runAgent(t, beside, socket, p.DataDir)
	lose(names[1])
	require.NoError(t, elsewhere.Configure(config("host=127.0.0.1 port=1 user=nobody", "/nonexistent/pgdata", ", agent: \"https://"+address+"\"", dir, "")))
	r = elsewhere.Must(t, 0, "wal", "repair")
	require.Contains(t, r.Stdout, "pg_wal of pg-0")
	_, err = e.WALHead(ctx, repo.SegmentFile(names[1]))
	require.NoError(t, err)

	// A backup by the agent.
	c, err := api.NewClient(api.ClientOptions{URL: "https://" + address, CAFile: ca, TokenFile: tokens})
	require.NoError(t, err)
	st, err := c.Status(ctx)
	require.NoError(t, err)
	var of agent.Status
	require.NoError(t, json.Unmarshal(st.Agent, &of))
	require.Equal(t, p.DataDir, of.PGData)
	begun, err := c.StartBackup(ctx, api.BackupRequest{Repos: []string{"repo1"}, Type: "full", Annotations: map[string]string{"asked": "from elsewhere"}}, "once")
	require.NoError(t, err)
	done, err := c.Follow(ctx, begun.ID, nil)
	require.NoError(t, err)
	require.Equal(t, api.Done, done.State, done.Error)
	require.Positive(t, done.Copied)
	list := beside.Must(t, 0, "list", "--json")
	var result struct{ Label string }
	require.NoError(t, json.Unmarshal(done.Result, &result))
	require.Contains(t, list.Stdout, result.Label)
	refused, err := c.StartBackup(ctx, api.BackupRequest{Repos: []string{"repo9"}, Type: "full"}, "")
	require.NoError(t, err)
	refused, err = c.Follow(ctx, refused.ID, nil)
	require.NoError(t, err)
	require.Contains(t, refused.Error, "no such repository")
}
