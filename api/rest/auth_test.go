package rest_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/apitest"
	"github.com/walkeep/walkeep/api/rest"
	"github.com/walkeep/walkeep/internal/credentials/credentialstest"
)

// TestEveryOperationHasARole asks every operation of the document without a
// token, with one that is not valid, and as a viewer. Nothing may have changed.
func TestEveryOperationHasARole(t *testing.T) {
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	c := f.http(nil)
	status, _, document := f.request(c, http.MethodGet, "/v1/openapi.json", viewerToken, "")
	require.Equal(t, 200, status)
	var d struct {
		Paths map[string]map[string]struct{ Description string }
	}
	require.NoError(t, json.Unmarshal([]byte(document), &d))
	d.Paths["/v1/openapi.yaml"] = map[string]struct{ Description string }{"get": {"Needs the role viewer."}}
	before := f.service.Snapshot()
	operators := 0
	for path, methods := range d.Paths {
		path = strings.NewReplacer("{repo}", "repo2", "{id}", running, "{label}", "x").Replace(path)
		for method, op := range methods {
			method = strings.ToUpper(method)
			body := ""
			if method == http.MethodPost && path == "/v1/backups" {
				body = `{"repo":"repo2","type":"full"}`
			}
			for _, token := range []string{"", "not a token that was ever valid", viewerToken[1:], viewerToken + "x"} {
				status, h, answer := f.request(c, method, path, token, body)
				require.Equal(t, http.StatusUnauthorized, status, "%s %s", method, path)
				require.Equal(t, "Bearer", h.Get("WWW-Authenticate"))
				require.Equal(t, "application/problem+json", h.Get("Content-Type"))
				require.NotContains(t, answer, "hippo")
			}
			if strings.Contains(op.Description, "Needs the role operator.") {
				operators++
				require.Equal(t, http.MethodPost, method, path)
				status, h, answer := f.request(c, method, path, viewerToken, body)
				require.Equal(t, http.StatusForbidden, status, "%s %s: %s", method, path, answer)
				require.Equal(t, "application/problem+json", h.Get("Content-Type"))
			} else {
				require.Contains(t, op.Description, "Needs the role viewer.")
				require.Equal(t, http.MethodGet, method, path)
			}
		}
	}
	require.Equal(t, 10, operators)
	require.Same(t, before, f.service.Snapshot(), "something was changed")
	for _, probe := range []string{"/healthz", "/readyz"} {
		status, _, answer := f.request(c, http.MethodGet, probe, "", "")
		require.Equal(t, 200, status)
		require.Equal(t, "ok\n", answer)
	}
}

func TestTokensAreRotated(t *testing.T) {
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	ctx, c := testContext(t), f.client(f.viewer)
	_, err := c.Health(ctx)
	require.NoError(t, err)
	const fresh = "another token of a viewer, as long"
	f.replace(f.viewer, fresh+"\n"+viewerToken+"\n")
	_, err = c.Health(ctx) // with the new one
	require.NoError(t, err)
	status, _, _ := f.request(f.http(nil), http.MethodGet, "/v1/health", viewerToken, "")
	require.Equal(t, 200, status)
	f.replace(f.viewer, fresh+"\n")
	status, _, _ = f.request(f.http(nil), http.MethodGet, "/v1/health", viewerToken, "")
	require.Equal(t, 401, status)
	require.NoError(t, os.Remove(f.viewer))
	status, _, _ = f.request(f.http(nil), http.MethodGet, "/v1/health", fresh, "")
	require.Equal(t, 401, status)
	_, err = f.client(f.operators).Health(ctx)
	require.NoError(t, err)
}

