package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/ports"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

const staticToken = "a token for this test alone"

// world is two repositories, and services for one cluster whose server is away:
// nothing here needs it.
type world struct {
	c      *Cluster
	env    *postgres.Env
	config string
}

// newWorld makes one. The services use the token of the service account that the
// manifests make for them.
func newWorld(t *testing.T, c *Cluster, lease, service string) *world {
	t.Helper()
	w := &world{c: c, env: postgres.New(t)}
	dir := w.env.TempDir(t, "kube")
	tokens := filepath.Join(dir, "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte(staticToken+"\n"), 0o600))
	kubeconfig := c.Kubeconfig(t, dir, namespace, c.Token(t, namespace, account, time.Hour))
	require.NoError(t, w.env.Own(dir, tokens, kubeconfig, filepath.Join(dir, "kube-ca.pem")))
	w.config = fmt.Sprintf(`cluster: hippo
timezone: UTC
postgres: {nodes: [{name: pg-0, conninfo: "host=%s connect_timeout=1"}]}
agent: {socket: /nonexistent/socket}
service:
  listen: "ADDRESS"
  operator-token-file: %s
  interval: 2s
  probe: 1s
  %s
  kubernetes: {kubeconfig: %s, lease: %s, operator-users: ["system:serviceaccount:%s:hippo-operator"], viewer-groups: ["system:serviceaccounts:monitoring"]}
repos:
  - {name: repo1, filesystem: {path: %s}, schedules: {expire: "* * * * * *"}}
  - {name: repo2, filesystem: {path: %s}, schedules: {expire: "* * * * * *"}}
`, dir, tokens, service, kubeconfig, lease, namespace, w.env.TempDir(t, "repo1"), w.env.TempDir(t, "repo2"))
	return w
}

// served is `walkeep serve` running in the background.
type served struct {
	*walkeep.Program
	url string
}

// serve starts a service and waits until it answers.
func (w *world) serve(t *testing.T, name string) *served {
	t.Helper()
	address := ports.For(t).Address()
	site, err := walkeep.NewSite(w.env, string(bytes.ReplaceAll([]byte(w.config), []byte("ADDRESS"), []byte(address))))
	require.NoError(t, err)
	s := &served{Program: site.Start(t, name, "serve"), url: "http://" + address}
	s.until(t, "a snapshot", func(*api.Snapshot) bool { return true })
	return s
}

func (s *served) ask(token, method, path string, body, into any) (int, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		r = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, r)
	if err != nil {
		return 0, err
	}
	req.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "Idempotency-Key": {rand.Text()}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || into == nil || resp.StatusCode >= http.StatusBadRequest {
		return resp.StatusCode, err
	}
	return resp.StatusCode, json.Unmarshal(b, into)
}

// until polls the snapshot.
func (s *served) until(t *testing.T, what string, ok func(*api.Snapshot) bool) *api.Snapshot {
	t.Helper()
	var last *api.Snapshot
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		snap := &api.Snapshot{}
		if code, err := s.ask(staticToken, http.MethodGet, "/v1/snapshot", nil, snap); err == nil && code == http.StatusOK {
			if last = snap; ok(snap) {
				return snap
			}
		}
		select {
		case <-s.Done:
			require.Fail(t, s.Name+" has ended", what)
		case <-time.After(100 * time.Millisecond):
		}
	}
	b, err := json.MarshalIndent(last, "", " ")
	require.NoError(t, err)
	require.Fail(t, "not in time: "+what, "%s", b)
	return nil
}

// leads waits until a service leads and has started runs in both repositories
// after now, and returns its name.
func (s *served) leads(t *testing.T, what string) string {
	t.Helper()
	from := time.Now()
	snap := s.until(t, what, func(snap *api.Snapshot) bool {
		began := map[string]bool{}
		for _, r := range snap.Runs {
			began[r.Repo] = began[r.Repo] || r.By == snap.Leader && r.Started.After(from) && r.State == api.Done
		}
		return snap.Leading && len(began) == 2 && began["repo1"] && began["repo2"]
	})
	return snap.Leader
}

// follows waits until it stands by.
func (s *served) follows(t *testing.T, leader string) {
	t.Helper()
	s.until(t, "that it follows "+leader, func(snap *api.Snapshot) bool { return !snap.Leading && snap.Leader == leader })
}
