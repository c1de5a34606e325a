package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
)

// State is how the nodes were at a moment.
type State struct {
	Nodes []NodeState // in the order of the configuration, or of Patroni
	// Err: the nodes cannot be found out. Nodes are those of before then.
	Err error
}

// NodeState is how one node was.
type NodeState struct {
	Node
	// Err: it does not answer. The rest is zero then.
	Err error
	server.Standing
	// Lag is how much WAL it is behind the primary, bytes; -1: not known.
	Lag int64
}

// Up reports whether it answers.
func (n NodeState) Up() bool { return n.Err == nil }

// Primary is the primary, nil if none answers. Of two (an old one that was not
// stopped) it is the one with the higher timeline.
func (s State) Primary() *NodeState {
	var best *NodeState
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Up() && !n.InRecovery && (best == nil || n.Timeline > best.Timeline) {
			best = n
		}
	}
	return best
}

// Furthest is the node that knows best where the cluster is: the primary, else
// the standby that is furthest; nil if none answers.
func (s State) Furthest() *NodeState {
	if p := s.Primary(); p != nil {
		return p
	}
	var best *NodeState
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Up() && (best == nil || n.Timeline > best.Timeline || n.Timeline == best.Timeline && n.LSN > best.LSN) {
			best = n
		}
	}
	return best
}

// measure fills in the lags.
func (s State) measure() {
	p := s.Primary()
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch {
		case !n.Up() || p == nil || n.LSN == 0:
			n.Lag = -1
		case n.LSN < p.LSN:
			n.Lag = int64(p.LSN - n.LSN)
		default:
			n.Lag = 0
		}
	}
}

// From says which node backups are read from.
type From string

// The values of From.
const (
	PreferStandby From = "prefer-standby"
	FromStandby   From = "standby"
	FromPrimary   From = "primary"
)

// ErrNoNode: no node can be backed up now.
var ErrNoNode = errors.New("no node to back up from")

// Choose finds the node to read a backup from. With prefer-standby (or "") it is
// the standby that streams and is least behind; else the primary; else, when no
// primary answers, a standby that does not stream. usable says why a node cannot
// be used at all, nil if it can. The error is ErrNoNode, with the reason for
// each node.
func (s State) Choose(from From, usable func(NodeState) error) (NodeState, error) {
	if s.Err != nil && len(s.Nodes) == 0 {
		return NodeState{}, fmt.Errorf("%w: %w", ErrNoNode, s.Err)
	}
	var id pg.SystemID
	if f := s.Furthest(); f != nil {
		id = f.SystemID
	}
	type candidate struct {
		node NodeState
		rank int
	}
	var all []candidate
	var reasons []string
	for _, n := range s.Nodes {
		rank, why := rank(n, from, id)
		if why == "" {
			if err := usable(n); err != nil {
				why = err.Error()
			}
		}
		if why != "" {
			reasons = append(reasons, n.Name+": "+why)
			continue
		}
		all = append(all, candidate{n, rank})
	}
	if len(all) == 0 {
		if len(reasons) == 0 {
			reasons = []string{"none is configured"}
		}
		return NodeState{}, fmt.Errorf("%w: %s", ErrNoNode, strings.Join(reasons, "; "))
	}
	best := slices.MinFunc(all, func(a, b candidate) int {
		lag := func(n NodeState) uint64 { return uint64(n.Lag) } // -1 is worst
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(lag(a.node), lag(b.node)))
	})
	return best.node, nil
}

// rank orders the nodes, the best first; why not, if a node is out.
func rank(n NodeState, from From, id pg.SystemID) (rank int, why string) {
	switch {
	case !n.Up():
		return 0, n.Err.Error()
	case n.SystemID != id:
		return 0, fmt.Sprintf("it is of another cluster (%s)", n.SystemID)
	case from == FromStandby && !n.InRecovery:
		return 0, "it is the primary (backup-from: standby)"
	case from == FromPrimary && n.InRecovery:
		return 0, "it is a standby (backup-from: primary)"
	case from == FromPrimary:
		return 0, ""
	case n.InRecovery && n.Streaming:
		return 0, ""
	case !n.InRecovery:
		return 1, ""
	}
	return 2, ""
}
