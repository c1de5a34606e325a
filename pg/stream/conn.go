package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
)

// Options of Connect. The zero value has defaults for all.
type Options struct {
	// Status is how often the server is told how far we are. Default 10 s, as
	// wal_receiver_status_interval.
	Status time.Duration
	// Silence is how long a server may say nothing before it counts as lost;
	// after half of it, it is asked for a sign of life. Default 60 s, as
	// wal_receiver_timeout.
	Silence time.Duration
	Log     *zap.Logger // nil: none
}

// Conn is a connection in replication mode. It is for one goroutine, but for
// Close.
type Conn struct {
	node     string
	conninfo string
	opts     Options
	pg       *pgconn.PgConn
	size     pg.SegmentSize // 0 until asked
}

// maxMessage bounds what the server can make us keep in memory, bytes. WAL
// comes in messages of 128 KiB; history files are the longest of the rest.
const maxMessage = 16 << 20

// Connect opens a connection in replication mode to the server that conninfo
// names. The role needs the attribute REPLICATION and nothing else.
func Connect(ctx context.Context, conninfo string, o Options) (*Conn, error) {
	if o.Status <= 0 {
		o.Status = 10 * time.Second
	}
	if o.Silence <= 0 {
		o.Silence = time.Minute
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	conn, node, err := server.Replication(ctx, conninfo)
	if err != nil {
		return nil, err
	}
	conn.Frontend().SetMaxBodyLen(maxMessage)
	return &Conn{node: node, conninfo: conninfo, opts: o, pg: conn}, nil
}

// Again opens another connection to where this one leads.
func (c *Conn) Again(ctx context.Context) (*Conn, error) { return Connect(ctx, c.conninfo, c.opts) }

// Node names the server for people: host and port.
func (c *Conn) Node() string { return c.node }

// Close ends the connection; it waits a moment for the server, no longer.
func (c *Conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return c.pg.Close(ctx)
}

// System is what a server says of itself.
type System struct {
	SystemID pg.SystemID
	Timeline pg.Timeline // on which it writes, or which it replays
	Flushed  pg.LSN      // how far it can stream
}

// Identify asks which cluster this is, and where it stands.
func (c *Conn) Identify(ctx context.Context) (System, error) {
	const op = "identify the server"
	row, err := c.row(ctx, op, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return System{}, err
	}
	var s System
	if s.SystemID, err = pg.ParseSystemID(row[0]); err != nil {
		return System{}, c.protocol(op, err)
	}
	if s.Timeline, err = parseTimeline(row[1]); err != nil {
		return System{}, c.protocol(op, err)
	}
	if s.Flushed, err = pg.ParseLSN(row[2]); err != nil {
		return System{}, c.protocol(op, err)
	}
	return s, nil
}

// SegmentSize asks for wal_segment_size, once.
func (c *Conn) SegmentSize(ctx context.Context) (pg.SegmentSize, error) {
	if c.size != 0 {
		return c.size, nil
	}
	const op = "read wal_segment_size"
	row, err := c.row(ctx, op, "SHOW wal_segment_size", 1)
	if err != nil {
		return 0, err
	}
	size, err := parseSegmentSize(row[0])
	if err != nil {
		return 0, c.protocol(op, err)
	}
	c.size = size
	return size, nil
}

// History fetches the history file of timeline t, which must not be 1, byte by
// byte. fs.ErrNotExist: the server does not have it.
func (c *Conn) History(ctx context.Context, t pg.Timeline) ([]byte, error) {
	op := fmt.Sprintf("fetch %s", pg.HistoryName(t))
	row, err := c.row(ctx, op, fmt.Sprintf("TIMELINE_HISTORY %d", t), 2)
	if err != nil {
		if sqlState(err) == stateUndefinedFile {
			return nil, &server.Error{Op: op, Node: c.node, Err: ErrNoHistory}
		}
		return nil, err
	}
	if row[0] != pg.HistoryName(t) {
		return nil, c.protocol(op, fmt.Errorf("it sent %q", row[0]))
	}
	return []byte(row[1]), nil
}

// Ancestry is the history of the timeline that the server is on, parsed.
func (c *Conn) Ancestry(ctx context.Context, t pg.Timeline) (pg.History, error) {
	if t == 1 {
		return pg.History{Timeline: 1}, nil
	}
	b, err := c.History(ctx, t)
	if err != nil {
		return pg.History{}, err
	}
	return pg.ParseHistory(t, b)
}

// row runs a command that yields one row of at least n columns.
func (c *Conn) row(ctx context.Context, op, command string, n int) ([]string, error) {
	results, err := c.pg.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, c.fail(ctx, op, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < n {
		return nil, c.protocol(op, errors.New("not the one row that was expected"))
	}
	row := make([]string, len(results[0].Rows[0]))
	for i, v := range results[0].Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// fail gives errors of the driver their meaning.
func (c *Conn) fail(ctx context.Context, op string, err error) error {
	e := &server.Error{Op: op, Node: c.node, Err: err}
	var pgErr *pgconn.PgError
	switch {
	case ctx.Err() != nil:
		e.Err = context.Cause(ctx)
	case errors.As(err, &pgErr) && !c.pg.IsClosed():
	default:
		e.Err = fmt.Errorf("%w: %w", server.ErrConnectionLost, err)
	}
	return e
}

func (c *Conn) protocol(op string, err error) error {
	return &server.Error{Op: op, Node: c.node, Err: fmt.Errorf("%w: %w", ErrProtocol, err)}
}

// send sends one message. A server that takes nothing for as long as it may be
// silent is lost.
func (c *Conn) send(m pgproto3.FrontendMessage) error {
	conn := c.pg.Conn()
	if err := conn.SetWriteDeadline(time.Now().Add(c.opts.Silence)); err != nil {
		return err
	}
	c.pg.Frontend().Send(m)
	err := c.pg.Frontend().Flush()
	return errors.Join(err, clearDeadline(conn))
}

func clearDeadline(conn net.Conn) error { return conn.SetWriteDeadline(time.Time{}) }

func parseTimeline(s string) (pg.Timeline, error) {
	// int4 up to 15, int8 from 16: in the former, timelines of 2^31 and more
	// come as negative numbers.
	n, err := strconv.ParseInt(s, 10, 64)
	if t := pg.Timeline(uint32(n)); err == nil && t != 0 && n >= -1<<31 && n < 1<<32 {
		return t, nil
	}
	return 0, fmt.Errorf("not a timeline: %q", s)
}

// parseSegmentSize reads what SHOW wal_segment_size prints: 16MB, 1GB.
func parseSegmentSize(s string) (pg.SegmentSize, error) {
	digits := strings.TrimRight(s, "kMGB")
	n, err := strconv.ParseUint(digits, 10, 31)
	switch s[len(digits):] {
	case "kB":
		n <<= 10
	case "MB":
		n <<= 20
	case "GB":
		n <<= 30
	case "B", "":
	default:
		err = errors.New("unknown unit")
	}
	if size := pg.SegmentSize(n); err == nil && n <= 1<<30 && size.Valid() {
		return size, nil
	}
	return 0, fmt.Errorf("not a WAL segment size: %q", s)
}
