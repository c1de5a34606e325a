package main

import (
	"context"

	"github.com/walkeep/walkeep/integration/patroni"
	"github.com/walkeep/walkeep/pg"
)

// tool is a backup tool under test, set up for one cluster.
type tool interface {
	// prepare puts configuration onto a node's disk.
	prepare(n *patroni.Node) error
	// archiveCommand and restoreCommand are for the server. The paths in them mean
	// the same on every node.
	archiveCommand() string
	restoreCommand() string
	// begin is called once, with the first leader.
	begin(ctx context.Context, leader *patroni.Node) error
	// repos are the names of the repositories.
	repos() []string
	// backup takes a full backup on the leader, into every repository.
	backup(ctx context.Context, leader *patroni.Node) (*backup, error)
	// holdings are what each repository has, in the order of repos.
	holdings(ctx context.Context, size pg.SegmentSize) ([]holding, error)
	// restore makes a data directory on the hub that recovers to the end of WAL.
	restore(ctx context.Context, b *backup, repo, dir string) error
	// startAgent and killAgent do nothing for a tool that has none.
	startAgent(n *patroni.Node) error
	killAgent(n *patroni.Node) int
	// notes are peculiarities worth a line in the report: conflicts, say.
	notes() []string
}

// backup is one in every repository.
type backup struct {
	labels map[string]string // by repository
	start  pg.LSN
}
