// Package agent archives the WAL of one PostgreSQL server, primary or standby,
// whatever its archive_mode says. One agent runs beside each server.
//
// # Why every node archives
//
// With archive_mode=on a standby marks the segments that it receives as done
// without archiving them. If the primary dies before it archived them, nobody
// ever will. So the agent believes no mark: it looks at pg_wal itself, on every
// node, and pushes each complete segment and each history file that a
// repository lacks. N nodes cost one upload, because the first to store a
// segment wins and the others find it there (package archive).
//
// # What is pushed
//
// Complete segments and history files of all timelines, backup history files,
// and the incomplete last segment of a timeline that another has forked from, as
// a partial one. What is complete the WAL decides, not the name and not the mark
// (wal.Examine). To look at few files whole, the survey asks the first page of a
// file whether the server has begun it at all (files kept for later use have old
// content), and takes the first page of the segment behind it for a hint that it
// is finished; the mark in archive_status is another hint. Only a timeline's last
// segment is left, and it is examined when it has not been written to for a
// while.
//
// # How
//
// The survey runs at start, at every change in archive_status, and every
// Options.Rescan. What it finds goes into one table, with a state per
// repository. Each repository has workers of its own, its own backoff, and sees
// only its own column of the table: a dead one keeps nothing from the others. A
// standby lets a segment lie for Options.StandbyDelay before it tries what the
// primary is about to push.
//
// walkeep-wal asks over a unix socket (package wire). By then the segment is in
// the table as a rule, and often done already, for the survey saw it when the
// server marked it: this is how one process archives in parallel what PostgreSQL
// asks for one by one. The answer is "ok" when as many repositories have it as
// are required.
//
// # What a crash leaves
//
// The table is memory only, and is made again from pg_wal and from listings of
// the stretch of segments concerned. PostgreSQL is told of success only after a
// repository confirmed it, so a killed agent promised nothing that is not
// durable; walkeep-wal, which gets no answer, does the work itself. The socket
// file of a killed agent stays, but its lock does not.
package agent
