package server

import (
	"context"

	"github.com/walkeep/walkeep/pg"
)

// Standing is where a server stands among those of its cluster.
type Standing struct {
	SystemID   pg.SystemID
	Version    string      // "15.13"
	InRecovery bool        // a standby
	Timeline   pg.Timeline // on which it writes, or replays
	LSN        pg.LSN      // written (primary) or replayed (standby)
	// Streaming: it is a standby that receives WAL by replication; for a role that
	// may not see the state of that, it at least tries.
	Streaming     bool
	DataDirectory string // "" if the role may not see it
}

// Standing asks the server anew at each call, with little effort.
func (c *Conn) Standing(ctx context.Context) (s Standing, err error) {
	const op = "ask where the server stands"
	c.mu.Lock()
	defer c.mu.Unlock()
	var id string
	var lsn, dir *string
	err = c.pgx.QueryRow(ctx, `select system_identifier::text, pg_is_in_recovery(), current_setting('server_version'),
		(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text,
		exists (select from pg_stat_wal_receiver where pid is not null and coalesce(status, 'streaming') = 'streaming'),
		(select setting from pg_settings where name = 'data_directory')
		from pg_control_system()`).Scan(&id, &s.InRecovery, &s.Version, &lsn, &s.Streaming, &dir)
	if err != nil {
		return Standing{}, c.wrap(ctx, op, err)
	}
	if s.SystemID, err = systemIDOf(id); err != nil {
		return Standing{}, c.wrap(ctx, op, err)
	}
	if lsn != nil {
		if s.LSN, err = pg.ParseLSN(*lsn); err != nil {
			return Standing{}, c.wrap(ctx, op, err)
		}
	}
	if dir != nil {
		s.DataDirectory = *dir
	}
	s.Timeline, err = c.timeline(ctx, s.InRecovery)
	return s, c.wrap(ctx, op, err)
}

// Closed reports whether the session is over.
func (c *Conn) Closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pgx.IsClosed()
}
