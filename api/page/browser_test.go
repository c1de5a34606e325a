package page

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/scenes"
)

const operatorToken = "an-operators-token"

// stage is the page as a browser sees it: beside it stands what the test needs
// of the REST API, and a way for the browser's script to change the scene.
type stage struct {
	service *shower
	page    http.Handler

	mu    sync.Mutex // guards the following
	calls []call
	down  bool
}

type call struct {
	Method, Path, Key string
	Body              map[string]any
}

var plays = map[string]func() *api.Snapshot{
	"well": scenes.AllWell, "gaps": scenes.WithGap, "dead": scenes.DeadRepository, "running": scenes.Running, "large": scenes.Large,
}

func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	switch {
	case r.URL.Path == "/stage/scene":
		s.service.set(plays[r.URL.Query().Get("name")]())
	case r.URL.Path == "/stage/down":
		s.mu.Lock()
		s.down = r.URL.Query().Get("is") == "true"
		s.mu.Unlock()
	case r.URL.Path == "/stage/calls":
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.calls)
	case down:
		panic(http.ErrAbortHandler) // the connection breaks
	case len(r.URL.Path) > 4 && r.URL.Path[:4] == "/v1/":
		s.rest(w, r)
	default:
		s.page.ServeHTTP(w, r)
	}
}

// rest answers as the REST API does to operators and to others.
func (s *stage) rest(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+operatorToken {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"title": "Forbidden", "detail": "operators only"}`)
		return
	}
	c := call{Method: r.Method, Path: r.URL.Path, Key: r.Header.Get("Idempotency-Key")}
	_ = json.NewDecoder(r.Body).Decode(&c.Body)
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	if c.Body["type"] == "differential" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"title": "Conflict", "detail": "repo1: another run of the repository is under way"}`)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{}`)
}

// TestBrowser drives headless Chromium through the page: what it shows, in both
// widths and both colour schemes, that it stays live, what operators do, and
// what it looks like when the service is gone. testdata/browser.mjs does it.
// PAGE_PICTURES names a directory to put more pictures into, for people.
func TestBrowser(t *testing.T) {
	pictures, every := os.Getenv("PAGE_PICTURES"), "yes"
	if pictures == "" {
		pictures, every = t.TempDir(), ""
	}
	open := newStage(t, nil)
	closed := newStage(t, func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+operatorToken })
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "node", "testdata/browser.mjs", open, closed, pictures, operatorToken, every)
	cmd.Env = append(os.Environ(), "PLAYWRIGHT="+filepath.Join(root, ".cache/browser/node_modules/playwright-core/index.mjs"), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

func newStage(t *testing.T, viewer func(*http.Request) bool) string {
	s := &stage{service: newShower(scenes.AllWell())}
	var err error
	s.page, err = New(Options{Service: s.service, Now: fixedNow, Viewer: viewer})
	require.NoError(t, err)
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}
