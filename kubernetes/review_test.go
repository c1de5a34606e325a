package kubernetes

import (
	"encoding/base64"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authentication "k8s.io/api/authentication/v1"

	"github.com/walkeep/walkeep/api"
)

// unsigned is a token that nobody vouches for.
func unsigned(claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(`{"alg":"RS256","kid":"x"}`)) + "." + b64([]byte(claims)) + "." + b64([]byte("signature"))
}

var noon = time.Unix(1_800_000_000, 0)

// What is not for us is not sent to the API server.
func TestLifetime(t *testing.T) {
	for claims, want := range map[string]time.Duration{
		`{"aud":["walkeep"],"exp":1800000060}`:       time.Minute,
		`{"aud":["a","walkeep"],"exp":1800003600.5}`: time.Hour,
		`{"aud":"walkeep","exp":1799999999}`:         -time.Second,
		`{"aud":"walkeep"}`:                          rememberYes,
		`{"aud":["https://kubernetes.default.svc"]}`: 0,
		`{"exp":1800000060}`:                         0,
		`{"aud":7}`:                                  0,
		`[]`:                                         0,
		`{`:                                          0,
	} {
		require.Equal(t, want, lifetime(unsigned(claims), "walkeep", noon).Truncate(time.Second), claims)
	}
	for _, token := range []string{"", ".", "..", "a token for this test alone", unsigned(`{"aud":"walkeep"}`) + ".more", "e30.e30.e30"} {
		require.Zero(t, lifetime(token, "walkeep", noon), token)
	}
}

func FuzzLifetime(f *testing.F) {
	f.Add(unsigned(`{"aud":["walkeep"],"exp":1800000060}`))
	f.Add("e30.e30.e30")
	f.Add("..")
	f.Fuzz(func(_ *testing.T, token string) { lifetime(token, "walkeep", noon) })
}

func TestSubjects(t *testing.T) {
	s := Subjects{Users: []string{"ann"}, Groups: []string{"dba"}}
	require.True(t, s.has(authentication.UserInfo{Username: "ann"}))
	require.True(t, s.has(authentication.UserInfo{Username: "bob", Groups: []string{"x", "dba"}}))
	require.False(t, s.has(authentication.UserInfo{Username: "dba", Groups: []string{"ann"}}))
	require.False(t, s.has(authentication.UserInfo{}))
	require.False(t, Subjects{}.has(authentication.UserInfo{Username: "ann"}))
}

// Requests that are none of its business are answered without a client.
func TestNotOurs(t *testing.T) {
	r := NewReviewer(ReviewerOptions{Audience: "walkeep"})
	for _, header := range []string{"", "Basic YTpi", "Bearer a token for this test alone", "Bearer " + unsigned(`{"aud":"vault"}`)} {
		id, err := r.Authenticate(&http.Request{Header: http.Header{"Authorization": {header}}})
		require.NoError(t, err, header)
		require.Equal(t, api.Nobody, id.Role, header)
	}
}
