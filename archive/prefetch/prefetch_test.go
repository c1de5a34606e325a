package prefetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/memory"
)

const (
	cluster pg.SystemID    = 7400000000000000001
	size    pg.SegmentSize = 1 << 20
	first   pg.SegmentNo   = 3
)

// childVariable has this program, started again, prefetch or fill a disk.
const childVariable = "WALKEEP_PREFETCH_TEST_CHILD"

func TestMain(m *testing.M) {
	if store := os.Getenv(childVariable); store != "" && len(os.Args) == 2 && filepath.Base(os.Args[1]) == "pg_wal" {
		if err := child(store, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(store, wal string) error {
	s, err := filesystem.New(filesystem.Options{Path: store})
	if err != nil {
		return err
	}
	a, err := newArchive(s)
	if err != nil {
		return err
	}
	r, err := Locate(wal, options())
	if err != nil {
		return err
	}
	err = NewPrefetcher(r, a, options()).Run(context.Background())
	if errors.Is(err, ErrRunning) {
		return nil
	}
	return err
}

// options have room for four segments.
func options() Options { return Options{Size: 4 << 20, Workers: 2, Origin: "test"} }

func newArchive(s object.Store) (*archive.Archive, error) {
	r, err := repo.Open(repo.Options{Name: "repo1", Store: s, Cluster: "hippo"})
	if err != nil {
		return nil, err
	}
	return archive.New(archive.Options{Repos: []*repo.Repository{r}})
}

// history is an archive with WAL of n segments.
type history struct {
	a        *archive.Archive
	segments []pg.SegmentName
	content  map[pg.SegmentName][]byte
	primary  string
}

func newHistory(t *testing.T, s object.Store, n int) *history {
	t.Helper()
	a, err := newArchive(s)
	require.NoError(t, err)
	h := &history{a: a, content: map[pg.SegmentName][]byte{}, primary: t.TempDir()}
	require.NoError(t, waltest.WriteControl(h.primary, waltest.Control(cluster, pg.StateProduction, 1, size)))
	w := waltest.New(cluster)
	for i := range n {
		w.Fill(i)
		name, b := w.Segment(i)
		h.segments, h.content[name] = append(h.segments, name), b
	}
	return h
}

func (h *history) push(t *testing.T, names ...pg.SegmentName) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(h.primary, "pg_wal", string(name))
		require.NoError(t, os.WriteFile(path, h.content[name], 0o600))
		_, err := h.a.Push(t.Context(), path)
		require.NoError(t, err)
	}
}

// newRecovery is a data directory in archive recovery; its pg_wal.
func newRecovery(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, waltest.WriteControl(dir, waltest.Control(cluster, pg.StateArchiveRecovery, 1, size)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o600))
	return filepath.Join(dir, "pg_wal")
}

// get gets one segment and compares it.
func (h *history) get(t *testing.T, g *Getter, wal string, name pg.SegmentName) string {
	t.Helper()
	dest := filepath.Join(wal, "RECOVERYXLOG")
	from, err := g.Get(context.Background(), string(name), dest)
	require.NoError(t, err)
	b, err := os.ReadFile(dest)
	require.NoError(t, err)
	require.True(t, bytes.Equal(h.content[name], b), name)
	require.NoError(t, os.Remove(dest))
	return from
}

func pool(t *testing.T, a *archive.Archive, o Options) *Pool {
	p := NewPool(a, o)
	t.Cleanup(p.Close)
	return p
}

// spoolOf is the spool of a recovery, which need not be there.
func spoolOf(t *testing.T, wal string, o Options) *spool {
	t.Helper()
	r, err := Locate(wal, o)
	require.NoError(t, err)
	return &spool{dir: r.dir, size: int64(size)}
}

// await waits until the spool holds these, and nothing else.
func await(t *testing.T, s *spool, want ...pg.SegmentName) {
	t.Helper()
	require.Eventually(t, func() bool {
		ready, remains, err := s.entries()
		if err != nil || len(ready) != len(want) || len(remains) > 0 {
			return false
		}
		for _, w := range want {
			if ready[w] == "" {
				return false
			}
		}
		return true
	}, time.Minute, 5*time.Millisecond)
}

