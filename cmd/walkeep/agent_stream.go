package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/walkeep/walkeep/agent/streaming"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// agentStream makes what streams, nil unless the configuration wants it. An
// agent beside a server streams from that; one without, from all nodes.
func (r *root) agentStream(ctx context.Context, cfg *config.Config, n *config.Node, id pg.SystemID, repos []*repo.Repository) (*streaming.Receiver, error) {
	if !cfg.Archive.Stream {
		return nil, nil
	}
	o := streaming.Options{
		Repos: repos, Require: cfg.Required(), Spool: cfg.Archive.StreamSpool, Slot: cfg.Archive.Slot,
		Interval: time.Duration(cfg.Archive.StreamInterval), SystemID: id, Log: r.logger(),
	}
	var nodes []node
	if n == nil {
		var err error
		if nodes, err = r.nodes(ctx, cfg); err != nil {
			return nil, err
		}
	} else {
		nodes = []node{{Node: *n}}
		if o.Spool == "" {
			o.Spool = filepath.Join(filepath.Dir(n.PGData), ".walkeep-stream", filepath.Base(n.PGData))
		}
	}
	if o.Spool == "" {
		return nil, usageErrorf("archive.stream without a data directory needs archive.stream-spool")
	}
	for _, node := range nodes {
		if node.ConnInfo == "" {
			return nil, usageErrorf("archive.stream: where to stream from is not known: use --node, whose conninfo is in the configuration, and not --pgdata")
		}
		o.Servers = append(o.Servers, streaming.Server{Name: node.Name, ConnInfo: node.ConnInfo})
	}
	return streaming.New(o)
}
