package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
)

// Tablespace is one besides pg_default and pg_global.
type Tablespace struct {
	OID  uint32
	Name string
	// Location is the directory, or, in place (15+, a developers' option),
	// "pg_tblspc/<oid>" relative to the data directory.
	Location string
}

// StartResult is where a backup begins.
type StartResult struct {
	LSN         pg.LSN      // WAL is needed from here
	Timeline    pg.Timeline // of that LSN
	FromStandby bool
	Tablespaces []Tablespace // by OID, as of just after the start
}

// StopResult is where a backup ends.
type StopResult struct {
	// LSN is the end of the WAL that the backup needs, as far as this session
	// knows. A backup of a standby is consistent only at the minRecoveryPoint
	// of the pg_control that was copied, which is at most LSN if pg_control was
	// copied before StopBackup, and may be beyond it if it was copied after.
	LSN           pg.LSN
	Timeline      pg.Timeline // of that LSN; on a standby that followed a promotion it differs from the start's
	Label         pg.BackupLabel
	LabelFile     []byte // backup_label, byte for byte
	TablespaceMap []byte // tablespace_map, byte for byte; empty without tablespaces
}

// running is what the session remembers of its backup.
type running struct {
	start StartResult
	pid   int32 // of the backend that knows about it
}

// maxLabel is the longest label, in bytes (MAXPGPATH is 1024).
const maxLabel = 1000

// StartBackup begins a backup. With fast the checkpoint of a primary runs at
// full speed; without, it is spread and can take minutes. label is printable
// ASCII and ends up in backup_label.
func (c *Conn) StartBackup(ctx context.Context, label string, fast bool) (StartResult, error) {
	const op = "start a backup"
	if err := checkText("the label of a backup", label, maxLabel); err != nil {
		return StartResult{}, &Error{Op: op, Node: c.node, Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backup != nil {
		return StartResult{}, &Error{Op: op, Node: c.node, Err: errors.New("one is running on this connection")}
	}
	before, err := c.state(ctx)
	if err != nil {
		return StartResult{}, c.wrap(ctx, op, err)
	}
	if before.exclusive {
		c.log.Warn("an exclusive backup was begun on this server and never ended: if nobody knows of it, end it with pg_stop_backup()")
	}
	sql := `select pg_backup_start($1, $2)::text`
	if c.Major() < 15 {
		sql = `select pg_start_backup($1, $2, false)::text`
	}
	var text string
	if err := c.pgx.QueryRow(ctx, sql, label, fast).Scan(&text); err != nil {
		return StartResult{}, c.startError(ctx, before, err)
	}
	start, err := c.started(ctx, before, text)
	if err != nil {
		// The server is in backup mode, and nobody would stop it.
		return StartResult{}, errors.Join(c.wrap(ctx, op, err), c.giveUp(ctx))
	}
	c.backup = &running{start: start, pid: before.pid}
	c.log.Info("backup started", zap.Stringer("lsn", start.LSN), zap.Uint32("timeline", uint32(start.Timeline)), zap.Bool("standby", start.FromStandby))
	return start, nil
}

// started collects what a backup that has begun is about.
func (c *Conn) started(ctx context.Context, before state, text string) (StartResult, error) {
	s := StartResult{FromStandby: before.inRecovery}
	var err error
	if s.LSN, err = pg.ParseLSN(text); err != nil {
		return s, err
	}
	after, err := c.state(ctx)
	if err != nil {
		return s, err
	}
	switch {
	case after.pid != before.pid:
		return s, ErrPooled
	case before.inRecovery && !after.inRecovery:
		return s, ErrPromoted
	}
	if s.Timeline, err = c.startTimeline(ctx, s.LSN, before, after); err != nil {
		return s, err
	}
	rows, err := c.pgx.Query(ctx, `select oid, spcname, pg_tablespace_location(oid) from pg_tablespace where spcname not in ('pg_default', 'pg_global') order by oid`)
	if err != nil {
		return s, err
	}
	s.Tablespaces, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Tablespace])
	return s, err
}