func TestPrefetch(t *testing.T) {
	store := faulty.New(memory.New())
	h := newHistory(t, store, 10)
	h.push(t, h.segments...)
	wal := newRecovery(t)
	p := NewPool(h.a, options())
	defer p.Close()
	g := p.Getter()

	require.Equal(t, "repo1", h.get(t, g, wal, h.segments[0]))
	s := spoolOf(t, wal, options())
	await(t, s, h.segments[1:5]...) // four fit
	before := len(store.Calls())
	require.Equal(t, FromSpool, h.get(t, g, wal, h.segments[1]))
	await(t, s, h.segments[2:6]...)
	require.Len(t, store.Calls()[before:], 1, "one segment more")
	for _, name := range h.segments[2:] {
		h.get(t, g, wal, name)
	}
	// What recovery asks for again is got again.
	require.Equal(t, "repo1", h.get(t, g, wal, h.segments[8]))

	_, err := g.Get(t.Context(), "00000002.history", filepath.Join(wal, "RECOVERYHISTORY"))
	require.ErrorIs(t, err, archive.ErrNotArchived)
	p.Close()
	require.NoDirExists(t, filepath.Dir(s.dir))
	require.Equal(t, "repo1", h.get(t, g, wal, h.segments[0]), "without a prefetcher")
}

// What is not there is asked for again each time.
func TestAbsenceIsNotKept(t *testing.T) {
	h := newHistory(t, memory.New(), 6)
	h.push(t, h.segments[:2]...)
	wal := newRecovery(t)
	g := pool(t, h.a, options()).Getter()
	h.get(t, g, wal, h.segments[0])
	s := spoolOf(t, wal, options())
	await(t, s, h.segments[1])
	h.get(t, g, wal, h.segments[1])
	for _, name := range h.segments[2:] {
		_, err := g.Get(t.Context(), string(name), filepath.Join(wal, "RECOVERYXLOG"))
		require.ErrorIs(t, err, archive.ErrNotArchived)
		h.push(t, name)
		require.Equal(t, "repo1", h.get(t, g, wal, name))
	}
	_, err := os.Stat(s.dir)
	require.NoError(t, err)
}

// A prefetcher that hears nothing from a repository holds up nobody.
func TestSilentRepository(t *testing.T) {
	store := faulty.New(memory.New())
	h := newHistory(t, store, 3)
	h.push(t, h.segments...)
	wal := newRecovery(t)
	o := options()
	o.Patience = time.Hour
	g := pool(t, h.a, o).Getter()
	var stuck []faulty.Rule
	for _, name := range h.segments[1:] {
		stuck = append(stuck, faulty.Rule{Op: "get", Key: string(name), Fault: faulty.Delay, Delay: time.Hour, At: 1})
	}
	store.SetRules(stuck...)
	before := len(store.Calls())
	h.get(t, g, wal, h.segments[0])
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(store.Calls()[before:], func(c faulty.Call) bool {
			return c.Op == faulty.Get && strings.Contains(c.Key, string(h.segments[1]))
		})
	}, time.Minute, time.Millisecond, "the prefetcher asks, and is stuck")
	require.Equal(t, "repo1", h.get(t, g, wal, h.segments[1]))
}

