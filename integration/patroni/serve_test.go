package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/internal/credentials/credentialstest"
)

// served is a walkeep service on the hub, with an agent on each node.
type served struct {
	t      *testing.T
	ctx    context.Context
	log    string
	client *http.Client
}

const (
	serviceURL = "http://127.0.0.1:8080" // of the hub
	agentPort  = 7443
	token      = "a token for this test alone"
)

// serve starts agents and service. All they know of the cluster are the
// addresses of Patroni; the first is nobody's.
func serve(t *testing.T, ctx context.Context, c *Cluster) *served {
	programs, err := walkeep.Build()
	require.NoError(t, err)
	env := c.Network.env
	repo, err := env.Mkdir("served")
	require.NoError(t, err)
	secrets, err := env.Mkdir("secrets")
	require.NoError(t, err)
	tokens := filepath.Join(secrets, "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte(token+"\n"), 0o600))
	ca := credentialstest.NewAuthority(t, secrets, "ours")
	var urls []string
	var ips []net.IP
	for _, n := range c.Nodes {
		urls, ips = append(urls, strconv.Quote("http://"+n.IP+":8008")), append(ips, net.ParseIP(n.IP))
	}
	cert, key := ca.Issue("agent", time.Hour, ips...)
	write := func(m *Machine, more string) string {
		path := filepath.Join(m.Disk, "serve.yaml")
		text := fmt.Sprintf(`cluster: hippo
postgres: {patroni: {urls: ["http://10.255.255.1:8008", %s], conninfo: "user=postgres sslmode=disable", pgdata: %s, agent-port: %d}}
archive: {require: 1}
repos: [{name: repo1, filesystem: {path: %s}}]
`, strings.Join(urls, ", "), c.LocalDataDir(), agentPort, repo) + more
		require.NoError(t, errors.Join(os.WriteFile(path, []byte(text), 0o600), env.Own(path)))
		return filepath.Join(c.Network.Local, "serve.yaml")
	}
	tls := fmt.Sprintf("tls: {cert-file: %s, key-file: %s, ca-file: %s}, token-file: %s", cert, key, ca.File(), tokens)
	for _, n := range c.Nodes {
		file := write(n.Machine, fmt.Sprintf("agent: {socket: %s, rescan: 1s, listen: \"%s:%d\", %s}\n", filepath.Join(c.Network.Local, "agent.sock"), n.IP, agentPort, tls))
		require.NoError(t, n.Spawn(filepath.Join(n.Disk, "agent.log"), programs.Walkeep(), "--config", file, "agent", "--node", n.Name))
	}
	s := &served{t: t, ctx: ctx, log: filepath.Join(c.Network.Hub.Disk, "serve.log"), client: &http.Client{
		Transport: &http.Transport{DialContext: c.Network.dial, DisableKeepAlives: true}, Timeout: 30 * time.Second,
	}}
	file := write(c.Network.Hub, fmt.Sprintf("agent: {%s}\nservice: {listen: \"%s\", operator-token-file: %s, interval: 2s, probe: 1s}\n",
		tls, strings.TrimPrefix(serviceURL, "http://"), tokens))
	require.NoError(t, env.Own(secrets, tokens, cert, key, ca.File()))
	require.NoError(t, c.Network.Hub.Spawn(s.log, programs.Walkeep(), "--config", file, "serve"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the service:\n", tail(s.log, 60))
			for _, n := range c.Nodes {
				t.Log("agent of", n.Name, ":\n", tail(filepath.Join(n.Disk, "agent.log"), 30))
			}
		}
	})
	return s
}

func (s *served) ask(method, path string, body, into any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(s.ctx, method, serviceURL+path, in)
	if err != nil {
		return err
	}
	r.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		return errors.Join(err, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b))
	}
	return json.Unmarshal(b, into)
}

// until polls what the service shows.
func (s *served) until(what string, ok func(*api.Snapshot) bool) *api.Snapshot {
	s.t.Helper()
	var last string
	for {
		var snap api.Snapshot
		err := s.ask(http.MethodGet, "/v1/snapshot", nil, &snap)
		if err == nil && ok(&snap) {
			return &snap
		}
		if b, _ := json.MarshalIndent(snap, "", " "); err == nil {
			last = string(b)
		}
		select {
		case <-s.ctx.Done():
			require.Fail(s.t, "not in time: "+what, "%v\n%s", err, last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// backup waits until the service knows the primary and a standby that streams,
// both with agents, and has a backup taken.
func (s *served) backup(primary string) (taken api.Backup) {
	s.t.Helper()
	s.until(primary+" and a standby of it", func(s *api.Snapshot) bool {
		leads, follow := false, 0
		for _, n := range s.Nodes {
			if !n.Up || n.Agent == nil || !n.Agent.Up {
				continue
			}
			leads = leads || n.Name == primary && n.Role == "primary"
			if n.Role == "standby" && n.Lag >= 0 {
				follow++
			}
		}
		return s.Leading && leads && follow > 0
	})
	var run api.Run
	require.NoError(s.t, s.ask(http.MethodPost, "/v1/backups", map[string]string{"repo": "repo1", "type": "full"}, &run))
	snap := s.until("the end of the backup", func(snap *api.Snapshot) bool {
		for _, r := range snap.Runs {
			if r.ID == run.ID {
				run = r
			}
		}
		return run.Final()
	})
	require.Equal(s.t, api.Done, run.State, run.Error)
	// From a standby, if one streams just then: they come and go in a failover.
	s.t.Logf("with %s as primary the backup was taken from %s", primary, run.Node)
	for _, b := range snap.Repos[0].Backups {
		if b.Label == run.Label {
			return b
		}
	}
	require.Fail(s.t, "the backup is not listed", "%+v", run)
	return taken
}
