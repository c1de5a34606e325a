package main

import (
	"context"

	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/config"
)

// node is a server of the cluster.
type node struct {
	config.Node
	elsewhere bool // see cluster.Node
}

// members is where the nodes are known from.
func (r *root) members(cfg *config.Config) cluster.Members {
	m := cluster.Members{Log: r.logger()}
	for _, n := range cfg.Postgres.Nodes {
		m.Nodes = append(m.Nodes, cluster.Node{Name: n.Name, ConnInfo: n.ConnInfo, Agent: n.Agent, PGData: n.PGData})
	}
	if p := cfg.Postgres.Patroni; p != nil {
		m.Patroni = &cluster.Patroni{URLs: p.URLs, CAFile: p.CAFile, ConnInfo: p.ConnInfo, PGData: p.PGData, AgentPort: p.AgentPort}
	}
	return m
}

// nodes are the configured servers, or the members that Patroni names.
func (r *root) nodes(ctx context.Context, cfg *config.Config) ([]node, error) {
	list, err := r.members(cfg).List(ctx)
	var all []node
	for _, n := range list {
		all = append(all, node{Node: config.Node{Name: n.Name, ConnInfo: n.ConnInfo, Agent: n.Agent, PGData: n.PGData}, elsewhere: n.Elsewhere})
	}
	return all, err
}
