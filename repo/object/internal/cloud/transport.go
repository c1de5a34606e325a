package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

const (
	dialTimeout = 15 * time.Second
	// stallTimeout ends a connection on which nothing moves. It must outlast
	// the silence of a store that assembles a large object.
	stallTimeout = 5 * time.Minute
	// idleConns is how many idle connections are kept to the store; more than
	// any sensible number of requests in flight.
	idleConns = 64
)

// Transport is the HTTP transport of one store.
type Transport struct{ *http.Transport }

// NewTransport returns one. caFile, if not empty, holds PEM certificates to
// trust besides those of the system. Proxies come from the environment. A
// connection on which nothing moves for five minutes is ended, so that a
// request cannot hang for ever.
func NewTransport(caFile string) (*Transport, error) {
	roots, err := Roots(caFile)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return &Transport{&http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{conn}, nil
		},
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConns:        idleConns,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     64 << 10,
		// Stored bytes must arrive as they are.
		DisableCompression: true,
	}}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return nil, untrusted{object.Permanent(err)}
	}
	return resp, err
}

// untrusted is the failure of a server to prove who it is. No SDK shall try
// again: with another try it would still not be, and the user waits.
type untrusted struct{ error }

func (u untrusted) Unwrap() error      { return u.error }
func (untrusted) NonRetriable()        {}               // for Azure's SDK
func (untrusted) RetryableError() bool { return false } // for Amazon's

// Roots returns the system's trusted certificates together with those of a PEM
// file, or nil (the system's) when caFile is empty.
func Roots(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		// A machine without any certificates is no reason to refuse ours.
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA file %s: %w", caFile, errors.New("no PEM certificate in it"))
	}
	return roots, nil
}

// stallConn moves its deadlines with every Read and Write.
type stallConn struct{ net.Conn }

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
