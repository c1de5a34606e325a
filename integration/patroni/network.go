package patroni

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"

	"github.com/walkeep/walkeep/integration/postgres"
)

// Network is a bridge in a namespace of its own, and the machines on it. Its
// hub is a machine too, the one that holds the bridge: etcd, object stores and
// clients run there, out of reach of every cut.
type Network struct {
	Hub *Machine
	// Local is where every machine has its own disk, and the host an empty
	// directory.
	Local string

	env      *postgres.Env
	machines []*Machine
}

// hubIP is the hub's address; machines count from .11.
const hubIP = "10.211.0.1"

// NewNetwork makes one. Close it.
func NewNetwork(env *postgres.Env) (*Network, error) {
	local, err := env.Mkdir("local")
	if err != nil {
		return nil, err
	}
	n := &Network{env: env, Local: local}
	if n.Hub, err = n.machine("hub", hubIP, ""); err != nil {
		return nil, err
	}
	if err := n.Hub.Boot(); err != nil {
		return nil, err
	}
	err = n.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0")
	if err == nil {
		err = n.ip("addr", "add", hubIP+"/24", "dev", "br0")
	}
	if err == nil {
		err = n.ip("link", "set", "br0", "up")
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Add makes a machine and boots it.
func (n *Network) Add(name string) (*Machine, error) {
	i := len(n.machines) + 1
	m, err := n.machine(name, fmt.Sprintf("10.211.0.%d", 10+i), fmt.Sprintf("m%d", i))
	if err != nil {
		return nil, err
	}
	n.machines = append(n.machines, m)
	return m, m.Boot()
}

func (n *Network) machine(name, ip, link string) (*Machine, error) {
	disk, err := n.env.Mkdir(name)
	return &Machine{Name: name, IP: ip, Disk: disk, network: n, link: link}, err
}

// Close switches all machines off. The kernel removes bridge and cables with
// the last process in their namespaces.
func (n *Network) Close() error {
	for _, m := range n.machines {
		m.PowerOff()
	}
	n.Hub.PowerOff()
	return nil
}

// plug lays a cable from a machine to the bridge. Called with m.mu held.
func (n *Network) plug(m *Machine) error {
	if m == n.Hub {
		return nil
	}
	// A machine that was switched off took its end with it, and so this one; but
	// the kernel does that a moment later.
	_ = n.ip("link", "del", m.link)
	pid := strconv.Itoa(m.init.Process.Pid)
	for _, args := range [][]string{
		{"link", "add", m.link, "type", "veth", "peer", "name", "eth0", "netns", pid},
		{"link", "set", m.link, "master", "br0"},
		{"link", "set", m.link, "up"},
	} {
		if err := n.ip(args...); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"addr", "add", m.IP + "/24", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
	} {
		if err := ipIn(m.init.Process.Pid, args...); err != nil {
			return err
		}
	}
	return nil
}

// ip runs ip(8) in the network namespace of the hub.
func (n *Network) ip(args ...string) error {
	pid := n.Hub.pid()
	if pid == 0 {
		return fmt.Errorf("network: %w", errOff)
	}
	return ipIn(pid, args...)
}

func ipIn(pid int, args ...string) error {
	out, err := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(pid), "--net", "ip"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}
