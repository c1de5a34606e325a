package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// small is a server that archives into one file-system repository.
type small struct {
	env    *postgres.Env
	site   *walkeep.Site
	server *postgres.Server
	repo   string // directory of repo1
	yaml   string // the configuration
}

func newSmall(t *testing.T, encrypted bool) *small {
	s := &small{env: postgres.New(t)}
	s.repo = s.env.TempDir(t, "repo")
	repos := fmt.Sprintf("repos:\n  - name: repo1\n    filesystem: {path: %s}\n", s.repo)
	if encrypted {
		repos += "    encryption: {identity-file: " + identityFile(t, s.env, s.env.TempDir(t, "secrets")) + "}\n"
	}
	var err error
	s.site, err = walkeep.NewSite(s.env, "cluster: hippo\n"+repos)
	require.NoError(t, err)
	s.server = s.env.Primary(t, postgres.Options{Checksums: true, Settings: s.site.ArchiveSettings()})
	s.yaml = fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg, conninfo: %q, pgdata: %s}\n%s", s.server.ConnInfo(), s.server.DataDir, repos)
	require.NoError(t, s.site.Configure(s.yaml))
	return s
}

// listed are the labels that `walkeep list` shows.
func (s *small) listed(t *testing.T) (labels []string) {
	var list struct {
		Repos []struct {
			Backups []struct{ Label string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(s.site.Must(t, 0, "list", "--json").Stdout), &list))
	for _, b := range list.Repos[0].Backups {
		labels = append(labels, b.Label)
	}
	return labels
}

// restored restores to the end of the backup, and returns the data directory.
func (s *small) restored(t *testing.T, label string) string {
	dir := filepath.Join(s.env.TempDir(t, "restored"), "data")
	s.site.Must(t, 0, "restore", "--pgdata", dir, "--repo", "repo1", "--backup", label, "--target-immediate", "--target-action", "promote")
	_, err := s.env.Run(context.Background(), s.server.Install.Path("pg_verifybackup"), "-n", dir)
	require.NoError(t, err)
	return dir
}

// TestKilledBackups kills a backup at 50 random moments. Whatever is listed
// afterwards restores, no segment is lost, and the next backup succeeds.
func TestKilledBackups(t *testing.T) {
	t.Parallel()
	const kills = 50
	s := newSmall(t, false)
	s.server.MustExec(t, "create table t as select i, repeat('x', 100) as x from generate_series(1, 200000) i")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	whole, killed, runs := time.Minute, 0, 0 // whole: what the fastest backup took
	for ; killed < kills; runs++ {
		require.Less(t, runs, 4*kills, "%d runs were killed", killed)
		// Labels are seconds: in the same second a run only waits for the next.
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		moment := whole
		if runs > 0 {
			moment = time.Duration(r.Int64N(int64(whole)))
		}
		ctx, cancel := context.WithTimeout(context.Background(), moment)
		begin := time.Now()
		if result, err := s.site.Run(ctx, "backup", "--repo", "repo1", "--type", "full"); err != nil {
			killed++
		} else {
			require.Zero(t, result.Code, result.Stderr)
			whole = min(whole, time.Since(begin))
		}
		cancel()
		s.server.MustExec(t, "insert into t select i from generate_series(1, 100) i")
	}
	last := s.site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full").LastLine()

	labels := s.listed(t)
	require.Contains(t, labels, last)
	// A run that was killed between its commit and its end is listed, and whole.
	require.GreaterOrEqual(t, len(labels), runs-killed+1)
	for _, label := range labels {
		os.RemoveAll(filepath.Dir(s.restored(t, label)))
	}
	clone, err := s.env.Open(s.restored(t, last), nil)
	require.NoError(t, err)
	require.NoError(t, clone.Start(context.Background()))
	require.NoError(t, clone.WaitFor(context.Background(), fmt.Sprintf("select count(*) = %d from t", 200000+runs*100)))
}

// TestTwoBackups: of two backups at once into one repository the second exits
// 5 and names the first.
func TestTwoBackups(t *testing.T) {
	t.Parallel()
	s := newSmall(t, false)
	// Nothing is archived, so the first waits for its WAL.
	require.NoError(t, s.server.Configure(map[string]string{"archive_command": "false"}))
	require.NoError(t, s.server.Reload(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first := s.site.Command(ctx, "backup", "--repo", "repo1", "--type", "full")
	require.NoError(t, first.Start())
	require.Eventually(t, func() bool {
		found, _ := filepath.Glob(filepath.Join(s.repo, "hippo", "lease", "*"))
		return len(found) > 0
	}, 30*time.Second, 10*time.Millisecond)

	second := s.site.Must(t, 5, "backup", "--repo", "repo1", "--type", "full")
	require.Contains(t, second.Stderr, fmt.Sprint(first.Process.Pid))

	require.NoError(t, s.server.Configure(s.site.ArchiveSettings()))
	require.NoError(t, s.server.Reload(context.Background()))
	require.NoError(t, first.Wait())
	s.site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full")
	require.Len(t, s.listed(t), 2)
}

// TestFlippedBytes damages every object of a repository, one after the other,
// at its first, its last and random bytes: whoever needs the object refuses it
// by name, with exit 6 (above 125 from walkeep-wal get), and leaves no data
// directory that starts.
func TestFlippedBytes(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "encrypted"}[encrypted], func(t *testing.T) {
			t.Parallel()
			flippedBytes(t, encrypted)
		})
	}
}

