package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// Local is the data directory pgdata as a source, as this process sees it.
func Local(pgdata string) Source { return local{root: pgdata} }

type local struct{ root string }

func (l local) pgdata() string { return l.root }

func (local) name() string { return "" }

func (l local) full(path string) string { return filepath.Join(l.root, path) }

// place is what tells a data directory from others; nil if that cannot be
// found out.
func (l local) place() *repo.Place {
	host, err := os.Hostname()
	if err != nil {
		return nil
	}
	var dir, version syscall.Stat_t
	if syscall.Stat(l.root, &dir) != nil || syscall.Stat(l.full("PG_VERSION"), &version) != nil {
		return nil
	}
	return &repo.Place{Host: host, Device: dir.Dev, Inode: dir.Ino, Born: version.Ino}
}

// belongs asks postmaster.pid.
func (l local) belongs(_ context.Context, info server.Info) error {
	running, err := postmasterDataDir(l.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return wrongDir(l, "it has no postmaster.pid, so no server runs in it")
	case err != nil:
		return err
	case info.DataDirectory != "" && filepath.Clean(running) != filepath.Clean(info.DataDirectory):
		// Both are paths as the server sees them; ours may differ, in a
		// container beside it.
		return wrongDir(l, "its postmaster.pid belongs to a server that runs in %s, the server connected to runs in %s", running, info.DataDirectory)
	}
	return nil
}

// postmasterDataDir reads the second line of postmaster.pid: the data
// directory in the words of the server itself.
func postmasterDataDir(pgdata string) (string, error) {
	f, err := os.Open(filepath.Join(pgdata, "postmaster.pid"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if n == 2 {
			return strings.TrimSpace(lines.Text()), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read postmaster.pid: %w", err)
	}
	return "", fmt.Errorf("read postmaster.pid in %s: it has no second line", pgdata)
}

func (l local) stat(_ context.Context, path string) (found, error) {
	st, err := os.Stat(l.full(path))
	if err != nil {
		return found{}, err
	}
	return foundAs(path, st), nil
}

// foundAs is what a path that leads there is.
func foundAs(path string, st fs.FileInfo) found {
	switch {
	case st.IsDir():
		return found{entry: newEntry(path, kindDir, st), id: identityOf(st)}
	case st.Mode().IsRegular():
		return found{entry: newEntry(path, kindFile, st)}
	}
	return found{entry: entry{path: path}, leftOut: "neither file nor directory: left out"}
}

// localList is a directory. Only the names are held; what is there is looked at
// when its turn has come.
type localList struct {
	nameList
	from local
	path string
}

func (l local) list(_ context.Context, path string) (listing, error) {
	names, err := readNames(l.full(path))
	return localList{names, l, path}, err
}

func (d localList) look(_ context.Context, i int) (found, error) {
	path := below(d.path, d.at(i))
	full := d.from.full(path)
	st, err := os.Lstat(full)
	if err != nil {
		return found{}, err
	}
	linked := st.Mode()&fs.ModeSymlink != 0
	if linked {
		if st, err = os.Stat(full); err != nil {
			return found{entry: entry{path: path}, leftOut: "link leads nowhere: left out"}, nil
		}
	}
	f := foundAs(path, st)
	f.linked = linked
	return f, nil
}

func (l local) tablespace(_ context.Context, path string) (found, error) {
	st, err := os.Lstat(l.full(path))
	switch {
	case err != nil:
		return found{}, err
	case st.IsDir():
		return foundAs(path, st), nil
	case st.Mode()&fs.ModeSymlink == 0:
		return found{entry: entry{path: path}, leftOut: notATablespace}, nil
	}
	e := newEntry(path, kindLink, st)
	e.link, err = os.Readlink(l.full(path))
	return found{entry: e, linked: true}, err
}

func (l local) tablespaces(context.Context) (map[identity]bool, error) {
	names, err := readNames(l.full("pg_tblspc"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[identity]bool{}
	for i := range names.len() {
		p := l.full("pg_tblspc/" + names.at(i))
		if st, err := os.Lstat(p); err != nil || st.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if st, err := os.Stat(p); err == nil && st.IsDir() {
			all[identityOf(st)] = true
		}
	}
	return all, nil
}

func identityOf(st fs.FileInfo) identity {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}
	}
	return identity{device: sys.Dev, inode: sys.Ino}
}

func newEntry(path string, kind entryKind, st fs.FileInfo) entry {
	e := entry{path: path, kind: kind, mode: uint32(st.Mode().Perm()), mtime: st.ModTime(), size: st.Size()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		e.mode, e.uid, e.gid = sys.Mode&0o7777, sys.Uid, sys.Gid
		e.ctime = time.Unix(sys.Ctim.Unix())
	}
	if kind != kindFile {
		e.size = 0
	}
	return e
}

func (l local) readFile(_ context.Context, path string) ([]byte, error) {
	return os.ReadFile(l.full(path))
}

// localFile is an open file, so that all who read it see the same one even when
// another takes its name.
type localFile struct {
	fd     int
	path   string
	length int64
}

func (l local) open(_ context.Context, e entry) (file, error) {
	f := &localFile{path: l.full(e.path)}
	var err error
	for {
		// Not blocking: what was a file a moment ago may be a pipe now.
		f.fd, err = unix.Open(f.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		f.close()
		return nil, fmt.Errorf("stat %s: %w", f.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.close()
		return nil, fmt.Errorf("open %s: it is no regular file any more: %w", f.path, fs.ErrNotExist)
	}
	f.length = st.Size
	return f, nil
}

func (f *localFile) size() int64 { return f.length }

func (f *localFile) readAt(_ context.Context, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		k, err := unix.Pread(f.fd, p[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("read %s at offset %d: %w", f.path, off+int64(n), err)
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}

// willNeed lets the kernel read ahead while the workers compress what is before
// it.
func (f *localFile) willNeed(off, n int64) { _ = unix.Fadvise(f.fd, off, n, unix.FADV_WILLNEED) }

func (f *localFile) close() { _ = unix.Close(f.fd) }
