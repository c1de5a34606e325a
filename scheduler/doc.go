// Package scheduler decides when the jobs of a cluster run, and runs them.
//
// [Decide] is a pure function: from the jobs, the history of runs and a moment
// it says what starts now and when to ask again. It knows no clock. [Runner] is
// the thin loop around it, for one repository; what a job does is a function
// that it is given.
//
// The rules:
//
//   - A job is due at the times of its schedule, in a named zone. Of several
//     times that were missed, because the service was down or the repository
//     busy, the last one counts: it is caught up once.
//
//   - Runs of one repository never overlap; those of different ones may.
//
//   - A full backup swallows a differential or incremental that is due when it
//     starts, a differential an incremental. Should the larger one fail for
//     good, what it swallowed is due again.
//
//   - Expiry is due after each backup of its repository too, also one that
//     failed: maybe because there was no room. It runs before the next backup,
//     also if that one is due already.
//
//   - Of what is due, backups come first, the larger ones before the others. What
//     three of them kept from its turn comes before the next one.
//
//   - A failed run is tried again after a pause that doubles, a bounded number
//     of times, until the next time of its schedule. One that somebody asked for
//     is not.
//
//   - While paused nothing starts. What was missed is caught up, once, when the
//     pause ends.
//
//   - The clock may be wrong. Set forward, it makes due what it passes, once; set
//     back a little, nothing runs twice; set back by more than an hour, what was
//     run meanwhile in a future that did not come does not count.
//
// The history is what the repository holds (repo.JobRun), so a new leader
// decides as the old one would have. Without any history a job counts from the
// moment at which the service began: nothing is caught up.
package scheduler
