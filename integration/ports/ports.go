// Package ports finds TCP ports on loopback for servers of tests, of the demo and
// of benchmarks that several programs start at the same time.
//
// Nobody can be given a port before he listens on it. So a port is chosen below
// those that the kernel takes for outgoing connections, and all who ask here
// leave each other's alone: each is held by the name of an abstract Unix socket,
// which the kernel takes back when its holder dies (unix(7)).
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
)

// Port is one that nobody else gets here until Close.
type Port struct {
	Number int
	hold   net.Listener
}

// Address is the port on 127.0.0.1.
func (p *Port) Address() string { return net.JoinHostPort("127.0.0.1", p.String()) }

func (p *Port) String() string { return strconv.Itoa(p.Number) }

// Close gives the port back; whoever listens on it still does. Of nil, and a
// second time, it does nothing.
func (p *Port) Close() {
	if p != nil {
		_ = p.hold.Close()
	}
}

// Reserve finds a port that nobody listens on or has reserved.
func Reserve() (*Port, error) {
	low, high := bounds()
	var err error
	for range 1000 {
		p := &Port{Number: low + rand.IntN(high-low)}
		if err = p.take(); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("find a free port between %d and %d: %w", low, high, err)
}

// For reserves ports until the end of a test.
func For(t testing.TB) *Port {
	t.Helper()
	p, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func (p *Port) take() (err error) {
	if p.hold, err = net.Listen("unix", "@walkeep-port-"+p.String()); err != nil {
		return err
	}
	l, err := net.Listen("tcp", p.Address())
	if err != nil {
		return errors.Join(err, p.hold.Close())
	}
	return l.Close()
}

// Where ports are looked for: low, and fewer than high where the kernel begins
// earlier, unless that leaves too few of them.
const (
	lowest  = 12000
	highest = 30000
	fewest  = 1000
)

func bounds() (low, high int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return lowest, highest
	}
	var first, last int
	if _, err := fmt.Sscan(string(b), &first, &last); err != nil || first < lowest+fewest {
		return lowest, highest
	}
	return lowest, min(highest, first)
}
