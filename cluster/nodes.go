package cluster

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg/patroni"
)

// Node is one server of the cluster.
type Node struct {
	Name     string
	ConnInfo string
	Agent    string // URL of the agent beside it; "": none
	PGData   string // data directory; "": the server knows
	// Elsewhere: it is certainly not on this machine. All members of Patroni
	// have the same data directory by name, so that a directory that is here
	// proves nothing.
	Elsewhere bool
}

// Patroni says how to find the nodes through Patroni.
type Patroni struct {
	URLs      []string
	CAFile    string
	ConnInfo  string // added to host and port
	PGData    string // on every member
	AgentPort int    // 0: there are no agents
}

// Members is where the nodes are known from: Patroni, or else Nodes.
type Members struct {
	Nodes   []Node
	Patroni *Patroni
	Log     *zap.Logger // nil: none
}

// List returns the nodes.
func (m Members) List(ctx context.Context) ([]Node, error) {
	if m.Patroni == nil {
		return m.Nodes, nil
	}
	log := m.Log
	if log == nil {
		log = zap.NewNop()
	}
	p := m.Patroni
	members, err := patroni.Members(ctx, patroni.Options{URLs: p.URLs, CAFile: p.CAFile})
	if err != nil {
		return nil, err
	}
	var all []Node
	here := addresses()
	for _, m := range members {
		conninfo, err := m.ConnInfo(p.ConnInfo)
		if err != nil {
			return nil, fmt.Errorf("postgres.patroni.conninfo: %w", err)
		}
		n := Node{Name: m.Name, ConnInfo: conninfo, Elsewhere: !isHere(ctx, m.Host, here)}
		if !n.Elsewhere {
			n.PGData = p.PGData
		}
		if p.AgentPort != 0 {
			n.Agent = "https://" + net.JoinHostPort(m.Host, strconv.Itoa(p.AgentPort))
		}
		log.Debug("member of Patroni", zap.String("node", m.Name), zap.String("role", m.Role), zap.String("state", m.State),
			zap.Uint32("timeline", uint32(m.Timeline)), zap.Int64("lag_bytes", m.Lag), zap.Bool("elsewhere", n.Elsewhere))
		all = append(all, n)
	}
	return all, nil
}

// addresses are this machine's.
func addresses() map[string]bool {
	here := map[string]bool{}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return here
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			here[n.IP.String()] = true
		}
	}
	return here
}

// isHere reports whether a host is this machine.
func isHere(ctx context.Context, host string, here map[string]bool) bool {
	if ip := net.ParseIP(host); ip != nil {
		return here[ip.String()]
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	for _, a := range found {
		if here[a.IP.String()] {
			return true
		}
	}
	return false
}
