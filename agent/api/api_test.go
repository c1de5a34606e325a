package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/internal/credentials"
	"github.com/walkeep/walkeep/internal/credentials/credentialstest"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
)

const token = "correct horse battery staple"

func newAuthority(t *testing.T, name string) *credentialstest.Authority {
	return credentialstest.NewAuthority(t, t.TempDir(), name)
}

// fixture is a server at work, and what its clients need.
type fixture struct {
	t      *testing.T
	server *api.Server
	ca     *credentialstest.Authority
	pgdata string
	tokens string
	stop   func()
	client api.ClientOptions
}

func serve(t *testing.T, o api.Options) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: newAuthority(t, "ours"), pgdata: t.TempDir(), tokens: filepath.Join(t.TempDir(), "tokens")}
	require.NoError(t, os.MkdirAll(filepath.Join(f.pgdata, "pg_wal", "archive_status"), 0o700))
	require.NoError(t, os.WriteFile(f.tokens, []byte("# ours\n"+token+"\n"), 0o600))
	o.Listen, o.PGData, o.Node = "127.0.0.1:0", f.pgdata, "pg-0"
	if o.CertFile == "" {
		o.CertFile, o.KeyFile = f.ca.Issue("server", time.Hour)
	}
	if o.ClientCAFile == "" {
		o.TokenFile = f.tokens
	}
	s, err := api.New(o)
	require.NoError(t, err)
	f.server = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	f.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(f.stop)
	f.client = api.ClientOptions{URL: "https://" + s.Addr(), CAFile: f.ca.File(), TokenFile: f.tokens}
	return f
}

func (f *fixture) newClient(change func(*api.ClientOptions)) *api.Client {
	f.t.Helper()
	o := f.client
	if change != nil {
		change(&o)
	}
	c, err := api.NewClient(o)
	require.NoError(f.t, err)
	return c
}

func (f *fixture) file(name string, b []byte) string {
	path := filepath.Join(f.pgdata, "pg_wal", name)
	require.NoError(f.t, os.WriteFile(path, b, 0o600))
	return path
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// raw sends a request as it is written and returns the status line.
func (f *fixture) raw(request string) string {
	f.t.Helper()
	pool, err := credentials.ReadPool(f.ca.File())
	require.NoError(f.t, err)
	c, err := tls.Dial("tcp", f.server.Addr(), &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}})
	require.NoError(f.t, err)
	defer c.Close()
	require.NoError(f.t, c.SetDeadline(time.Now().Add(30*time.Second)))
	_, _ = io.WriteString(c, request)
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

