// Package backup takes a backup of a PostgreSQL cluster: it copies the data
// directory of a running server, primary or standby, into one or more
// repositories at once.
//
// # What a backup is
//
// pg_backup_start makes a checkpoint and returns the LSN from which replay
// will begin. The files are then copied while the server goes on writing to
// them, so the copy is of no single moment. pg_backup_stop returns the LSN at
// which replay has repaired every file that changed under the copying; from
// there on the cluster is consistent. So a backup is the files, what the two
// functions said (backup_label, tablespace_map), and all WAL between the two
// LSNs. [Run] ends when that WAL is archived in the repository too: before
// that, what it stored is not a backup yet.
//
// # How the files get there
//
//	walk ──units──▶ worker ─┬─▶ pack in repo1     results ──▶ manifests
//	               worker ─┴─▶ pack in repo2     in order
//
// The walk goes through the data directory in the order of the manifest and
// holds no more than the names of the directories it is in. Units are ranges
// of large files, or handfuls of small ones. Each worker reads a megabyte,
// checks its pages, hashes and compresses it once per kind of compression, and
// appends it to its own open pack in every repository. A repository that fails
// drops out; the others go on.
//
// Files come from a [Source]: the disk of this machine, or the server itself,
// over SQL. All else is the same for both.
//
// # Only what has changed
//
// A differential or incremental backup builds on a parent: it stores the pages
// that have changed since, and its manifest names the parent's chunks for all
// others, so that a restore reads one manifest. The parent must be a state that
// this very server has gone through (see lineage); each repository has its own.
// Which pages have changed is found by the best rung of a ladder that can be
// relied on (see Detect), and per file: what is no relation, maps and init
// forks, and all of a database that was made anew, is stored whole.
//
// The argument for a page that is not stored again: it was not changed by any
// WAL record after the parent's start, up to this backup's start, whose
// checkpoint has written all earlier changes to disk. The parent copied it after
// its own start, so it has it as it is now, or torn by a write that comes from
// after that start, in which case it is no such page. What changes it after
// this backup's start is replayed. The parent's end is before this backup's
// start, so that no page from the parent is newer than where replay stops.
//
// # When it is killed
//
// Everything stored is stored under the new backup's label: packs while they
// fill, then the manifest, then the summary. A backup is listed when its
// summary exists, and that one is stored, if absent, after (1) every pack of
// which the manifest speaks was acknowledged as durable, (2) pg_backup_stop
// returned, (3) every segment from start to stop was seen in this repository,
// (4) the manifest was acknowledged, and (5) the lease was found to be still
// ours. Killed before that, there are objects that nothing lists, which the next
// backup of that type uses (resume.go), or expiry collects; killed after, there is a whole backup. The server notices that the
// connection is gone and leaves backup mode by itself: nothing of a
// non-exclusive backup is left in the data directory. The lease runs out, or
// is taken over at once on the same host, since its process is dead.
//
// On an error or a cancelled context the same clean-up is done in order:
// pg_backup_stop, the lease released; the packs are deleted if no journal says what
// they hold.
package backup
