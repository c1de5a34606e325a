package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/walkeep/walkeep/integration/ports"
)

// Server is one data directory and the server that runs, or does not run, in
// it. Port and directory stay the same through stops and starts.
type Server struct {
	Name    string
	Install Install
	DataDir string
	Port    int
	LogFile string

	env  *Env
	port *ports.Port
	opts []string // "-c name=value" for every start; they win over all files

	mu   sync.Mutex // guards proc
	proc *process
}

// process is one run of a postmaster.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
	err  error         // of Wait; read after done
}

// ErrExited is what Start returns when the server ended instead of accepting
// connections: recovery failed, or recovery_target_action was shutdown.
var ErrExited = errors.New("the server exited")

// newServer reserves a name, a directory and a port.
func (e *Env) newServer(name string, install Install) (*Server, error) {
	dir, err := e.Mkdir(name)
	if err != nil {
		return nil, err
	}
	return e.addServer(filepath.Base(dir), install, dir)
}

func (e *Env) addServer(name string, install Install, dir string) (*Server, error) {
	port, err := ports.Reserve()
	if err != nil {
		return nil, err
	}
	s := &Server{Name: name, Install: install, DataDir: dir, Port: port.Number, port: port, env: e, LogFile: filepath.Join(e.dir, name+".log")}
	e.mu.Lock()
	e.servers = append(e.servers, s)
	e.mu.Unlock()
	return s, nil
}

// Open makes a Server of a data directory that exists: a restored clone, say.
// The directory is given to the servers' user; its own configuration counts,
// but for port and addresses, and but for settings, which win over its files.
func (e *Env) Open(dataDir string, settings map[string]string) (*Server, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if err != nil {
		return nil, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("PG_VERSION of %s: %w", dataDir, err)
	}
	install, err := e.Install(major)
	if err != nil {
		return nil, err
	}
	if err := e.Own(dataDir); err != nil {
		return nil, err
	}
	// A name of its own for the log: the directory may have been a server before.
	e.mu.Lock()
	name := fmt.Sprintf("%s-open%d", filepath.Base(dataDir), len(e.servers))
	e.mu.Unlock()
	s, err := e.addServer(name, install, dataDir)
	if err != nil {
		return nil, err
	}
	for k, v := range settings {
		s.opts = append(s.opts, "-c", k+"="+v)
	}
	return s, nil
}

// Configure appends settings to postgresql.conf. They count from the next
// Start, or Reload for those that need no restart.
func (s *Server) Configure(settings map[string]string) error {
	var b bytes.Buffer
	for k, v := range settings {
		fmt.Fprintf(&b, "%s = '%s'\n", k, strings.ReplaceAll(v, "'", "''"))
	}
	lines := strings.SplitAfter(b.String(), "\n")
	sort.Strings(lines)
	return s.AppendFile("postgresql.conf", strings.Join(lines, ""))
}

