// Package difference proves incremental backups by difference: a cluster goes
// through everything that moves pages, chains of backups are taken on every
// rung of change detection, and each link is restored to a moment. The same
// moment is reached from the chain's full backup by replay of WAL alone, which
// knows nothing of change detection. Both are compared page by page, without
// the bits that WAL does not carry, and row by row.
//
// In half of the chains of a soak, and in one of a test run, there is a standby
// that is backed up, and that takes over when the primary is killed.
//
// `go test ./integration/difference -soak 1h` goes on for an hour, with a seed
// that is printed and can be given again.
package difference
