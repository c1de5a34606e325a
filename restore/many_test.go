package restore

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
)

// manyFiles stores a backup of n small files, a thousand to a directory, that
// all have the same content.
func (s *synthetic) manyFiles(n int) repo.Summary {
	t := s.t
	b, err := s.epoch.CreateBackup(t.Context(), "20261122-010000F")
	require.NoError(t, err)
	w := &syntheticWriter{s: s, b: b, packSize: 1 << 20}
	data := someData(rand.New(rand.NewPCG(1, 1)), 100)
	file := repo.FileEntry{Mode: 0o600, MTime: epoch0, Owner: "postgres", Group: "postgres"}
	w.content(&file, data, false)
	add := func(path string, kind repo.FileType) {
		f := file
		if f.Path, f.Type = path, kind; kind == repo.Directory {
			f.Mode, f.Size, f.CRC, f.Chunks, f.Detect = 0o700, 0, 0, nil, ""
		}
		require.NoError(t, b.AddFile(f))
	}
	add("PG_VERSION", repo.RegularFile)
	add("base", repo.Directory)
	for i := range n {
		if i%1000 == 0 {
			add(fmt.Sprintf("base/%06d", i/1000), repo.Directory)
		}
		add(fmt.Sprintf("base/%06d/%03d", i/1000, i%1000), repo.RegularFile)
	}
	add("global", repo.Directory)
	add(controlFile, repo.RegularFile)
	w.close()
	sum, err := b.Commit(t.Context(), repo.Header{PGVersion: 150004, SegmentSize: 16 << 20, BlockSize: 8192, Timeline: 1, StartLSN: 16 << 20, StopLSN: 17 << 20},
		repo.Summary{Start: epoch0, Stop: epoch0, StartLSN: 16 << 20, StopLSN: 17 << 20, Timeline: 1, PGVersion: 150004, SegmentSize: 16 << 20})
	require.NoError(t, err)
	return sum
}

// TestManyFilesInConstantMemory goes through the manifest as a restore does,
// but for the writing, and looks at the heap.
func TestManyFilesInConstantMemory(t *testing.T) {
	heap := func(n int) (most uint64) {
		s := newSynthetic(t, nil)
		sum := s.manyFiles(n)
		m, err := s.epoch.OpenManifest(t.Context(), sum)
		require.NoError(t, err)
		defer m.Close()
		before := heapInUse()
		sv, err := surveyManifest(m, nil, nil)
		require.NoError(t, err)
		require.EqualValues(t, n+2, sv.files)
		seen, batches := 0, 0
		g := newBatcher(m.Packs(), func(b *batch) error { batches++; seen += len(b.items); return nil })
		list := newBackupManifest(io.Discard, 150004, syntheticID)
		for i := 0; ; i++ {
			e, err := m.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if e.Type == repo.RegularFile {
				list.add(e.Path, e.Size, e.MTime, e.CRC)
				o := &output{entry: e}
				for _, it := range itemsOf(o, e.Chunks, e.Extents) {
					require.NoError(t, g.add(it))
				}
			}
			if i%(n/8) == 0 {
				most = max(most, heapInUse()-min(before, heapInUse()))
			}
		}
		require.NoError(t, g.flushAll())
		require.Equal(t, n+2, seen)
		return most
	}
	few, many := heap(20_000), heap(100_000)
	require.Less(t, many, few+8<<20, "five times the files, %d and %d bytes of heap", few, many)
	require.Less(t, many, uint64(32<<20))
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
