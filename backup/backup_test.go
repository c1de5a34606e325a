package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// small makes a cluster with a file of three units and some of every other
// kind, and returns the contents to be expected in a backup of it.
func small(t testing.TB) (*cluster, map[string][]byte) {
	c := newCluster(t)
	c.relation("base/5/16384", 2*rangeSize/pg.PageSize+200)
	c.relation("base/5/16384.1", 3)
	c.relation("base/5/16400", chunkSize/pg.PageSize)   // exactly one chunk
	c.relation("base/5/16401", chunkSize/pg.PageSize+1) // one page more
	for _, n := range []string{"1259", "1260", "2600", "2601_fsm", "2601_vm"} {
		c.relation("base/1/"+n, 17)
	}
	c.relation("base/1/30000_init", 1)
	c.relation("base/1/30000", 9)
	c.write("odd \xff\n\" name", []byte("x"))
	c.write("base/5/2700", append(bytes.Repeat([]byte{0}, 8192), 1, 2, 3)) // an odd end
	c.write("base/5/t4_777", []byte("temporary"))

	want := map[string][]byte{"backup_label": []byte("START WAL LOCATION: 0/3000028\n")}
	for _, p := range []string{
		"PG_VERSION", "base/1/1259", "base/1/1260", "base/1/2600", "base/1/2601_fsm", "base/1/2601_vm", "base/1/30000_init",
		"base/5/16384", "base/5/16384.1", "base/5/16400", "base/5/16401", "base/5/2700", "empty", "global/pg_control", "odd \xff\n\" name", "pg_xact/0000",
	} {
		b, err := os.ReadFile(filepath.Join(c.dir, p))
		require.NoError(t, err)
		want[p] = b
	}
	return c, want
}

func TestRunIntoTwoRepositories(t *testing.T) {
	c, want := small(t)
	c.tsMap = []byte("16386 /somewhere\n")
	want["tablespace_map"] = c.tsMap
	one := repository(t, "repo1", memory.New(), codec.Default())
	two := repository(t, "repo2", memory.New(), codec.Codec{Name: codec.LZ4})
	o := c.options(one, two)
	o.Annotations = map[string]string{"why": "test"}
	progress := &recorder{}
	o.Progress = progress
	result, err := Run(context.Background(), o)
	require.NoError(t, err)
	require.Equal(t, repo.Label("20251122-010000F"), result.Label)
	require.Equal(t, 1, c.stops)
	require.Len(t, result.Repos, 2)
	var size int64
	for _, b := range want {
		size += int64(len(b))
	}
	for i, r := range []*repo.Repository{one, two} {
		require.NoError(t, result.Repos[i].Err)
		s := result.Repos[i].Summary
		require.Equal(t, size, s.Bytes)
		require.Equal(t, int64(len(want)), s.Files)
		require.Zero(t, s.PageErrors)
		require.Equal(t, testStop, s.StopLSN)
		require.Equal(t, o.Annotations, s.Annotations)
		files, entries := readBackup(t, r.Epoch(testSystem), result.Label)
		require.Equal(t, len(want), len(files))
		for p, b := range want {
			require.True(t, bytes.Equal(b, files[p]), p)
		}
		var paths []string
		for _, e := range entries {
			paths = append(paths, e.Path)
		}
		require.Equal(t, ".", paths[0])
		require.Equal(t, []string{"backup_label", "tablespace_map", "global/pg_control"}, paths[len(paths)-3:])
	}
	require.Equal(t, progress.done, size)
	require.Positive(t, progress.total)

	// The leases are free again, and a label that is taken is not taken again.
	o.Clock = func() time.Time { return result.Label.Time() }
	result, err = Run(context.Background(), o)
	require.NoError(t, err)
	require.Equal(t, repo.Label("20251122-010001F"), result.Label)
}

type recorder struct {
	mu          sync.Mutex
	done, total int64
	stages      []string
	onAdd       func()
}

func (r *recorder) Stage(s string) { r.mu.Lock(); r.stages = append(r.stages, s); r.mu.Unlock() }
func (r *recorder) Total(n int64)  { r.mu.Lock(); r.total = n; r.mu.Unlock() }
func (r *recorder) Add(n int64) {
	r.mu.Lock()
	r.done += n
	f := r.onAdd
	r.mu.Unlock()
	if f != nil {
		f()
	}
}

func TestRunListsDamagedPages(t *testing.T) {
	c, want := small(t)
	for _, at := range []int64{7*pg.PageSize + 4000, rangeSize + 5*pg.PageSize + 100} {
		f, err := os.OpenFile(filepath.Join(c.dir, "base/5/16384"), os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("damage"), at)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		copy(want["base/5/16384"][at:], "damage")
	}
	f, err := os.OpenFile(filepath.Join(c.dir, "base/1/2600"), os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{99}, 3*pg.PageSize+200)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	want["base/1/2600"][3*pg.PageSize+200] = 99

	r := repository(t, "repo1", memory.New(), codec.Default())
	result, err := Run(context.Background(), c.options(r))
	require.NoError(t, err, "damaged pages are the server's, and no reason to have no backup")
	require.Equal(t, int64(3), result.Repos[0].Summary.PageErrors)
	files, entries := readBackup(t, r.Epoch(testSystem), result.Label)
	bad := map[string][]uint32{}
	for _, e := range entries {
		if len(e.BadPages) > 0 {
			bad[e.Path] = e.BadPages
		}
	}
	require.Equal(t, map[string][]uint32{"base/5/16384": {7, rangeSize/pg.PageSize + 5}, "base/1/2600": {3}}, bad)
	for p, b := range want {
		require.True(t, bytes.Equal(b, files[p]), p)
	}
}

