package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
	"go.uber.org/zap"
)

// Files reads the data directory of a server through the server, for where
// nothing that can read its disk is at hand: pg_ls_dir, pg_stat_file and
// pg_read_binary_file, over sessions of their own, one statement at a time on
// each. Paths are relative to the data directory, "." is the directory itself.
// What is not there, or no longer, is fs.ErrNotExist.
//
// All sessions lead to one server: a conninfo with several hosts, a name with
// several addresses, or a balancer could spread them over the nodes of a cluster,
// and files of several nodes put together are no backup. So each session must be
// with a server of the same system identifier that was started at the same
// microsecond as the one that the backup runs on.
//
// A session that is lost is opened again, once, and the statement repeated:
// reading changes nothing. If the server was restarted, that fails, as the
// backup itself does.
type Files struct {
	conninfo string
	server   identity
	utf8     bool // the database's encoding
	dir      string
	mode     uint32
	log      *zap.Logger

	// idle holds the sessions that nobody uses; nil is one that was lost.
	idle chan *Conn
}

// identity tells a running server from all others.
type identity struct {
	systemID string
	started  int64 // microseconds
}

// The statements of a session of Files. Results are binary, so that bytes come
// as they are.
const (
	readStatement = "walkeep_read"
	listStatement = "walkeep_list"
	statStatement = "walkeep_stat"
)

var fileStatements = []struct {
	name, sql string
	params    []uint32
}{
	{readStatement, `select pg_read_binary_file($1, $2, $3, true)`, []uint32{pgtype.TextOID, pgtype.Int8OID, pgtype.Int8OID}},
	{
		listStatement, `select f.name, s.size, extract(epoch from s.modification)::int8, s.isdir
		from pg_ls_dir($1, true, false) f(name), pg_stat_file($1 || '/' || f.name, true) s order by f.name collate "C"`,
		[]uint32{pgtype.TextOID},
	},
	{statStatement, `select ''::text, s.size, extract(epoch from s.modification)::int8, s.isdir from pg_stat_file($1, true) s`, []uint32{pgtype.TextOID}},
}

// OpenFiles opens so many sessions on the server that of is a session with, by
// the same conninfo. log may be nil. Without the privileges it is ErrPrivileges.
func OpenFiles(ctx context.Context, conninfo string, of *Conn, sessions int, log *zap.Logger) (*Files, error) {
	if log == nil {
		log = zap.NewNop()
	}
	f := &Files{conninfo: conninfo, log: log, idle: make(chan *Conn, sessions)}
	var err error
	if f.server, err = of.identity(ctx); err != nil {
		return nil, err
	}
	for range sessions {
		c, err := f.open(ctx)
		if err != nil {
			return nil, errors.Join(err, f.Close(ctx))
		}
		f.idle <- c
	}
	if err := f.look(ctx); err != nil {
		return nil, errors.Join(err, f.Close(ctx))
	}
	return f, nil
}

// look finds out what does not change, and tries the privileges.
func (f *Files) look(ctx context.Context) error {
	const op = "look at the data directory"
	var dir *string
	var mode, encoding string
	err := f.do(ctx, func(c *Conn) error {
		return c.queryRow(ctx, op, `select (select setting from pg_settings where name = 'data_directory'), current_setting('data_directory_mode'), getdatabaseencoding()::text`,
			nil, &dir, &mode, &encoding)
	})
	if err != nil {
		return err
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return fmt.Errorf("data_directory_mode is %q: %w", mode, err)
	}
	if dir != nil {
		f.dir = *dir
	}
	f.mode, f.utf8 = uint32(bits), encoding == "UTF8"
	if _, err = f.Stat(ctx, "PG_VERSION"); err == nil {
		_, err = f.ReadAt(ctx, "PG_VERSION", make([]byte, 1), 0)
	}
	if err == nil {
		_, err = f.List(ctx, "pg_tblspc")
	}
	return err
}

// Directory is the data directory as the server calls it; "" if the role may not
// see that.
func (f *Files) Directory() string { return f.dir }

// DirectoryMode is the mode of its directories, 0700 or 0750: the server gives
// its files the same without the right to execute.
func (f *Files) DirectoryMode() uint32 { return f.mode }

// Close ends the sessions. Nobody may be using them.
func (f *Files) Close(ctx context.Context) error {
	var errs []error
	for {
		select {
		case c := <-f.idle:
			if c != nil {
				errs = append(errs, c.Close(ctx))
			}
		default:
			return errors.Join(errs...)
		}
	}
}

// open opens one session.
func (f *Files) open(ctx context.Context) (*Conn, error) {
	c, err := Connect(ctx, f.conninfo, f.log)
	if err != nil {
		return nil, err
	}
	c.reads = true
	if err := f.prepare(ctx, c); err != nil {
		return nil, errors.Join(err, c.Close(context.WithoutCancel(ctx)))
	}
	return c, nil
}