// A spool serves nothing that is not what was archived.
func TestDamagedSpool(t *testing.T) {
	h := newHistory(t, memory.New(), 6)
	h.push(t, h.segments...)
	wal := newRecovery(t)
	p := pool(t, h.a, options())
	g := p.Getter()
	h.get(t, g, wal, h.segments[0])
	s := spoolOf(t, wal, options())
	await(t, s, h.segments[1:5]...)
	ready, _, err := s.entries()
	require.NoError(t, err)
	b, err := os.ReadFile(s.path(ready[h.segments[1]]))
	require.NoError(t, err)
	b[777777] ^= 4
	require.NoError(t, os.WriteFile(s.path(ready[h.segments[1]]), b, 0o600))
	require.NoError(t, os.Truncate(s.path(ready[h.segments[2]]), 4096))
	require.NoError(t, os.WriteFile(s.path(ready[h.segments[3]]), nil, 0o600))
	for _, name := range h.segments[1:4] {
		require.Equal(t, "repo1", h.get(t, g, wal, name))
	}
	require.Equal(t, FromSpool, h.get(t, g, wal, h.segments[4]))
}

// A spool that cannot be used costs speed only.
func TestNoSpool(t *testing.T) {
	h := newHistory(t, memory.New(), 2)
	h.push(t, h.segments...)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	open := filepath.Join(t.TempDir(), "open")
	for name, change := range map[string]func(*Options){
		"off":       func(o *Options) { o.Off = true },
		"not a dir": func(o *Options) { o.Path = file },
		"missing":   func(o *Options) { o.Path = "/proc/1/nowhere" },
		"too small": func(o *Options) { o.Size = int64(size) - 1 },
		"others'":   func(o *Options) { o.Path = open },
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			change(&o)
			wal := newRecovery(t)
			if name == "others'" {
				dir := spoolOf(t, wal, o).dir
				require.NoError(t, os.MkdirAll(dir, 0o700))
				require.NoError(t, os.Chmod(dir, 0o777))
			}
			g := pool(t, h.a, o).Getter()
			for _, s := range h.segments {
				require.Equal(t, "repo1", h.get(t, g, wal, s))
			}
		})
	}
	// Not in recovery: pg_rewind, or somebody who looks at a segment.
	wal := newRecovery(t)
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(wal), "recovery.signal")))
	g := pool(t, h.a, options()).Getter()
	h.get(t, g, wal, h.segments[0])
	require.NoDirExists(t, filepath.Join(filepath.Dir(filepath.Dir(wal)), DefaultDir))
}

// The prefetcher ends with the recovery, and when nothing is asked.
func TestPrefetcherEnds(t *testing.T) {
	h := newHistory(t, memory.New(), 6)
	h.push(t, h.segments...)
	for name, end := range map[string]func(t *testing.T, data string){
		"promoted": func(t *testing.T, data string) { require.NoError(t, os.Remove(filepath.Join(data, "recovery.signal"))) },
		"removed":  func(t *testing.T, data string) { require.NoError(t, os.RemoveAll(data)) },
		"idle":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			wal, o := newRecovery(t), options()
			if end == nil {
				o.Idle = 300 * time.Millisecond
			}
			g := pool(t, h.a, o).Getter()
			h.get(t, g, wal, h.segments[0])
			s := spoolOf(t, wal, o)
			if end != nil {
				await(t, s, h.segments[1:5]...)
				end(t, filepath.Dir(wal))
			}
			require.Eventually(t, func() bool {
				_, err := os.Stat(s.dir)
				return errors.Is(err, fs.ErrNotExist)
			}, time.Minute, 10*time.Millisecond)
		})
	}
}

