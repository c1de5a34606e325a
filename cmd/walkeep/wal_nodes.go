package main

import (
	"context"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/archive/source"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/pg"
)

// whereabouts is where the cluster is now.
type whereabouts struct {
	node     string // that said so; "" if none did
	systemID pg.SystemID
	position archive.Position
}

// whereabouts asks all configured nodes. The primary knows; of standbys the one
// that is furthest.
func (r *root) whereabouts(ctx context.Context) whereabouts {
	cfg, err := r.config()
	if err != nil {
		return whereabouts{}
	}
	state := cluster.Probe(ctx, r.members(cfg), 0)
	if state.Err != nil {
		r.logger().Warn("the servers are not known", zap.Error(state.Err))
	}
	for _, n := range state.Nodes {
		if !n.Up() {
			r.logger().Debug("a node does not say where it is", zap.String("node", n.Name), zap.Error(n.Err))
		}
	}
	n := state.Furthest()
	if n == nil {
		return whereabouts{}
	}
	return whereabouts{node: n.Name, systemID: n.SystemID, position: archive.Position{Timeline: n.Timeline, LSN: n.LSN}}
}

// localSources are the pg_wal directories of configured nodes that are on this
// machine.
func (r *root) localSources(ctx context.Context) (sources []archive.Source) {
	for _, n := range r.knownNodes(ctx) {
		dir := filepath.Join(n.PGData, "pg_wal")
		if n.PGData == "" {
			continue
		}
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			sources = append(sources, archive.DirSource("pg_wal of "+n.Name, dir))
		}
	}
	return sources
}

// remoteSources are the agents of nodes, and then replication from them.
func (r *root) remoteSources(ctx context.Context) []archive.Source {
	cfg, err := r.config()
	if err != nil {
		return nil
	}
	var agents, streams []archive.Source
	for _, n := range r.knownNodes(ctx) {
		if n.Agent != "" {
			c, err := agentClient(cfg, n.Node)
			if err != nil {
				r.logger().Warn("an agent cannot be asked for WAL", zap.String("node", n.Name), zap.Error(err))
			} else {
				agents = append(agents, c.Source(n.Name))
			}
		}
		if n.ConnInfo != "" {
			streams = append(streams, source.Stream(n.Name, n.ConnInfo, r.logger()))
		}
	}
	return append(agents, streams...)
}

// knownNodes are the nodes, none if they cannot be found out: repair goes on
// with what else there is.
func (r *root) knownNodes(ctx context.Context) []node {
	cfg, err := r.config()
	if err != nil {
		return nil
	}
	nodes, err := r.nodes(ctx, cfg)
	if err != nil {
		r.logger().Warn("the servers are not known", zap.Error(err))
	}
	return nodes
}
