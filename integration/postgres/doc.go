// Package postgres starts and stops real PostgreSQL servers, 13 to 18, on
// loopback and random ports, for tests, for the demo and for benchmarks.
//
// An [Env] is one throw-away world: a directory, the servers in it, and the
// unprivileged user they run as. PostgreSQL refuses to run as root, so when
// the test does, servers and every program started through [Env.Command] run
// as Debian's "postgres" user, or as "nobody". Files that those programs must
// reach belong below [Env.Dir], made by [Env.Mkdir] or given away by
// [Env.Own]; t.TempDir is closed to them.
//
//	env := postgres.New(t)                                   // closed by t.Cleanup
//	primary := env.Primary(t, postgres.Options{Major: 15})   // running
//	standby := env.StartStandby(t, primary, postgres.Options{})
//	_ = primary.Exec(ctx, "create table t (i int)")
//
// Everything that takes a testing.T is a thin wrapper around something that
// does not: [NewEnv], [Env.InitDB], [Server.Start], [Env.Standby], [Env.Open].
//
// Nothing survives: Close kills every server with its children, and the kernel
// sends every server SIGQUIT (immediate shutdown) when the thread that started
// it dies with a crashed test.
//
// Servers are installed by scripts/install-postgres.sh. initdb is run once per
// set of options and its result kept under .cache/postgres/templates; a copy
// of it gets a system identifier of its own, as if initdb had been run.
package postgres
