package rest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/apitest"
	"github.com/walkeep/walkeep/api/client"
	"github.com/walkeep/walkeep/api/rest"
	"github.com/walkeep/walkeep/repo"
)

// fault asks for something that must fail.
func fault(t *testing.T, h http.Handler, method, path, body string, status int) *api.Fault {
	t.Helper()
	w := ask(t, h, method, path, body)
	require.Equal(t, status, w.Code, "%s %s %.100s: %s", method, path, body, w.Body)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	f := &api.Fault{}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), f))
	require.Equal(t, status, f.Status)
	require.NotEmpty(t, f.Type)
	require.NotEmpty(t, f.Title)
	return f
}

func TestFaultsOfPathsAndMethods(t *testing.T) {
	h := handlerOf(t, rest.Options{})
	for _, path := range []string{"/v1/", "/v1/nothing", "/nothing", "/v1/repos/repo1/backups", "/v2/backups", "/v1/runs/a/b/c"} {
		f := fault(t, h, "GET", path, "", 404)
		require.ErrorIs(t, f, api.ErrNotFound)
	}
	for path, allow := range map[string]string{"/v1/health": "GET, HEAD", "/v1/backups": "GET, HEAD, POST", "/v1/pause": "POST"} {
		w := ask(t, h, "DELETE", path, "")
		require.Equal(t, 405, w.Code)
		require.Equal(t, allow, w.Header().Get("Allow"))
		fault(t, h, "DELETE", path, "", 405)
	}
	require.Equal(t, 307, ask(t, h, "GET", "/v1//health", "").Code, "a path is cleaned")
	for _, path := range []string{
		"/v1/repos/nope", "/v1/repos/nope/backups/x", "/v1/repos/repo1/backups/nope", "/v1/runs/nope", "/v1/runs/nope/events",
		"/v1/wal?repo=nope", "/v1/gaps?repo=nope", "/v1/windows?repo=nope", "/v1/backups?repo=nope", "/v1/runs?repo=nope",
		"/v1/can-restore?at=2026-11-22T12:00:00Z&repo=nope",
	} {
		require.ErrorIs(t, fault(t, h, "GET", path, "", 404), api.ErrNotFound)
	}
	for _, path := range []string{"/v1/repos/nope/expire", "/v1/repos/nope/verify", "/v1/repos/nope/repair", "/v1/repos/nope/drill", "/v1/repos/nope/pause", "/v1/repos/nope/resume", "/v1/runs/nope/cancel"} {
		require.ErrorIs(t, fault(t, h, "POST", path, "", 404), api.ErrNotFound)
	}
}

func TestFaultsOfParameters(t *testing.T) {
	h := handlerOf(t, rest.Options{})
	long := strings.Repeat("x", 5000)
	for _, path := range []string{
		"/v1/backups?limit=0", "/v1/backups?limit=x", "/v1/backups?limit=10001", "/v1/backups?type=weekly", "/v1/backups?since=yesterday",
		"/v1/backups?until=2026", "/v1/backups?after=x", "/v1/backups?after=x~y~z", "/v1/backups?unknown=1", "/v1/backups?repo=" + long,
		"/v1/backups?annotation=" + long, "/v1/runs?state=odd", "/v1/runs?kind=odd", "/v1/runs?after=nope", "/v1/can-restore", "/v1/can-restore?at=now",
		"/v1/can-restore?at=2026-11-22", "/v1/health?x", "/v1/runs/" + long,
	} {
		f := fault(t, h, "GET", path, "", 422)
		require.ErrorIs(t, f, api.ErrInvalid)
		require.NotEmpty(t, f.Errors, path)
		require.NotContains(t, f.Error(), long)
	}
}

