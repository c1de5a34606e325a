// Package archive stores files of pg_wal in all repositories of a cluster, and
// brings them back.
//
// # Push
//
// Every node may push every file, and again: the first to store it wins, all
// others find that the work is done. The race is decided by the store, which
// creates an object only if its key is free; the key depends on the file's name
// alone. So a push is, for each repository by itself:
//
//  1. read the head of what is stored under the name (one small read). Same
//     content, by the SHA-256 of the file: done, and it is not even examined.
//  2. nothing there: store it if absent. Lost the race: back to 1.
//  3. something else there: the same records with other padding are the same.
//     Anything else is a conflict: what is stored stays, the file is kept
//     beside it under conflict/, people are alerted, and the archiver goes on.
//
// Two servers that both write one timeline make conflicts; that must wedge
// neither's archiver, for a full disk helps nobody. What must not happen is
// that their segments mix under the names of one timeline. So before the first
// segment of a timeline is stored, its history file is, from beside it; and a
// segment that has another history file beside it than the repository goes
// under conflict/, whether its name is free or not.
//
// What a repository does not have already is examined before it goes there
// (package wal), once for all repositories. Only a segment that is
// complete gets the segment's key. One that ends early, whatever its file is
// called, is stored as a partial: the part that is valid, under a key that
// says how far that is. Damaged files and files of other clusters are refused.
//
// [Archive.Push] does so for all repositories; [Archive.Open] and
// [Archive.PushTo] are its parts, for who deals with each on its own.
//
// Push reports success when as many repositories as required have the file,
// durably. Kill it anywhere: nothing was reported, so PostgreSQL pushes again,
// and finds the object either whole or not there, for a store's Put is atomic.
//
// # Get
//
// Get takes a file from the first repository that has it whole, in order. One
// that is damaged, or does not answer, is passed over for the next. That a file
// is nowhere is said only if every repository answered so; recovery ends or
// changes timeline on that word.
//
// The file appears under its name only when it is whole, verified and durable:
// it is written under another name in the same directory, synced, renamed, and
// the directory synced. A killed Get leaves at most that other file, which a
// later Get removes.
//
// # Coverage and repair
//
// [Cover] holds what a repository has against what its backups need and where
// the cluster is, and finds the gaps; [Look] does so for several repositories.
// [Repair] fills gaps from a [Source]: another repository, a node's pg_wal, or
// what else can bring a segment. It believes none of them: what they give is
// examined before it is stored.
package archive
