package follow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options of Start.
type Options struct {
	// PGData is the data directory, BinDir where the server's programs are; "":
	// postgres is looked for in PATH.
	PGData, BinDir string
	// Log is the file that gets what the server writes to standard error; it is
	// appended to.
	Log string
	// Settings are "name=value" for this start; they win over all files.
	Settings []string
	// Tied ends the server, as a crash would, when this process ends.
	Tied bool
}

// Server is a server that Start started.
type Server struct {
	opts Options
	cmd  *exec.Cmd
	from int64         // where in the log this start begins, bytes
	done chan struct{} // closed when the process has ended
	err  error         // of Wait; read after done
}

// Start starts the server and returns at once. As root, which PostgreSQL
// refuses, it becomes the owner of the data directory.
func Start(o Options) (*Server, error) {
	path := "postgres"
	if o.BinDir != "" {
		path = filepath.Join(o.BinDir, "postgres")
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return nil, fmt.Errorf("find the server's program: %w", err)
	}
	who, err := credential(o.PGData)
	if err != nil {
		return nil, fmt.Errorf("start the server in %s: %w", o.PGData, err)
	}
	log, err := openLog(o.Log, who)
	if err != nil {
		return nil, fmt.Errorf("open the log of the server: %w", err)
	}
	defer log.Close()
	st, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the log of the server: %w", err)
	}
	args := []string{"-D", o.PGData}
	for _, s := range o.Settings {
		args = append(args, "-c", s)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.PGData, log, log
	cmd.Env = environment()
	// A session of its own: a Ctrl-C at the terminal is not for the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: who}
	if o.Tied {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	}
	s := &Server{opts: o, cmd: cmd, from: st.Size(), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the starting thread ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			s.err = cmd.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return s, nil
}

// credential is the owner of the data directory, nil unless we are root.
func credential(pgdata string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	st, err := os.Stat(pgdata)
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid == 0 {
		return nil, errors.New("it belongs to root, and PostgreSQL does not run as root: give it to the server's user (chown -R)")
	}
	return &syscall.Credential{Uid: sys.Uid, Gid: sys.Gid}, nil
}

func openLog(path string, who *syscall.Credential) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil && who != nil {
		err = f.Chown(int(who.Uid), int(who.Gid))
	}
	return f, err
}

// environment is ours without what would lead the server, or a client, to
// another data directory or server.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") {
			env = append(env, v)
		}
	}
	return env
}

// PID is the number of the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Exited reports whether the server has ended.
func (s *Server) Exited() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// stopPatience is how long a stop may take before the server is killed.
const stopPatience = 30 * time.Second

// Stop ends the server: fast, then as a crash would, then for good. It returns
// when it is gone.
func (s *Server) Stop() {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		_ = s.cmd.Process.Signal(sig)
		t := time.NewTimer(stopPatience)
		select {
		case <-s.done:
			t.Stop()
			return
		case <-t.C:
		}
	}
	<-s.done
}

// Kill ends the server as a crash would, when nobody needs its data any more,
// and returns when it is gone.
func (s *Server) Kill() {
	for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL} {
		_ = s.cmd.Process.Signal(sig)
		t := time.NewTimer(stopPatience)
		select {
		case <-s.done:
			t.Stop()
			return
		case <-t.C:
		}
	}
	<-s.done
}

// pidFile is what the server writes into postmaster.pid (miscadmin.h,
// LOCK_FILE_LINE_*).
type pidFile struct {
	pid       int
	port      string
	socketDir string
	address   string
	status    string // starting, standby, ready, stopping
}

func readPIDFile(pgdata string) (f pidFile, ok bool) {
	b, err := os.ReadFile(filepath.Join(pgdata, "postmaster.pid"))
	if err != nil {
		return f, false
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 8 {
		return f, false
	}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	f = pidFile{port: lines[3], socketDir: lines[4], address: lines[5], status: lines[7]}
	f.pid, err = strconv.Atoi(lines[0])
	return f, err == nil
}

// Host and Port are where the server can be reached from this machine; ok is
// false as long as it has not said so.
func (s *Server) Host() (host, port string, ok bool) {
	f, ok := readPIDFile(s.opts.PGData)
	if !ok || f.pid != s.PID() || f.status != "ready" && f.status != "standby" {
		return "", "", false
	}
	host = f.socketDir
	if host == "" {
		host = f.address
	}
	if host == "*" || host == "0.0.0.0" || host == "" {
		host = "127.0.0.1"
	}
	return host, f.port, true
}

// WaitReady waits until the server accepts connections; a standby too. Errors:
// *ExitedError, that of ctx.
func (s *Server) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, _, ok := s.Host(); ok {
			return nil
		}
		select {
		case <-s.done:
			return s.exited()
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