func TestFaultsOfBodies(t *testing.T) {
	service := apitest.New(apitest.Sample(), nil)
	h := handlerOf(t, rest.Options{Service: service})
	before := service.Snapshot()
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprint(i)] = "x"
	}
	big, err := json.Marshal(api.BackupRequest{Repo: "repo2", Type: "full", Annotations: many})
	require.NoError(t, err)
	for body, status := range map[string]int{
		``: 400, `{`: 400, `{}{}`: 400, `[1,`: 400, "\xff": 400,
		`null`: 422, `[]`: 422, `{}`: 422, `"x"`: 422, `1e999`: 400,
		`{"repo":"repo2"}`:                                     422,
		`{"repo":"repo2","type":"weekly"}`:                     422,
		`{"repo":"","type":"full"}`:                            422,
		`{"repo":7,"type":"full"}`:                             422,
		`{"repo":"repo2","type":"full","annotation":{}}`:       422, // misspelled
		`{"repo":"repo2","type":"full","annotations":{"":""}}`: 422,
		`{"repo":"repo2","type":"full","annotations":{"a":1}}`: 422,
		`{"repo":"repo2","type":"full","annotations":{"a":"` + strings.Repeat("v", 1001) + `"}}`: 422,
		string(big):                422,
		strings.Repeat("[", 20000): 400,
		`{"repo":"` + strings.Repeat("x", 64<<10) + `"}`: 413,
		`{"repo":"nope","type":"full"}`:                  404,
	} {
		fault(t, h, "POST", "/v1/backups", body, status)
	}
	fault(t, h, "POST", "/v1/repos/repo2/expire", `{"dryrun":true}`, 422) // must not become a real one
	fault(t, h, "POST", "/v1/repos/repo2/expire", `{"dry_run":"true"}`, 422)
	dry := ask(t, h, "POST", "/v1/repos/repo2/expire", `{"dry_run":true}`)
	require.Equal(t, 200, dry.Code)
	require.Empty(t, dry.Header().Get("Location"))
	for _, ct := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/vnd.x+json"} {
		r := httptest.NewRequest("POST", "/v1/backups", strings.NewReader(`{"repo":"repo2","type":"full"}`))
		r.Header.Set("Content-Type", ct)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 415, w.Code, ct)
	}
	require.Same(t, before, service.Snapshot(), "something was begun")
}

func TestFaultsOfTheService(t *testing.T) {
	service := apitest.New(apitest.Sample(), nil)
	h := handlerOf(t, rest.Options{Service: service})
	require.ErrorIs(t, fault(t, h, "POST", "/v1/backups", `{"repo":"repo1","type":"full"}`, 409), api.ErrBusy)
	require.ErrorIs(t, fault(t, h, "POST", "/v1/runs/20261122-010000-repo1-full/cancel", "", 409), api.ErrNotRunning)
	require.Equal(t, 200, ask(t, h, "POST", "/v1/repos/repo2/pause", "").Code)
	require.ErrorIs(t, fault(t, h, "POST", "/v1/repos/repo2/verify", "", 409), api.ErrPaused)
	require.Equal(t, 200, ask(t, h, "POST", "/v1/resume", "").Code)
	require.Equal(t, 202, ask(t, h, "POST", "/v1/repos/repo2/expire", "").Code)
	service.Fail(fmt.Errorf("walkeep-1 leads: %w", api.ErrNotLeader))
	require.ErrorIs(t, fault(t, h, "POST", "/v1/pause", "", 503), api.ErrNotLeader)
	service.Fail(fmt.Errorf("ask the agent: %w", context.DeadlineExceeded))
	fault(t, h, "POST", "/v1/pause", "", 504)
	service.Fail(errors.New("disk full"))
	require.Contains(t, fault(t, h, "POST", "/v1/pause", "", 500).Detail, "disk full")
}

// TestPanic: a fault of ours ends one request only.
func TestPanic(t *testing.T) {
	service := &panicking{Service: apitest.New(apitest.Sample(), nil)}
	f := serve(t, rest.Options{Service: service}, rest.ServerOptions{})
	status, h, _ := f.request(f.http(nil), "POST", "/v1/pause", operatorToken, "")
	require.Equal(t, 500, status)
	require.Equal(t, "application/problem+json", h.Get("Content-Type"))
	status, _, _ = f.request(f.http(nil), "GET", "/v1/health", operatorToken, "")
	require.Equal(t, 200, status)
}

type panicking struct{ *apitest.Service }

func (panicking) Pause(context.Context, string, bool) error { panic("a fault of ours") }

// slow is a service that does not answer.
type slow struct{ *apitest.Service }

func (slow) CanRestore(ctx context.Context, _ api.RestoreQuestion) (api.RestoreAnswer, error) {
	<-ctx.Done()
	return api.RestoreAnswer{}, ctx.Err()
}

