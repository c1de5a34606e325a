package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg/server"
)

// DefaultPatience bounds how long a node that does not answer is waited for.
const DefaultPatience = 5 * time.Second

// Prober asks the nodes how they are, again and again, on connections that it
// keeps. One goroutine uses it.
type Prober struct {
	members  Members
	patience time.Duration
	log      *zap.Logger
	last     []Node
	conns    map[string]*server.Conn // by conninfo
}

// NewProber asks nothing yet. patience 0 is DefaultPatience. Close it at the end.
func NewProber(m Members, patience time.Duration) *Prober {
	if patience <= 0 {
		patience = DefaultPatience
	}
	log := m.Log
	if log == nil {
		log = zap.NewNop()
	}
	return &Prober{members: m, patience: patience, log: log, conns: map[string]*server.Conn{}}
}

// Probe is State once, without keeping connections.
func Probe(ctx context.Context, m Members, patience time.Duration) State {
	p := NewProber(m, patience)
	defer p.Close()
	return p.Look(ctx)
}

// Look asks all nodes at the same time.
func (p *Prober) Look(ctx context.Context) State {
	nodes, err := p.members.List(ctx)
	if err != nil {
		nodes, err = p.last, fmt.Errorf("find the nodes: %w", err)
	} else {
		p.last = nodes
	}
	s := State{Nodes: make([]NodeState, len(nodes)), Err: err}
	conns := make([]*server.Conn, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		s.Nodes[i] = NodeState{Node: n, Lag: -1}
		conns[i] = p.conns[n.ConnInfo]
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, p.patience)
			defer cancel()
			conns[i], s.Nodes[i].Standing, s.Nodes[i].Err = p.ask(ctx, n, conns[i])
		})
	}
	all.Wait()
	keep := map[string]*server.Conn{}
	for i, n := range nodes {
		if conns[i] != nil {
			keep[n.ConnInfo] = conns[i]
		}
	}
	for info, c := range p.conns {
		if keep[info] != c {
			p.closeConn(c)
		}
	}
	p.conns = keep
	s.measure()
	return s
}

// ask asks one node on its connection, or on a new one.
func (p *Prober) ask(ctx context.Context, n Node, conn *server.Conn) (*server.Conn, server.Standing, error) {
	if n.ConnInfo == "" {
		return nil, server.Standing{}, fmt.Errorf("how to connect to %s is not known", n.Name)
	}
	if conn != nil {
		if s, err := conn.Standing(ctx); err == nil {
			return conn, s, nil
		}
		// Restarted, maybe: once more on a new connection.
	}
	conn, err := server.Connect(ctx, n.ConnInfo, p.log)
	if err != nil {
		return nil, server.Standing{}, err
	}
	s, err := conn.Standing(ctx)
	if err != nil {
		p.closeConn(conn)
		return nil, s, err
	}
	return conn, s, nil
}

func (p *Prober) closeConn(c *server.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // it was only asked
}

// Close ends the connections.
func (p *Prober) Close() {
	for _, c := range p.conns {
		p.closeConn(c)
	}
	p.conns = map[string]*server.Conn{}
}
