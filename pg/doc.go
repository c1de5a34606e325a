// Package pg knows the facts of PostgreSQL that do not need a running server:
// what its files are called and what is in them. It imports nothing of ours,
// so every other package can use its words.
//
// Three numbers name a place in the life of a cluster:
//
//   - the [SystemID], chosen at initdb and never changed;
//   - the [Timeline], one more after every promotion;
//   - the [LSN], the position in the WAL, in bytes.
//
// WAL lies in segments, files of one [SegmentSize] (16 MiB unless initdb was
// told otherwise). A [SegmentName] carries the timeline and the number of the
// segment. When a standby is promoted it writes a history file, which says at
// which LSN the new timeline left the old one; [History] answers which
// timelines one has to follow, from where to where, to arrive at a place.
// Package wal below this one reads what is inside a segment.
//
// [Control] is global/pg_control: what a cluster is (identifier, version,
// sizes) and how far it was at the last checkpoint. Its layout differs between
// versions; 13 to 18 are understood, and anything else is refused rather than
// guessed at.
//
// Data files consist of pages of 8 KiB. With data checksums on, every page
// carries 16 bits over its content and its block number; [VerifyPages] checks
// many pages at once, at the speed of memory when built with cgo.
//
// Everything here reads little-endian data written by 64-bit servers, which is
// every platform that walkeep is built for; pg_control's version number and
// alignment give away any other.
package pg
