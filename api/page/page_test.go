package page

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/scenes"
)

// shower is a service that shows the snapshot it was given last.
type shower struct {
	api.Service
	mu       sync.Mutex
	snapshot *api.Snapshot
	changed  chan struct{}
}

func newShower(s *api.Snapshot) *shower {
	return &shower{snapshot: s, changed: make(chan struct{})}
}

func (s *shower) Snapshot() *api.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

func (s *shower) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *shower) set(n *api.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot = n
	close(s.changed)
	s.changed = make(chan struct{})
}

func fixedNow() time.Time { return scenes.Now }

func serve(t *testing.T, o Options) *httptest.Server {
	t.Helper()
	o.Now = fixedNow
	h, err := New(o)
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot *api.Snapshot
		has      []string
		lacks    []string
	}{
		"all well": {
			scenes.AllWell(),
			[]string{"All is well", "Can be restored to any moment", "18 Oct 03:23", "04:12:37", "in repo1)", "Nothing is running", "Europe/Berlin", "up to date", "restore test", "took 22 min"},
			[]string{`class="hole"`, "Recent failures"},
		},
		"gaps": {
			scenes.WithGap(),
			[]string{
				"Not well", "2 critical problems, 2 warnings", "failed</b>", `class="hole"`, "#wal-gap", "1 gap", "7 segments behind for 4 min",
				"no space left on device", "Conflicts:", "00000002000005A30000007F", "2 pages with a wrong checksum", "pinned",
			},
			nil,
		},
		"dead repository": {
			scenes.DeadRepository(),
			[]string{"Not well", "Cannot be looked at:", "connection refused", "What is shown is from", "Recent failures", "attempt 3", "down", "212 segments behind for 62 min"},
			nil,
		},
		"running": {
			scenes.Running(),
			[]string{"All is well", `value="44"`, "93 GiB of 212 GiB", "181 MiB/s", "11 min left", "by anna", "schedules paused", "reading base/16384", "waiting"},
			nil,
		},
		"nothing yet": {
			&api.Snapshot{Cluster: "new"},
			[]string{"Needs attention", "no moment that can be restored to", "Nothing is scheduled", "no leader"},
			[]string{"All is well"}, // a level that nobody set is not a good one
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, Options{Service: newShower(c.snapshot)})
			resp, body := get(t, srv.URL)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			for _, want := range c.has {
				require.True(t, strings.Contains(body, want), want) // the body is too long for a message
			}
			for _, no := range c.lacks {
				require.False(t, strings.Contains(body, no), no)
			}
		})
	}
}

// TestEscapes gives the page texts from outside that would be markup.
func TestEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	s := scenes.WithGap()
	s.Cluster, s.Leader, s.Version, s.TimeZone = evil, evil, evil, evil
	for i := range s.Problems {
		s.Problems[i] = api.Problem{Level: evil, Code: evil, Text: evil, Repo: evil, Node: evil}
	}
	for i := range s.Repos {
		r := &s.Repos[i]
		r.Name, r.Location, r.Error, r.Retention = evil, evil, evil, evil
		r.Conflicts = []string{evil}
		r.Schedules = map[string]string{evil: evil}
		for j := range r.Backups {
			r.Backups[j].Label, r.Backups[j].Type, r.Backups[j].From = evil, evil, evil
			r.Backups[j].Annotations = map[string]string{evil: evil}
		}
	}
	s.Runs = []api.Run{{ID: evil, Kind: evil, Repo: evil, State: evil, Error: evil}, {ID: evil, Kind: evil, State: api.Running, Stage: evil, Node: evil, By: evil}}
	s.Next = []api.NextRun{{Repo: evil, Kind: evil}}
	s.Nodes = append(s.Nodes, api.Node{Name: evil, Role: evil, Error: evil, Agent: &api.Agent{Error: evil}}, api.Node{
		Name: evil, Up: true, Role: evil, Agent: &api.Agent{Up: true, Queues: []api.AgentQueue{{Repo: evil, Error: evil}}},
	})
	srv := serve(t, Options{Service: newShower(s)})
	resp, body := get(t, srv.URL)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	for _, no := range []string{"<script>alert", "<img", `"">`} {
		require.False(t, strings.Contains(body, no), no)
	}
	require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
	require.NotContains(t, resp.Header.Get("Content-Security-Policy"), "unsafe")
}

// TestViewersOnly: without a token nothing of the cluster is told.
func TestViewersOnly(t *testing.T) {
	srv := serve(t, Options{
		Service: newShower(scenes.AllWell()),
		Viewer:  func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer good" },
	})
	for _, path := range []string{"/", "/page", "/?span=all"} {
		resp, body := get(t, srv.URL+path)
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		require.NotContains(t, body, "hippo")
		require.NotContains(t, body, "repo1")
	}
	resp, body := get(t, srv.URL+"/page", "Authorization", "Bearer good")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, body, "hippo")
	resp, _ = get(t, srv.URL+"/page/script.js")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	resp, _ = get(t, srv.URL+"/page/other.js")
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
}

// TestWaitsForNews: who has the newest content gets an answer when there is
// newer, and 304 when there is none for a while.
func TestWaitsForNews(t *testing.T) {
	service := newShower(scenes.AllWell())
	srv := serve(t, Options{Service: service, Wait: 50 * time.Millisecond})
	resp, _ := get(t, srv.URL+"/page")
	tag := resp.Header.Get("ETag")
	require.NotEmpty(t, tag)
	resp, body := get(t, srv.URL+"/page", "If-None-Match", tag)
	require.Equal(t, http.StatusNotModified, resp.StatusCode)
	require.Empty(t, body)

	patient := serve(t, Options{Service: service, Wait: time.Minute})
	resp, _ = get(t, patient.URL+"/page")
	tag = resp.Header.Get("ETag")
	var waiting sync.WaitGroup
	errs := make(chan error, 200)
	for range 200 { // viewers
		waiting.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, patient.URL+"/page", nil)
			if err == nil {
				req.Header.Set("If-None-Match", tag)
				var resp *http.Response
				if resp, err = http.DefaultClient.Do(req); err == nil {
					var b []byte
					b, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err == nil && !strings.Contains(string(b), "Not well") {
						err = fmt.Errorf("status %d without the news", resp.StatusCode)
					}
				}
			}
			errs <- err
		})
	}
	service.set(scenes.DeadRepository())
	waiting.Wait()
	for range 200 {
		require.NoError(t, <-errs)
	}
}

func TestSpans(t *testing.T) {
	srv := serve(t, Options{Service: newShower(scenes.Large())})
	for _, l := range spans {
		resp, body := get(t, srv.URL+"/?span="+string(l.span))
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Contains(t, body, fmt.Sprintf(`<a href="?span=%s" aria-current="page">`, l.span))
		require.Less(t, strings.Count(body, `<use href="#shape-`), 4*3*220, "old backups are drawn as one")
		require.Less(t, len(body), 1<<20)
	}
	resp, _ := get(t, srv.URL+"/?span=nonsense")
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// BenchmarkPage renders four repositories with 5,000 backups and a million
// segments each, 1,200 gaps among them.
func BenchmarkPage(b *testing.B) {
	s := scenes.Large()
	for _, of := range []span{spanRecent, spanAll} {
		b.Run(string(of), func(b *testing.B) {
			h, err := New(Options{Service: newShower(s), Now: fixedNow})
			require.NoError(b, err)
			for b.Loop() {
				h.(*handler).of = nil // render anew
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?span="+string(of), nil))
				require.Equal(b, http.StatusOK, w.Code)
			}
		})
	}
}
