package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initialPIDNamespace is the inode of the namespace that all processes of the
// machine are in (proc_ns.h, PROC_PID_INIT_INO).
const initialPIDNamespace = 0xEFFFFFFC

// checkServer refuses a directory that a server may be using.
//
// postmaster.pid says which process that is, but not of which machine or
// container. A process of that number here that is PostgreSQL, or in that
// directory, is taken for it. If there is none, the server is dead, unless it
// runs elsewhere: on another machine, if the file system can be mounted by
// several, or in another container, if we see only the processes of ours. That
// cannot be found out, and a server whose files are replaced under it destroys
// what both write; so then people have to say it, by removing postmaster.pid.
func (p *place) checkServer() error {
	b, err := p.root.ReadFile("postmaster.pid")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out whether a server runs in %s: %w", p.path, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid == 0 {
		return nil // the server does not believe such a file either
	}
	if pid < 0 { // single-user mode
		pid = -pid
	}
	if p.isServer(pid) {
		return fmt.Errorf("%w: process %d has %s open as its data directory; stop it first (pg_ctl -D %s stop)", ErrServerRunning, pid, p.path, p.path)
	}
	if why := p.elsewhere(); why != "" {
		return fmt.Errorf("%w: %s names process %d, which is not a server here, but %s. "+
			"If no server uses this directory, remove that file and run the restore again",
			ErrServerRunning, filepath.Join(p.path, "postmaster.pid"), pid, why)
	}
	return nil
}

// isServer reports whether the process is a PostgreSQL server, or at least
// one that works in this directory.
func (p *place) isServer(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) || pid == os.Getpid() {
		return false
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) // it ended meanwhile; or we are not told: assume the worst
	}
	switch strings.TrimSpace(string(comm)) {
	case "postgres", "postmaster", "edb-postgres":
		return true
	}
	cwd, err1 := os.Stat(filepath.Join(proc, "cwd"))
	here, err2 := p.root.Stat(".")
	return err1 == nil && err2 == nil && os.SameFile(cwd, here)
}

// elsewhere says why a server that is not here could be using the directory;
// "" if it cannot.
func (p *place) elsewhere() string {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &ns); err != nil || ns.Ino != initialPIDNamespace {
		return "walkeep runs in a container and cannot see the processes of others"
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.path, &st); err != nil {
		return "its file system cannot be looked at"
	}
	if !localFileSystems[int64(st.Type)] {
		return "its file system may be in use on another machine too"
	}
	return ""
}

// localFileSystems are those that one machine at a time can mount.
var localFileSystems = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true,
	unix.F2FS_SUPER_MAGIC: true, unix.OVERLAYFS_SUPER_MAGIC: true, zfsMagic: true,
}

const zfsMagic = 0x2fc12fc1
