package archive_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestSources(t *testing.T) {
	name, b := segment()
	n := newNode(t, cluster, pg.StateProduction)
	path := n.file(t, name, b)
	store := memory.New()
	_, err := newArchive(t, archive.Options{}, store).Push(ctx, path)
	require.NoError(t, err)
	here, other := repo.SegmentFile(pg.SegmentName(name)), repo.SegmentFile("0000000100000000000000AA")

	sibling := func(s object.Store) archive.Source {
		return archive.SiblingSource(repository(t, "repo2", s, nil).Epoch(cluster))
	}
	for _, s := range []archive.Source{sibling(store), archive.DirSource("pg_wal of pg-0", filepath.Dir(path))} {
		var got bytes.Buffer
		require.NoError(t, s.Fetch(ctx, here, &got))
		require.True(t, bytes.Equal(b, got.Bytes()))
		require.ErrorIs(t, s.Fetch(ctx, other, &got), archive.ErrSourceLacks)
		require.NotEmpty(t, s.Name())
	}

	// What cannot be asked does not lack anything.
	flip(t, store, func(size int64) int64 { return size / 2 })
	require.NoError(t, os.Mkdir(filepath.Join(n.dir, "pg_wal", string(other.Name)), 0o700))
	for what, err := range map[string]error{
		"damaged":      sibling(store).Fetch(ctx, here, &bytes.Buffer{}),
		"dead":         sibling(faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})).Fetch(ctx, here, &bytes.Buffer{}),
		"no directory": archive.DirSource("x", filepath.Join(t.TempDir(), "gone")).Fetch(ctx, here, &bytes.Buffer{}),
		"a directory":  archive.DirSource("x", filepath.Dir(path)).Fetch(ctx, other, &bytes.Buffer{}),
		"a path":       archive.DirSource("x", filepath.Dir(path)).Fetch(ctx, repo.WALName{Kind: pg.FileSegment, Name: "../../etc/passwd"}, &bytes.Buffer{}),
	} {
		require.Error(t, err, what)
		require.NotErrorIs(t, err, archive.ErrSourceLacks, what)
	}
}