func TestRunRefuses(t *testing.T) {
	c, _ := small(t)
	ctx := context.Background()
	store := memory.New()
	r := repository(t, "repo1", store, codec.Default())

	o := c.options(r, r)
	_, err := Run(ctx, o)
	require.ErrorContains(t, err, "named twice")

	// Busy: nothing is done, in no repository.
	lease, err := r.AcquireLease(ctx, leaseName, repo.LeaseOptions{Holder: "somebody else", What: "full backup"})
	require.NoError(t, err)
	other := repository(t, "repo2", memory.New(), codec.Default())
	result, err := Run(ctx, c.options(other, r))
	require.ErrorIs(t, err, repo.ErrBusy)
	for _, r := range result.Repos {
		require.ErrorIs(t, r.Err, repo.ErrBusy, r.Name)
	}
	require.ErrorContains(t, err, "somebody else")
	require.ErrorContains(t, err, "repo1")
	require.Zero(t, c.stops)
	require.NoError(t, lease.Release(ctx))

	// Another node's directory.
	for name, change := range map[string]func(){
		"no postmaster.pid": func() { require.NoError(t, os.Remove(filepath.Join(c.dir, "postmaster.pid"))) },
		"runs in /other":    func() { c.write("postmaster.pid", []byte("1\n/other\n")) },
		"system identifier": func() {
			b := controlFile()
			b[0]++
			copy(b[288:], make([]byte, 4))
			c.write("global/pg_control", sign(b))
		},
		"connected to is a primary": func() {
			b := controlFile()
			b[16] = byte(pg.StateArchiveRecovery)
			c.write("global/pg_control", sign(b))
		},
	} {
		c.write("postmaster.pid", []byte("1\n"+c.dir+"\n"))
		c.write("global/pg_control", controlFile())
		change()
		_, err = Run(ctx, c.options(r))
		require.ErrorContains(t, err, name)
	}
	require.Zero(t, c.stops)
	requireNoBackup(t, store)
}

func TestRunLeavesAFailedRepositoryBehind(t *testing.T) {
	c, want := small(t)
	broken := &brokenStore{Store: memory.New(), failAfter: 3 << 20}
	one := repository(t, "repo1", broken, codec.Codec{Name: codec.None})
	two := repository(t, "repo2", memory.New(), codec.Codec{Name: codec.None})
	result, err := Run(context.Background(), c.options(one, two))
	require.ErrorContains(t, err, "repo1")
	require.ErrorIs(t, err, errBroken)
	require.ErrorIs(t, result.Repos[0].Err, errBroken)
	require.NoError(t, result.Repos[1].Err)
	files, _ := readBackup(t, two.Epoch(testSystem), result.Label)
	for p, b := range want {
		require.True(t, bytes.Equal(b, files[p]), p)
	}
	requireNoBackup(t, broken.Store)

	// Both: the error names both, and nothing is left.
	b1, b2 := &brokenStore{Store: memory.New(), failAfter: 1 << 20}, &brokenStore{Store: memory.New(), failAfter: 5 << 20}
	_, err = Run(context.Background(), c.options(
		repository(t, "repo1", b1, codec.Codec{Name: codec.None}), repository(t, "repo2", b2, codec.Codec{Name: codec.None})))
	require.ErrorContains(t, err, "repo1")
	require.ErrorContains(t, err, "repo2")
	require.False(t, c.inBackup)
	requireNoBackup(t, b1.Store)
	requireNoBackup(t, b2.Store)
}

var errBroken = errors.New("store broke")

// brokenStore fails for good once it took so many bytes.
type brokenStore struct {
	object.Store
	mu        sync.Mutex
	took      int64
	failAfter int64
}

func (s *brokenStore) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	return s.Store.Put(ctx, key, &brokenReader{s: s, r: body}, o)
}

type brokenReader struct {
	s *brokenStore
	r io.Reader
}

func (r *brokenReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.took += int64(n); r.s.took > r.s.failAfter {
		return 0, errBroken
	}
	return n, err
}

func TestRunWaitsForWAL(t *testing.T) {
	c, _ := small(t)
	c.noWAL = true
	store := memory.New()
	r := repository(t, "repo1", store, codec.Default())
	_, err := Run(context.Background(), c.options(r))
	require.ErrorContains(t, err, "000000010000000000000003, 000000010000000000000004, 000000010000000000000005 missing")
	require.ErrorContains(t, err, "walkeep check")
	requireNoBackup(t, store)

	o := c.options(r)
	o.ArchiveTimeout = time.Minute
	progress := &recorder{}
	o.Progress = progress
	go func() {
		for c.stopped() < 2 {
			time.Sleep(time.Millisecond)
		}
		c.archive(r.Epoch(testSystem))
	}()
	_, err = Run(context.Background(), o)
	require.NoError(t, err)
}

