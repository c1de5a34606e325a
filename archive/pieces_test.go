package archive_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// Segments of many pieces, whole ones and such as are refused at one of their
// pieces, many at a time, more than there are pieces: none waits for what another
// one kept, and each comes back as it was.
func TestManyPieces(t *testing.T) {
	const size = 4 << 20
	dir := t.TempDir()
	require.NoError(t, waltest.WriteControl(dir, waltest.Control(cluster, pg.StateProduction, 1, size)))
	a := newArchive(t, archive.Options{}, memory.New(), memory.New())
	s := waltest.New(cluster)
	s.Size = size
	rng := rand.New(rand.NewPCG(1, 1))
	const whole = 5
	for s.LSN() < s.Size.Start(s.First+whole) {
		b := make([]byte, rng.IntN(100_000))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		s.Append(10, 0, 700, waltest.Main(b))
	}
	path := func(name string) string { return filepath.Join(dir, "pg_wal", name) }
	good := map[string][]byte{}
	for i := range whole {
		name, b := s.Segment(i)
		good[string(name)] = b
		require.NoError(t, os.WriteFile(path(string(name)), b, 0o600))
	}
	template := good[string(s.Size.Name(1, s.First))]
	var bad []string
	for i := range 8 {
		b := append([]byte(nil), template...)
		switch i % 4 {
		case 0: // refused at the first piece: of another place
		case 1: // at the last: too long
			b = append(b, make([]byte, size/2)...)
		case 2:
			b[size/2+100] ^= 1
		case 3:
			b = b[:size-5000]
		}
		name := string(s.Size.Name(1, s.First))
		if i%4 == 0 {
			name = string(s.Size.Name(1, s.First+whole+1))
		}
		other := t.TempDir()
		require.NoError(t, waltest.WriteControl(other, waltest.Control(cluster, pg.StateProduction, 1, size)))
		bad = append(bad, filepath.Join(other, "pg_wal", name))
		require.NoError(t, os.WriteFile(bad[i], b, 0o600))
	}
	var g errgroup.Group
	for _, p := range bad {
		g.Go(func() error {
			_, err := a.Push(ctx, p)
			if !errors.Is(err, archive.ErrRefused) {
				return fmt.Errorf("%s: %w", p, err)
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	for name := range good {
		g.Go(func() error {
			_, err := a.Push(ctx, path(name))
			return err
		})
	}
	require.NoError(t, g.Wait())
	for name, b := range good {
		back := path("back")
		_, err := a.Get(ctx, name, back)
		require.NoError(t, err)
		got, err := os.ReadFile(back)
		require.NoError(t, err)
		require.Equal(t, sha256.Sum256(b), sha256.Sum256(got), name)
	}
}
