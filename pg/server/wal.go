package server

import (
	"context"
	"fmt"
	"strings"

	"github.com/walkeep/walkeep/pg"
)

// Switch is the outcome of SwitchWAL.
type Switch struct {
	LSN      pg.LSN // the end of the last WAL in the segment that ended
	Timeline pg.Timeline
	Segment  pg.SegmentName // which the archiver gets next
}

// SwitchWAL ends the current segment of a primary. A server that has written
// nothing since its last switch would ignore that; a restore point is written
// before, so that it does not, if the role may.
func (c *Conn) SwitchWAL(ctx context.Context) (Switch, error) {
	const op = "switch WAL"
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.primary(ctx, op); err != nil {
		return Switch{}, err
	}
	if _, err := c.createRestorePoint(ctx, "walkeep switch"); err != nil && sqlState(err) != stateInsufficientPrivilege {
		return Switch{}, c.wrap(ctx, op, err)
	}
	var lsn, name string
	err := c.pgx.QueryRow(ctx, `select l::text, pg_walfile_name(l) from pg_switch_wal() l`).Scan(&lsn, &name)
	if err != nil {
		return Switch{}, c.wrap(ctx, op, err)
	}
	var s Switch
	if s.LSN, err = pg.ParseLSN(lsn); err == nil {
		s.Segment, err = pg.ParseSegmentName(name)
	}
	if err != nil {
		return Switch{}, c.wrap(ctx, op, err)
	}
	s.Timeline = s.Segment.Timeline()
	return s, nil
}

// maxRestorePoint is the longest name of a restore point, in bytes
// (MAXFNAMELEN - 1).
const maxRestorePoint = 63

// CreateRestorePoint writes a named restore point on a primary and returns its
// position: the end of the record.
func (c *Conn) CreateRestorePoint(ctx context.Context, name string) (pg.LSN, error) {
	const op = "create a restore point"
	if err := checkText("the name of a restore point", name, maxRestorePoint); err != nil {
		return 0, &Error{Op: op, Node: c.node, Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.primary(ctx, op); err != nil {
		return 0, err
	}
	lsn, err := c.createRestorePoint(ctx, name)
	return lsn, c.wrap(ctx, op, err)
}

func (c *Conn) createRestorePoint(ctx context.Context, name string) (pg.LSN, error) {
	var lsn string
	if err := c.pgx.QueryRow(ctx, `select pg_create_restore_point($1)::text`, name).Scan(&lsn); err != nil {
		return 0, err
	}
	return pg.ParseLSN(lsn)
}

// primary is an error that is ErrRecovery unless the server is a primary.
func (c *Conn) primary(ctx context.Context, op string) error {
	var inRecovery bool
	if err := c.pgx.QueryRow(ctx, `select pg_is_in_recovery()`).Scan(&inRecovery); err != nil {
		return c.wrap(ctx, op, err)
	}
	if inRecovery {
		return c.advised(op, ErrRecovery, nil, "Do it on the primary.")
	}
	return nil
}

// CurrentLSN is how far a primary has written WAL; on a standby ErrRecovery.
func (c *Conn) CurrentLSN(ctx context.Context) (pg.LSN, error) {
	const op = "read the current LSN"
	var inRecovery bool
	var lsn *string
	err := c.queryRow(ctx, op, `select pg_is_in_recovery(), case when not pg_is_in_recovery() then pg_current_wal_lsn()::text end`, nil, &inRecovery, &lsn)
	if err == nil && inRecovery {
		return 0, c.advised(op, ErrRecovery, nil, "")
	}
	return c.optionalLSN(op, lsn, err)
}

// ReplayLSN is how far a standby has replayed WAL; 0 on a server that has
// never been in recovery since its start.
func (c *Conn) ReplayLSN(ctx context.Context) (pg.LSN, error) {
	const op = "read the replay LSN"
	var lsn *string
	err := c.queryRow(ctx, op, `select pg_last_wal_replay_lsn()::text`, nil, &lsn)
	return c.optionalLSN(op, lsn, err)
}

// ReceiveLSN is how far a standby has received WAL by streaming and made it
// durable; 0 if it has not streamed.
func (c *Conn) ReceiveLSN(ctx context.Context) (pg.LSN, error) {
	const op = "read the receive LSN"
	var lsn *string
	err := c.queryRow(ctx, op, `select pg_last_wal_receive_lsn()::text`, nil, &lsn)
	return c.optionalLSN(op, lsn, err)
}

func (c *Conn) optionalLSN(op string, text *string, err error) (pg.LSN, error) {
	if err != nil || text == nil {
		return 0, err
	}
	lsn, err := pg.ParseLSN(*text)
	if err != nil {
		return 0, &Error{Op: op, Node: c.node, Err: err}
	}
	return lsn, nil
}

// checkText refuses what could not be sent or stored: anything but printable
// ASCII, because no encoding is converted on this session.
func checkText(what, s string, maxLen int) error {
	bad := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
	if s == "" || len(s) > maxLen || bad >= 0 {
		return fmt.Errorf("%s must be 1 to %d printable ASCII characters, not %q", what, maxLen, s)
	}
	return nil
}

// Archiver is what pg_stat_archiver says of a server's archiver.
type Archiver struct {
	LastArchived string // file name; "" if none since the statistics were reset
	LastFailed   string
	Failing      bool // its last try failed
	Failures     int64
}

// Archiver asks how archiving goes. It is about the whole server process since
// its statistics were reset, not about a repository.
func (c *Conn) Archiver(ctx context.Context) (Archiver, error) {
	var a Archiver
	err := c.queryRow(ctx, "read the archiver's statistics", `select coalesce(last_archived_wal, ''), coalesce(last_failed_wal, ''),
		coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), failed_count from pg_stat_archiver`,
		nil, &a.LastArchived, &a.LastFailed, &a.Failing, &a.Failures)
	return a, err
}

// WALFiles lists the names of the files in the server's pg_wal that PostgreSQL
// archives, in order (pg_ls_waldir, which needs pg_monitor).
func (c *Conn) WALFiles(ctx context.Context) ([]string, error) {
	const op = "list pg_wal"
	c.mu.Lock()
	defer c.mu.Unlock()
	rows, err := c.pgx.Query(ctx, `select name from pg_ls_waldir() order by name collate "C"`)
	if err != nil {
		return nil, c.wrap(ctx, op, err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, c.wrap(ctx, op, err)
		}
		if pg.KindOf(name) != pg.FileUnknown {
			names = append(names, name)
		}
	}
	return names, c.wrap(ctx, op, rows.Err())
}