func (c *cluster) stopped() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stops
}

func TestRunServerErrors(t *testing.T) {
	c, _ := small(t)
	store := memory.New()
	r := repository(t, "repo1", store, codec.Default())
	c.startErr = errors.New("no start")
	_, err := Run(context.Background(), c.options(r))
	require.ErrorIs(t, err, c.startErr)
	require.Zero(t, c.stops)

	c.startErr, c.stopErr = nil, errors.New("no stop")
	_, err = Run(context.Background(), c.options(r))
	require.ErrorIs(t, err, c.stopErr)
	requireNoBackup(t, store)

	c.stopErr = nil
	require.NoError(t, os.RemoveAll(filepath.Join(c.dir, "base/5/16384")))
	require.NoError(t, os.Symlink("16384", filepath.Join(c.dir, "base/5/16384"))) // dangling: left out
	_, err = Run(context.Background(), c.options(r))
	require.NoError(t, err)
}

// requireNoBackup: no summary, manifest, pack or lease in the store.
func requireNoBackup(t testing.TB, s object.Store) {
	t.Helper()
	var left []string
	require.NoError(t, s.List(context.Background(), "", object.ListOptions{}, func(i object.Info) error {
		if strings.Contains(i.Key, "/backup/") || strings.Contains(i.Key, "/summary/") || strings.HasPrefix(i.Key, "lease/") {
			left = append(left, i.Key)
		}
		return nil
	}))
	require.Empty(t, left)
}

func TestRunCancelled(t *testing.T) {
	c, want := small(t)
	cause := errors.New("somebody pressed a key")
	before := runtime.NumGoroutine()
	rng := rand.New(rand.NewPCG(3, 4))
	store := memory.New()
	r := repository(t, "repo1", store, codec.Default())
	cancelled, adds := 0, 0
	for range 60 {
		ctx, cancel := context.WithCancelCause(context.Background())
		o := c.options(r)
		n := rng.IntN(60)
		o.Progress = &recorder{onAdd: func() {
			if adds++; adds == n {
				cancel(cause)
			}
		}}
		adds = 0
		o.Workers = 1 // so that adds needs no lock
		if n%7 == 0 {
			timer := time.AfterFunc(time.Duration(rng.IntN(40))*time.Millisecond, func() { cancel(cause) })
			defer timer.Stop()
		}
		_, err := Run(ctx, o)
		require.False(t, c.inBackup)
		if err != nil {
			require.ErrorIs(t, err, cause)
			cancelled++
			requireNoBackup(t, store)
		} else {
			require.NoError(t, clear(store))
		}
		cancel(nil)
	}
	require.Greater(t, cancelled, 10)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }, 5*time.Second, 10*time.Millisecond)

	result, err := Run(context.Background(), c.options(r))
	require.NoError(t, err)
	files, _ := readBackup(t, r.Epoch(testSystem), result.Label)
	require.Len(t, files, len(want))
}

func clear(s object.Store) error {
	var keys []string
	if err := s.List(context.Background(), "", object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, i.Key)
		return nil
	}); err != nil {
		return err
	}
	return s.Delete(context.Background(), keys...)
}

// Files change under the hands of the backup. Whatever it sees, what it
// recorded is what it stored.
func TestRunFilesChange(t *testing.T) {
	c, _ := small(t)
	r := repository(t, "repo1", memory.New(), codec.Default())
	for seed := range uint64(12) {
		now := c.now
		c, _ = small(t)
		c.now = now
		rng := rand.New(rand.NewPCG(seed, 5))
		o := c.options(r)
		paths := []string{"base/5/16384", "base/5/16401", "base/1/2600", "empty", "base/5/2700", "pg_xact/0000", "base/1/1260"}
		o.Progress = &recorder{onAdd: func() {
			p := filepath.Join(c.dir, paths[rng.IntN(len(paths))])
			switch rng.IntN(5) {
			case 0:
				_ = os.Remove(p)
			case 1:
				_ = os.Truncate(p, int64(rng.IntN(3*rangeSize)))
			case 2:
				_ = os.WriteFile(p, make([]byte, rng.IntN(3*chunkSize)), 0o600)
			case 3:
				_ = os.Remove(p)
				_ = os.Mkdir(p, 0o700)
			case 4:
				_ = os.Truncate(p, 0)
				_ = os.Truncate(p, 2*rangeSize+77)
			}
		}}
		o.Workers = 1
		result, err := Run(context.Background(), o)
		require.NoError(t, err)
		readBackup(t, r.Epoch(testSystem), result.Label)
	}
}

func sign(b []byte) []byte {
	sum := crc(b[:288])
	b[288], b[289], b[290], b[291] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	return b
}
