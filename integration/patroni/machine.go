package patroni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is a PID, a mount and a network namespace with an address on the
// network. The file system is the host's.
type Machine struct {
	Name string
	IP   string

	// Disk is what the machine has for itself; there it is seen as
	// [Network.Local], the same path on every machine.
	Disk string

	network *Network
	link    string // its end of the cable on the bridge

	mu   sync.Mutex // guards what follows
	init *exec.Cmd  // first process; nil while the machine is off
	dead chan struct{}
	net  *os.File // its network namespace
}

// initScript is a machine's first process. It reaps what is orphaned there
// (bash does), and ends when told to. /proc has to show the processes of the
// machine, because Patroni looks for its postmaster there.
const initScript = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$1" "$2"
ip link set lo up
echo up
exec bash -c 'trap "exit 0" TERM; while :; do sleep 1000000 & wait $!; done'`

// Boot switches the machine on and plugs it in. Nothing runs on it yet.
func (m *Machine) Boot() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.init != nil {
		return fmt.Errorf("boot machine %s: it is on already", m.Name)
	}
	cmd := exec.Command("bash", "-c", initScript, "machine", m.Disk, m.network.Local)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	dead, err := startLocked(cmd)
	if err != nil {
		return fmt.Errorf("boot machine %s: make namespaces (this needs root): %w", m.Name, err)
	}
	m.init, m.dead = cmd, dead
	up := make([]byte, 3)
	if _, err := io.ReadFull(stdout, up); err != nil {
		m.off()
		return fmt.Errorf("boot machine %s: %w: %s", m.Name, err, stderr.String())
	}
	if m.net, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)); err == nil {
		err = m.network.plug(m)
	}
	if err != nil {
		m.off()
		return fmt.Errorf("boot machine %s: %w", m.Name, err)
	}
	return nil
}

// startLocked starts cmd from a thread that lives as long as it does: the
// kernel sends Pdeathsig when the starting *thread* ends.
func startLocked(cmd *exec.Cmd) (dead chan struct{}, err error) {
	dead = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_, _ = cmd.Process.Wait()
			close(dead)
		}
	}()
	return dead, <-started
}

// PowerOff is a power failure: every process of the machine dies at once, and
// its network with it.
func (m *Machine) PowerOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off()
}

func (m *Machine) off() {
	if m.init == nil {
		return
	}
	_ = m.init.Process.Signal(syscall.SIGKILL)
	<-m.dead // the kernel has killed and reaped the others before that
	if m.net != nil {
		_ = m.net.Close()
	}
	m.init, m.net = nil, nil
}

// On tells whether the machine is on.
func (m *Machine) On() bool { return m.pid() != 0 }

// pid is that of the first process as we see it, 0 while the machine is off.
func (m *Machine) pid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.init == nil {
		return 0
	}
	return m.init.Process.Pid
}

// Command prepares a program to run on the machine as the servers' user. It is
// killed, with its process group, when ctx ends.
func (m *Machine) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	uid, gid := m.network.env.User()
	args = append([]string{
		"--target", strconv.Itoa(m.pid()), "--mount", "--pid", "--net", "--",
		"setpriv", "--reuid", strconv.Itoa(uid), "--regid", strconv.Itoa(gid), "--clear-groups", "--", program,
	}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Dir = m.network.env.Dir()
	cmd.Env = append(os.Environ(), "HOME="+m.network.env.Dir(), "LC_ALL=C", "PGCONNECT_TIMEOUT=5", "LANG=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a program on the machine and returns its output; the error of one
// that fails holds both outputs.
func (m *Machine) Run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := m.Command(ctx, program, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("on %s: %s %s: %w\n%s%s", m.Name, filepath.Base(program), strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Spawn starts a program on the machine and leaves it there, with its output
// appended to a file.
func (m *Machine) Spawn(log string, program string, args ...string) error {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := m.Command(context.Background(), program, args...)
	cmd.Cancel, cmd.WaitDelay = nil, 0
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("on %s: start %s: %w", m.Name, program, err)
	}
	go func() { _ = cmd.Wait() }() // ends with the machine, at the latest
	return nil
}

// Kill9 sends SIGKILL to all processes of the machine whose command line
// matches, and returns how many there were.
func (m *Machine) Kill9(matches func(cmdline string) bool) int {
	return m.Signal(syscall.SIGKILL, matches)
}

// Signal sends any signal.
func (m *Machine) Signal(sig syscall.Signal, matches func(cmdline string) bool) (n int) {
	pids := m.processes(matches)
	for _, pid := range pids {
		if syscall.Kill(pid, sig) == nil {
			n++
		}
	}
	return n
}

// processes are the machine's, by the identity of their PID namespace, without
// its first one.
func (m *Machine) processes(matches func(cmdline string) bool) (pids []int) {
	first := m.pid()
	if first == 0 {
		return nil
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err != nil {
		return nil
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == first {
			continue
		}
		if have, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/pid")); err != nil || have != ns {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && matches(strings.TrimRight(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})), " ")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// DialContext opens a connection from the machine: a client that runs on it.
func (m *Machine) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	m.mu.Lock()
	if m.net == nil {
		m.mu.Unlock()
		return nil, fmt.Errorf("dial %s from %s: the machine is off", address, m.Name)
	}
	ns, err := unix.Dup(int(m.net.Fd()))
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	defer unix.Close(ns)
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the runtime ends a thread whose goroutine ends locked,
		// so no other goroutine gets one that is in a foreign namespace. A socket
		// belongs to the namespace of the thread that made it, for ever.
		runtime.LockOSThread()
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", address, m.Name, r.err)
	}
	return r.conn, nil
}

// Cut pulls the network cable; Heal plugs it in again. What the machine sends
// itself still arrives.
func (m *Machine) Cut() error { return m.network.ip("link", "set", m.link, "down") }

// Heal undoes Cut.
func (m *Machine) Heal() error {
	if !m.On() {
		return nil
	}
	return m.network.ip("link", "set", m.link, "up")
}

// errOff is returned for what needs a machine that is on.
var errOff = errors.New("the machine is off")
