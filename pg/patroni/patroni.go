// Package patroni asks Patroni which servers a cluster has.
//
// Every member of a cluster answers for all of it: GET /cluster of its REST API
// needs no credentials and says name, address, role, state, timeline and lag of
// each member. What it says is a few seconds old; who needs to be sure asks the
// server itself.
package patroni

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// ErrNoAnswer: none of the URLs gave a usable answer.
var ErrNoAnswer = errors.New("no member of Patroni answers")

// Options of Members. URLs is required.
type Options struct {
	// URLs are REST addresses of some members; the first that answers counts.
	URLs []string
	// CAFile is a PEM file with authorities besides the system's.
	CAFile string
	// Timeout for each URL. 0 = 5 s.
	Timeout time.Duration
	// Transport, if not nil, is used instead of one with CAFile.
	Transport http.RoundTripper
}

// Member is one server.
type Member struct {
	Name string
	Host string // where PostgreSQL listens
	Port uint16
	// Role is leader, standby_leader, replica, sync_standby or quorum_standby
	// (and what later versions add).
	Role string
	// State is running or streaming when all is well.
	State    string
	Timeline pg.Timeline // 0 if not known
	// Lag behind the leader, bytes; -1 if not known. 0 for the leader.
	Lag int64
}

// Leader reports whether it is the primary (or, in a standby cluster, the one
// that the others follow).
func (m Member) Leader() bool {
	return m.Role == "leader" || m.Role == "master" || m.Role == "standby_leader"
}

// Running reports whether its server serves.
func (m Member) Running() bool { return m.State == "running" || m.State == "streaming" }

// ConnInfo is how to connect to it, with more settings behind.
func (m Member) ConnInfo(more string) (string, error) {
	if strings.Contains(more, "://") {
		return "", errors.New("the settings that are added to Patroni's host and port must be keywords and values (user=walkeep), not a URI")
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	s := fmt.Sprintf("host='%s' port=%d", quote.Replace(m.Host), m.Port)
	if more != "" {
		s += " " + more
	}
	return s, nil
}

// Members asks the URLs in turn for the members. ErrNoAnswer holds what was
// wrong with each.
func Members(ctx context.Context, o Options) ([]Member, error) {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	transport := o.Transport
	if transport == nil {
		t, err := newTransport(o.CAFile)
		if err != nil {
			return nil, err
		}
		defer t.CloseIdleConnections()
		transport = t
	}
	client := &http.Client{Transport: transport, Timeout: o.Timeout}
	var errs []error
	for _, u := range o.URLs {
		members, err := ask(ctx, client, strings.TrimRight(u, "/")+"/cluster")
		if err == nil {
			return members, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("ask Patroni at %s: %w", u, err))
	}
	return nil, fmt.Errorf("%w: %w", ErrNoAnswer, errors.Join(errs...))
}

func newTransport(caFile string) (*http.Transport, error) {
	t := &http.Transport{TLSHandshakeTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10}
	if caFile == "" {
		return t, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	b, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read Patroni's authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read Patroni's authorities from %s: no PEM certificate in it", caFile)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// maxAnswer bounds what is read, bytes.
const maxAnswer = 1 << 20

func ask(ctx context.Context, c *http.Client, u string) ([]Member, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// Parse reads the answer to GET /cluster. A member without an address (one that
// has just begun) is left out.
func Parse(b []byte) ([]Member, error) {
	var answer struct {
		Members []struct {
			Name     string          `json:"name"`
			Host     string          `json:"host"`
			Port     json.RawMessage `json:"port"` // a number; text in some versions
			Role     string          `json:"role"`
			State    string          `json:"state"`
			Timeline json.RawMessage `json:"timeline"`
			Lag      json.RawMessage `json:"lag"` // a number, or "unknown"
		} `json:"members"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("read Patroni's answer: %w", err)
	}
	var members []Member
	for _, m := range answer.Members {
		one := Member{Name: m.Name, Host: m.Host, Role: m.Role, State: m.State, Lag: -1}
		if m.Host == "" || m.Name == "" {
			continue
		}
		port, err := strconv.ParseUint(strings.Trim(string(m.Port), `"`), 10, 16)
		if len(m.Port) == 0 {
			port, err = 5432, nil
		}
		if err != nil || port == 0 {
			return nil, fmt.Errorf("read Patroni's answer: the port of %s is %s", m.Name, m.Port)
		}
		one.Port = uint16(port)
		if t, err := strconv.ParseUint(string(m.Timeline), 10, 32); err == nil {
			one.Timeline = pg.Timeline(t)
		}
		if lag, err := strconv.ParseInt(string(m.Lag), 10, 64); err == nil && lag >= 0 {
			one.Lag = lag
		} else if one.Leader() {
			one.Lag = 0
		}
		members = append(members, one)
	}
	if len(members) == 0 {
		return nil, errors.New("read Patroni's answer: it names no member with an address")
	}
	return members, nil
}