// AppendFile appends text to a file of the data directory and makes it if need be.
func (s *Server) AppendFile(name, text string) error {
	path := filepath.Join(s.DataDir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	return errors.Join(err, f.Close(), s.env.Own(path))
}

// Reload makes the server read its configuration files again.
func (s *Server) Reload(ctx context.Context) error { return s.Exec(ctx, "select pg_reload_conf()") }

// Start starts the server and returns when it accepts connections, or when a
// standby without hot_standby is in recovery. The error of a server that ended
// instead is ErrExited and holds the end of its log.
//
// A port that is taken is asked for again for some seconds: it may be the nearer
// end of somebody's connection.
func (s *Server) Start(ctx context.Context) error {
	deadline := time.Now().Add(portPatience)
	for {
		mark := s.logSize()
		err := s.startOnce(ctx)
		if err == nil || !errors.Is(err, ErrExited) || time.Now().After(deadline) || !s.portTaken(mark) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

const portPatience = 10 * time.Second

// portTaken reports whether the log says so from mark on (ListenServerPort in
// pqcomm.c).
func (s *Server) portTaken(mark int64) bool {
	b, err := os.ReadFile(s.LogFile)
	return err == nil && bytes.Contains(b[min(mark, int64(len(b))):], []byte("could not bind IPv4 address"))
}

func (s *Server) logSize() int64 {
	info, err := os.Stat(s.LogFile)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (s *Server) startOnce(ctx context.Context) error {
	p, err := s.launch()
	if err != nil {
		return fmt.Errorf("start server %s: %w", s.Name, err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return fmt.Errorf("start server %s: %w (%v)\n%s", s.Name, ErrExited, p.err, s.logTail(40))
		case <-ctx.Done():
			return fmt.Errorf("start server %s: %w\n%s", s.Name, ctx.Err(), s.logTail(40))
		case <-tick.C:
			if s.ready(p.cmd.Process.Pid) {
				return nil
			}
		}
	}
}

// ready looks at the status line that pg_ctl looks at (miscadmin.h,
// LOCK_FILE_LINE_PM_STATUS).
func (s *Server) ready(pid int) bool {
	b, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 8 || strings.TrimSpace(lines[0]) != strconv.Itoa(pid) {
		return false
	}
	status := strings.TrimSpace(lines[7])
	return status == "ready" || status == "standby"
}

func (s *Server) launch() (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && !s.proc.exited() {
		return nil, errors.New("it is running already")
	}
	log, err := os.OpenFile(s.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := append([]string{
		"-D", s.DataDir, "-c", fmt.Sprintf("port=%d", s.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + s.socketDir(),
		"-c", "logging_collector=off", "-c", "log_destination=stderr",
	}, s.opts...)
	cmd := s.env.Command(context.Background(), s.Install.Path("postgres"), args...)
	cmd.Cancel, cmd.WaitDelay = nil, 0
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT

	// The kernel sends Pdeathsig when the starting *thread* ends, so one
	// goroutine keeps its thread for as long as the server lives.
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s.proc = p
	return p, nil
}

// socketDir is the environment's directory if a socket's path there fits into
// the kernel's 107 bytes, else none.
func (s *Server) socketDir() string {
	if len(s.env.dir) > 80 {
		return ""
	}
	return s.env.dir
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (s *Server) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Running reports whether the server's process is alive.
func (s *Server) Running() bool {
	p := s.process()
	return p != nil && !p.exited()
}

// StopMode is pg_ctl's shutdown mode.
type StopMode syscall.Signal

// The shutdown modes: smart waits for clients, fast disconnects them,
// immediate is a crash in an orderly manner.
const (
	Smart     = StopMode(syscall.SIGTERM)
	Fast      = StopMode(syscall.SIGINT)
	Immediate = StopMode(syscall.SIGQUIT)
)

// Stop shuts the server down and returns when it is gone. A server that is not
// running is stopped already.
func (s *Server) Stop(ctx context.Context, mode StopMode) error {
	p := s.process()
	if p == nil || p.exited() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.Signal(mode)); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop server %s: %w", s.Name, err)
	}
	return s.WaitExit(ctx)
}

// WaitExit waits until the server has ended by itself.
func (s *Server) WaitExit(ctx context.Context) error {
	p := s.process()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of server %s: %w\n%s", s.Name, ctx.Err(), s.logTail(20))
	}
}

// Restart is a fast Stop and a Start.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx, Fast); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Kill9 kills the postmaster, its children and theirs (a running
// archive_command) with SIGKILL, and returns when they are gone: the power
// failure of a machine, but for what the kernel has in its cache.
func (s *Server) Kill9() error {
	p := s.process()
	if p == nil || p.exited() {
		return nil
	}
	pid := p.cmd.Process.Pid
	// Stopped first, it cannot fork another child while we look for them.
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	groups := append(childrenOf(pid), pid) // every child leads a group of its own
	for _, g := range groups {
		_ = syscall.Kill(-g, syscall.SIGKILL)
		_ = syscall.Kill(g, syscall.SIGKILL)
	}
	<-p.done
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		alive := 0
		for _, g := range groups {
			if syscall.Kill(g, 0) == nil && !zombie(g) {
				alive++
			}
		}
		if alive == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill server %s: %d of its processes are still there", s.Name, alive)
		}
	}
}

// stat reads the state and the parent of a process from /proc.
func stat(pid string) (state byte, ppid int) {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, 0
	}
	// "pid (name) state ppid …"; the name may hold spaces and parentheses.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 2 {
		return 0, 0
	}
	ppid, _ = strconv.Atoi(fields[1])
	return fields[0][0], ppid
}

func zombie(pid int) bool {
	state, _ := stat(strconv.Itoa(pid))
	return state == 'Z' || state == 'X' || state == 0
}

func childrenOf(pid int) []int {
	var out []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, ppid := stat(e.Name()); ppid == pid {
			out = append(out, child)
		}
	}
	return out
}

// logTail is the last lines of the server's log.
func (s *Server) logTail(lines int) string {
	b, err := os.ReadFile(s.LogFile)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
