package rest_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/apitest"
	"github.com/walkeep/walkeep/api/client"
	"github.com/walkeep/walkeep/api/rest"
	"github.com/walkeep/walkeep/internal/credentials"
	"github.com/walkeep/walkeep/internal/credentials/credentialstest"
)

const (
	operatorToken = "the operator's token, which is long"
	viewerToken   = "the viewer's token, which is long"
	running       = "20261122-123000-repo1-incremental" // in the sample
)

// fixture is a service in memory behind a real server.
type fixture struct {
	t                 *testing.T
	service           *apitest.Service
	ca                *credentialstest.Authority
	server            *rest.Server
	operators, viewer string // files of tokens
	stop              func()
}

// serve starts a server with TLS, tokens of both roles, and clients'
// certificates for the names boss and guest.
func serve(t *testing.T, o rest.Options, so rest.ServerOptions) *fixture {
	dir := t.TempDir()
	f := &fixture{
		t: t, service: apitest.New(apitest.Sample(), nil), ca: credentialstest.NewAuthority(t, dir, "ours"),
		operators: filepath.Join(dir, "operators"), viewer: filepath.Join(dir, "viewers"),
	}
	require.NoError(t, os.WriteFile(f.operators, []byte(operatorToken+"\n"), 0o600))
	require.NoError(t, os.WriteFile(f.viewer, []byte(viewerToken+"\n"), 0o600))
	operators, err := rest.NewTokens(f.operators, api.Operator, nil)
	require.NoError(t, err)
	viewers, err := rest.NewTokens(f.viewer, api.Viewer, nil)
	require.NoError(t, err)
	o.Authenticators = append(o.Authenticators, operators, viewers, rest.Certificates{Operators: []string{"boss"}, Viewers: []string{"guest"}})
	if o.Service == nil {
		o.Service = f.service
	}
	so.Handler, err = rest.New(o)
	require.NoError(t, err)
	if so.Listen == "" {
		so.Listen = "127.0.0.1:0"
	}
	so.CertFile, so.KeyFile = f.ca.Issue("server", time.Hour)
	so.ClientCAFile = f.ca.File()
	f.server, err = rest.NewServer(so)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.server.Run(ctx) }()
	f.stop = func() {
		cancel()
		if done != nil {
			require.NoError(t, <-done)
			done = nil
		}
	}
	t.Cleanup(f.stop)
	return f
}

// http is a client that sends nothing of its own.
func (f *fixture) http(cert *tls.Certificate) *http.Client {
	pool, err := credentials.ReadPool(f.ca.File())
	require.NoError(f.t, err)
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute}
}

// request sends one request; token "" sends none.
func (f *fixture) request(c *http.Client, method, path, token, body string) (status int, header http.Header, content string) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.server.URL()+path, strings.NewReader(body))
	require.NoError(f.t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(r)
	require.NoError(f.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	return resp.StatusCode, resp.Header, string(b)
}

// client is a client of package client.
func (f *fixture) client(tokens string) *client.Client {
	c, err := client.New(client.Options{URL: f.server.URL(), CAFile: f.ca.File(), TokenFile: tokens})
	require.NoError(f.t, err)
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for !ok() {
		require.True(t, time.Now().Before(end), what)
		time.Sleep(10 * time.Millisecond)
	}
}
