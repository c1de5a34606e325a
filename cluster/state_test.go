package cluster

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
)

func node(name string, standby, streaming bool, t pg.Timeline, lsn pg.LSN) NodeState {
	return NodeState{Node: Node{Name: name}, Standing: server.Standing{SystemID: 7, InRecovery: standby, Streaming: streaming, Timeline: t, LSN: lsn}}
}

func TestChoose(t *testing.T) {
	down := NodeState{Node: Node{Name: "down"}, Err: errors.New("refused")}
	other := node("other", true, true, 1, 200)
	other.SystemID = 8
	primary, near, far, alone := node("primary", false, false, 2, 100), node("near", true, true, 2, 90), node("far", true, true, 2, 10), node("alone", true, false, 2, 95)
	all := func(NodeState) error { return nil }
	not := func(name string) func(NodeState) error {
		return func(n NodeState) error {
			if n.Name == name {
				return errors.New("its agent is down")
			}
			return nil
		}
	}
	for _, c := range []struct {
		nodes  []NodeState
		from   From
		usable func(NodeState) error
		want   string // "": none
	}{
		{[]NodeState{primary, far, near, alone, down, other}, PreferStandby, all, "near"},
		{[]NodeState{primary, far, near, alone, down}, "", not("near"), "far"},
		{[]NodeState{primary, alone, down}, PreferStandby, all, "primary"},
		{[]NodeState{alone, down}, PreferStandby, all, "alone"},
		{[]NodeState{primary, alone}, FromStandby, all, "alone"},
		{[]NodeState{primary}, FromStandby, all, ""},
		{[]NodeState{primary, near}, FromPrimary, all, "primary"},
		{[]NodeState{near}, FromPrimary, all, ""},
		{[]NodeState{down}, PreferStandby, all, ""},
		{nil, PreferStandby, all, ""},
	} {
		s := State{Nodes: c.nodes}
		s.measure()
		got, err := s.Choose(c.from, c.usable)
		if c.want == "" {
			require.ErrorIs(t, err, ErrNoNode)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got.Name)
	}
	s := State{Nodes: []NodeState{node("old", false, false, 1, 500), primary, near, down}}
	require.Equal(t, "primary", s.Primary().Name)
	s.measure()
	require.EqualValues(t, 10, s.Nodes[2].Lag)
	require.EqualValues(t, -1, s.Nodes[3].Lag)
	require.Equal(t, "near", State{Nodes: []NodeState{far, near}}.Furthest().Name)
	_, err := State{Err: errors.New("nobody answers")}.Choose("", all)
	require.ErrorContains(t, err, "nobody answers")
}
