package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Env is a directory with servers in it; see the package comment. Its methods
// may be called from several goroutines.
type Env struct {
	dir  string
	user account

	mu      sync.Mutex // guards what follows
	servers []*Server
	names   map[string]int
	copies  map[string]string // programs and installations out of the user's reach
	closed  bool
}

// NewEnv makes an empty one below the directory for temporary files. Close it.
func NewEnv() (*Env, error) {
	u, err := currentAccount()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "walkeep-pg-")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if !u.reaches(dir) {
		return nil, errors.Join(fmt.Errorf("user %s cannot enter %s: set TMPDIR to a directory open to all", u.name, dir), os.RemoveAll(dir))
	}
	e := &Env{dir: dir, user: u, names: map[string]int{}, copies: map[string]string{}}
	if err := errors.Join(os.Chmod(dir, 0o755), u.own(dir)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return e, nil
}

// Dir is the environment's directory; servers' user owns it.
func (e *Env) Dir() string { return e.dir }

// User is the user and the group that servers run as.
func (e *Env) User() (uid, gid int) { return e.user.uid, e.user.gid }

// Mkdir makes a new directory below Dir, owned by the servers' user, whose
// name starts with name. It is removed by Close.
func (e *Env) Mkdir(name string) (string, error) {
	e.mu.Lock()
	e.names[name]++
	if n := e.names[name]; n > 1 {
		name = fmt.Sprintf("%s-%d", name, n)
	}
	e.mu.Unlock()
	dir := filepath.Join(e.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, e.user.own(dir)
}

// Own gives files and whole directories to the servers' user. Nothing to do
// unless we are root.
func (e *Env) Own(paths ...string) error {
	for _, p := range paths {
		if err := e.user.own(p); err != nil {
			return fmt.Errorf("give %s to user %s: %w", p, e.user.name, err)
		}
	}
	return nil
}

// Command prepares a program (a path, or a name to look up) to run as the
// servers' user, in Dir, in a process group that is killed as a whole when ctx
// ends, with LC_ALL=C and HOME in Dir. A program out of that user's reach,
// such as one in a directory of root's, is copied first.
func (e *Env) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	path, err := exec.LookPath(program)
	if err == nil {
		path, err = e.reachable(path)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	if err != nil {
		cmd.Err = err
	}
	cmd.Dir = e.dir
	cmd.Env = append(os.Environ(), "HOME="+e.dir, "LC_ALL=C", "PGCONNECT_TIMEOUT=10")
	cmd.SysProcAttr = e.user.attr()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a program as the servers' user and returns its output; the error of
// one that fails holds both outputs.
func (e *Env) Run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := e.Command(ctx, program, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(program), strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// reachable is path itself, or a copy of that file that the user can run.
func (e *Env) reachable(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil || e.user.reaches(path) {
		return path, err
	}
	return e.copyOnce(path, func(to string) error {
		if err := copyFile(path, to, 0o755); err != nil {
			return err
		}
		return e.user.own(to)
	})
}

// reachableInstall is the installation, or a copy of it that the user can run.
func (e *Env) reachableInstall(i Install) (Install, error) {
	if e.user.reaches(filepath.Join(i.BinDir, "postgres")) {
		return i, nil
	}
	root, err := e.copyOnce(filepath.Dir(i.BinDir), func(to string) error {
		if err := copyTree(filepath.Dir(i.BinDir), to); err != nil {
			return err
		}
		return e.user.own(to)
	})
	i.BinDir = filepath.Join(root, "bin")
	return i, err
}

func (e *Env) copyOnce(path string, do func(to string) error) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if to, ok := e.copies[path]; ok {
		return to, nil
	}
	dir := filepath.Join(e.dir, "copies", fmt.Sprint(len(e.copies)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	to := filepath.Join(dir, filepath.Base(path))
	if err := do(to); err != nil {
		return "", fmt.Errorf("copy %s to where user %s can reach it: %w", path, e.user.name, err)
	}
	e.copies[path] = to
	return to, nil
}

// Logs is the end of every server's log, for the report of a failure.
func (e *Env) Logs(lines int) string {
	e.mu.Lock()
	servers := e.servers
	e.mu.Unlock()
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "--- end of the log of server %s (%s)\n%s\n", s.Name, s.LogFile, s.logTail(lines))
	}
	return b.String()
}

// Close kills all servers and removes the directory, unless $WALKEEP_KEEP is
// set. It may be called twice.
func (e *Env) Close() error {
	e.mu.Lock()
	servers, closed := e.servers, e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Kill9())
		s.port.Close()
	}
	if os.Getenv("WALKEEP_KEEP") == "" {
		errs = append(errs, removeAll(e.dir))
	}
	return errors.Join(errs...)
}

// removeAll is os.RemoveAll for trees with directories that tests made
// unwritable, and in which a dying archive_command may still be writing.
func removeAll(dir string) error {
	var err error
	for range 5 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(p, 0o700) //nolint:gosec // ours, about to be removed
			}
			return nil
		})
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