func (f *Files) prepare(ctx context.Context, c *Conn) error {
	id, err := c.identity(ctx)
	if err != nil {
		return err
	}
	if id != f.server {
		return c.advised("open another session", ErrOtherServer, nil,
			"A backup that is read over SQL needs several sessions with one server: let conninfo lead to a single one, not to several hosts or a balancer. If the server was restarted, take the backup again.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range fileStatements {
		if _, err := c.pgx.PgConn().Prepare(ctx, s.name, s.sql, s.params); err != nil {
			return c.wrap(ctx, "prepare the reading of files", err)
		}
	}
	return nil
}

// conflicts is how often a statement is repeated that a standby cancelled because
// it was in the way of replay; with max_standby_streaming_delay = 0 that can meet
// the shortest.
const conflicts = 20

// do has a session do something that can be repeated.
func (f *Files) do(ctx context.Context, work func(*Conn) error) error {
	var c *Conn
	select {
	case c = <-f.idle:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { f.idle <- c }()
	var err error
	if c != nil {
		for range conflicts {
			if err = work(c); sqlState(err) != stateSerializationFailure || c.pgx.IsClosed() {
				break
			}
		}
		if !errors.Is(err, ErrConnectionLost) || ctx.Err() != nil {
			return err
		}
		f.log.Warn("a session that files are read over was lost: it is opened again", zap.Error(err))
		c = nil
	}
	again, openErr := f.open(ctx)
	if openErr != nil {
		return errors.Join(openErr, err)
	}
	c = again
	return work(c)
}

// ReadAt fills p from an offset of a file on. It returns less only at the end of
// the file, and then without an error. Between two calls another file can take
// the place of one that was removed.
func (f *Files) ReadAt(ctx context.Context, path string, p []byte, off int64) (n int, err error) {
	gone := false
	err = f.do(ctx, func(c *Conn) error {
		n, gone = 0, false
		params := [][]byte{[]byte(path), int8Param(off), int8Param(int64(len(p)))}
		return c.prepared(ctx, "read "+path, readStatement, params, func(v [][]byte) error {
			if gone = v[0] == nil; gone {
				return nil
			}
			if n = copy(p, v[0]); n < len(v[0]) {
				return fmt.Errorf("%d bytes were asked for, and %d came", len(p), len(v[0]))
			}
			return nil
		})
	})
	if err == nil && gone {
		err = notExist("read", path)
	}
	return n, err
}

// FileInfo is what pg_stat_file says of a path, or what a link there leads to.
type FileInfo struct {
	Size     int64
	Modified time.Time // to the second
	Dir      bool
}

// Stat looks at one path.
func (f *Files) Stat(ctx context.Context, path string) (FileInfo, error) {
	var l Listing
	err := f.do(ctx, func(c *Conn) error {
		l = Listing{}
		return c.prepared(ctx, "look at "+path, statStatement, [][]byte{[]byte(path)}, func(v [][]byte) error { return l.add(v, true) })
	})
	if err != nil {
		return FileInfo{}, err
	}
	if l.Len() != 1 || l.all[0].kind == listedGone {
		return FileInfo{}, notExist("look at", path)
	}
	return l.Info(0)
}

// List lists a directory. One that is not there is empty.
func (f *Files) List(ctx context.Context, path string) (*Listing, error) {
	var l Listing
	err := f.do(ctx, func(c *Conn) error {
		l = Listing{}
		return c.prepared(ctx, "list "+path, listStatement, [][]byte{[]byte(path)}, func(v [][]byte) error {
			return l.add(v, !f.utf8 || utf8.Valid(v[0]))
		})
	})
	return &l, err
}

// TablespaceLocation is where a tablespace's link in pg_tblspc leads to, or,
// in place, "pg_tblspc/<oid>".
func (f *Files) TablespaceLocation(ctx context.Context, oid uint32) (location string, err error) {
	err = f.do(ctx, func(c *Conn) error {
		return c.queryRow(ctx, "read the link of a tablespace", `select pg_tablespace_location($1::int8::oid)`, []any{int64(oid)}, &location)
	})
	if sqlState(err) == stateUndefinedFile {
		err = notExist("read the link of", "pg_tblspc/"+strconv.FormatUint(uint64(oid), 10))
	}
	return location, err
}

func notExist(op, path string) error { return &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist} }

func int8Param(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// prepared runs a prepared statement and passes its rows on, whose values are
// valid until the next.
func (c *Conn) prepared(ctx context.Context, op, statement string, params [][]byte, row func(values [][]byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	formats := make([]int16, len(params))
	for i := range formats {
		formats[i] = 1 // binary
	}
	rows := c.pgx.PgConn().ExecPrepared(ctx, statement, params, formats, []int16{1})
	var err error
	for rows.NextRow() {
		if err == nil {
			err = row(rows.Values())
		}
	}
	if _, closeErr := rows.Close(); closeErr != nil {
		err = closeErr
	}
	return c.wrap(ctx, op, err)
}

// identity tells which server this is a session with.
func (c *Conn) identity(ctx context.Context) (id identity, err error) {
	err = c.queryRow(ctx, "ask which server this is", `select (select system_identifier::text from pg_control_system()), (extract(epoch from pg_postmaster_start_time()) * 1000000)::int8`,
		nil, &id.systemID, &id.started)
	return id, err
}
