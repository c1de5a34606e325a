package service

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	agentapi "github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/repo"
)

// Files are read where they can be; over SQL only where no node has them read, or
// where that is what is wanted.
func TestChooseNode(t *testing.T) {
	ctx := t.Context()
	take := func(context.Context, agentapi.BackupRequest, agentapi.Progress) (any, error) { return nil, nil }
	down := agentState{url: "https://pg-0:7443", err: errors.New("connection refused")}
	up := agentState{url: "https://pg-0:7443", client: &agentapi.Client{}}
	primary := cluster.NodeState{Node: cluster.Node{Name: "pg-0"}}
	standby := cluster.NodeState{Node: cluster.Node{Name: "pg-1"}}
	standby.InRecovery, standby.Streaming = true, true
	for name, c := range map[string]struct {
		agents      map[string]agentState
		local       string // the node whose data directory is here
		never, only bool
		node        string
		overSQL     bool
		err         string
	}{
		"an agent":                  {agents: map[string]agentState{"pg-0": up}, node: "pg-0"},
		"a directory":               {local: "pg-0", node: "pg-0"},
		"nothing":                   {node: "pg-1", overSQL: true},
		"an agent that is down":     {agents: map[string]agentState{"pg-0": down}, node: "pg-1", overSQL: true},
		"files only":                {agents: map[string]agentState{"pg-0": down}, never: true, err: "connection refused"},
		"over SQL only":             {agents: map[string]agentState{"pg-0": up}, local: "pg-1", only: true, node: "pg-1", overSQL: true},
		"one of two can read files": {agents: map[string]agentState{"pg-1": down}, local: "pg-0", node: "pg-0"},
	} {
		t.Run(name, func(t *testing.T) {
			var set Settings
			set.LocalStatus = func() (string, any) { return "", nil }
			set.Local = func(_ context.Context, n cluster.NodeState, _ *repo.Repository) agentapi.Backup {
				if n.Name == c.local {
					return take
				}
				return nil
			}
			set.OnlySQL = c.only
			if !c.never {
				set.OverSQL = func(cluster.NodeState, *repo.Repository) agentapi.Backup { return take }
			}
			at, err := chooseNode(ctx, set, cluster.State{Nodes: []cluster.NodeState{primary, standby}}, c.agents, nil)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.node, at.node.Name)
			require.Equal(t, c.overSQL, at.overSQL)
			require.Equal(t, c.overSQL || c.local != "", at.here != nil)
			require.Equal(t, c.overSQL, at.because != nil)
		})
	}
}