func flippedBytes(t *testing.T, encrypted bool) {
	s := newSmall(t, encrypted)
	label := s.site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full").LastLine()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	root := filepath.Join(s.repo, "hippo")
	objects := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "/lease/") {
			return err
		}
		key, err := filepath.Rel(root, path)
		require.NoError(t, err)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		objects++
		for _, at := range []int{0, r.IntN(len(whole)), r.IntN(len(whole)), len(whole) - 1} {
			t.Run(fmt.Sprintf("%s@%d", key, at), func(t *testing.T) {
				bad := bytes.Clone(whole)
				bad[at] ^= 1 << r.IntN(8)
				require.NoError(t, os.WriteFile(path, bad, 0o600))
				defer func() { require.NoError(t, os.WriteFile(path, whole, 0o600)) }()
				s.refuses(t, key, label)
			})
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, objects, 5)
	s.restored(t, label) // as good as before
}

// refuses runs what reads the object under key and expects it to be refused.
func (s *small) refuses(t *testing.T, key, label string) {
	if _, path, _ := strings.Cut(key, "/"); strings.HasPrefix(path, "wal/") || strings.HasPrefix(path, "label/") || strings.HasPrefix(path, "history/") {
		name := filepath.Base(key)
		dest := filepath.Join(s.env.TempDir(t, "get"), "segment")
		cmd := s.env.Command(context.Background(), s.site.Programs.WAL(), "--config", s.site.Config, "get", name, dest)
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Greater(t, cmd.ProcessState.ExitCode(), 125, string(out))
		require.Contains(t, string(out), name)
		require.NoFileExists(t, dest)
		return
	}
	dir := filepath.Join(s.env.TempDir(t, "refused"), "data")
	result := s.site.Must(t, 6, "restore", "--pgdata", dir, "--repo", "repo1", "--backup", label, "--target-immediate")
	require.Contains(t, result.Stderr, key)
	require.NoFileExists(t, filepath.Join(dir, "global", "pg_control"), "a damaged restore cannot be started")
}

// TestFullDisk: a repository on a full file system, and a full file system
// under walkeep-wal get. Both say so, nothing half-written is left, and with
// room again the same command succeeds.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newSmall(t, false)
	tiny := tmpfs(t, s.env, "40m")
	require.NoError(t, s.site.Configure(strings.Replace(s.yaml, s.repo, filepath.Join(tiny, "repo")+", create: true", 1)))
	s.server.MustExec(t, "create table noise as select sha512(i::text::bytea) as x from generate_series(1, 600000) i")
	full := s.site.Must(t, 1, "backup", "--repo", "repo1", "--type", "full")
	require.Contains(t, full.Stderr, "no space left on device")
	require.Equal(t, "", full.Stdout)

	remount(t, tiny, "600m")
	label := s.site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full").LastLine()
	require.Equal(t, []string{label}, s.listed(t))
	s.restored(t, label)

	room := tmpfs(t, s.env, "4m")
	segments, err := filepath.Glob(filepath.Join(tiny, "repo", "hippo", "*", "wal", "*", "*", "*"))
	require.NoError(t, err)
	get := func() (string, int) {
		cmd := s.env.Command(context.Background(), s.site.Programs.WAL(), "--config", s.site.Config, "get", filepath.Base(segments[0]), filepath.Join(room, "RECOVERYXLOG"))
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	out, code := get()
	require.Greater(t, code, 125, out)
	require.Contains(t, out, "no space left on device")
	left, err := os.ReadDir(room)
	require.NoError(t, err)
	require.Empty(t, left)
	remount(t, room, "64m")
	out, code = get()
	require.Zero(t, code, out)
}
