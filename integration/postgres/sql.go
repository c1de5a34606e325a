package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walkeep/walkeep/pg"
)

// ConnInfo is the superuser's connection string, over TCP, to database postgres.
func (s *Server) ConnInfo() string { return s.ConnInfoFor("postgres", "postgres") }

// ConnInfoFor is a connection string for another user or database.
func (s *Server) ConnInfoFor(user, database string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable", s.Port, user, database)
}

// Connect opens a connection as the superuser. Close it.
func (s *Server) Connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, s.ConnInfo())
	if err != nil {
		return nil, fmt.Errorf("connect to server %s: %w", s.Name, err)
	}
	return conn, nil
}

// Exec runs a statement on a connection of its own; without args it may be
// several, separated by semicolons.
func (s *Server) Exec(ctx context.Context, sql string, args ...any) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	} else {
		_, err = conn.Exec(ctx, sql, args...)
	}
	if err != nil {
		return fmt.Errorf("server %s: %s: %w", s.Name, sql, err)
	}
	return nil
}

// Scan runs a query that yields one row into dest.
func (s *Server) Scan(ctx context.Context, sql string, dest ...any) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, sql).Scan(dest...); err != nil {
		return fmt.Errorf("server %s: %s: %w", s.Name, sql, err)
	}
	return nil
}

// Text runs a query that yields one value and returns it as text; NULL is "".
func (s *Server) Text(ctx context.Context, sql string) (string, error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("server %s: %s: %w", s.Name, sql, err)
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", fmt.Errorf("server %s: %s: %w", s.Name, sql, pgx.ErrNoRows)
	}
	return string(last.Rows[0][0]), nil
}

// LSN is the end of what the server has written, or replayed while in recovery.
func (s *Server) LSN(ctx context.Context) (pg.LSN, error) {
	text, err := s.Text(ctx, `select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end`)
	if err != nil {
		return 0, err
	}
	return pg.ParseLSN(text)
}

// SystemID is the cluster's system identifier.
func (s *Server) SystemID(ctx context.Context) (pg.SystemID, error) {
	text, err := s.Text(ctx, `select system_identifier from pg_control_system()`)
	if err != nil {
		return 0, err
	}
	return pg.ParseSystemID(text)
}

// SwitchWAL ends the current segment of a primary, also of an idle one, and
// returns its name.
func (s *Server) SwitchWAL(ctx context.Context) (pg.SegmentName, error) {
	if err := s.Exec(ctx, `select pg_create_restore_point('walkeep test switch')`); err != nil {
		return "", err
	}
	text, err := s.Text(ctx, `select pg_walfile_name(pg_switch_wal())`)
	if err != nil {
		return "", err
	}
	return pg.ParseSegmentName(text)
}

// Promote makes a standby a primary and waits until it is one.
func (s *Server) Promote(ctx context.Context) error {
	text, err := s.Text(ctx, `select pg_promote(true, 60)`)
	if err != nil {
		return err
	}
	if text != "t" {
		return fmt.Errorf("promote server %s: not done after 60 s\n%s", s.Name, s.logTail(20))
	}
	return nil
}

// WaitReplay waits until a standby (or a primary) has reached lsn.
func (s *Server) WaitReplay(ctx context.Context, lsn pg.LSN) error {
	return s.Poll(ctx, fmt.Sprintf("replay of %s", lsn), func() (bool, error) {
		at, err := s.LSN(ctx)
		return at >= lsn, err
	})
}

// WaitArchived waits until the archiver has archived a segment of the
// server's own timeline, or a later one.
func (s *Server) WaitArchived(ctx context.Context, name pg.SegmentName) error {
	sql := fmt.Sprintf(`select coalesce(bool_or(left(last_archived_wal, 8) = '%s' and left(last_archived_wal, 24) >= '%s' and last_archived_wal not like '%%.history'), false) from pg_stat_archiver`,
		name[:8], name)
	return s.Poll(ctx, fmt.Sprintf("archiving of %s", name), func() (bool, error) {
		text, err := s.Text(ctx, sql)
		return text == "t", err
	})
}

// WaitFor waits until a query that yields a boolean yields true.
func (s *Server) WaitFor(ctx context.Context, sql string) error {
	return s.Poll(ctx, sql, func() (bool, error) {
		text, err := s.Text(ctx, sql)
		return text == "t", err
	})
}

// Poll calls done until it says true, for at most three minutes or until ctx
// ends: PostgreSQL's own archiver can pause for one (PGARCH_AUTOWAKE_INTERVAL).
// The error says what was waited for, and holds done's last error, which by
// itself does not end the wait.
func (s *Server) Poll(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var last error
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		ok, err := done()
		if ok && err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("server %s: wait for %s: %w\n%s", s.Name, what, errors.Join(ctx.Err(), last), s.logTail(20))
		case <-time.After(pause):
		}
	}
}
