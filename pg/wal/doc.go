// Package wal reads what is inside WAL segments: pages, and the records that
// flow across them. It decides whether a file is what its name says, whether
// it is whole, and how far its records go.
//
// A segment is a sequence of pages of 8 KiB. Each begins with a header: a magic
// number that changes with every major version, the timeline, and the address
// (LSN) of the page; the first page of a segment has a long header with the
// system identifier and the sizes. Records follow one another at multiples of 8
// bytes and do not care about pages: a record that does not fit goes on behind
// the next page's header, which says how many bytes of it are still to come
// (xlp_rem_len), and a record can go on in the next segment. Every record
// carries a CRC-32C and the address of the record before it.
//
// Nothing says where WAL ends. The server stops at the first thing that is not
// a valid record, and so does [Examine]. What lies behind that point is one of:
//
//   - padding after a switch record (pg_switch_wal, archive_timeout): the
//     segment is complete;
//   - zeroes, or pages of an older segment, whose file the server used again:
//     the segment is still being written, or was handed over half written by a
//     standby. It ends early;
//   - valid pages or records of this very segment: then what stopped us is
//     damage, not an end.
//
// The segment in which a standby was promoted begins with a copy of the old
// timeline's pages, so a page's timeline may be lower than the file's; it never
// goes down from page to page. A file in which it never gets there is none of its
// name's timeline: at the end of recovery the server gives segments of the old
// timeline, whole ones at their own addresses, names of the new one, to write
// them later. Archived, such a file would take the place of the real segment.
//
// Sources in PostgreSQL: access/xlog_internal.h, access/xlogrecord.h,
// xlogreader.c, access/xact.h.
package wal