func (f *fixture) replace(path, content string) {
	require.NoError(f.t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(f.t, os.Rename(path+".new", path))
}

func TestClientsCertificates(t *testing.T) {
	f := serve(t, rest.Options{}, rest.ServerOptions{})
	others := credentialstest.NewAuthority(t, t.TempDir(), "others")
	with := func(a *credentialstest.Authority, name string, life time.Duration) *http.Client {
		p, err := tls.LoadX509KeyPair(a.Issue(name, life))
		require.NoError(t, err)
		return f.http(&p)
	}
	get := func(c *http.Client, method, path string) int {
		status, _, _ := f.request(c, method, path, "", "")
		return status
	}
	require.Equal(t, 200, get(with(f.ca, "boss", time.Hour), "GET", "/v1/health"))
	require.Equal(t, 200, get(with(f.ca, "boss", time.Hour), "POST", "/v1/pause"))
	require.Equal(t, 200, get(with(f.ca, "guest", time.Hour), "GET", "/v1/health"))
	require.Equal(t, 403, get(with(f.ca, "guest", time.Hour), "POST", "/v1/pause"))
	require.Equal(t, 401, get(with(f.ca, "somebody", time.Hour), "GET", "/v1/health"))
	status, _, _ := f.request(with(f.ca, "guest", time.Hour), "POST", "/v1/resume", operatorToken, "")
	require.Equal(t, 200, status, "the one that allows most decides")
	for what, c := range map[string]*http.Client{
		"expired": with(f.ca, "boss", -time.Minute), "of others": with(others, "boss", time.Hour),
	} {
		_, err := c.Get(f.server.URL() + "/healthz")
		require.Error(t, err, what)
	}
}

// TestAnonymous: who says nothing may look, if that is configured; who says
// something that is not true may not.
func TestAnonymous(t *testing.T) {
	h := handlerOf(t, rest.Options{Authenticators: []api.Authenticator{rest.Anonymous{}}})
	require.Equal(t, 200, ask(t, h, "GET", "/v1/health", "").Code)
	require.Equal(t, 403, ask(t, h, "POST", "/v1/pause", "").Code)
	for _, credentials := range []string{"Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer"} {
		r := httptest.NewRequest("GET", "/v1/health", nil)
		r.Header.Set("Authorization", credentials)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 401, w.Code)
	}
}

// TestOnlyLoopbackIsPlain: tokens are not sent in clear over a network.
func TestOnlyLoopbackIsPlain(t *testing.T) {
	_, err := rest.NewServer(rest.ServerOptions{Listen: "0.0.0.0:0", Handler: http.NotFoundHandler()})
	require.Error(t, err)
	s, err := rest.NewServer(rest.ServerOptions{Listen: "localhost:0", Handler: http.NotFoundHandler()})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(s.URL(), "http://"))
}

type broken struct{}

func (broken) Authenticate(*http.Request) (api.Identity, error) {
	return api.Identity{}, errors.New("the authority does not answer")
}

// TestAuthenticatorThatCannotTell lets those in that another one knows.
func TestAuthenticatorThatCannotTell(t *testing.T) {
	h := handlerOf(t, rest.Options{Authenticators: []api.Authenticator{broken{}}})
	w := ask(t, h, "GET", "/v1/health", "")
	require.Equal(t, 503, w.Code)
	require.NotContains(t, w.Body.String(), "authority")
	h = handlerOf(t, rest.Options{Authenticators: []api.Authenticator{broken{}, everybody{api.Viewer}}})
	require.Equal(t, 200, ask(t, h, "GET", "/v1/health", "").Code)
}

// TestOtherSites: a page of another site cannot use the certificate that the
// browser has.
func TestOtherSites(t *testing.T) {
	service := apitest.New(apitest.Sample(), nil)
	h := handlerOf(t, rest.Options{Service: service})
	before := service.Snapshot()
	for _, header := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}} {
		r := httptest.NewRequest("POST", "/v1/pause", nil)
		r.Header.Set(header[0], header[1])
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 403, w.Code, header)
	}
	require.Same(t, before, service.Snapshot())
	r := httptest.NewRequest("POST", "/v1/pause", nil)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
}
