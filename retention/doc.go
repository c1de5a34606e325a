// Package retention decides which backups and which WAL a repository keeps,
// and removes the rest.
//
// # The plan
//
// [MakePlan] is a pure function: from a [Policy], what the repository holds
// and a moment it makes a [Plan] that says for every backup and every run of
// WAL whether it stays and why. There is no clock, no randomness and no I/O in
// it.
//
// A backup stays if one of these keeps it: the full rule (the newest N, or
// those younger than N days and the newest one older), the differential rule
// below a full that the full rule keeps, a period of grandfather-father-son, a
// pin, somebody who uses it. What a backup that stays builds on stays too, and
// what builds on a backup that goes, goes with it.
//
// WAL stays from the start of the oldest backup on that the full rule keeps,
// on every timeline that leads from a backup that stays; of older backups that
// stay, only what makes them consistent.
//
// # Carrying it out
//
// [Run] reads, plans and removes under the repository's lease "expire". What
// makes it safe, beside running backups and restores and at every crash:
//
//   - Summaries go first, and of backups that build on one another the last
//     one first. So whatever is listed has all that it needs, at any moment.
//   - Packs are not deleted because the plan says so but because they are
//     garbage when all summaries that had to go are gone: no summary of that
//     label, no summary that references it, nobody who writes or uses it. So the
//     garbage of a killed run, of a killed backup and of this run are one thing, and
//     the next run finishes what this one did not.
//   - The labels that have packs are listed before the marks of use, and the
//     marks before the summaries. A backup that runs has put its mark before
//     its first pack and removes it after its summary. So one that the list of
//     packs shows is in the list of marks, or in that of summaries, or dead.
//   - What is left of a killed backup is for the next one to use, for three
//     days after its last sign of life, and as long as no later backup makes it
//     superfluous (awaited). Who uses it holds the lease of its label, which
//     we need to delete, and begins only where two days have not passed: so what
//     a run here has begun to delete, however slowly, nobody begins to use.
//   - Whoever builds on a backup or reads it puts a mark first, and then
//     looks whether the summary is still there; we delete summaries first, and
//     look for marks then. So he finds no summary, or we find his mark. In the
//     second case no packs are deleted at all until the mark is gone: a mark
//     does not say what its backup references. If he commits after all, his own
//     summary references what he needs.
//   - What a killed writer left of an unfinished object (a multipart upload of S3)
//     is no object and in no list. It is aborted when it is a week old.
//   - WAL goes last, and only what no backup that is really still listed
//     needs. While a backup runs, none is removed: a standby's can begin before
//     the newest one that is listed.
//
// Two runs at a time are kept apart by the lease, which is asked before every
// batch. A run that was stopped for longer than the lease lasts, and wakes up
// in the middle of a request, deletes what was garbage when it looked; garbage
// stays garbage, because nobody can begin to reference it.
package retention
