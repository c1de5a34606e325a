package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestCopy: a chain of backups of a real server, in a file system and encrypted
// to one key, is copied to an object store and another key. The copy is killed
// in its middle and run again; what it brought is restored from the copy, by who
// has nothing of the source.
func TestCopy(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	clouds.start(t)
	env := postgres.New(t)
	dir := env.TempDir(t, "repo1")
	one := identityFile(t, env, env.TempDir(t, "one"))
	two := identityFile(t, env, env.TempDir(t, "two"))
	bucket := testBucket(t, clouds.s3)
	store := s3YAML(t, env, env.TempDir(t, "secrets"), bucket)
	target := func(limit string) string {
		return fmt.Sprintf("  - name: repo2\n    %s\n    encryption: {identity-file: %s}\n%s", store, two, limit)
	}
	p, err := env.InitDB(ctx, postgres.Options{Major: 17, SegmentSize: 1 << 20, NoFsync: true})
	require.NoError(t, err)
	head := fmt.Sprintf("cluster: hippo\npostgres: {nodes: [{name: pg-0, conninfo: \"%s\", pgdata: %s}]}\nrepos:\n", p.ConnInfo(), p.DataDir)
	source := fmt.Sprintf("  - {name: repo1, filesystem: {path: %s}, encryption: {identity-file: %s}, compression: {codec: none}}\n", dir, one)
	site, err := walkeep.NewSite(env, head+source)
	require.NoError(t, err)
	require.NoError(t, p.Configure(site.ArchiveSettings()))
	require.NoError(t, p.Start(ctx))
	var last string
	for i, kind := range []string{"full", "differential", "incremental"} {
		p.MustExec(t, "create table if not exists t (i int, x text)")
		p.MustExec(t, fmt.Sprintf("insert into t select %d, repeat('x', 100) from generate_series(1, 20000)", i))
		last = site.Must(t, 0, "backup", "--repo", "repo1", "--type", kind).LastLine()
	}
	p.MustExec(t, "insert into t values (3, 'behind the backups')")
	name, err := p.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, p.WaitArchived(ctx, name))

	// Slow enough to be caught in the middle: packs are there, no summary is.
	require.NoError(t, site.Configure(head+source+target("    limit: {upload: 4MB}\n")))
	cmd := site.Command(ctx, "copy", last, "--from", "repo1", "--to", "repo2", "--wal", "all")
	require.NoError(t, cmd.Start())
	stored := func(part string) []string {
		found, err := filepath.Glob(filepath.Join(clouds.s3.Dir, "buckets", bucket, "hippo", "*", "backup", "*", part))
		require.NoError(t, err)
		return found
	}
	require.Eventually(t, func() bool { return len(stored("pack/*")) > 0 }, 2*time.Minute, 20*time.Millisecond)
	require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
	require.Error(t, cmd.Wait())
	left := stored("pack/*")
	require.NoError(t, site.Configure(head+source+target("")))
	require.NotContains(t, site.Must(t, 0, "list", "--repo", "repo2").Stdout, last)
	site.Must(t, 0, "copy", last, "--from", "repo1", "--to", "repo2", "--wal", "all", "--wait", "2m")
	require.Subset(t, stored("pack/*"), left, "what the killed copy brought is used")
	again := site.Must(t, 0, "copy", last, "--from", "repo1", "--to", "repo2", "--wal", "all")
	require.Contains(t, again.Stderr, "repo2 has "+last+" already")
	require.Contains(t, again.Stderr, "copied 0 backups")
	listed := site.Must(t, 0, "list", "--repo", "repo2").Stdout
	for _, label := range strings.Split(last, "_") {
		require.Contains(t, listed, label)
	}
	site.Must(t, 0, "verify", "--repo", "repo2", "--level", "full")

	// Without the source and its key.
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Remove(one))
	require.NoError(t, site.Configure(head+target("")))
	data := filepath.Join(env.TempDir(t, "restored"), "data")
	site.Must(t, 0, "restore", "--repo", "repo2", "--backup", last, "--pgdata", data)
	clone, err := env.Open(data, nil)
	require.NoError(t, err)
	require.NoError(t, clone.Start(ctx))
	require.NoError(t, clone.WaitFor(ctx, "select not pg_is_in_recovery()"))
	require.Equal(t, "60001", clone.MustText(t, "select count(*)::text from t"))
	require.NoError(t, clone.Stop(ctx, postgres.Immediate))
}
