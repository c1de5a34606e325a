package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"go.uber.org/zap"
)

// The versions that are served: server_version_num / 10000.
const (
	MinMajor = 13
	MaxMajor = 18
)

// Conn is one session. Its methods may be called from several goroutines; one
// statement runs at a time.
type Conn struct {
	node    string // "host:port", for messages
	user    string
	db      string
	version int  // server_version_num, for instance 150004
	reads   bool // a session of Files, which needs more privileges
	log     *zap.Logger

	mu     sync.Mutex // guards pgx and backup
	pgx    *pgx.Conn
	backup *running // nil when no backup runs
}

const connectTimeout = 30 * time.Second

// Connect opens a session on the server that conninfo names: libpq's keyword
// and value form or URI, with libpq's environment variables, service and
// password files. log may be nil. An unsupported version is ErrUnsupported, no
// connection ErrConnect; no error shows a secret of conninfo.
func Connect(ctx context.Context, conninfo string, log *zap.Logger) (*Conn, error) {
	if log == nil {
		log = zap.NewNop()
	}
	cfg, err := parse(conninfo)
	if err != nil {
		return nil, err
	}
	if cfg.Database == "" {
		cfg.Database = cfg.User // as the server does; said here so that messages can name it
	}
	node := nodeName(&cfg.Config)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectError(ctx, node, cfg, err)
	}
	c := &Conn{node: node, user: cfg.User, db: cfg.Database, pgx: conn, log: log.With(zap.String("server", node))}
	if err := c.prepareSession(ctx); err != nil {
		return nil, errors.Join(err, c.Close(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// Replication opens a connection in replication mode, for package stream, and
// says where it leads. It goes through the same conninfo as Connect, with the
// same errors; pg_hba.conf must let the role connect to "replication", and the
// role must have the attribute REPLICATION.
func Replication(ctx context.Context, conninfo string) (conn *pgconn.PgConn, node string, err error) {
	cfg, err := parse(conninfo)
	if err != nil {
		return nil, "", err
	}
	cfg.RuntimeParams["replication"] = "true"
	if cfg.Database == "" {
		cfg.Database = "replication" // the server ignores it, and messages name it
	}
	// A context that ends must not cancel the stream: a deadline is how its
	// reader waits for the next message.
	cfg.BuildContextWatcherHandler = func(p *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: p.Conn()}
	}
	node = nodeName(&cfg.Config)
	conn, err = pgconn.ConnectConfig(ctx, &cfg.Config)
	if err != nil {
		e := connectError(ctx, node, cfg, err)
		var known *Error
		if errors.As(e, &known) && (sqlState(err) == stateInsufficientPrivilege || sqlState(err) == stateInvalidAuthorization) {
			known.Advice = fmt.Sprintf("Streaming needs ALTER ROLE %q REPLICATION, and a line for that role and the database \"replication\" in pg_hba.conf.", cfg.User)
		}
		return nil, node, e
	}
	return conn, node, nil
}

func parse(conninfo string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(conninfo)
	if err != nil {
		// The driver's text quotes the whole string, and masks passwords only
		// as far as it recognizes them. The cause by itself does not.
		why := "it is neither \"keyword=value …\" nor a postgres:// URI"
		if cause := errors.Unwrap(err); cause != nil {
			why = cause.Error()
			for _, word := range strings.FieldsFunc(conninfo, func(r rune) bool { return strings.ContainsRune(" ='\"@:/?&\t\n", r) }) {
				if len(word) > 2 && strings.Contains(why, word) {
					why = "see the documentation of libpq's connection strings (what the driver says may hold a password, and is not shown)"
				}
			}
		}
		return nil, &Error{Op: "read conninfo", Node: "the server", Err: fmt.Errorf("%w: %s", ErrConnect, why), Advice: "Correct conninfo in the configuration."}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "walkeep"
	}
	// Unnamed statements: nothing is left behind on the server.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	// A cancelled context cancels the statement and keeps the session, in
	// which a backup may be running that has to be stopped. Only a server that
	// does not answer loses it.
	cfg.BuildContextWatcherHandler = func(p *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: p, DeadlineDelay: 10 * time.Second}
	}
	return cfg, nil
}

// nodeName is where a configuration leads, without secrets.
func nodeName(cfg *pgconn.Config) string {
	var names []string
	add := func(host string, port uint16) {
		name := host + ":" + strconv.Itoa(int(port)) // also for a socket's directory
		if net.ParseIP(host) != nil {
			name = net.JoinHostPort(host, strconv.Itoa(int(port)))
		}
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	add(cfg.Host, cfg.Port)
	for _, f := range cfg.Fallbacks { // also holds the same host without TLS
		add(f.Host, f.Port)
	}
	return strings.Join(names, ",")
}

func connectError(ctx context.Context, node string, cfg *pgx.ConnConfig, err error) error {
	text := err.Error()
	if cfg.Password != "" {
		text = strings.ReplaceAll(text, cfg.Password, "…")
	}
	e := &Error{Op: "connect", Node: node, Err: fmt.Errorf("%w: %s", ErrConnect, text)}
	if ctx.Err() != nil {
		e.Err = fmt.Errorf("%w: %w", ErrConnect, context.Cause(ctx))
	}
	switch sqlState(err) {
	case stateInvalidPassword:
		e.Advice = fmt.Sprintf("The password of role %q is wrong or missing: put it into a password file and name it in conninfo (passfile=…).", cfg.User)
	case stateInvalidAuthorization:
		e.Advice = fmt.Sprintf("Let role %q connect to database %q from this host in the server's pg_hba.conf, create the role if it does not exist (CREATE ROLE … LOGIN), and reload.", cfg.User, cfg.Database)
	case stateInvalidCatalog:
		e.Advice = "Name a database that exists in conninfo, for instance dbname=postgres."
	case stateTooManyConnections:
		e.Advice = "Raise max_connections, or find out who holds them all (pg_stat_activity)."
	case stateCannotConnectNow:
		e.Advice = "The server is starting up, shutting down, or a standby without hot_standby=on or not yet consistent: wait, or set hot_standby=on."
	case "":
		if ctx.Err() == nil {
			e.Advice = "Is the server running, and do host and port in conninfo lead to it (listen_addresses, firewall, TLS settings)?"
		}
	}
	return e
}

// session makes results independent of how the server, the database and the
// role are configured, and long waits possible. client_encoding SQL_ASCII
// means that bytes come as they are: a backup_label holds paths, and is stored
// byte for byte.
var session = []struct {
	sql   string
	since int
}{
	{"set search_path = pg_catalog", 0},
	{"set client_encoding = 'SQL_ASCII'", 0},
	{"set datestyle = 'ISO, YMD'", 0},
	{"set intervalstyle = 'postgres'", 0},
	{"set timezone = 'UTC'", 0},
	{"set extra_float_digits = 3", 0},
	{"set bytea_output = 'hex'", 0},
	{"set standard_conforming_strings = on", 0},
	{"set client_min_messages = error", 0},
	{"set default_transaction_read_only = off", 0},
	{"set synchronous_commit = local", 0}, // no standby may hold us up
	{"set lock_timeout = 0", 0},
	{"set idle_in_transaction_session_timeout = 0", 0},
	{"set idle_session_timeout = 0", 14},
	{"set transaction_timeout = 0", 17},
}

func (c *Conn) prepareSession(ctx context.Context) error {
	const op = "prepare the session"
	// First and by itself: the role's own timeout must not end what follows.
	if err := c.pgx.PgConn().Exec(ctx, "set statement_timeout = 0").Close(); err != nil {
		return c.wrap(ctx, op, err)
	}
	var version string
	if err := c.pgx.QueryRow(ctx, "select current_setting('server_version_num')").Scan(&version); err != nil {
		return c.wrap(ctx, op, err)
	}
	n, err := strconv.Atoi(version)
	if err != nil {
		return c.wrap(ctx, op, fmt.Errorf("server_version_num: %w", err))
	}
	c.version = n
	if m := c.Major(); m < MinMajor || m > MaxMajor {
		return c.advised("connect", ErrUnsupported, fmt.Errorf("it is %d", m),
			fmt.Sprintf("This walkeep serves PostgreSQL %d to %d.", MinMajor, MaxMajor))
	}
	var all []string
	for _, s := range session {
		if c.Major() >= s.since {
			all = append(all, s.sql)
		}
	}
	if err := c.pgx.PgConn().Exec(ctx, strings.Join(all, ";")).Close(); err != nil {
		return c.wrap(ctx, op, err)
	}
	return nil
}

// Major is the server's major version, MinMajor to MaxMajor.
func (c *Conn) Major() int { return c.version / 10000 }

// Node names the server for people: host and port.
func (c *Conn) Node() string { return c.node }

// Close ends the session, and with it a backup that was not stopped.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.close(ctx)
}

func (c *Conn) close(ctx context.Context) error {
	c.backup = nil
	if c.pgx.IsClosed() {
		return nil
	}
	return c.pgx.Close(ctx)
}

// queryRow runs a query for one row.
func (c *Conn) queryRow(ctx context.Context, op, sql string, args []any, dest ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrap(ctx, op, c.pgx.QueryRow(ctx, sql, args...).Scan(dest...))
}

// Ping asks the server for a sign of life.
func (c *Conn) Ping(ctx context.Context) error {
	var one int
	return c.queryRow(ctx, "ping", "select 1", nil, &one)
}

// keepAliveEvery is how long a lost connection can go unnoticed, and short
// enough for firewalls that forget idle connections.
const keepAliveEvery = 15 * time.Second

// KeepAlive gives a context below ctx that is cancelled, with an error that is
// ErrConnectionLost as its cause, soon after the session is gone. Call stop
// when it is no longer needed, before Close; it waits for what KeepAlive runs.
func (c *Conn) KeepAlive(ctx context.Context) (alive context.Context, stop func()) {
	return c.keepAlive(ctx, keepAliveEvery)
}

func (c *Conn) keepAlive(ctx context.Context, every time.Duration) (context.Context, func()) {
	alive, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-alive.Done():
				return
			case <-tick.C:
			}
			pingCtx, cancelPing := context.WithTimeout(alive, time.Minute)
			err := c.Ping(pingCtx)
			cancelPing()
			if err != nil && alive.Err() == nil {
				if !errors.Is(err, ErrConnectionLost) {
					err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
				}
				c.log.Warn("connection lost", zap.Error(err))
				cancel(err)
				return
			}
		}
	}()
	return alive, func() { cancel(nil); <-done }
}
