// Package serve tests `walkeep serve` end to end: the service as a process, with
// real servers and agents, killed, stopped and woken up.
package serve
