package server

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database is a row of pg_database.
type Database struct {
	OID  uint32
	Name string
	// XMin is the transaction that wrote the row. One that is dropped and made
	// again, moved to another tablespace, or altered in any way gets another.
	XMin uint32
}

// Facts are what tells whether a data directory is still the same as at some
// earlier moment, only changed.
type Facts struct {
	Databases []Database // by OID
	// Started is when the postmaster started, by its clock. Settings that need
	// a restart have not changed since.
	Started time.Time
	// LogHints is wal_log_hints, which needs a restart.
	LogHints bool
}

// Facts asks the server anew at each call.
func (c *Conn) Facts(ctx context.Context) (Facts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const op = "read the list of databases"
	var f Facts
	var us int64
	err := c.pgx.QueryRow(ctx, `select (extract(epoch from pg_postmaster_start_time()) * 1000000)::int8, current_setting('wal_log_hints') = 'on'`).
		Scan(&us, &f.LogHints)
	if err != nil {
		return Facts{}, c.wrap(ctx, op, err)
	}
	f.Started = time.UnixMicro(us).UTC()
	rows, err := c.pgx.Query(ctx, `select oid::int8::oid, datname::text, xmin::text::int8::oid from pg_database order by oid`)
	if err != nil {
		return Facts{}, c.wrap(ctx, op, err)
	}
	f.Databases, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Database])
	return f, c.wrap(ctx, op, err)
}
