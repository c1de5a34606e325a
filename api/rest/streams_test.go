package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/client"
	"github.com/walkeep/walkeep/api/rest"
	"github.com/walkeep/walkeep/internal/credentials"
)

// copied makes the running backup of the sample go on.
func (f *fixture) copied(bytes int64) {
	f.service.UpdateRun(running, func(r *api.Run) { r.CopiedBytes = bytes })
}

func (f *fixture) end() {
	f.service.UpdateRun(running, func(r *api.Run) { r.State, r.Label, r.Ended = api.Done, "20261122-123000F", time.Now() })
}

func TestFollow(t *testing.T) {
	t.Parallel()
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	var seen []int64
	run, err := f.client(f.viewer).Follow(testContext(t), running, func(r api.Run) {
		seen = append(seen, r.CopiedBytes)
		switch len(seen) {
		case 1:
			f.copied(6 << 30)
		case 2:
			f.end()
		}
	})
	require.NoError(t, err)
	require.Equal(t, api.Done, run.State)
	require.Equal(t, []int64{5 << 30, 6 << 30, 6 << 30}, seen)
	run, err = f.client(f.viewer).Follow(testContext(t), running, nil)
	require.NoError(t, err, "a run that has ended has one event")
	require.Equal(t, api.Done, run.State)
	_, err = f.client(f.viewer).Follow(testContext(t), "nope", nil)
	require.ErrorIs(t, err, api.ErrNotFound)
}

// TestTwoHundredFollow the same run; ten of them do not read, and harm nobody.
// The deadline for reading a request does not end a stream.
func TestTwoHundredFollow(t *testing.T) {
	t.Parallel()
	f := serve(t, rest.Options{}, rest.ServerOptions{ReadTimeout: 3 * time.Second})
	ctx := testContext(t)
	for range 10 {
		f.silent(running)
	}
	began := time.Now()
	var following, ended atomic.Int32
	var wg sync.WaitGroup
	for range 200 {
		c := f.client(f.viewer)
		wg.Go(func() {
			first := true
			run, err := c.Follow(ctx, running, func(api.Run) {
				if first {
					following.Add(1)
				}
				first = false
			})
			if err == nil && run.State == api.Done {
				ended.Add(1)
			} else {
				t.Error(err)
			}
		})
	}
	eventually(t, "all follow", func() bool { return following.Load() == 200 })
	for i := range 20 {
		f.copied(int64(i))
	}
	health, err := f.client(f.viewer).Health(ctx)
	require.NoError(t, err)
	require.Equal(t, "hippo", health.Cluster)
	eventually(t, "longer than a request may take", func() bool { return time.Since(began) > 4*time.Second })
	require.Zero(t, ended.Load())
	f.end()
	wg.Wait()
	require.EqualValues(t, 200, ended.Load())
}

// silent follows a run without ever reading.
func (f *fixture) silent(id string) net.Conn {
	pool, err := credentials.ReadPool(f.ca.File())
	require.NoError(f.t, err)
	d := &net.Dialer{Timeout: time.Minute}
	c, err := tls.DialWithDialer(d, "tcp", f.server.Addr(), &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13})
	require.NoError(f.t, err)
	f.t.Cleanup(func() { c.Close() })
	_, err = fmt.Fprintf(c, "GET /v1/runs/%s/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id, viewerToken)
	require.NoError(f.t, err)
	return c
}

// TestSlowClientIsCutOff: its place is free again, while the run goes on.
func TestSlowClientIsCutOff(t *testing.T) {
	t.Parallel()
	f := serve(t, rest.Options{Streams: 1, Slow: time.Second}, rest.ServerOptions{})
	f.silent(running)
	h := f.http(nil)
	follow := func() int {
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", f.server.URL()+"/v1/runs/"+running+"/events", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+viewerToken)
		resp, err := h.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		if resp.StatusCode == 503 {
			require.NotEmpty(t, resp.Header.Get("Retry-After"))
			require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
		}
		return resp.StatusCode
	}
	eventually(t, "the silent one has the place", func() bool { return follow() == 503 })
	large := strings.Repeat("x", 1<<20)
	n := 0
	eventually(t, "the silent one is cut off", func() bool {
		n++
		f.service.UpdateRun(running, func(r *api.Run) { r.Stage = fmt.Sprint(n) + large })
		return follow() == 200
	})
}

// TestShutdownEndsStreams, and a client goes on with the service that comes
// after it, at the same address.
func TestShutdownEndsStreams(t *testing.T) {
	t.Parallel()
	first := serve(t, rest.Options{}, rest.ServerOptions{})
	ctx := testContext(t)
	began, done := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(began) })
	var run api.Run
	var err error
	c := first.client(first.viewer)
	go func() {
		defer close(done)
		run, err = c.Follow(ctx, running, func(api.Run) { once() })
	}()
	<-began
	stopping := time.Now()
	first.stop()
	require.Less(t, time.Since(stopping), time.Minute)
	second := serve(t, rest.Options{Authenticators: []api.Authenticator{everybody{api.Viewer}}}, rest.ServerOptions{Listen: first.server.Addr()})
	// Its certificate is of another authority, so the client cannot reach it.
	select {
	case <-done:
		require.NoError(t, err)
	case <-time.After(1500 * time.Millisecond):
	}
	second.stop()
	so := rest.ServerOptions{Listen: first.server.Addr()}
	so.CertFile, so.KeyFile = first.ca.Issue("server", time.Hour)
	so.Handler = handlerOf(t, rest.Options{Service: first.service})
	third, errServer := rest.NewServer(so)
	require.NoError(t, errServer)
	stopCtx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- third.Run(stopCtx) }()
	first.end()
	<-done
	require.NoError(t, err)
	require.Equal(t, api.Done, run.State)
	stop()
	require.NoError(t, <-ended)
}

