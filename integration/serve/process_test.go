package serve

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
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/integration/ports"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/prefix"
)

func TestMain(m *testing.M) {
	code := m.Run()
	walkeep.Clean()
	os.Exit(code)
}

// patience is how long anything may take on a machine that is busy.
const patience = 3 * time.Minute

// served is a service with its address.
type served struct {
	*walkeep.Program
	url   string
	token string
}

const token = "a token for this test alone"

// secrets makes certificates and a token file that the servers' user can read.
func secrets(t *testing.T, env *postgres.Env) (tls, tokens string) {
	tls = env.TempDir(t, "tls")
	require.NoError(t, stores.MakeCertificates(tls))
	tokens = filepath.Join(tls, "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte(token+"\n"), 0o600))
	require.NoError(t, env.Own(tokens, tls))
	return tls, tokens
}

// serve starts a service; its configuration is yaml with a section service whose
// other settings are more.
func serve(t *testing.T, env *postgres.Env, tokens, more, yaml string) (*served, *walkeep.Site) {
	t.Helper()
	address := ports.For(t).Address()
	site, err := walkeep.NewSite(env, fmt.Sprintf("service: {listen: \"%s\", operator-token-file: %s, %s}\n%s", address, tokens, more, yaml))
	require.NoError(t, err)
	return serveAt(t, site, address), site
}

func serveAt(t *testing.T, site *walkeep.Site, address string) *served {
	s := &served{Program: site.Start(t, "serve on "+address, "serve"), url: "http://" + address, token: token}
	s.until(t, "a snapshot", func(*api.Snapshot) bool { return true })
	return s
}

func (s *served) ask(method, path string, body any, into any) (int, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		r = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, r)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || into == nil {
		return resp.StatusCode, err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return resp.StatusCode, fmt.Errorf("%s %s: %w: %.300s", method, path, err, b)
	}
	return resp.StatusCode, nil
}

func (s *served) snapshot() (*api.Snapshot, error) {
	var snap api.Snapshot
	code, err := s.ask(http.MethodGet, "/v1/snapshot", nil, &snap)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status %d", code)
	}
	return &snap, err
}

// until polls the snapshot.
func (s *served) until(t *testing.T, what string, ok func(*api.Snapshot) bool) *api.Snapshot {
	t.Helper()
	deadline := time.Now().Add(patience)
	var last *api.Snapshot
	for time.Now().Before(deadline) {
		snap, err := s.snapshot()
		if err == nil {
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
	b, _ := json.MarshalIndent(last, "", " ")
	require.Fail(t, "not in time: "+what, "%s", b)
	return nil
}

// backup asks for one.
func (s *served) backup(t *testing.T, name, kind string) api.Run {
	t.Helper()
	var run api.Run
	code, err := s.ask(http.MethodPost, "/v1/backups", map[string]any{"repo": name, "type": kind}, &run)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, code, "%+v", run)
	return run
}

func runOf(s *api.Snapshot, id string) api.Run {
	for _, r := range s.Runs {
		if r.ID == id {
			return r
		}
	}
	return api.Run{}
}

// ended reports whether a run has ended, as the snapshot shows it.
func ended(s *api.Snapshot, id string) bool { return runOf(s, id).ID != "" && runOf(s, id).Final() }

func repoOf(s *api.Snapshot, name string) api.Repository {
	for _, r := range s.Repos {
		if r.Name == name {
			return r
		}
	}
	return api.Repository{}
}

func problems(s *api.Snapshot) string {
	var codes []string
	for _, p := range s.Problems {
		codes = append(codes, strings.TrimSpace(p.Code+" "+p.Repo+p.Node))
	}
	return strings.Join(codes, ", ")
}

// open opens a file system repository as the test sees it.
func open(t *testing.T, dir string) *repo.Repository {
	t.Helper()
	store, err := filesystem.New(filesystem.Options{Path: dir})
	require.NoError(t, err)
	below, err := prefix.New(store, "hippo")
	require.NoError(t, err)
	r, err := repo.Open(repo.Options{Name: "repo1", Store: below, Cluster: "hippo"})
	require.NoError(t, err)
	return r
}