// startTimeline finds the timeline of the checkpoint that a backup starts
// from. On a primary it is the one on which the server writes. On a standby it
// is in pg_control, if that still shows the same checkpoint; if replay has
// meanwhile gone on to another, the checkpoint of the start lies between the
// ones seen before and after.
func (c *Conn) startTimeline(ctx context.Context, start pg.LSN, before, after state) (pg.Timeline, error) {
	switch {
	case !after.inRecovery:
		return c.timeline(ctx, false)
	case after.redo == start, after.checkpointTimeline == before.checkpointTimeline:
		return after.checkpointTimeline, nil
	case before.redo == start:
		return before.checkpointTimeline, nil
	}
	return 0, fmt.Errorf("the timeline changed from %d to %d while the backup began: begin it again", before.checkpointTimeline, after.checkpointTimeline)
}

func (c *Conn) startError(ctx context.Context, before state, err error) error {
	const op = "start a backup"
	if ctx.Err() == nil && sqlState(err) == stateNotInPrerequisite {
		switch {
		case before.inRecovery:
			return c.advised(op, ErrFullPageWrites, errors.New(serverText(err)), fullPageWritesAdvice)
		case before.walLevel == "minimal":
			return c.advised(op, ErrWALLevel, errors.New(serverText(err)), "Set wal_level = replica (or logical) and restart the server.")
		}
	}
	return c.wrap(ctx, op, err)
}

const fullPageWritesAdvice = "Set full_page_writes = on on the primary, reload, run CHECKPOINT there, wait until the standby has replayed it, run CHECKPOINT on the standby, and take the backup again; or take it from the primary."

// StopBackup ends the backup of this session. It does not wait for WAL to be
// archived. Whatever error it returns, the server is out of backup mode
// afterwards (the session is closed), and there is no usable backup:
// ErrPromoted, ErrFullPageWrites, ErrConnectionLost, ErrPooled, ErrNoBackup,
// the context's error.
func (c *Conn) StopBackup(ctx context.Context) (StopResult, error) {
	const op = "stop the backup"
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.backup
	if b == nil {
		if c.pgx.IsClosed() {
			return StopResult{}, c.advised(op, ErrConnectionLost, nil, "")
		}
		return StopResult{}, c.advised(op, ErrNoBackup, nil, "")
	}
	c.backup = nil
	stop, err := c.stop(ctx, b)
	if err != nil {
		return StopResult{}, errors.Join(err, c.giveUp(ctx))
	}
	c.log.Info("backup stopped", zap.Stringer("lsn", stop.LSN), zap.Uint32("timeline", uint32(stop.Timeline)))
	return stop, nil
}

// giveUp closes the session, which ends its backup.
func (c *Conn) giveUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return c.close(ctx)
}

func (c *Conn) stop(ctx context.Context, b *running) (StopResult, error) {
	const op = "stop the backup"
	before, err := c.state(ctx)
	if err != nil {
		return StopResult{}, c.lost(ctx, c.wrap(ctx, op, err))
	}
	if before.pid != b.pid {
		return StopResult{}, c.advised(op, ErrPooled, nil, pooledAdvice)
	}
	sql := `select lsn::text, labelfile, spcmapfile from pg_backup_stop(false)`
	if c.Major() < 15 {
		sql = `select lsn::text, labelfile, spcmapfile from pg_stop_backup(false, false)`
	}
	var text string
	var s StopResult
	if err := c.pgx.QueryRow(ctx, sql).Scan(&text, (*raw)(&s.LabelFile), (*raw)(&s.TablespaceMap)); err != nil {
		return StopResult{}, c.stopError(ctx, b, err)
	}
	if s.LSN, err = pg.ParseLSN(text); err != nil {
		return StopResult{}, c.wrap(ctx, op, err)
	}
	if s.Label, err = pg.ParseBackupLabel(s.LabelFile); err != nil {
		return StopResult{}, c.wrap(ctx, op, err)
	}
	if s.Label.StartLSN != b.start.LSN || s.Label.StartTimeline != b.start.Timeline || s.Label.FromStandby != b.start.FromStandby {
		return StopResult{}, c.wrap(ctx, op, fmt.Errorf("the server's label (%s on timeline %d) is not that of the backup begun (%s on timeline %d)",
			s.Label.StartLSN, s.Label.StartTimeline, b.start.LSN, b.start.Timeline))
	}
	s.Timeline, err = c.stopTimeline(ctx, s.LSN, b, before)
	return s, c.wrap(ctx, op, err)
}

