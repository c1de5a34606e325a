// Package patroni starts real high-availability clusters for tests and for
// `make chaos`: etcd and Patroni of Debian, PostgreSQL 15 or 18, each node on a machine
// of its own.
//
// A [Machine] is a PID, a mount and a network namespace. Killing its first
// process is a power failure: everything on it is gone at once, and its disk,
// a directory, stays. All machines are joined by a bridge inside a namespace
// that is theirs alone ([Network]), so a cable can be pulled ([Machine.Cut])
// and nothing of it is seen outside: no ports, no interfaces, no firewall
// rules. Addresses and ports are therefore the same every time.
//
// Namespaces need root. Where they cannot be made, that is an error, never a
// skip. Servers themselves run as the unprivileged user of a postgres.Env.
//
// Nothing survives: the kernel kills the first process of every machine, and
// with it all others, when the process that started it dies.
package patroni
