package server

import (
	"context"
	"fmt"

	"github.com/walkeep/walkeep/pg"
)

// Summary is a WAL summary of the server (17 and newer, summarize_wal): it
// knows which blocks the WAL from Start to End on one timeline changed.
type Summary struct {
	Timeline   pg.Timeline
	Start, End pg.LSN
}

// SummaryBlock is one fact of a WAL summary.
type SummaryBlock struct {
	Tablespace, Database, Relation uint32 // Relation 0: all of the database was made anew
	Fork                           int    // 0 is the main fork
	Block                          uint32
	// Limit: from Block on, the fork was cut or new at some time.
	Limit bool
}

// Summaries lists the WAL summaries that the server has, in no order.
func (c *Conn) Summaries(ctx context.Context) ([]Summary, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const op = "list the WAL summaries"
	rows, err := c.pgx.Query(ctx, `select tli::int8, start_lsn::text, end_lsn::text from pg_available_wal_summaries()`)
	if err != nil {
		return nil, c.wrap(ctx, op, err)
	}
	defer rows.Close()
	var all []Summary
	for rows.Next() {
		var tli int64
		var from, to string
		if err := rows.Scan(&tli, &from, &to); err != nil {
			return nil, c.wrap(ctx, op, err)
		}
		s := Summary{Timeline: pg.Timeline(tli)}
		var err1, err2 error
		s.Start, err1 = pg.ParseLSN(from)
		s.End, err2 = pg.ParseLSN(to)
		if err1 != nil || err2 != nil {
			return nil, c.wrap(ctx, op, fmt.Errorf("a summary from %q to %q", from, to))
		}
		all = append(all, s)
	}
	return all, c.wrap(ctx, op, rows.Err())
}

// SummaryBlocks passes on everything that a WAL summary says.
func (c *Conn) SummaryBlocks(ctx context.Context, s Summary, each func(SummaryBlock)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	const op = "read a WAL summary"
	rows, err := c.pgx.Query(ctx, `select relfilenode::int8, reltablespace::int8, reldatabase::int8, relforknumber::int4, relblocknumber, is_limit_block
		from pg_wal_summary_contents($1::int8, $2::text::pg_lsn, $3::text::pg_lsn)`, int64(s.Timeline), s.Start.String(), s.End.String())
	if err != nil {
		return c.wrap(ctx, op, err)
	}
	defer rows.Close()
	for rows.Next() {
		var relation, tablespace, database, block int64
		var b SummaryBlock
		if err := rows.Scan(&relation, &tablespace, &database, &b.Fork, &block, &b.Limit); err != nil {
			return c.wrap(ctx, op, err)
		}
		b.Relation, b.Tablespace, b.Database, b.Block = uint32(relation), uint32(tablespace), uint32(database), uint32(block)
		each(b)
	}
	return c.wrap(ctx, op, rows.Err())
}
