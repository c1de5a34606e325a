// Package server is PostgreSQL as walkeep sees it over SQL: what a server is
// and how it is configured, backup mode, and the few functions that move WAL.
//
// # Backup mode
//
// [Conn.StartBackup] puts the server into backup mode and says from where WAL
// is needed; the caller copies files; [Conn.StopBackup] ends it and yields the
// backup_label that makes the copy restorable. The mode belongs to the
// session: when the connection goes, the server ends the backup by itself, and
// what was copied is worthless. So:
//
//   - the connection must be a direct one, not through a pooler that hands
//     statements of one client to several sessions (StopBackup notices);
//   - [Conn.KeepAlive] gives a context that ends when the connection does, so
//     that no terabyte is read in vain;
//   - StopBackup takes its own context, because it has to be reached when the
//     backup's context has been cancelled;
//   - a Conn whose StopBackup failed is closed, which takes the server out of
//     backup mode in any case. A process that dies has the same effect.
//
// StopBackup does not wait for the archiver. The caller knows better: it
// commits a backup when every segment from StartResult.LSN to StopResult.LSN
// is in its repository, whoever brought it there.
//
// # Primaries and standbys
//
// On a primary, starting takes a checkpoint and stopping switches WAL. On a
// standby both only read pg_control: the start is the last restartpoint, the
// stop is minRecoveryPoint (xlog.c, do_pg_backup_start and do_pg_backup_stop),
// no segment ends, and nobody writes a backup history file. The segment that
// holds the stop is complete only when the primary has written more or
// switched ([Conn.SwitchWAL] there). A standby that is promoted in between
// has no usable backup: [ErrPromoted].
//
// # Timelines
//
// pg_walfile_name is right on a primary and refused on a standby, where
// pg_control is the source; that one lags: after a promotion it shows the old
// timeline until the next checkpoint. The backup_label has the last word
// ([pg.ParseBackupLabel]), and StopBackup compares.
package server
