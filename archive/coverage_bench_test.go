package archive_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// BenchmarkCoverage looks at a million segments, 15 TiB of WAL, in a directory:
// without a cache, and with one. They are empty files: only their names are read.
func BenchmarkCoverage(b *testing.B) {
	const segments = 1 << 20
	dir := b.TempDir()
	store, err := filesystem.New(filesystem.Options{Path: dir})
	require.NoError(b, err)
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "hippo"})
	require.NoError(b, err)
	require.NoError(b, r.Init(ctx))
	_, err = r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: cluster, PGMajor: 15, SegmentSize: pg.DefaultSegmentSize})
	require.NoError(b, err)
	last := ""
	for n := range pg.SegmentNo(segments) {
		name := string(pg.DefaultSegmentSize.Name(1, n+1))
		below := filepath.Join(dir, cluster.String(), "wal", name[:8], name[8:16])
		if below != last {
			require.NoError(b, os.MkdirAll(below, 0o700))
			last = below
		}
		if n%100000 == 500 { // gaps
			continue
		}
		f, err := os.Create(filepath.Join(below, name))
		require.NoError(b, err)
		require.NoError(b, f.Close())
	}
	look := func(b *testing.B, c *repo.RunCache) {
		s, err := archive.Look(ctx, archive.SurveyOptions{Repos: []*repo.Repository{r}, Cache: c})
		require.NoError(b, err)
		require.Len(b, s.Repos[0].Coverage.Gaps(), 11)
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			look(b, nil)
		}
	})
	b.Run("cached", func(b *testing.B) {
		c := repo.NewRunCache(b.TempDir(), nil, nil)
		look(b, c)
		for b.Loop() {
			look(b, c)
		}
	})
}