// Two recoveries of one cluster on one host, one far behind the other, in the
// same place: each finds all that it asks for, and neither takes more room than
// it may.
func TestTwoRecoveries(t *testing.T) {
	h := newHistory(t, memory.New(), 30)
	h.push(t, h.segments...)
	o := options()
	o.Path = filepath.Join(t.TempDir(), "spools")
	var wg sync.WaitGroup
	var dirs sync.Map
	for i, order := range [][]pg.SegmentName{h.segments, h.segments[10:], h.segments} {
		wal := newRecovery(t)
		g := pool(t, h.a, o).Getter() // a process each
		dirs.Store(spoolOf(t, wal, o).dir, i)
		wg.Go(func() {
			for _, name := range order {
				h.get(t, g, wal, name)
				var used int64
				ready, _, _ := spoolOf(t, wal, o).entries()
				for range ready {
					used += int64(size)
				}
				if used > o.Size {
					t.Errorf("%d bytes in the spool", used)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	dirs.Range(func(_, _ any) bool { n++; return true })
	require.Equal(t, 3, n)
}

// TestKilled kills the prefetcher with SIGKILL at random moments; recovery gets
// what was archived all the same, in the order it asks for.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	store, err := filesystem.New(filesystem.Options{Path: dir, Create: true})
	require.NoError(t, err)
	h := newHistory(t, store, 60)
	h.push(t, h.segments...)
	wal := newRecovery(t)
	rng := rand.New(rand.NewPCG(3, uint64(time.Now().UnixNano())))
	var mu sync.Mutex // guards running
	var running []*exec.Cmd
	kill := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range running {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		running = nil
	}
	t.Cleanup(kill)
	g := &Getter{
		Archive: func(context.Context) (*archive.Archive, error) { return h.a, nil },
		Start: func(*Recovery) error {
			c := exec.Command(os.Args[0], wal)
			c.Env = append(os.Environ(), childVariable+"="+dir)
			c.Stderr = os.Stderr
			mu.Lock()
			defer mu.Unlock()
			running = append(running, c)
			return c.Start()
		},
		Options: options(),
	}
	spooled := 0
	for _, name := range h.segments {
		if h.get(t, g, wal, name) == FromSpool {
			spooled++
		}
		time.Sleep(time.Duration(rng.Int64N(int64(30 * time.Millisecond)))) // replay
		if rng.IntN(4) == 0 {
			kill()
		}
	}
	t.Logf("%d of %d from the spool", spooled, len(h.segments))
	kill()
	// The next one clears what the dead ones left.
	p := pool(t, h.a, options())
	require.NoError(t, spoolOf(t, wal, options()).ask(h.segments[0]))
	r, err := Locate(wal, options())
	require.NoError(t, err)
	require.NoError(t, p.Start(r))
	await(t, spoolOf(t, wal, options()), h.segments[1:5]...)
}

// TestSweep: the spool of a recovery that is gone goes with the next one's.
func TestSweep(t *testing.T) {
	h := newHistory(t, memory.New(), 3)
	h.push(t, h.segments...)
	o := options()
	o.Path = t.TempDir()
	old := filepath.Join(o.Path, "1-0011223344556677")
	users := filepath.Join(o.Path, "photos")
	long := time.Now().Add(-2 * staleAfter)
	for _, d := range []string{old, users} {
		require.NoError(t, os.Mkdir(d, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(d, "x.ready"), make([]byte, 100), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(old, askedName), nil, 0o600))
	for _, d := range []string{old, users} {
		require.NoError(t, os.Chtimes(d, long, long))
	}
	wal := newRecovery(t)
	g := pool(t, h.a, o).Getter()
	h.get(t, g, wal, h.segments[0])
	await(t, spoolOf(t, wal, o), h.segments[1:]...)
	require.NoDirExists(t, old)
	require.DirExists(t, users)
}

// TestDiskFull runs again in a mount namespace of its own, where it may mount
// a small file system whoever runs it.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv(childVariable); dir != "" {
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"))
		h := newHistory(t, memory.New(), 12)
		h.push(t, h.segments...)
		o := options()
		o.Path = dir // other file system than pg_wal
		wal := newRecovery(t)
		g := pool(t, h.a, o).Getter()
		for _, name := range h.segments[:3] {
			require.Equal(t, "repo1", h.get(t, g, wal, name), "no room: four segments stay free")
		}
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=30m"))
		h.get(t, g, wal, h.segments[3])
		await(t, spoolOf(t, wal, o), h.segments[4:8]...)
		require.Equal(t, FromSpool, h.get(t, g, wal, h.segments[4]), "copied")
		await(t, spoolOf(t, wal, o), h.segments[5:9]...)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	cmd.Env = append(os.Environ(), childVariable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	} else {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS: TestDiskFull")
}
