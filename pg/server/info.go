package server

import (
	"context"
	"fmt"
	"strconv"

	"github.com/walkeep/walkeep/pg"
)

// Info is what a server is, and those of its settings that matter to a backup.
type Info struct {
	Version     int // server_version_num
	Major       int
	SystemID    pg.SystemID
	InRecovery  bool        // a standby, or still in recovery
	Timeline    pg.Timeline // on which it writes, or replays
	SegmentSize pg.SegmentSize
	BlockSize   int // bytes
	Superuser   bool
	Settings    map[string]string // those of settingNames that the role may see
	ServerTime  string            // its clock, RFC 3339 with microseconds, UTC
	// ExclusiveBackup: somebody has begun an exclusive backup (14 and older)
	// and not ended it. It does not disturb ours, but a crash of that server
	// would leave a backup_label behind that keeps it from starting.
	ExclusiveBackup bool

	// The same as Settings has, typed. DataDirectory is "" if the role may not
	// see it (it needs pg_read_all_settings).
	DataDirectory  string
	WALLevel       string // minimal, replica, logical
	ArchiveMode    string // off, on, always
	ArchiveCommand string // "" if there is none, or archive_mode is off
	ArchiveLibrary string // 15+
	FullPageWrites bool
	DataChecksums  bool
}

// settingNames are what Info reads; a setting that a version does not have, or
// that the role may not see, is not in Info.Settings.
var settingNames = []string{
	"archive_command", "archive_library", "archive_mode", "archive_timeout", "block_size", "data_checksums",
	"data_directory", "full_page_writes", "hot_standby", "max_slot_wal_keep_size", "server_version",
	"summarize_wal", "wal_block_size", "wal_keep_size", "wal_level", "wal_log_hints", "wal_segment_size",
}

// Info asks the server anew at each call.
func (c *Conn) Info(ctx context.Context) (Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const op = "read the server's settings"
	info := Info{Version: c.version, Major: c.Major(), Settings: map[string]string{}}
	rows, err := c.pgx.Query(ctx, `select name, setting from pg_settings where name = any($1) and setting is not null`, settingNames)
	if err != nil {
		return Info{}, c.wrap(ctx, op, err)
	}
	for rows.Next() {
		var name, setting string
		if err := rows.Scan(&name, &setting); err != nil {
			return Info{}, c.wrap(ctx, op, err)
		}
		info.Settings[name] = setting
	}
	if err := rows.Err(); err != nil {
		return Info{}, c.wrap(ctx, op, err)
	}
	if err := info.fromSettings(); err != nil {
		return Info{}, c.wrap(ctx, op, err)
	}

	exclusive := "false"
	if c.Major() <= 14 { // where pg_is_in_backup is about exclusive ones only
		exclusive = "pg_is_in_backup()"
	}
	var systemID string
	err = c.pgx.QueryRow(ctx, `select (select system_identifier::text from pg_control_system()), pg_is_in_recovery(), `+exclusive+`,
		(select rolsuper from pg_roles where rolname = current_user),
		to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`).
		Scan(&systemID, &info.InRecovery, &info.ExclusiveBackup, &info.Superuser, &info.ServerTime)
	if err != nil {
		return Info{}, c.wrap(ctx, op, err)
	}
	if info.SystemID, err = systemIDOf(systemID); err != nil {
		return Info{}, c.wrap(ctx, op, err)
	}
	info.Timeline, err = c.timeline(ctx, info.InRecovery)
	return info, c.wrap(ctx, "find the timeline", err)
}

// systemIDOf reads what pg_control_system calls a bigint: an identifier made
// after 2038 is negative there.
func systemIDOf(text string) (pg.SystemID, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("not a system identifier: %q", text)
	}
	return pg.SystemID(uint64(n)), nil
}

func (i *Info) fromSettings() error {
	s := i.Settings
	i.DataDirectory, i.WALLevel, i.ArchiveMode = s["data_directory"], s["wal_level"], s["archive_mode"]
	i.ArchiveCommand, i.ArchiveLibrary = s["archive_command"], s["archive_library"]
	if i.ArchiveMode == "off" { // it is shown as "(disabled)" then
		i.ArchiveCommand = ""
	}
	i.FullPageWrites, i.DataChecksums = s["full_page_writes"] == "on", s["data_checksums"] == "on"
	size, err := strconv.ParseUint(s["wal_segment_size"], 10, 32)
	if i.SegmentSize = pg.SegmentSize(size); err != nil || !i.SegmentSize.Valid() {
		return fmt.Errorf("wal_segment_size is %q", s["wal_segment_size"])
	}
	if i.BlockSize, err = strconv.Atoi(s["block_size"]); err != nil {
		return fmt.Errorf("block_size: %w", err)
	}
	return nil
}

// timeline is where a primary writes, or what a standby replays or receives,
// whichever is latest: pg_control and the receiver can each lag.
func (c *Conn) timeline(ctx context.Context, inRecovery bool) (pg.Timeline, error) {
	if !inRecovery {
		var name string
		err := c.pgx.QueryRow(ctx, `select pg_walfile_name(pg_current_wal_insert_lsn())`).Scan(&name)
		if sqlState(err) == stateNotInPrerequisite {
			return 0, fmt.Errorf("%w: %w", ErrRecovery, err) // demoted meanwhile: cannot be
		}
		if err != nil {
			return 0, err
		}
		segment, err := pg.ParseSegmentName(name)
		if err != nil {
			return 0, err
		}
		return segment.Timeline(), nil
	}
	var timeline int64
	err := c.pgx.QueryRow(ctx, `select greatest(
		(select timeline_id from pg_control_checkpoint()),
		(select min_recovery_end_timeline from pg_control_recovery()),
		(select max(received_tli) from pg_stat_wal_receiver where status = 'streaming'))::int8`).Scan(&timeline)
	return pg.Timeline(timeline), err
}
