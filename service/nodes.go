package service

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/walkeep/walkeep/agent"
	agentapi "github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/cluster"
)

// agentState is what an agent said last.
type agentState struct {
	url      string
	client   *agentapi.Client
	instance string
	version  string
	status   *agent.Status // nil: it did not say
	err      error         // it does not answer
}

func (a agentState) up() bool { return a.err == nil && a.client != nil }

// agentTime bounds how long an agent that does not answer is waited for.
const agentTime = 5 * time.Second

// probe asks the nodes and their agents, again and again.
func (s *Service) probe(ctx context.Context) {
	var prober *cluster.Prober
	var of <-chan struct{} // closed when the members may have changed
	first := true
	every(ctx, s.probes, func() time.Duration { return s.settings().Probe }, func() {
		s.mu.Lock()
		reloaded, set := s.reloaded, s.set
		s.mu.Unlock()
		if prober == nil || of != reloaded {
			if prober != nil {
				prober.Close()
			}
			prober, of = cluster.NewProber(set.Members, 0), reloaded
		}
		state := prober.Look(ctx)
		if ctx.Err() != nil {
			return
		}
		agents := s.askAgents(ctx, set, state)
		s.mu.Lock()
		s.state, s.agents, s.probedAt = state, agents, s.o.Clock()
		s.mu.Unlock()
		if first {
			close(s.probed)
			first = false
			s.look()
		}
		s.publish()
	})
	if prober != nil {
		prober.Close()
	}
}

// askAgents asks all agents at the same time.
func (s *Service) askAgents(ctx context.Context, set Settings, state cluster.State) map[string]agentState {
	s.mu.Lock()
	old := s.agents
	s.mu.Unlock()
	all := map[string]agentState{}
	var mu sync.Mutex // guards all
	var group sync.WaitGroup
	here, status := set.LocalStatus()
	for _, n := range state.Nodes {
		if n.Name == here {
			st, _ := status.(agent.Status)
			all[n.Name] = agentState{version: s.o.Version, status: &st}
		}
		if n.Agent == "" {
			continue
		}
		group.Go(func() {
			a := askAgent(ctx, set, n.Agent, old[n.Name])
			mu.Lock()
			defer mu.Unlock()
			if a.up() || n.Name != here {
				all[n.Name] = a
			}
		})
	}
	group.Wait()
	return all
}

func askAgent(ctx context.Context, set Settings, url string, old agentState) agentState {
	a := agentState{url: url, client: old.client}
	if old.url != url || old.client == nil {
		if a.client, a.err = set.Agent(url); a.err != nil {
			return a
		}
	}
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	st, err := a.client.Status(ctx)
	if err != nil {
		a.err = err
		return a
	}
	a.instance, a.version = st.Instance, st.Version
	if len(st.Agent) > 0 {
		a.status = &agent.Status{}
		if err := json.Unmarshal(st.Agent, a.status); err != nil {
			a.status = nil
		}
	}
	return a
}

// nodes are the nodes and agents as last seen.
func (s *Service) nodes() (cluster.State, map[string]agentState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.agents
}

// errNotHere: nothing can read the files of a node.
var errNotHere = errors.New("it has no agent, and its data directory is not here")

// errOnlySQL: nothing is to.
var errOnlySQL = errors.New("its files are not to be read (backup-source: sql)")

// showNode is a node as the API shows it.
func (s *Service) showNode(n cluster.NodeState, a agentState, known bool) api.Node {
	out := api.Node{Name: n.Name, Role: "unknown", Up: n.Up(), Lag: -1}
	if n.Up() {
		out.Role, out.Timeline, out.LSN, out.Lag, out.Version = "primary", n.Timeline, n.LSN, n.Lag, n.Version
		if n.InRecovery {
			out.Role = "standby"
		}
	} else {
		out.Error = n.Err.Error()
	}
	if !known {
		return out
	}
	out.Agent = &api.Agent{URL: a.url, Up: a.err == nil, Version: a.version, Queues: []api.AgentQueue{}}
	if a.err != nil {
		out.Agent.Error = a.err.Error()
	}
	if a.status == nil {
		return out
	}
	for _, q := range a.status.Repos {
		shown := api.AgentQueue{
			Repo: q.Name, Waiting: q.Waiting, WaitingBytes: q.WaitingBytes, Pushed: int64(q.Pushed),
			Deduplicated: int64(q.Deduplicated), Repaired: int64(q.Repaired), Conflicting: int64(q.Conflicting), Dropped: int64(q.Dropped),
			Oldest: s.waitingSince(n.Name, q.Name, q.Oldest),
		}
		if !q.Healthy {
			shown.Error = q.Error
		}
		out.Agent.Queues = append(out.Agent.Queues, shown)
	}
	return out
}
