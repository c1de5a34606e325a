package difference

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"go.uber.org/zap/zaptest"

	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// childJob is a backup that another process takes, so that it can be killed:
// with small packs and a dense journal, because the cluster is small.
type childJob struct {
	Repo, PGData, ConnInfo string
	Type                   repo.BackupType
	Detect                 backup.Detect
	ReadRate               int64
}

const childEnv = "WALKEEP_TEST_BACKUP"

// TestBackupChild is the other process; in a test run it does nothing.
func TestBackupChild(t *testing.T) {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var job childJob
	require.NoError(t, json.Unmarshal([]byte(text), &job))
	store, err := filesystem.New(filesystem.Options{Path: job.Repo})
	require.NoError(t, err)
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Codec: codec.Codec{Name: codec.LZ4}, Cluster: "hippo"})
	require.NoError(t, err)
	conn, err := server.Connect(ctx, job.ConnInfo, nil)
	require.NoError(t, err)
	result, err := backup.Run(ctx, backup.Options{
		Repos: []*repo.Repository{r}, Source: backup.Local(job.PGData), Server: conn, Type: job.Type, Detect: job.Detect,
		Log: zaptest.NewLogger(t), Workers: 2, PackSize: 256 << 10, JournalEvery: 5 * time.Millisecond, ArchiveTimeout: 40 * time.Second, ReadLimit: backup.Limit(job.ReadRate),
	})
	require.NoError(t, err)
	out, err := json.Marshal(result.Repos[0].Summary)
	require.NoError(t, err)
	fmt.Printf("\nSUMMARY %s\n", out)
}

// objects is where the objects of the cluster are in the repository.
func (w *world) objects() string { return filepath.Join(w.repo, "hippo") }

// child starts the other process.
func (w *world) child(ctx context.Context, kind repo.BackupType, rate int64) (*exec.Cmd, *os.File, error) {
	out, err := os.CreateTemp("", "walkeep-child-*")
	if err != nil {
		return nil, nil, err
	}
	_ = os.Remove(out.Name())
	text, err := json.Marshal(childJob{Repo: w.objects(), PGData: w.server.DataDir, ConnInfo: w.server.ConnInfo(), Type: kind, ReadRate: rate})
	if err != nil {
		return nil, nil, err
	}
	cmd := w.env.Command(ctx, os.Args[0], "-test.run", "^TestBackupChild$", "-test.count=1", "-test.v")
	cmd.Env = append(cmd.Env, childEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out, cmd.Start()
}

// A backup of any type that is killed with SIGKILL at a random moment under
// load, again and again, with crashes of the server and expiry in between: the
// one that finishes is page for page what the full backup before it says.
func TestKilledBackupsResume(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	major := 17
	if *only != 0 {
		major = *only
	}
	s := firstSeed()
	t.Logf("seed %d", s)
	rng := rand.New(rand.NewPCG(s, uint64(major)))
	w := newWorld(t, major, map[string]string{"wal_log_hints": []string{"on", "off"}[rng.IntN(2)]}, rng.IntN(2) == 0)
	w.full = w.backup(t, ctx, rng, "full", "")
	w.server.MustExec(t, `checkpoint`)
	resumed := 0
	began := time.Now()
	for round := 0; round == 0 || time.Since(began) < *soak; round++ {
		w.links = nil
		for _, kind := range []repo.BackupType{repo.Full, repo.Differential, repo.Incremental} {
			w.work(ctx, rng, 8)
			w.server.MustExec(t, fmt.Sprintf(`update wide set x = md5(x) || repeat('w', 860) where g %% 3 = %d`, rng.IntN(3)))
			for range 2 {
				w.kill(t, ctx, rng, kind)
				w.work(ctx, rng, 2)
				if rng.IntN(4) == 0 {
					require.NoError(t, w.server.Kill9())
					require.NoError(t, w.server.Start(ctx))
				}
				if rng.IntN(2) == 0 {
					w.site.Must(t, 0, "expire", "--repo", "repo1")
				}
			}
			sum := w.finish(t, ctx, kind)
			for _, l := range sum.References {
				if _, err := os.Stat(filepath.Join(w.objects(), sum.SystemID.String(), "summary", string(l))); err != nil {
					resumed++
				}
			}
			w.work(ctx, rng, 3)
			point := fmt.Sprintf("resumed%d%s", round, kind)
			w.server.MustExec(t, "select pg_create_restore_point('"+point+"')")
			w.links = append(w.links, link{string(sum.Label), point})
		}
		w.site.Must(t, 0, "expire", "--repo", "repo1")
		last, err := w.server.SwitchWAL(ctx)
		require.NoError(t, err)
		require.NoError(t, w.server.WaitArchived(ctx, last))
		w.site.Must(t, 0, "verify", "--level", "full")
		for _, l := range w.links {
			w.compare(t, ctx, l)
		}
	}
	require.NotZero(t, resumed, "nothing was ever resumed")
	t.Logf("%d killed backups were used", resumed)
}

// kill begins a backup under load and kills it at a random moment.
func (w *world) kill(t *testing.T, ctx context.Context, rng *rand.Rand, kind repo.BackupType) {
	busy, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	beside := rand.New(rand.NewPCG(rng.Uint64(), 0))
	all.Go(func() { w.work(busy, beside, 1000) })
	defer all.Wait()
	defer stop()
	cmd, out, err := w.child(ctx, kind, 20<<20)
	require.NoError(t, err)
	defer out.Close()
	deadline := time.Now().Add(30 * time.Second)
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	for time.Now().Before(deadline) {
		parts, _ := filepath.Glob(filepath.Join(w.objects(), "*", "resume", "*", "*"))
		if len(parts) > 0 {
			break
		}
		select {
		case <-exited:
			return // so little to do that it ended before
		case <-time.After(5 * time.Millisecond):
		}
	}
	select {
	case <-exited:
	case <-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond):
		_ = cmd.Process.Kill()
		<-exited
	}
}

// finish lets one finish.
func (w *world) finish(t *testing.T, ctx context.Context, kind repo.BackupType) (sum repo.Summary) {
	cmd, out, err := w.child(ctx, kind, 0)
	require.NoError(t, err)
	defer out.Close()
	err = cmd.Wait()
	text, _ := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", out.Fd()))
	require.NoError(t, err, string(text))
	_, rest, ok := strings.Cut(string(text), "\nSUMMARY ")
	require.True(t, ok, string(text))
	require.NoError(t, json.NewDecoder(strings.NewReader(rest)).Decode(&sum))
	t.Logf("%s %s, references %v", sum.Type, sum.Label, sum.References)
	return sum
}
