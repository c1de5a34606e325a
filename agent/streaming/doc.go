// Package streaming archives WAL as it is written: it receives it by physical
// replication (package stream), as pg_receivewal does, and stores the growing
// segment in every repository, as a partial one, every few seconds. What can be
// lost when all nodes are lost at once is then seconds, not a segment. It needs
// no pg_wal, only a server to connect to.
//
// # The spool
//
// WAL is received into files of one directory, a segment each. The segment that
// grows is pushed as a partial one, finished segments by the ordinary path of
// package archive, the segment that a timeline ended in once more as a partial
// one, history files as they are. Each repository has a lane: a goroutine that
// goes through the files in order and holds up nobody else's. A file is removed
// when all repositories have it. When too many wait and enough repositories
// (Options.Require) have the oldest, that one is given up for the others, loudly
// ("wal repair" fills it in from a sibling); when not even enough have it, the
// stream is ended until they do, so that the server keeps what cannot be stored.
//
// # Old partials
//
// A longer partial segment makes a shorter one garbage, and so does the whole
// one. A lane deletes what it stored itself, and only when the longer one, of
// which it is the beginning, is durable in that repository. That it is the
// beginning is known because both come from one file that only grows. After the
// connection was lost, the segment is received again from its start and
// compared with what the file has; if it differs, as it does on another branch
// of history, what was stored before stays.
//
// # What a crash leaves
//
// The spool is thrown away at start: nothing in it is needed. Where to begin is
// asked of the repositories, which say what they have, and everything that the
// server was told is durable (with a slot) is in them. A crash between the store
// of a partial and the deletion of the one before leaves one object too many,
// which expiry removes. Two receivers of one cluster store the same partials
// under the same keys, or each its own: the key says how far it goes, so neither
// overwrites the other's, and each deletes its own only when a longer one is
// there.
package streaming