func TestServiceThatDoesNotAnswer(t *testing.T) {
	h := handlerOf(t, rest.Options{Service: slow{apitest.New(apitest.Sample(), nil)}, Timeout: 50 * time.Millisecond})
	fault(t, h, "GET", "/v1/can-restore?at=2026-11-22T12:00:00Z", "", 504)
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	now := apitest.Now()
	h := handlerOf(t, rest.Options{Rate: 2, Now: func() time.Time { return now }})
	from := func(addr string) int {
		r := httptest.NewRequest("GET", "/v1/health", nil)
		r.RemoteAddr = addr
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == 429 {
			require.NotEmpty(t, w.Header().Get("Retry-After"))
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		}
		return w.Code
	}
	for range 10 {
		require.Equal(t, 200, from("10.0.0.1:1"))
	}
	require.Equal(t, 429, from("10.0.0.1:2"))
	require.Equal(t, 200, from("10.0.0.2:1"), "another client")
	require.Equal(t, 200, ask(t, h, "GET", "/healthz", "").Code)
	now = now.Add(time.Second)
	require.Equal(t, 200, from("10.0.0.1:3"))
	require.Equal(t, 200, from("10.0.0.1:3"))
	require.Equal(t, 429, from("10.0.0.1:3"))
	for i := range 10 { // a machine has its whole network of IPv6
		require.Equal(t, 200, from(fmt.Sprintf("[2001:db8::%x]:1", i)))
	}
	require.Equal(t, 429, from("[2001:db8::ff]:1"))
	for i := range 4500 { // more than are remembered
		from(fmt.Sprintf("10.1.%d.%d:1", i/250, i%250))
	}
	now = now.Add(time.Minute)
	require.Equal(t, 200, from("10.9.9.9:1"))
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	ctx, c := testContext(t), f.client(f.operators)
	run, err := c.StartBackup(ctx, api.BackupRequest{Repo: "repo2", Type: "full", Key: "k", Annotations: map[string]string{"a": "b"}})
	require.NoError(t, err)
	require.Equal(t, "operator token", run.By)
	require.Equal(t, map[string]string{"a": "b"}, run.Annotations)
	same, err := c.StartBackup(ctx, api.BackupRequest{Repo: "repo2", Type: "full", Key: "k"})
	require.NoError(t, err)
	require.Equal(t, run.ID, same.ID)
	_, err = c.StartBackup(ctx, api.BackupRequest{Repo: "repo3", Type: "full", Key: "k"})
	require.ErrorIs(t, err, api.ErrInvalid)
	_, err = c.StartBackup(ctx, api.BackupRequest{Repo: "repo2", Type: "full"})
	require.ErrorIs(t, err, api.ErrBusy)
	h := handlerOf(t, rest.Options{})
	w := ask(t, h, "POST", "/v1/backups", `{"repo":"repo2","type":"full"}`)
	require.Equal(t, 202, w.Code)
	require.Equal(t, 200, ask(t, h, "GET", w.Header().Get("Location"), "").Code)
}

// TestPages walks through all pages while backups come and go.
func TestPages(t *testing.T) {
	t.Parallel()
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	f.service.Update(func(s *api.Snapshot) { s.Repos[0].Backups = apitest.Backups(204) })
	var all, seen []string
	page := func(after string) string {
		status, _, content := f.request(f.http(nil), "GET", "/v1/backups?limit=7&after="+after, viewerToken, "")
		require.Equal(t, 200, status)
		var p api.BackupPage
		require.NoError(t, json.Unmarshal([]byte(content), &p))
		for _, b := range p.Backups {
			seen = append(seen, b.Repo+" "+string(b.Label))
		}
		return p.Next
	}
	list, err := f.client(f.viewer).Backups(testContext(t), client.BackupQuery{})
	require.NoError(t, err)
	for _, b := range list {
		all = append(all, b.Repo+" "+string(b.Label))
	}
	require.Len(t, all, 204+8)
	require.True(t, slices.IsSortedFunc(list, func(a, b api.ListedBackup) int { return b.Stop.Compare(a.Stop) }))
	for after := page(""); after != ""; after = page(after) {
		if len(seen) == 70 {
			f.service.Update(func(s *api.Snapshot) {
				b := apitest.Backups(208) // older ones come, and the one that the page ended with is gone
				i := slices.IndexFunc(b, func(b api.Backup) bool { return "repo1 "+string(b.Label) == seen[69] })
				if i >= 0 {
					b = slices.Delete(b, i, i+1)
				}
				s.Repos[0].Backups = b
			})
		}
	}
	require.Len(t, seen, len(all)+4)
	require.Equal(t, all, seen[:len(all)])
}

