// Package api is how other machines talk to an agent: a small HTTPS server, and
// its client.
//
//	GET  /v1/status               what the agent knows of its server and repositories
//	GET  /v1/wal[?examine=true]   the files of pg_wal that PostgreSQL archives
//	GET  /v1/wal/NAME             one of them, with its SHA-256
//	POST /v1/backups              begins a backup: 202 and a run
//	GET  /v1/runs                 runs since the agent began, newest first
//	GET  /v1/runs/ID              one run
//	GET  /v1/runs/ID/events       its progress as server-sent events, to its end
//	POST /v1/runs/ID/cancel       ends it
//
// Errors are problem details (RFC 9457). A run belongs to the agent, not to the
// request that began it: who asked may go away and come back. There is one run
// at a time for each repository; a second one is refused with 409. A request
// with an Idempotency-Key that was seen before gets the run of the first.
//
// # Who may
//
// Everybody who may anything may all: fetch WAL, which is data, and run
// backups. So nothing listens without TLS, and without a client certificate or
// a bearer token; with both configured, both are needed. Certificates,
// authorities and tokens are files that are read again when they change; a file
// that cannot be read keeps certificates as they were, and lets no token pass.
//
// # Files of pg_wal
//
// Only names that PostgreSQL archives (pg.KindOf) are opened, below pg_wal, and
// only regular files. A server recycles segments: a file can get other content
// while it is sent. Its digest is therefore sent first, and what was sent is
// digested again: if the two differ the connection is cut, so that no client
// takes a mixture for the file.
package api
