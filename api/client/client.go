// Package client speaks the REST API of the service (package api/rest).
//
// What the service refuses is an [*api.Fault]; errors.Is finds api.ErrBusy,
// api.ErrNotFound and their like in it, as if the service were in this process.
// ErrUnreachable is all that happens before there is an answer.
//
// Requests that begin something carry an Idempotency-Key, and are sent again
// when the connection breaks: the service begins it once. Looking is repeated
// by the caller, but for Follow, which goes on for as long as the service may
// need to come back or to be taken over by another one.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/internal/credentials"
)

// ErrUnreachable: there was no answer, or not a whole one.
var ErrUnreachable = errors.New("the service does not answer")

// Options of New. URL is required.
type Options struct {
	// URL is https://host:port, or http:// with an address of this machine.
	URL string
	// CAFile has the authorities that the service's certificate is checked
	// against, instead of the system's.
	CAFile string
	// CertFile and KeyFile are our own certificate; "": none.
	CertFile, KeyFile string
	// TokenFile has the bearer token in its first line; "": none. It is read
	// for each request.
	TokenFile string
	// Patience is how long Follow tries to get back to a service that does not
	// answer. 0 = 2 min.
	Patience time.Duration
}

// Client talks to one service. Its methods may be called from many goroutines.
type Client struct {
	opts Options
	http *http.Client
}

// New reads certificates; nothing is asked of the service yet.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("service %q: its URL must begin with https://", o.URL)
	case u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("service %q: its URL must end behind host and port", u.Redacted())
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("service %q: a token would be sent in clear over a network: its URL must begin with https://", o.URL)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	if o.CAFile != "" {
		if c.RootCAs, err = credentials.ReadPool(o.CAFile); err != nil {
			return nil, fmt.Errorf("service %s: %w", o.URL, err)
		}
	}
	if o.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err != nil {
			return nil, fmt.Errorf("read the certificate %s and its key: %w", o.CertFile, err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			return &cert, err
		}
	}
	if o.Patience <= 0 {
		o.Patience = 2 * time.Minute
	}
	o.URL = strings.TrimRight(o.URL, "/")
	return &Client{opts: o, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: c, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			ResponseHeaderTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: time.Minute,
		},
		// A token must not follow to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// maxReply bounds what a service can make us keep in memory, bytes.
const maxReply = 256 << 20

// request is one request.
type request struct {
	method, path string
	query        url.Values
	body         any
	key          string // Idempotency-Key
}

// do sends a request. The caller closes the answer's body.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	target := c.opts.URL + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var content io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "walkeep")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	if c.opts.TokenFile != "" {
		token, err := credentials.FirstToken(c.opts.TokenFile)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err) // names method and URL
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, fmt.Errorf("%s %s: %w", r.method, c.opts.URL+r.path, faultOf(resp))
}

// faultOf reads a fault; what is none (a proxy's page) becomes one.
func faultOf(resp *http.Response) *api.Fault {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // the status says enough
	f := &api.Fault{}
	if json.Unmarshal(b, f) != nil || f.Status != resp.StatusCode {
		f = api.NewFault(resp.StatusCode, "", nil)
		f.Detail = fmt.Sprintf("%d %s, and not from a walkeep service", resp.StatusCode, f.Title)
	}
	return f
}

// ask sends a request and reads the answer into into.
func (c *Client) ask(ctx context.Context, r request, into any) error {
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(into); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s %s: read the answer: %w: %w", r.method, c.opts.URL+r.path, ErrUnreachable, err)
	}
	return nil
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (v T, err error) {
	return v, c.ask(ctx, request{method: http.MethodGet, path: path, query: query}, &v)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (v T, err error) {
	return v, c.ask(ctx, request{method: http.MethodPost, path: path, body: body}, &v)
}

// attempts is how often a request with a key is sent.
const attempts = 4

// again sends a request that has a key until there is an answer, a few times.
func again[T any](ctx context.Context, c *Client, r request) (v T, err error) {
	if r.key == "" {
		r.key = rand.Text()
	}
	for i := range attempts {
		if err = c.ask(ctx, r, &v); !errors.Is(err, ErrUnreachable) || !sleep(ctx, time.Duration(i+1)*300*time.Millisecond) {
			return v, err
		}
	}
	return v, err
}

// sleep waits. false: ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