func TestFilters(t *testing.T) {
	t.Parallel()
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	ctx, c := testContext(t), f.client(f.viewer)
	count := func(q client.BackupQuery) int {
		l, err := c.Backups(ctx, q)
		require.NoError(t, err)
		return len(l)
	}
	today := apitest.Now().Truncate(24 * time.Hour)
	require.Equal(t, 20+8, count(client.BackupQuery{}))
	require.Equal(t, 8, count(client.BackupQuery{Repo: "repo2"}))
	require.Equal(t, 0, count(client.BackupQuery{Repo: "repo3"}))
	require.Equal(t, 5+2, count(client.BackupQuery{Type: repo.Full}))
	require.Equal(t, 4+4, count(client.BackupQuery{Since: today}))
	require.Equal(t, 16+4, count(client.BackupQuery{Until: today}))
	require.Equal(t, 5+2, count(client.BackupQuery{Annotation: "ticket=OPS-12"}))
	require.Equal(t, 5+2, count(client.BackupQuery{Annotation: "ticket"}))
	require.Equal(t, 0, count(client.BackupQuery{Annotation: "ticket="}))
	require.Equal(t, 2, count(client.BackupQuery{Repo: "repo1", Type: repo.Full, Since: today.AddDate(0, 0, -1)}))
	runs, err := c.Runs(ctx, client.RunQuery{State: api.Failed})
	require.NoError(t, err)
	require.Len(t, runs, 1)
	runs, err = c.Runs(ctx, client.RunQuery{Repo: "repo1", Kind: "full"})
	require.NoError(t, err)
	require.Len(t, runs, 1)

	details, err := c.Backup(ctx, "repo1", "20261122-010000F_20261122-070000I")
	require.NoError(t, err)
	require.Equal(t, []repo.Label{"20261122-010000F", "20261122-010000F_20261122-040000D"}, details.Needs)
	require.Equal(t, []repo.Label{"20261122-010000F_20261122-100000I"}, details.NeededBy)
}

// TestMoments: an offset whose + was not escaped.
func TestMoments(t *testing.T) {
	h := handlerOf(t, rest.Options{})
	for _, at := range []string{"2026-11-22T12:00:00Z", "2026-11-22T13:00:00%2B01:00", "2026-11-22T13:00:00+01:00"} {
		w := ask(t, h, "GET", "/v1/can-restore?at="+at, "")
		require.Equal(t, 200, w.Code, w.Body)
		var a api.RestoreAnswer
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
		require.True(t, a.Possible)
		require.True(t, a.At.Equal(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)))
	}
}

// TestNoNullLists: a service that leaves lists out.
func TestNoNullLists(t *testing.T) {
	h := handlerOf(t, rest.Options{Service: apitest.New(&api.Snapshot{Repos: []api.Repository{{Name: "repo1"}}}, nil)})
	for _, path := range []string{"/v1/snapshot", "/v1/health", "/v1/nodes", "/v1/schedule", "/v1/repos", "/v1/repos/repo1", "/v1/wal", "/v1/gaps", "/v1/windows", "/v1/backups", "/v1/runs"} {
		w := ask(t, h, "GET", path, "")
		require.Equal(t, 200, w.Code)
		require.NotContains(t, w.Body.String(), "null", path)
	}
	require.Equal(t, 503, ask(t, h, "GET", "/readyz", "").Code, "it has looked at nothing yet")
}

func TestMounts(t *testing.T) {
	who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, api.IdentityOf(r.Context()).Role)
	})
	f := serve(t, rest.Options{Mounts: []rest.Mount{{Pattern: "GET /metrics", Handler: who, Role: api.Viewer}, {Pattern: "GET /", Handler: who}}}, rest.ServerOptions{})
	c := f.http(nil)
	for _, row := range []struct {
		path, token string
		status      int
		content     string
	}{
		{"/", "", 200, "nobody"},
		{"/page", viewerToken, 200, "viewer"},
		{"/metrics", viewerToken, 200, "viewer"},
		{"/metrics", operatorToken, 200, "operator"},
		{"/metrics", "", 401, ""},
		{"/", "wrong", 401, ""},
		{"/v1/nothing", operatorToken, 404, ""},
	} {
		status, _, content := f.request(c, "GET", row.path, row.token, "")
		require.Equal(t, row.status, status, row.path)
		require.Contains(t, content, row.content)
	}
	status, _, _ := f.request(c, "POST", "/", operatorToken, "")
	require.Equal(t, 405, status)
}

func BenchmarkBackups(b *testing.B) {
	for _, limit := range []int{100, 5000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			h := handlerOf(b, rest.Options{Service: apitest.New(apitest.Large(5000), nil), Rate: 1e9})
			for b.Loop() {
				if w := ask(b, h, "GET", fmt.Sprintf("/v1/backups?limit=%d", limit), ""); w.Code != 200 {
					b.Fatal(w.Body)
				}
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	h := handlerOf(b, rest.Options{Service: apitest.New(apitest.Large(5000), nil), Rate: 1e9})
	for b.Loop() {
		if w := ask(b, h, "GET", "/v1/snapshot", ""); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