// stopTimeline: a primary does not change its timeline without a restart. On a
// standby the stop is minRecoveryPoint, which pg_control has with its timeline.
func (c *Conn) stopTimeline(ctx context.Context, stop pg.LSN, b *running, before state) (pg.Timeline, error) {
	if !b.start.FromStandby {
		return b.start.Timeline, nil
	}
	after, err := c.state(ctx)
	switch {
	case err != nil:
		return 0, err
	case after.minRecovery == stop, after.minRecoveryTimeline == before.minRecoveryTimeline:
		return after.minRecoveryTimeline, nil
	case before.minRecovery == stop:
		return before.minRecoveryTimeline, nil
	}
	return 0, fmt.Errorf("the timeline changed from %d to %d while the backup ended", before.minRecoveryTimeline, after.minRecoveryTimeline)
}

const pooledAdvice = "Connect to the server itself: a pooler in transaction or statement mode hands statements to different sessions, and a backup belongs to one."

func (c *Conn) stopError(ctx context.Context, b *running, err error) error {
	const op = "stop the backup"
	if ctx.Err() != nil || sqlState(err) != stateNotInPrerequisite {
		return c.lost(ctx, c.wrap(ctx, op, err))
	}
	// Which of the reasons it is cannot be read off the message, which may be
	// in any language.
	now, stateErr := c.state(ctx)
	switch {
	case stateErr != nil:
		return c.lost(ctx, c.wrap(ctx, op, err))
	case b.start.FromStandby && !now.inRecovery:
		return c.advised(op, ErrPromoted, errors.New(serverText(err)), "Take the backup again.")
	case b.start.FromStandby:
		return c.advised(op, ErrFullPageWrites, errors.New(serverText(err)), fullPageWritesAdvice)
	}
	return c.wrap(ctx, op, err)
}

// lost says what the end of a connection means for a backup.
func (c *Conn) lost(_ context.Context, err error) error {
	var e *Error
	if errors.Is(err, ErrConnectionLost) && errors.As(err, &e) {
		e.Advice = "The server ended the backup together with the connection: take it again. If this repeats, look at the server's log, and for timeouts on the way."
	}
	return err
}

// state is what tells standbys, promotions and timelines apart.
type state struct {
	pid                 int32
	inRecovery          bool
	exclusive           bool // see Info.ExclusiveBackup
	walLevel            string
	redo                pg.LSN
	checkpointTimeline  pg.Timeline
	minRecovery         pg.LSN
	minRecoveryTimeline pg.Timeline
}

func (c *Conn) state(ctx context.Context) (state, error) {
	exclusive := "false"
	if c.Major() <= 14 {
		exclusive = "pg_is_in_backup()"
	}
	var s state
	var redo, minRecovery string
	var t1, t2 int64
	err := c.pgx.QueryRow(ctx, `select pg_backend_pid(), pg_is_in_recovery(), `+exclusive+`, current_setting('wal_level'),
		c.redo_lsn::text, c.timeline_id::int8, r.min_recovery_end_lsn::text, r.min_recovery_end_timeline::int8
		from pg_control_checkpoint() c, pg_control_recovery() r`).
		Scan(&s.pid, &s.inRecovery, &s.exclusive, &s.walLevel, &redo, &t1, &minRecovery, &t2)
	if err != nil {
		return s, err
	}
	s.checkpointTimeline, s.minRecoveryTimeline = pg.Timeline(t1), pg.Timeline(t2)
	var err1, err2 error
	s.redo, err1 = pg.ParseLSN(redo)
	s.minRecovery, err2 = pg.ParseLSN(minRecovery)
	return s, errors.Join(err1, err2)
}

// raw takes a text value as the bytes that the server sent.
type raw []byte

// Scan implements sql.Scanner for what the driver makes of text.
func (r *raw) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*r = nil
	case string:
		*r = raw(v)
	case []byte:
		*r = append(raw(nil), v...)
	default:
		return fmt.Errorf("not text: %T", v)
	}
	return nil
}
