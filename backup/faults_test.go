package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// tiny is a cluster whose backup makes few calls.
func tiny(t testing.TB) *cluster {
	c := newCluster(t)
	c.relation("base/5/16384", 300)
	c.relation("base/1/1259", 17)
	return c
}

// requireListedAreWhole reads every listed backup to the last byte.
func requireListedAreWhole(t testing.TB, r *repo.Repository) int {
	t.Helper()
	e := r.Epoch(testSystem)
	all, err := e.Backups(context.Background())
	require.NoError(t, err)
	for _, s := range all {
		files, _ := readBackup(t, e, s.Label)
		require.Equal(t, s.Files, int64(len(files)))
	}
	return len(all)
}

// Whatever call of the store fails, there is no backup that is listed and not
// whole, and the next backup succeeds.
func TestEveryStoreCallFails(t *testing.T) {
	c := tiny(t)
	open := func(s object.Store) *repo.Repository {
		r, err := repo.Open(repo.Options{
			Name: "repo1", Store: s, Codec: codec.Default(), Cluster: "test", TempDir: t.TempDir(),
		})
		require.NoError(t, err)
		return r
	}
	options := func(r *repo.Repository) Options {
		o := c.options(r)
		o.Log, o.PackSize = zap.NewNop(), 1<<20
		o.Workers = 1
		return o
	}
	plain := faulty.New(memory.New())
	_, err := Run(context.Background(), options(open(plain)))
	require.NoError(t, err)
	calls := len(plain.Calls())
	require.Greater(t, calls, 10)

	for _, fault := range []faulty.Fault{faulty.Fail, faulty.LoseAnswer, faulty.Truncate} {
		for k := 1; k <= calls; k++ {
			name := fmt.Sprintf("%s call %d", fault, k)
			store := faulty.New(memory.New(), faulty.Rule{At: k, Fault: fault})
			r := open(store)
			_, err := Run(context.Background(), options(r))
			require.False(t, c.inBackup, name)
			var what any
			if all := store.Calls(); len(all) >= k {
				what = all[k-1]
			}
			store.SetRules()
			listed := requireListedAreWhole(t, r)
			if err == nil {
				require.Equal(t, 1, listed, "%s: %v", name, what)
			}
			// A lease that could not be released runs out after a minute.
			require.NoError(t, store.Delete(context.Background(), "lease/"+leaseName))
			_, err = Run(context.Background(), options(r))
			require.NoError(t, err, "%s: %v", name, what)
			require.Equal(t, listed+1, requireListedAreWhole(t, r), "%s: %v", name, what)
		}
	}
}

const (
	childDir  = "WALKEEP_BACKUP_TEST_PGDATA"
	childRepo = "WALKEEP_BACKUP_TEST_REPO"
)

// TestMain lets the test run itself as a process that backs up.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir, os.Getenv(childRepo)))
	}
	os.Exit(m.Run())
}

// child backs up a directory of the tests into a file-system repository, and
// prints its peak memory in KiB.
func child(dir, path string) int {
	c := &cluster{dir: dir, now: time.Now(), t: discard{}}
	store, err := filesystem.New(filesystem.Options{Path: path, Create: true})
	if err == nil {
		var r *repo.Repository
		r, err = repo.Open(repo.Options{Name: "repo1", Store: store, Codec: codec.Codec{Name: codec.Zstd, Level: 1}, Cluster: "test"})
		if err == nil {
			o := c.options(r)
			o.Log, o.Progress, o.Clock = zap.NewNop(), &recorder{}, time.Now
			_, err = Run(context.Background(), o)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, repo.ErrBusy) {
			return 5
		}
		return 1
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("%s", status)
	return 0
}

// discard is a testing.TB for a process that is no test.
type discard struct{ testing.TB }

func (discard) Helper()               {}
func (discard) Logf(string, ...any)   {}
func (discard) Errorf(string, ...any) {}
func (discard) Name() string          { return "child" }
func (discard) Failed() bool          { return false }
func (discard) Cleanup(func())        {}

func childCommand(ctx context.Context, dir, path string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childRepo+"="+path)
	return cmd
}

// Killed at any moment, a backup leaves nothing that is listed and not whole,
// and does not keep the next one from running.
func TestKilled(t *testing.T) {
	c, _ := small(t)
	path := filepath.Join(t.TempDir(), "repo")
	open := func() *repo.Repository {
		s, err := filesystem.New(filesystem.Options{Path: path, Create: true})
		require.NoError(t, err)
		return repository(t, "repo1", s, codec.Default())
	}
	began := time.Now()
	out, err := childCommand(context.Background(), c.dir, path).CombinedOutput()
	require.NoError(t, err, string(out))
	whole := time.Since(began)
	rng := rand.New(rand.NewPCG(8, 9))
	for range 15 {
		cmd := childCommand(context.Background(), c.dir, path)
		require.NoError(t, cmd.Start())
		time.Sleep(time.Duration(rng.Int64N(int64(whole))))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		requireListedAreWhole(t, open())
	}
	// At once: the holder of the lease is dead, and on this host.
	before := requireListedAreWhole(t, open())
	out, err = childCommand(context.Background(), c.dir, path).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, before+1, requireListedAreWhole(t, open()))
}

func TestTwoAtOnce(t *testing.T) {
	c, _ := small(t)
	path := filepath.Join(t.TempDir(), "repo")
	first := childCommand(context.Background(), c.dir, path)
	require.NoError(t, first.Start())
	defer first.Wait()
	lease := filepath.Join(path, "lease", leaseName)
	require.Eventually(t, func() bool { _, err := os.Stat(lease); return err == nil }, 20*time.Second, time.Millisecond)
	out, err := childCommand(context.Background(), c.dir, path).CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, string(out))
	require.Equal(t, 5, exit.ExitCode(), string(out))
	require.Contains(t, string(out), fmt.Sprintf("process %d", first.Process.Pid))
	require.NoError(t, first.Wait())
}

// 100,000 small files in one directory need no more memory than any others.
func TestMemoryWithManyFiles(t *testing.T) {
	files := 100_000
	if v := os.Getenv("WALKEEP_MANY_FILES"); v != "" {
		require.NoError(t, json.Unmarshal([]byte(v), &files))
	}
	// In memory: making so many files on a disk takes minutes.
	dir, err := os.MkdirTemp("/dev/shm", "walkeep-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := newClusterIn(t, dir)
	for i := range files {
		require.NoError(t, os.WriteFile(filepath.Join(c.dir, "base/5", fmt.Sprint(20000+i)), []byte("not a page"), 0o600))
	}
	out, err := childCommand(context.Background(), c.dir, filepath.Join(t.TempDir(), "repo")).Output()
	require.NoError(t, err)
	peak := vmHWM(t, out)
	t.Logf("%d files: peak %d MiB", files, peak>>10)
	require.Less(t, peak, 256<<10)
}

func vmHWM(t testing.TB, status []byte) (kib int) {
	t.Helper()
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
