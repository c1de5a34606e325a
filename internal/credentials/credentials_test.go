package credentials_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/internal/credentials"
	"github.com/walkeep/walkeep/internal/credentials/credentialstest"
)

const token = "correct horse battery staple"

// TestTokensAreRotated: added, taken out, the file gone and back, as a
// Kubernetes secret does it, by links.
func TestTokensAreRotated(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokens")
	replace := func(content string) {
		t.Helper()
		next := filepath.Join(dir, "next")
		require.NoError(t, os.WriteFile(next, []byte(content), 0o600))
		require.NoError(t, os.Rename(next, path))
	}
	replace("# ours\n\n" + token + "\n")
	tokens, err := credentials.NewTokens(path, nil)
	require.NoError(t, err)
	require.True(t, tokens.Has(token))
	for _, no := range []string{"", "# ours", token + " ", token[1:], strings.Repeat("x", 1<<20)} {
		require.False(t, tokens.Has(no))
	}
	replace("another token, at least as long\n" + token + "\n")
	require.True(t, tokens.Has(token))
	require.True(t, tokens.Has("another token, at least as long"))
	replace("another token, at least as long\n")
	require.False(t, tokens.Has(token))
	for _, bad := range []string{"", "# none\n", "short\n"} {
		replace(bad)
		require.False(t, tokens.Has("another token, at least as long"))
		require.False(t, tokens.Has("short"))
		_, err := credentials.NewTokens(path, nil)
		require.Error(t, err)
	}
	replace(token)
	require.True(t, tokens.Has(token))
	require.NoError(t, os.Remove(path))
	require.False(t, tokens.Has(token))
}

func TestFirstToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	_, err := credentials.FirstToken(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("# x\n"), 0o600))
	_, err = credentials.FirstToken(path)
	require.Error(t, err)
	require.NoError(t, os.WriteFile(path, []byte("# x\n  one \ntwo\n"), 0o600))
	first, err := credentials.FirstToken(path)
	require.NoError(t, err)
	require.Equal(t, "one", first)
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer " + token)
	f.Add("bearer  x ")
	f.Add("Bearer")
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := credentials.Bearer(&http.Request{Header: http.Header{"Authorization": {header}}})
		if ok {
			require.NotEmpty(t, got)
			require.True(t, strings.HasPrefix(strings.ToLower(header), "bearer "))
		}
	})
}

// TestCertificates: none, a good one, one that is over, one of others, where a
// certificate is required and where it is not; and a certificate of the server
// that is renewed, by way of a pair that does not match.
func TestCertificates(t *testing.T) {
	ours, others := credentialstest.NewAuthority(t, t.TempDir(), "ours"), credentialstest.NewAuthority(t, t.TempDir(), "others")
	cert, key := ours.Issue("server", time.Hour)
	pair := func(c, k string) *tls.Certificate {
		p, err := tls.LoadX509KeyPair(c, k)
		require.NoError(t, err)
		return &p
	}
	for _, optional := range []bool{false, true} {
		server, err := credentials.NewTLS(credentials.TLSOptions{CertFile: cert, KeyFile: key, ClientCAFile: ours.File(), Optional: optional})
		require.NoError(t, err)
		try := func(client *tls.Certificate) error { return handshake(t, server.Config(), ours.File(), client) }
		require.NoError(t, try(pair(ours.Issue("client", time.Hour))))
		require.Error(t, try(pair(ours.Issue("client", -time.Minute))), "over")
		require.Error(t, try(pair(others.Issue("client", time.Hour))), "of others")
		if optional {
			require.NoError(t, try(nil))
		} else {
			require.Error(t, try(nil))
		}
		otherCert, _ := others.Issue("server", time.Hour)
		require.NoError(t, os.Rename(cert, cert+".was"))
		require.NoError(t, os.Rename(otherCert, cert))
		good := pair(ours.Issue("client", time.Hour))
		require.NoError(t, try(good), "the pair before stays")
		require.NoError(t, os.Rename(cert+".was", cert))
		ours.Issue("server", -time.Minute)
		require.Error(t, try(good), "the server's is over")
		ours.Issue("server", time.Hour)
		require.NoError(t, try(good))
	}
}

// handshake connects a client, which may be nil, to a server.
func handshake(t *testing.T, server *tls.Config, ca string, client *tls.Certificate) error {
	pool, err := credentials.ReadPool(ca)
	require.NoError(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	require.NoError(t, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			err = c.(*tls.Conn).HandshakeContext(t.Context())
		}
		done <- err
	}()
	conf := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if client != nil {
		// Sent whatever the server asks for.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
	}
	d := &net.Dialer{Timeout: time.Minute}
	c, err := tls.DialWithDialer(d, "tcp", l.Addr().String(), conf)
	if err != nil {
		<-done
		return err
	}
	defer c.Close()
	return <-done // with TLS 1.3 the client is done before it is judged
}
