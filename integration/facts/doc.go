// Package facts holds packages pg and pg/wal against real servers of every
// version: what they read out of files must be what the server says, or what
// PostgreSQL's own tools print.
package facts
