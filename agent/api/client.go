package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/internal/credentials"
	"github.com/walkeep/walkeep/internal/traces"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// What callers branch on, with errors.Is.
var (
	// ErrNotFound: no such file, or no such run.
	ErrNotFound = errors.New("the agent does not have it")
	// ErrBusy: a run into the same repository is under way.
	ErrBusy = errors.New("the agent is busy with another run")
	// ErrRefused: the agent does not accept who we are.
	ErrRefused = errors.New("the agent does not let us in")
)

// Error makes a Problem an error.
func (p *Problem) Error() string {
	s := fmt.Sprintf("%d %s", p.Status, p.Title)
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	return s
}

// Is maps statuses to the sentinels.
func (p *Problem) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return p.Status == http.StatusNotFound
	case ErrBusy:
		return p.Status == http.StatusConflict && p.Run != ""
	case ErrRefused:
		return p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden
	}
	return false
}

// ClientOptions of NewClient. URL is required.
type ClientOptions struct {
	URL string // https://host:port
	// CAFile has the authorities that the agent's certificate is checked
	// against, instead of the system's.
	CAFile string
	// CertFile and KeyFile are our own certificate; "": none.
	CertFile, KeyFile string
	// TokenFile has the bearer token in its first line; "": none. It is read
	// for each request.
	TokenFile string
}

// Client talks to one agent. Its methods may be called from many goroutines.
type Client struct {
	opts ClientOptions
	http *http.Client
}

// NewClient reads certificates; nothing is asked of the agent yet.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("agent %q: its URL must begin with https://", o.URL)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	if o.CAFile != "" {
		if c.RootCAs, err = credentials.ReadPool(o.CAFile); err != nil {
			return nil, fmt.Errorf("agent %s: %w", o.URL, err)
		}
	}
	if o.CertFile != "" {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			return &cert, err
		}
	}
	o.URL = strings.TrimRight(o.URL, "/")
	return &Client{opts: o, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: c, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			ResponseHeaderTimeout: time.Minute, MaxResponseHeaderBytes: maxHeader, IdleConnTimeout: time.Minute,
		},
		// A token must not follow to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// maxReply bounds what an agent can make us keep in memory, bytes.
const maxReply = 64 << 20

// do sends a request. The caller closes the response's body.
func (c *Client) do(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.opts.URL+path, r)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	traces.Inject(ctx, req.Header)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
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
		return nil, err // names method and URL
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &Problem{}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status says enough
	if json.Unmarshal(b, p) != nil || p.Status != resp.StatusCode {
		p = &Problem{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	}
	return nil, fmt.Errorf("%s %s: %w", method, c.opts.URL+path, p)
}

func (c *Client) json(ctx context.Context, method, path string, body any, header http.Header, into any) error {
	resp, err := c.do(ctx, method, path, body, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(into); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, c.opts.URL+path, err)
	}
	return nil
}

// Status asks for the agent's state.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.json(ctx, http.MethodGet, "/v1/status", nil, nil, &s)
}

// Inventory lists the node's pg_wal. With examine each segment is judged by its
// WAL, which takes the agent a while.
func (c *Client) Inventory(ctx context.Context, examine bool) (inv Inventory, err error) {
	return inv, c.json(ctx, http.MethodGet, fmt.Sprintf("/v1/wal?examine=%t", examine), nil, nil, &inv)
}

// Fetch writes a file of the node's pg_wal to w, and verifies it. ErrNotFound:
// it is not there. What w got before an error is worth nothing.
func (c *Client) Fetch(ctx context.Context, name string, w io.Writer) error {
	if !knownName(name) {
		return fmt.Errorf("fetch %q: not the name of a file that PostgreSQL archives", name)
	}
	resp, err := c.do(ctx, http.MethodGet, "/v1/wal/"+name, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(h, w), io.LimitReader(resp.Body, maxSegment+1)); err != nil {
		return fmt.Errorf("fetch %s from %s: %w", name, c.opts.URL, err)
	}
	if resp.Header.Get(digestHeader) != formatDigest(h.Sum(nil)) {
		return fmt.Errorf("fetch %s from %s: it does not have the digest that was announced", name, c.opts.URL)
	}
	return nil
}

// StartBackup begins a backup, and returns its run. key, if not "", makes the
// request safe to send again. ErrBusy: another run is under way.
func (c *Client) StartBackup(ctx context.Context, r BackupRequest, key string) (run Run, err error) {
	h := http.Header{}
	if key != "" {
		h.Set("Idempotency-Key", key)
	}
	return run, c.json(ctx, http.MethodPost, "/v1/backups", r, h, &run)
}

// Runs lists the runs that the agent remembers, newest first.
func (c *Client) Runs(ctx context.Context) ([]Run, error) {
	var all struct {
		Runs []Run `json:"runs"`
	}
	err := c.json(ctx, http.MethodGet, "/v1/runs", nil, nil, &all)
	return all.Runs, err
}

// Run asks for one run. ErrNotFound: this instance of the agent does not know it.
func (c *Client) Run(ctx context.Context, id string) (run Run, err error) {
	return run, c.json(ctx, http.MethodGet, "/v1/runs/"+url.PathEscape(id), nil, nil, &run)
}

// Cancel ends a run. It is over when Run says so.
func (c *Client) Cancel(ctx context.Context, id string) error {
	var run Run
	return c.json(ctx, http.MethodPost, "/v1/runs/"+url.PathEscape(id)+"/cancel", nil, nil, &run)
}

// Follow calls fn (which may be nil) with each news of a run, and returns the
// run when it has ended. A lost connection is an error: ask Run then.
func (c *Client) Follow(ctx context.Context, id string, fn func(Run)) (Run, error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/runs/"+url.PathEscape(id)+"/events", nil, nil)
	if err != nil {
		return Run{}, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var run Run
		if err := json.Unmarshal([]byte(data), &run); err != nil {
			return Run{}, fmt.Errorf("follow run %s of %s: %w", id, c.opts.URL, err)
		}
		if fn != nil {
			fn(run)
		}
		if run.State != Running {
			return run, nil
		}
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return Run{}, fmt.Errorf("follow run %s of %s: %w", id, c.opts.URL, err)
}

// Source is the node's pg_wal as a source of WAL that a repository lacks. node
// is for people.
func (c *Client) Source(node string) archive.Source { return agentSource{c, node} }

type agentSource struct {
	c    *Client
	node string
}

func (s agentSource) Name() string { return "pg_wal of " + s.node }

func (s agentSource) Fetch(ctx context.Context, name repo.WALName, w io.Writer) error {
	if name.Kind != pg.FileSegment && name.Kind != pg.FileHistory {
		return fmt.Errorf("fetch %s: neither a segment nor a history file", name)
	}
	err := s.c.Fetch(ctx, name.Name, w)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: %w", archive.ErrSourceLacks, err)
	}
	return err
}
