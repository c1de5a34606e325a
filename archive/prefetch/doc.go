// Package prefetch lets recovery read segments that were fetched before it
// asked for them.
//
// PostgreSQL calls restore_command for one segment at a time and waits. A
// [Getter] answers from a spool, a directory on local disk, which a
// [Prefetcher] fills in the background with the segments that recovery will ask
// for next, several at a time, each in order. What is not in the spool is got
// as if there were none, so that a spool that is missing, full, not writable or
// damaged costs speed and nothing else.
//
// # One spool per recovery
//
// A spool belongs to one recovery: its directory is named after the data
// directory (path, device and inode), the system identifier and the
// repositories. Two recoveries on one host, of the same cluster too, have two
// spools: each deletes what its own recovery is past, which the other may not
// have reached. A directory that is removed and restored again is another
// recovery. What lies in a spool can have come from nowhere but the
// repositories that are configured now.
//
// # Files, and kill -9
//
//	lock                     held (flock) by the prefetcher while it runs
//	asked                    the segment that recovery asked for last
//	NAME.part                held (flock) while NAME arrives, from its first bytes on
//	NAME.new                 NAME, being written and not believed
//	NAME.<xxh3-128>.ready    NAME, whole, verified and durable
//
// A segment is fetched to NAME.new, synced, hashed and renamed to its ready
// name. The hash is verified again before the file is handed over, so that not
// even a crash of the machine can make a half-written file be served: it is
// removed, and the segment got from the repositories. Handing over is one
// rename into pg_wal, or across file systems a copy under a temporary name and
// a rename. Killed at any point, the prefetcher leaves ready files, which the
// next one and all getters use, and others, which the next one removes. The
// kernel lets go of its locks, so that nobody waits for the dead.
//
// # What is not there
//
// Absence is never kept. That a segment is nowhere is said only by a get that
// asked all repositories just then. The prefetcher stops at the first segment
// that it does not find, and asks for it again when recovery asks on.
//
// # Bounds
//
// Ready files and those being fetched take at most Options.Size. A fetch is
// begun only if room for four more segments stays free on the file system. The
// prefetcher ends, and removes its spool, when recovery has not asked for
// Options.Idle, has ended (recovery.signal and standby.signal are gone), or the
// data directory is. What a killed one left behind for an hour is removed by the
// next that runs in the same place.
package prefetch
