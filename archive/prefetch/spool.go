package prefetch

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
)

const (
	lockName  = "lock"
	askedName = "asked"
	partEnd   = ".part"
	newEnd    = ".new"
	readyEnd  = ".ready"
)

// spool is the directory of one recovery.
type spool struct {
	dir  string
	size int64 // of a segment, bytes
}

// makeBase makes the directory with the spools. Beside a data directory nothing
// above it is made: if that is not there, the data directory has just been removed.
func makeBase(dir string) error {
	if filepath.Base(dir) != DefaultDir {
		return os.MkdirAll(dir, 0o700)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// openSpool opens a spool that is there, or makes it. One that others could
// have put files into is refused.
func openSpool(r *Recovery, create bool) (*spool, error) {
	if create {
		if err := makeBase(filepath.Dir(r.dir)); err != nil {
			return nil, fmt.Errorf("make the spool: %w", err)
		}
		if err := os.Mkdir(r.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the spool: %w", err)
		}
	}
	st, err := os.Lstat(r.dir)
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("open the spool: %s is not a directory that only this user can write to", r.dir)
	}
	return &spool{dir: r.dir, size: int64(r.Segment)}, nil
}

func (s *spool) path(name string) string { return filepath.Join(s.dir, name) }

// entries are the ready files by segment, and the names of those that a fetch
// of a killed prefetcher left.
func (s *spool) entries() (ready map[pg.SegmentName]string, remains []string, err error) {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	ready = map[pg.SegmentName]string{}
	for _, e := range list {
		name := e.Name()
		if name == lockName || name == askedName || name == logName {
			continue
		}
		if segment, _, ok := parseReady(name); ok {
			ready[segment] = name
		} else {
			remains = append(remains, name)
		}
	}
	return ready, remains, nil
}

// parseReady reads the name of a ready file.
func parseReady(name string) (segment pg.SegmentName, sum string, ok bool) {
	rest, ok := strings.CutSuffix(name, readyEnd)
	first, sum, dot := strings.Cut(rest, ".")
	if !ok || !dot || len(sum) != 32 {
		return "", "", false
	}
	segment, err := pg.ParseSegmentName(first)
	return segment, sum, err == nil
}

// take hands a segment over to dest, if it is there, or will be within the
// patience. false without an error: it is not. With an error it is not either,
// and the error says what is wrong with the spool.
func (s *spool) take(name pg.SegmentName, dest string, patience time.Duration) (bool, error) {
	deadline := time.Now().Add(patience)
	// Each turn but the last ends with a wait for somebody's fetch.
	for range 3 {
		ready, _, err := s.entries()
		if err != nil {
			return false, fmt.Errorf("read the spool: %w", err)
		}
		if file := ready[name]; file != "" {
			return s.handOver(file, dest)
		}
		if !s.awaitFetch(name, time.Until(deadline)) {
			return false, nil
		}
	}
	return false, nil
}

// awaitFetch waits until nobody fetches the segment any more; false if nobody
// did, or it took too long.
func (s *spool) awaitFetch(name pg.SegmentName, patience time.Duration) bool {
	f, err := os.Open(s.path(string(name) + partEnd))
	if err != nil {
		return false
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		f.Close() // a dead one's
		return false
	}
	released := make(chan struct{})
	go func() { // ends with the fetch, or the process
		defer f.Close()
		for errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH), unix.EINTR) {
		}
		close(released)
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-released:
		return true
	case <-t.C:
		return false
	}
}

// handOver verifies a ready file and makes it dest.
func (s *spool) handOver(file, dest string) (bool, error) {
	path := s.path(file)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	_, want, _ := parseReady(file)
	got, n, err := digest(f)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	if got != want || n != s.size {
		return false, errors.Join(fmt.Errorf("%s is damaged", path), os.Remove(path))
	}
	err = os.Rename(path, dest)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist): // another get was faster
		return false, nil
	case !errors.Is(err, unix.EXDEV):
		return false, fmt.Errorf("hand over %s: %w", path, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	if err := archive.WriteFile(dest, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	}); err != nil {
		return false, err
	}
	_ = os.Remove(path)
	return true, nil
}

// digest is the XXH3-128 of what r yields, hex, and its length.
func digest(r io.Reader) (string, int64, error) {
	h := xxh3.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 256<<10))
	sum := h.Sum128().Bytes()
	return hex.EncodeToString(sum[:]), n, err
}

// ask notes what recovery asked for last. The file appears whole.
func (s *spool) ask(name pg.SegmentName) error {
	f, err := os.CreateTemp(s.dir, askedName+"-*")
	if err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	_, err = f.WriteString(string(name) + "\n")
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path(askedName))
	}
	if err != nil {
		return fmt.Errorf("write to the spool: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// asked is what recovery asked for last, and when; "" if that is not known.
func (s *spool) asked() (pg.SegmentName, time.Time) {
	f, err := os.Open(s.path(askedName))
	if err != nil {
		return "", time.Time{}
	}
	defer f.Close()
	b := make([]byte, 32)
	n, _ := io.ReadFull(f, b)
	st, err := f.Stat()
	if err != nil {
		return "", time.Time{}
	}
	name, err := pg.ParseSegmentName(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return "", time.Time{}
	}
	return name, st.ModTime()
}

// room reports whether n bytes can be written, and room for four more segments
// stays: the disk is recovery's first.
func (s *spool) room(n int64) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return false
	}
	return int64(st.Bavail)*st.Bsize >= n+4*s.size
}
