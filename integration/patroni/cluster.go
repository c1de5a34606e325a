package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walkeep/walkeep/integration/postgres"
)

// Options describe a cluster. Maps are Patroni's own configuration.
type Options struct {
	Scope string // default "hippo"
	Nodes int    // default 3
	Major int    // of PostgreSQL; default 15. 13, 14, 16 and 17 lack programs that Patroni needs.

	// SegmentMB is wal_segment_size; default 16.
	SegmentMB int
	// Standby: Dynamic makes it a standby cluster, whose leader is in recovery.
	Standby bool
	// Dynamic is laid over bootstrap.dcs, PostgreSQL over the section of that
	// name of every node's file, Bootstrap over the section of that name.
	Dynamic, PostgreSQL, Bootstrap map[string]any
	// Prepare is called before a node's Patroni starts for the first time, to put
	// onto its disk what its commands need.
	Prepare func(n *Node) error
}

// Cluster is three nodes under Patroni.
type Cluster struct {
	Network *Network
	Nodes   []*Node

	o      Options
	env    *postgres.Env
	bin    string // directory of PostgreSQL's programs
	client *http.Client
}

// Node is a machine with Patroni and PostgreSQL.
type Node struct {
	*Machine
	DataDir string // as we see it; for the machine it is LocalDataDir

	cluster *Cluster
}

// NewCluster makes the machines and starts Patroni on all of them. It returns
// when one of them leads and the others follow; also with an error, for its logs.
// Close the network.
func NewCluster(ctx context.Context, n *Network, o Options) (*Cluster, error) {
	if o.Scope == "" {
		o.Scope = "hippo"
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.SegmentMB == 0 {
		o.SegmentMB = 16
	}
	if o.Major == 0 {
		o.Major = postgres.DebianMajor
	}
	install, err := n.env.Install(o.Major)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Network: n, o: o, env: n.env, bin: install.BinDir, client: &http.Client{
		Transport: &http.Transport{DialContext: n.dial, DisableKeepAlives: true}, Timeout: 10 * time.Second,
	}}
	for i := range o.Nodes {
		if _, err := c.AddNode(ctx, fmt.Sprintf("pg-%d", i), nil); err != nil {
			return c, err
		}
		if i == 0 { // so that the first one leads
			if _, err := c.WaitLeader(ctx); err != nil {
				return c, err
			}
		}
	}
	_, err = c.WaitHealthy(ctx)
	return c, err
}

// AddNode adds a machine with Patroni on it, whose "postgresql" section has
// local laid over it, and does not wait.
func (c *Cluster) AddNode(_ context.Context, name string, local map[string]any) (*Node, error) {
	m, err := c.Network.Add(name)
	if err != nil {
		return nil, err
	}
	n := &Node{Machine: m, DataDir: filepath.Join(m.Disk, "pgdata"), cluster: c}
	c.Nodes = append(c.Nodes, n)
	if c.o.Prepare != nil {
		if err := c.o.Prepare(n); err != nil {
			return nil, err
		}
	}
	if err := n.configure(local); err != nil {
		return nil, err
	}
	return n, n.StartPatroni()
}

// LocalDataDir is the data directory as every node sees its own.
func (c *Cluster) LocalDataDir() string { return filepath.Join(c.Network.Local, "pgdata") }