func TestClientWithoutService(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	c, err := client.New(client.Options{URL: url, Patience: time.Nanosecond})
	require.NoError(t, err)
	_, err = c.Health(testContext(t))
	require.ErrorIs(t, err, client.ErrUnreachable)
	_, err = c.StartBackup(testContext(t), api.BackupRequest{Repo: "repo1", Type: "full"})
	require.ErrorIs(t, err, client.ErrUnreachable)
	_, err = c.Follow(testContext(t), "x", nil)
	require.ErrorIs(t, err, client.ErrUnreachable)
	for _, bad := range []string{"", "nowhere", "ftp://x", "http://example.org", "https://user:pass@example.org", "https://example.org/path", "http://10.0.0.1:80"} {
		_, err := client.New(client.Options{URL: bad})
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "pass@")
	}
	// Something else that answers.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }))
	defer other.Close()
	c, err = client.New(client.Options{URL: other.URL})
	require.NoError(t, err)
	_, err = c.Health(testContext(t))
	require.ErrorContains(t, err, "not from a walkeep service")
}

// TestGiantBodies are refused when they are announced, and when they are not,
// before much of them was read.
func TestGiantBodies(t *testing.T) {
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	before := f.service.Snapshot()
	for _, length := range []int64{1 << 40, -1} {
		endless := &counter{r: io.MultiReader(strings.NewReader(`{"repo":"`), endless{})}
		r, err := http.NewRequestWithContext(testContext(t), "POST", f.server.URL()+"/v1/backups", io.NopCloser(endless))
		require.NoError(t, err)
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+operatorToken)
		r.Header.Set("Content-Type", "application/json")
		resp, err := f.http(nil).Do(r)
		if err == nil { // or the connection was cut before the answer was read
			require.Equal(t, 413, resp.StatusCode)
			resp.Body.Close()
		}
		require.Less(t, endless.n.Load(), int64(32<<20))
	}
	require.Same(t, before, f.service.Snapshot())
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// TestSlowRequests: a header or a body that does not come is not waited for.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	f := serve(t, rest.Options{}, rest.ServerOptions{ReadTimeout: time.Second})
	pool, err := credentials.ReadPool(f.ca.File())
	require.NoError(t, err)
	for _, begin := range []string{
		"", "GET /v1/hea",
		"POST /v1/backups HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + operatorToken + "\r\nContent-Length: 100\r\n\r\n{",
	} {
		c, err := tls.Dial("tcp", f.server.Addr(), &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13})
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		_, err = io.WriteString(c, begin)
		require.NoError(t, err)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			require.Contains(t, line, " 40", begin)
		}
		_, err = io.Copy(io.Discard, c)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, c.Close())
	}
	status, _, _ := f.request(f.http(nil), "GET", "/v1/health", viewerToken, "")
	require.Equal(t, 200, status)
}

func FuzzBodies(f *testing.F) {
	f.Add("/v1/backups", []byte(`{"repo":"repo2","type":"full","annotations":{"a":"b"}}`))
	f.Add("/v1/backups", []byte(`{"repo":null,"type":[{}]}`))
	f.Add("/v1/repos/repo2/expire", []byte(`{"dry_run":true}`))
	f.Add("/v1/pause", []byte(`x`))
	f.Add("/v1/backups", []byte("\xff\x00"))
	h := handlerOf(f, rest.Options{Rate: 1e9})
	f.Fuzz(func(t *testing.T, path string, content []byte) {
		if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/events") {
			return
		}
		r, err := http.NewRequest("POST", "http://x", bytes.NewReader(content))
		require.NoError(t, err)
		r.URL.Path = path
		r.Header.Set("Content-Type", "application/json")
		sane(t, h, r)
	})
}

func FuzzQueries(f *testing.F) {
	for _, path := range []string{"/v1/backups", "/v1/runs", "/v1/can-restore", "/v1/repos/repo1/backups/x", "/v1/wal", "/page"} {
		f.Add(path, "repo=repo1&limit=3&after=1~repo1~x&since=2026-11-22T12:00:00Z&annotation=a=b", "Bearer x")
		f.Add(path, "at=2026-11-22T12:00:00 01:00&type=full&state=done", "")
		f.Add(path, "%zz&a=%00;b", "Basic")
	}
	h := handlerOf(f, rest.Options{Rate: 1e9})
	f.Fuzz(func(t *testing.T, path, query, authorization string) {
		if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/events") {
			return
		}
		r, err := http.NewRequest("GET", "http://x", nil)
		require.NoError(t, err)
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Authorization", authorization)
		sane(t, h, r)
	})
}

// sane: whatever is asked, there is an answer, and a fault is never ours.
func sane(t *testing.T, h http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.NotEqual(t, 500, w.Code, w.Body.String())
	if w.Code >= 400 && w.Code != 503 && !strings.HasSuffix(r.URL.Path, "z") {
		require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"), w.Body.String())
	}
}
