// Package check proves that a cluster, its repositories and what connects them
// work, before a failover or a restore has to.
//
// [Run] goes from parts to the whole:
//
//   - each node: can be connected to, may do what a backup needs, is a
//     supported version, its data directory is the one configured, its
//     settings allow archiving and backups;
//   - each repository keeps the promises that everything above rests on, which
//     are those of package object: what was put can be got, listed, and
//     deleted; of several writers of one absent key one wins; nobody replaces
//     what changed meanwhile. A store can break each of these and look healthy.
//     They are tried on probe objects under lease/, the one part of a
//     repository where objects may change, and removed again;
//   - the whole: the primary is made to end a segment, which has to arrive,
//     whole, in every repository.
//
// Nothing here repairs anything. Every finding that is not good comes with
// advice: what to do about it.
//
// Left over: a check that was killed leaves probe objects named
// lease/check-…; the next check of that repository removes those older than an
// hour.
package check
