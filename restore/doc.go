// Package restore brings a cluster back from a repository: first it plans,
// touching nothing, then it runs the plan.
//
// # Planning
//
// [NewPlan] chooses the repository, the backup, the way through the timelines
// and the WAL, and proves from what is stored that the server will reach the
// target: every segment from the start of the backup on is there, and the
// target lies inside the recovery window. It does so because the server would
// find out too late: a target behind the last transaction makes recovery fail
// at its very end, after hours. If the target cannot be reached, the error, an
// [*UnreachableError], says what can.
//
// The choice itself ([Choose]) is made over plain data, [repo.Holdings], and
// the heads of WAL segments, which carry commit times and restore points; it
// needs few of them.
//
// # Running
//
// [Run] restores into a directory. These things together make it safe
// to be killed at any moment:
//
//   - The marker file walkeep.restoring is the first thing in the directory.
//     What is in a directory with a marker is ours, and a second run clears it.
//   - Everything but global/pg_control is written and made durable first;
//     without that file no server starts. That includes recovery.signal and
//     the recovery settings.
//   - Then comes global/pg_control, and when that is durable the marker goes.
//
// # In place
//
// With [Options.Delta] the directory may hold a data directory of the cluster:
// of a server that crashed, or of an old primary that went its own way. It
// becomes what a restore into an empty directory would have made, whatever was
// in it. After the marker the first thing is that the old global/pg_control
// goes, durably; then all that the backup does not have, is of another kind
// there, or has a second name elsewhere. Of a file that stays, each chunk's place
// is read, and only the chunks that differ are fetched and written. What the user
// keeps ([Options.Keep]) is left alone.
//
// A directory is only taken if it is a data directory of this cluster and no
// server uses it, a tablespace's only if the old directory's link leads there.
//
// Every byte is verified on its way: chunks by CRC-32C and XXH3-128, files by
// CRC-32C. All paths are opened below the target directory with [os.Root], so
// no manifest can lead out of it.
package restore
