// Package stream receives WAL from a server by physical streaming replication,
// as a standby's walreceiver and pg_receivewal do.
//
// A [Conn] is a connection in replication mode. It asks what the server is
// ([Conn.Identify]) and for history files ([Conn.History]), and starts a
// [Stream] at an LSN of a timeline, which then yields WAL as the server writes
// it (a primary) or receives it (a standby). Primary and standby serve the same
// WAL; a standby serves what it has flushed.
//
// A stream follows one timeline. When that ends, because the server was
// promoted or because a historic timeline was asked for, [Stream.Next] returns
// a [*TimelineEnd] that names the next one, and the same Conn can start there.
// Whole segments are had by starting at the beginning of the segment that holds
// the switch point: the server then sends the new timeline's copy of it.
//
// Three positions matter to the server. What was received keeps the connection
// alive, and a server that shuts down waits until all it sent was received.
// What was flushed, told by [Stream.Confirm], moves the replication slot, so
// WAL before it may be removed; without a slot nothing is told of it, because a
// client that flushes late would slow down commits if synchronous_standby_names
// happened to match it.
//
// The package uses pgx's pgconn and pgproto3 for the protocol's frames. Sources
// in PostgreSQL: protocol.sgml ("Streaming Replication Protocol"), walsender.c,
// receivelog.c.
package stream