func (f *fixture) request(method, path, headers, body string) string {
	return f.raw(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n%sContent-Length: %d\r\n\r\n%s", method, path, token, headers, len(body), body))
}

func TestTokens(t *testing.T) {
	ctx := testContext(t)
	core, logs := observer.New(zapcore.DebugLevel)
	f := serve(t, api.Options{Agent: func() any { return map[string]int{"files": 3} }, Version: "1", Log: zap.New(core)})
	c := f.newClient(nil)
	st, err := c.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, "pg-0", st.Node)
	require.NotEmpty(t, st.Instance)
	require.JSONEq(t, `{"files":3}`, string(st.Agent))
	require.Nil(t, st.Streaming)

	other := filepath.Join(t.TempDir(), "token")
	try := func(with string) error {
		require.NoError(t, os.WriteFile(other, []byte(with+"\n"), 0o600))
		_, err := f.newClient(func(o *api.ClientOptions) { o.TokenFile = other }).Status(ctx)
		return err
	}
	require.ErrorIs(t, try("correct horse battery stapl"), api.ErrRefused)
	_, err = f.newClient(func(o *api.ClientOptions) { o.TokenFile = "" }).Status(ctx)
	require.ErrorIs(t, err, api.ErrRefused)
	for _, header := range []string{"Bearer", "Bearer ", "Basic " + token, token, "Bearer " + strings.Repeat("x", 8000)} {
		require.Equal(t, "HTTP/1.1 401 Unauthorized", f.raw("GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: "+header+"\r\n\r\n"), header)
	}

	// A new one beside the old one, then alone, then none that can be read.
	const fresh = "another token, at least as long"
	require.NoError(t, os.WriteFile(f.tokens, []byte(token+"\n"+fresh+"\n"), 0o600))
	require.NoError(t, try(token))
	require.NoError(t, try(fresh))
	require.NoError(t, os.WriteFile(f.tokens, []byte(fresh+"\n"), 0o600))
	require.ErrorIs(t, try(token), api.ErrRefused)
	require.NoError(t, try(fresh))
	require.NoError(t, os.Remove(f.tokens))
	require.ErrorIs(t, try(fresh), api.ErrRefused)
	require.NoError(t, os.WriteFile(f.tokens, []byte("short\n"), 0o600))
	require.ErrorIs(t, try("short"), api.ErrRefused)
	require.NoError(t, os.WriteFile(f.tokens, []byte(token+"\n"), 0o600))
	require.NoError(t, try(token))
	for _, e := range logs.All() {
		require.NotContains(t, fmt.Sprint(e.Message, e.ContextMap()), "horse")
		require.NotContains(t, fmt.Sprint(e.Message, e.ContextMap()), fresh)
	}
}

func TestClientCertificates(t *testing.T) {
	ctx := testContext(t)
	clients, others := newAuthority(t, "clients"), newAuthority(t, "others")
	f := serve(t, api.Options{ClientCAFile: clients.File()})
	with := func(a *credentialstest.Authority, life time.Duration) error {
		cert, key := a.Issue("client", life)
		_, err := f.newClient(func(o *api.ClientOptions) { o.CertFile, o.KeyFile = cert, key }).Status(ctx)
		return err
	}
	require.NoError(t, with(clients, time.Hour))
	require.Error(t, with(clients, -time.Hour)) // expired
	require.Error(t, with(others, time.Hour))
	_, err := f.newClient(nil).Status(ctx)
	require.Error(t, err)
	// Other authorities from now on.
	b, err := os.ReadFile(others.File())
	require.NoError(t, err)
	path := clients.File()
	require.NoError(t, os.WriteFile(path, b, 0o600))
	require.NoError(t, os.Chtimes(path, time.Now(), time.Now().Add(time.Second)))
	require.NoError(t, with(others, time.Hour))
}

func TestServerCertificate(t *testing.T) {
	ctx := testContext(t)
	ca := newAuthority(t, "server's")
	cert, key := ca.Issue("server", -time.Minute)
	f := serve(t, api.Options{CertFile: cert, KeyFile: key})
	status := func(a *credentialstest.Authority) error {
		_, err := f.newClient(func(o *api.ClientOptions) { o.CAFile = a.File() }).Status(ctx)
		return err
	}
	var expired x509.CertificateInvalidError
	require.ErrorAs(t, status(ca), &expired)
	require.Equal(t, x509.Expired, expired.Reason)
	ca.Issue("server", time.Hour) // the same files
	require.NoError(t, status(ca))
	require.Error(t, status(f.ca))
	// Half of a change keeps what was.
	require.NoError(t, os.WriteFile(key, []byte("nonsense"), 0o600))
	require.NoError(t, status(ca))
	ca.Issue("server", time.Hour)
	require.NoError(t, status(ca))
}

func TestOptions(t *testing.T) {
	cert, key := newAuthority(t, "ours").Issue("server", time.Hour)
	for _, o := range []api.Options{
		{},
		{TokenFile: "x"},
		{CertFile: cert, KeyFile: key},
		{CertFile: cert, KeyFile: key, TokenFile: "/nowhere"},
		{CertFile: cert, KeyFile: cert, TokenFile: key},
		{CertFile: cert, KeyFile: key, ClientCAFile: key},
	} {
		o.Listen = "127.0.0.1:0"
		_, err := api.New(o)
		require.Error(t, err)
	}
	for _, url := range []string{"", "http://plain:1", "https://", "://"} {
		_, err := api.NewClient(api.ClientOptions{URL: url})
		require.Error(t, err, url)
	}
}

