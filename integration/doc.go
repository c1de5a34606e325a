// Package integration tests walkeep end to end: the programs as a user runs
// them, real PostgreSQL servers of every version, real object stores, and
// faults. The packages below it start and stop what the tests need.
package integration