// StopPatroni ends Patroni, which stops PostgreSQL in order.
func (n *Node) StopPatroni(ctx context.Context) error {
	for n.Signal(syscall.SIGTERM, isPatroni) > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of Patroni on %s: %w", n.Name, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// StartPatroni boots the machine if it is off, and starts Patroni, which starts
// PostgreSQL.
func (n *Node) StartPatroni() error {
	if !n.On() {
		if err := n.Boot(); err != nil {
			return err
		}
	}
	program, err := exec.LookPath("patroni")
	if err != nil {
		return fmt.Errorf("%w: run scripts/install-packages.sh", err)
	}
	return n.Spawn(n.LogFile(), program, filepath.Join(n.cluster.Network.Local, "patroni.yml"))
}

// LogFile has what Patroni and PostgreSQL say.
func (n *Node) LogFile() string { return filepath.Join(n.Disk, "patroni.log") }

// Log is the end of it.
func (n *Node) Log(lines int) string { return tail(n.LogFile(), lines) }

// PatroniRuns tells whether it does.
func (n *Node) PatroniRuns() bool {
	return n.On() && len(n.processes(isPatroni)) > 0
}

func isPatroni(cmdline string) bool { return strings.Contains(cmdline, "patroni.yml") }

// KillPatroni kills Patroni with SIGKILL; PostgreSQL goes on.
func (n *Node) KillPatroni() int {
	return n.Kill9(isPatroni)
}

// KillPostgres kills postmaster and all its children with SIGKILL.
func (n *Node) KillPostgres() int {
	return n.Kill9(func(cmdline string) bool {
		return strings.HasPrefix(cmdline, "postgres: ") || strings.HasPrefix(cmdline, n.cluster.bin+"/postgres ")
	})
}

// configure writes Patroni's file: JSON is YAML.
func (n *Node) configure(local map[string]any) error {
	c := n.cluster
	at := func(name string) string { return filepath.Join(c.Network.Local, name) }
	superuser := map[string]any{"username": "postgres", "password": "postgres"}
	pgsql := map[string]any{
		"listen": n.IP + ",127.0.0.1:5432", "connect_address": n.IP + ":5432",
		"data_dir": at("pgdata"), "bin_dir": c.bin, "pgpass": at("pgpass"),
		"authentication": map[string]any{"superuser": superuser, "replication": map[string]any{"username": "replicator", "password": "replicator"}},
		"parameters":     map[string]any{"unix_socket_directories": c.Network.Local},
		// What cannot follow the new leader is made anew.
		"remove_data_directory_on_rewind_failure": true, "remove_data_directory_on_diverged_timelines": true,
	}
	maps.Copy(pgsql, c.o.PostgreSQL)
	maps.Copy(pgsql, local)
	bootstrap := map[string]any{
		"dcs": merge(dynamic(c.o.SegmentMB), c.o.Dynamic),
		"initdb": []any{
			map[string]any{"encoding": "UTF8"},
			map[string]any{"locale": "C"},
			map[string]any{"auth": "trust"},
			map[string]any{"wal-segsize": fmt.Sprint(c.o.SegmentMB)},
			"data-checksums", "no-sync",
		},
	}
	maps.Copy(bootstrap, c.o.Bootstrap)
	text, err := json.MarshalIndent(map[string]any{
		"scope": c.o.Scope, "name": n.Name,
		"restapi":    map[string]any{"listen": n.IP + ":8008", "connect_address": n.IP + ":8008"},
		"etcd3":      map[string]any{"host": strings.TrimPrefix(etcdURL, "http://")},
		"bootstrap":  bootstrap,
		"postgresql": pgsql,
		"watchdog":   map[string]any{"mode": "off"},
	}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(n.Disk, "patroni.yml")
	return errors.Join(os.WriteFile(path, text, 0o600), c.env.Own(path))
}

// dynamic is Patroni's dynamic configuration: quick to notice that somebody is
// gone (Patroni wants loop_wait + 2·retry_timeout <= ttl), else near what
// people have.
func dynamic(segmentMB int) map[string]any {
	return map[string]any{
		"ttl": 12, "loop_wait": 1, "retry_timeout": 4,
		"maximum_lag_on_failover": 64 << 20,
		"primary_start_timeout":   0, // a primary that crashed is failed over, not started again
		"postgresql": map[string]any{
			"use_pg_rewind": true, "use_slots": true,
			"parameters": map[string]any{
				"shared_buffers": "32MB", "max_connections": "60", "max_wal_senders": "12", "max_replication_slots": "12",
				"wal_level": "replica", "hot_standby": "on", "wal_log_hints": "on",
				"min_wal_size": fmt.Sprintf("%dMB", 4*segmentMB), "max_wal_size": fmt.Sprintf("%dMB", max(64, 4*segmentMB)),
				"wal_retrieve_retry_interval": "500ms", "wal_receiver_timeout": "10s", "wal_sender_timeout": "10s",
				"log_line_prefix": "%m [%p] ", "log_timezone": "UTC", "logging_collector": "off", "log_checkpoints": "off",
				"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3",
			},
			"pg_hba": []any{"local all all trust", "host all all 0.0.0.0/0 trust", "host replication all 0.0.0.0/0 trust"},
		},
	}
}

// merge lays over over base, map by map.
func merge(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for k, v := range over {
		a, ok1 := out[k].(map[string]any)
		b, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			v = merge(a, b)
		}
		out[k] = v
	}
	return out
}

// Member is what Patroni says of a node.
type Member struct {
	Name     string
	Role     string // leader, replica, …
	State    string // running, streaming (newer than 3.0), stopped, …
	Host     string
	Timeline int
	Lag      any // bytes, or "unknown"
}

// Members asks the nodes, one after the other, until one answers.
func (c *Cluster) Members(ctx context.Context) ([]Member, error) {
	var last error
	for _, n := range c.Nodes {
		if !n.On() {
			continue
		}
		var v struct{ Members []Member }
		if last = c.request(ctx, http.MethodGet, n, "/cluster", nil, &v); last == nil {
			return v.Members, nil
		}
	}
	return nil, fmt.Errorf("ask Patroni: no node answers: %w", last)
}

// request talks to a node's Patroni from the hub.
func (c *Cluster) request(ctx context.Context, method string, n *Node, path string, body, into any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.IP+":8008"+path, in)
	if err != nil {
		return err
	}
	client := *c.client
	if method == http.MethodGet {
		client.Timeout = 2 * time.Second
	} else {
		client.Timeout = 30 * time.Second
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// Switchover hands the lead to another node, and returns when Patroni says so.
func (c *Cluster) Switchover(ctx context.Context, from, to *Node) error {
	return c.request(ctx, http.MethodPost, from, "/switchover", map[string]any{"leader": from.Name, "candidate": to.Name}, nil)
}

// Patch changes the dynamic configuration.
func (c *Cluster) Patch(ctx context.Context, change map[string]any) error {
	n, err := c.WaitLeader(ctx)
	if err != nil {
		return err
	}
	return c.request(ctx, http.MethodPatch, n, "/config", change, nil)
}

// Reinitialize throws away a replica's data directory and makes it anew.
func (c *Cluster) Reinitialize(ctx context.Context, n *Node) error {
	return c.request(ctx, http.MethodPost, n, "/reinitialize", map[string]any{"force": true}, nil)
}

// Restart restarts a node's PostgreSQL.
func (c *Cluster) Restart(ctx context.Context, n *Node) error {
	return c.request(ctx, http.MethodPost, n, "/restart", map[string]any{}, nil)
}

// Node finds one by name, nil if there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// WaitLeader returns the node that leads and takes writes, or leads a standby
// cluster.
func (c *Cluster) WaitLeader(ctx context.Context) (*Node, error) {
	return c.wait(ctx, "a leader", func(members []Member) *Node { return c.leader(ctx, members) })
}

func (c *Cluster) leader(ctx context.Context, members []Member) *Node {
	role, recovering := "leader", "f"
	if c.o.Standby {
		role, recovering = "standby_leader", "t"
	}
	for _, m := range members {
		n := c.Node(m.Name)
		if n == nil || m.Role != role || m.State != "running" {
			continue
		}
		if text, err := n.Text(ctx, "select pg_is_in_recovery()"); err == nil && text == recovering {
			return n
		}
	}
	return nil
}

// Promote makes a standby cluster a cluster of its own, and returns its leader
// when every node follows it.
func (c *Cluster) Promote(ctx context.Context) (*Node, error) {
	if err := c.Patch(ctx, map[string]any{"standby_cluster": nil}); err != nil {
		return nil, err
	}
	c.o.Standby = false
	return c.WaitHealthy(ctx)
}

// Demote makes a cluster whose Patroni runs on no node a standby cluster: it is
// one when Patroni is started again.
func (c *Cluster) Demote(ctx context.Context, on *Node, standbyCluster map[string]any) error {
	text, err := json.Marshal(map[string]any{"standby_cluster": standbyCluster})
	if err != nil {
		return err
	}
	path := filepath.Join(on.Disk, "standby.json")
	if err := errors.Join(os.WriteFile(path, text, 0o600), c.env.Own(path)); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(c.Network.Local, name) }
	_, err = on.Run(ctx, "patronictl", "-c", at("patroni.yml"), "edit-config", c.o.Scope, "--force", "--apply", at("standby.json"))
	c.o.Standby = err == nil
	return err
}

// WaitOtherLeader waits for a leader that is not n.
func (c *Cluster) WaitOtherLeader(ctx context.Context, not *Node) (*Node, error) {
	return c.wait(ctx, "another leader than "+not.Name, func(members []Member) *Node {
		if n := c.leader(ctx, members); n != not {
			return n
		}
		return nil
	})
}

// WaitHealthy returns the leader once every node is there and streams from it
// on its timeline.
func (c *Cluster) WaitHealthy(ctx context.Context) (*Node, error) {
	return c.wait(ctx, "every node to follow the leader", func(members []Member) *Node {
		n := c.leader(ctx, members)
		if n == nil || len(members) != len(c.Nodes) {
			return nil
		}
		streaming, err := n.Text(ctx, "select count(distinct application_name) from pg_stat_replication where state = 'streaming' and application_name like 'pg-%'")
		if err != nil || streaming != fmt.Sprint(len(c.Nodes)-1) {
			return nil
		}
		return n
	})
}

func (c *Cluster) wait(ctx context.Context, what string, try func([]Member) *Node) (*Node, error) {
	var members []Member
	var err error
	for {
		if members, err = c.Members(ctx); err == nil {
			if n := try(members); n != nil {
				return n, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w; Patroni says %+v, %v", what, ctx.Err(), members, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Config is how to connect to a node's server from a machine: from the hub as
// any client does, from the node itself (by 127.0.0.1) whatever is cut.
func (n *Node) Config(from *Machine) (*pgx.ConnConfig, error) {
	host := n.IP
	if from == n.Machine {
		host = "127.0.0.1"
	}
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres sslmode=disable connect_timeout=3", host))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = from.DialContext
	return cfg, nil
}

// Connect connects from the hub. Close it.
func (n *Node) Connect(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := n.Config(n.cluster.Network.Hub)
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// Text runs statements and returns the last one's first value as text.
func (n *Node) Text(ctx context.Context, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := n.Connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("on %s: %s: %w", n.Name, sql, err)
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

// Logs is the end of every node's log, for the report of a failure.
func (c *Cluster) Logs(lines int) string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "--- end of the log of node %s\n%s\n", n.Name, n.Log(lines))
	}
	return b.String()
}