const cluster pg.SystemID = 7400000000000000001

func segment(records int) (string, []byte) {
	s := waltest.New(cluster)
	s.Noise(records)
	if records == 0 {
		s.Fill(0)
	}
	name, b := s.Segment(0)
	return string(name), b
}

func TestWAL(t *testing.T) {
	ctx := testContext(t)
	f := serve(t, api.Options{})
	name, b := segment(0)
	f.file(name, b)
	_, part := segment(10)
	next := "0000000100000000000000AA"
	f.file(next, part)
	f.file("00000002.history", []byte("1\t0/5000000\tno recovery target specified\n"))
	f.file("xlogtemp.17", []byte("not ours"))
	require.NoError(t, os.WriteFile(filepath.Join(f.pgdata, "PG_VERSION"), []byte("15\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(f.pgdata, "pg_wal", "archive_status", name+".ready"), nil, 0o600))
	c := f.newClient(nil)

	for range 2 {
		inv, err := c.Inventory(ctx, true)
		require.NoError(t, err)
		require.Len(t, inv.Files, 3)
		byName := map[string]api.File{}
		for _, file := range inv.Files {
			byName[file.Name] = file
		}
		require.Equal(t, "ready", byName[name].Mark)
		require.True(t, *byName[name].Complete)
		require.Nil(t, byName[next].Complete) // its pages are those of another segment
		require.Equal(t, int64(len(b)), byName[name].Size)
	}
	inv, err := c.Inventory(ctx, false)
	require.NoError(t, err)
	require.Nil(t, inv.Files[0].Complete)

	var got bytes.Buffer
	require.NoError(t, c.Fetch(ctx, name, &got))
	require.True(t, bytes.Equal(b, got.Bytes()))
	s := c.Source("pg-0")
	require.Equal(t, "pg_wal of pg-0", s.Name())
	got.Reset()
	require.NoError(t, s.Fetch(ctx, repo.HistoryFile(2), &got))
	require.Contains(t, got.String(), "0/5000000")
	require.ErrorIs(t, s.Fetch(ctx, repo.HistoryFile(3), io.Discard), archive.ErrSourceLacks)
	require.Error(t, s.Fetch(ctx, repo.PartialFile(pg.SegmentName(name), 1), io.Discard))
	require.Error(t, c.Fetch(ctx, "../PG_VERSION", io.Discard))

	// Whatever leads out of pg_wal, or is no file.
	require.NoError(t, os.Symlink("../PG_VERSION", filepath.Join(f.pgdata, "pg_wal", "0000000100000000000000B1")))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(f.pgdata, "pg_wal", "0000000100000000000000B2")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(f.pgdata, "pg_wal", "0000000100000000000000B3"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(f.pgdata, "pg_wal", "0000000100000000000000B4"), 0o700))
	for _, path := range []string{
		"..%2fPG_VERSION", "../PG_VERSION", "..%5cPG_VERSION", "%2e%2e/PG_VERSION", "xlogtemp.17", "archive_status", name + "/../../PG_VERSION",
		name + "%00", "0000000100000000000000b1", "0000000100000000000000B1", "0000000100000000000000B2", "0000000100000000000000B3", "0000000100000000000000B4", "",
	} {
		line := f.request("GET", "/v1/wal/"+path, "", "")
		require.NotContains(t, line, " 200 ", path)
	}
}

func TestFileThatChanges(t *testing.T) {
	ctx := testContext(t)
	f := serve(t, api.Options{})
	name := "000000010000000000000001"
	b := bytes.Repeat([]byte("WAL "), 16<<20)
	path := f.file(name, b)
	fetch := func(meanwhile func()) error {
		first := true
		return f.newClient(nil).Fetch(ctx, name, writer(func(b []byte) (int, error) {
			if first {
				first = false
				meanwhile()
			}
			return len(b), nil
		}))
	}
	require.NoError(t, fetch(func() {}))
	// Recycled under another name, and then removed: what is open stays.
	require.NoError(t, fetch(func() { require.NoError(t, os.Remove(path)) }))
	path = f.file(name, b)
	require.Error(t, fetch(func() { require.NoError(t, os.Truncate(path, 1000)) }))
	path = f.file(name, b)
	require.Error(t, fetch(func() {
		o, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = o.WriteAt([]byte("new WAL"), int64(len(b)-100))
		require.NoError(t, errors.Join(err, o.Close()))
	}))
	// The agent goes away in mid-stream.
	f.file(name, b)
	require.Error(t, fetch(f.stop))
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// TestSlowReader: who stands still is cut off, and takes nobody's place.
func TestSlowReader(t *testing.T) {
	ctx := testContext(t)
	f := serve(t, api.Options{Slow: 300 * time.Millisecond})
	name := "000000010000000000000001"
	f.file(name, make([]byte, 24<<20))
	pool, err := credentials.ReadPool(f.ca.File())
	require.NoError(f.t, err)
	var stuck []net.Conn
	for range 64 { // as many as there are places
		c, err := tls.Dial("tcp", f.server.Addr(), &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}})
		require.NoError(t, err)
		defer c.Close()
		_, err = fmt.Fprintf(c, "GET /v1/wal/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", name, token)
		require.NoError(t, err)
		stuck = append(stuck, c)
	}
	require.Eventually(t, func() bool {
		_, err := f.newClient(nil).Status(ctx)
		return err == nil
	}, 50*time.Second, 100*time.Millisecond)
	require.NoError(t, stuck[0].SetReadDeadline(time.Now().Add(50*time.Second)))
	n, err := io.Copy(io.Discard, stuck[0])
	require.Less(t, n, int64(24<<20), "%v", err)
}

func TestBadRequests(t *testing.T) {
	f := serve(t, api.Options{Backup: func(context.Context, api.BackupRequest, api.Progress) (any, error) { return nil, nil }})
	const asJSON = "Content-Type: application/json\r\n"
	const good = `{"repos":["repo1"],"type":"full"}`
	for _, c := range []struct{ want, method, path, headers, body string }{
		{"202", "POST", "/v1/backups", asJSON, good},
		{"400", "POST", "/v1/backups", "", good},
		{"400", "POST", "/v1/backups", "Content-Type: text/plain\r\n", good},
		{"400", "POST", "/v1/backups", asJSON, ""},
		{"400", "POST", "/v1/backups", asJSON, "\x00\xff"},
		{"400", "POST", "/v1/backups", asJSON, good + good},
		{"400", "POST", "/v1/backups", asJSON, `{"repos":["repo1"],"type":"full","tpye":1}`},
		{"400", "POST", "/v1/backups", asJSON, `{"repos":[],"type":"full"}`},
		{"400", "POST", "/v1/backups", asJSON, `{"repos":["a","a"],"type":"full"}`},
		{"400", "POST", "/v1/backups", asJSON, `{"repos":["a"]}`},
		{"400", "POST", "/v1/backups", asJSON, strings.Repeat("[", 60000)},
		{"400", "POST", "/v1/backups", asJSON + "Idempotency-Key: " + strings.Repeat("k", 300) + "\r\n", good},
		{"413", "POST", "/v1/backups", asJSON, `{"repos":["` + strings.Repeat("x", 1<<20) + `"]}`},
		{"431", "GET", "/v1/status", "X-Giant: " + strings.Repeat("x", 64<<10) + "\r\n", ""},
		{"404", "GET", "/v1/backups", "", ""},
		{"404", "GET", "/", "", ""},
		{"404", "GET", "/v1/runs/nothing", "", ""},
		{"404", "GET", "/v1/runs/nothing/events", "", ""},
		{"404", "POST", "/v1/runs/nothing/cancel", "", ""},
	} {
		require.Contains(t, f.request(c.method, c.path, c.headers, c.body), "HTTP/1.1 "+c.want+" ", "%s %s %.60s", c.method, c.path, c.body)
	}
	require.Contains(t, f.raw("NONSENSE\r\n\r\n"), "400")
	// Not even TLS.
	c, err := net.Dial("tcp", f.server.Addr())
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET /v1/status HTTP/1.1\r\n\r\n")
	require.NoError(t, err)
	line, _ := bufio.NewReader(c).ReadString('\n')
	require.NotContains(t, line, "200")
	_, err = f.newClient(nil).Status(testContext(t))
	require.NoError(t, err)
}

// takes is a backup that the test steers.
type takes struct {
	begun  chan api.Progress
	finish chan error
}

func (b takes) backup(ctx context.Context, r api.BackupRequest, p api.Progress) (any, error) {
	if r.Type == "panic" {
		panic("at the disco")
	}
	b.begun <- p
	select {
	case err := <-b.finish:
		return map[string]string{"label": "20261122-010000F"}, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A backup belongs to the trace of the request that began it.
func TestRunIsPartOfTrace(t *testing.T) {
	got := make(chan trace.SpanContext, 1)
	f := serve(t, api.Options{Backup: func(ctx context.Context, _ api.BackupRequest, _ api.Progress) (any, error) {
		got <- trace.SpanContextFromContext(ctx)
		return nil, nil
	}})
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	request := api.BackupRequest{Repos: []string{"repo1"}, Type: "full"}
	_, err := f.newClient(nil).StartBackup(trace.ContextWithSpanContext(testContext(t), sc), request, "")
	require.NoError(t, err)
	there := <-got
	require.Equal(t, sc.TraceID(), there.TraceID())
	require.Equal(t, sc.SpanID(), there.SpanID())
	require.True(t, there.IsRemote())
}

func TestRuns(t *testing.T) {
	ctx := testContext(t)
	b := takes{make(chan api.Progress, 1), make(chan error)}
	f := serve(t, api.Options{Backup: b.backup})
	c := f.newClient(nil)
	request := api.BackupRequest{Repos: []string{"repo1"}, Type: "full", Annotations: map[string]string{"why": "test"}}
	run, err := c.StartBackup(ctx, request, "key-1")
	require.NoError(t, err)
	require.Equal(t, api.Running, run.State)
	p := <-b.begun
	p.Stage("copying")
	p.Total(1000)
	p.Add(250)

	again, err := c.StartBackup(ctx, request, "key-1")
	require.NoError(t, err)
	require.Equal(t, run.ID, again.ID)
	_, err = c.StartBackup(ctx, api.BackupRequest{Repos: []string{"repo2", "repo1"}, Type: "full"}, "")
	require.ErrorIs(t, err, api.ErrBusy)
	var busy *api.Problem
	require.ErrorAs(t, err, &busy)
	require.Equal(t, run.ID, busy.Run)

	// A follower that goes away takes nothing with it.
	watch, leave := context.WithCancel(ctx)
	seen := make(chan api.Run, 10)
	gone := make(chan error, 1)
	go func() {
		_, err := c.Follow(watch, run.ID, func(r api.Run) { seen <- r })
		gone <- err
	}()
	r := <-seen
	require.Equal(t, "copying", r.Stage)
	require.Equal(t, int64(1000), r.Total)
	require.Equal(t, int64(250), r.Copied)
	leave()
	require.Error(t, <-gone)

	// One repository at a time each.
	other, err := c.StartBackup(ctx, api.BackupRequest{Repos: []string{"repo2"}, Type: "full"}, "")
	require.NoError(t, err)
	<-b.begun
	require.NoError(t, c.Cancel(ctx, other.ID))
	other, err = c.Follow(ctx, other.ID, nil)
	require.NoError(t, err)
	require.Equal(t, api.Cancelled, other.State)

	b.finish <- nil
	end, err := c.Follow(ctx, run.ID, nil)
	require.NoError(t, err)
	require.Equal(t, api.Done, end.State)
	require.JSONEq(t, `{"label":"20261122-010000F"}`, string(end.Result))
	require.Equal(t, request, end.Request)

	failing, err := c.StartBackup(ctx, request, "key-2")
	require.NoError(t, err)
	<-b.begun
	b.finish <- errors.New("the disk is on fire")
	failing, err = c.Follow(ctx, failing.ID, nil)
	require.NoError(t, err)
	require.Equal(t, api.Failed, failing.State)
	require.Equal(t, "the disk is on fire", failing.Error)

	broken, err := c.StartBackup(ctx, api.BackupRequest{Repos: []string{"repo1"}, Type: "panic"}, "")
	require.NoError(t, err)
	broken, err = c.Follow(ctx, broken.ID, nil)
	require.NoError(t, err)
	require.Contains(t, broken.Error, "disco")

	all, err := c.Runs(ctx)
	require.NoError(t, err)
	require.Len(t, all, 4)
	require.Equal(t, broken.ID, all[0].ID)
	got, err := c.Run(ctx, run.ID)
	require.NoError(t, err)
	require.Equal(t, api.Done, got.State)
	_, err = c.Run(ctx, "../../v1/status")
	require.ErrorIs(t, err, api.ErrNotFound)

	// The agent ends: so does what runs, and who follows hears of it.
	last, err := c.StartBackup(ctx, request, "")
	require.NoError(t, err)
	<-b.begun
	ended := make(chan api.Run, 1)
	following := make(chan struct{}, 10)
	go func() {
		r, _ := c.Follow(ctx, last.ID, func(api.Run) { following <- struct{}{} })
		ended <- r
	}()
	<-following
	f.stop()
	require.NotEqual(t, api.Done, (<-ended).State)
	_, err = c.Run(ctx, last.ID)
	require.Error(t, err)
}

func TestNothingToServe(t *testing.T) {
	f := serve(t, api.Options{})
	require.Contains(t, f.request("POST", "/v1/backups", "Content-Type: application/json\r\n", `{"repos":["repo1"],"type":"full"}`), "501")
	require.NoError(t, os.RemoveAll(filepath.Join(f.pgdata, "pg_wal")))
	require.Contains(t, f.request("GET", "/v1/wal", "", ""), "500")
	require.NotContains(t, f.request("GET", "/v1/wal/00000002.history", "", ""), "200")
}

func FuzzRequests(f *testing.F) {
	dir := f.TempDir()
	require.NoError(f, os.MkdirAll(filepath.Join(dir, "data", "pg_wal"), 0o700))
	tokens := filepath.Join(dir, "tokens")
	require.NoError(f, os.WriteFile(tokens, []byte(token), 0o600))
	ca := credentialstest.NewAuthority(f, dir, "x")
	cert, key := ca.Issue("server", time.Hour)
	s, err := api.New(api.Options{
		Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key, TokenFile: tokens, PGData: filepath.Join(dir, "data"),
		Backup: func(context.Context, api.BackupRequest, api.Progress) (any, error) { return nil, nil },
	})
	require.NoError(f, err)
	h := s.Handler()
	f.Add("/v1/backups", `{"repos":["repo1"],"type":"full"}`)
	f.Add("/v1/wal/../../x", "")
	f.Fuzz(func(t *testing.T, path, body string) {
		if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/events") {
			return
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			r, err := http.NewRequest(method, "https://x", strings.NewReader(body))
			require.NoError(t, err)
			r.URL.Path = path
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Less(t, w.Code, 502)
		}
	})
}
