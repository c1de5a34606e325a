package restore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
)

// scatter changes pages here and there: some become zeroes, some get data again.
func scatter(rng *rand.Rand, data []byte, pages int) []byte {
	data = bytes.Clone(data)
	for range pages {
		at := rng.IntN(len(data)/8192) * 8192
		if rng.IntN(3) == 0 {
			clear(data[at : at+8192])
		} else {
			copy(data[at:at+8192], someData(rng, 8192))
		}
	}
	return data
}

// A full backup's chunks are written across the holes that later backups fill,
// in files of any pattern of changed pages, whoever comes first.
func TestRunWritesAcrossHoles(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(61, seed))
			s := newSynthetic(t, nil)
			c := syntheticContent(rng)
			for i := range 12 {
				c[fmt.Sprintf("base/5/%d", 2000+i)] = someData(rng, (1+rng.IntN(400))*8192)
			}
			s.backup(c, repo.Full, 1<<20, nil)
			for range 3 {
				for path, data := range c {
					if len(data) > 8192 && len(data)%8192 == 0 {
						c[path] = scatter(rng, data, 1+rng.IntN(60))
					}
				}
				sum := s.backup(c, repo.Incremental, int64(1+rng.IntN(1<<20)), nil)
				for _, workers := range []int{1, 4} {
					dir := filepath.Join(t.TempDir(), "data")
					o := options(dir)
					o.Workers = workers
					_, err := Run(t.Context(), s.plan(sum), o)
					require.NoError(t, err)
					requireRestored(t, dir, c, nil)
				}
			}
		})
	}
}

// A changed page that is lost is zeroes, not what the page was before.
func TestLostPageIsNotTheOldOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(62, 1))
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	const path = "base/5/1250"
	s.backup(c, repo.Full, 1<<20, nil)
	data := bytes.Clone(c[path])
	for _, page := range []int{3, 20, 21, 200} {
		copy(data[page*8192:], someData(rng, 8192))
		clear(c[path][page*8192 : (page+1)*8192]) // what is to be found
	}
	want := c[path]
	c[path] = data
	sum := s.backup(c, repo.Incremental, 1, nil) // each chunk in a pack of its own
	entry := s.base[path]
	changed := entry.packs[entry.entry.Chunks[len(entry.entry.Chunks)-1].Pack]
	require.Equal(t, sum.Label, changed.Label)
	for _, k := range packKeys(t, s.store) {
		if strings.HasSuffix(k, fmt.Sprintf("/%s/pack/%08x", changed.Label, changed.Number)) {
			spoil(t, s.store, k)
		}
	}
	dir := filepath.Join(t.TempDir(), "data")
	o := options(dir)
	o.AllowDamaged = true
	res, err := Run(t.Context(), s.plan(sum), o)
	require.NoError(t, err)
	require.NotEmpty(t, res.Damaged)
	got, err := os.ReadFile(filepath.Join(dir, path))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// What may have to wait for others is handed out behind them.
func TestBatcherOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(63, 1))
	packs := map[int]repo.PackRef{}
	for i := range 8 {
		label := repo.Label("20261122-010000F")
		if i >= 3 {
			label += "_20261123-010000I"
		}
		packs[i] = repo.PackRef{ID: i, Label: label, Number: uint32(i)}
	}
	u := newUnder(packs, "20261122-010000F")
	require.Len(t, u, 3)
	added := map[*output]int{} // chunks of the full backup of each file
	out := map[*output]int{}   // those handed out
	g := newBatcher(packs, u, func(b *batch) error {
		for i := range b.items {
			it := &b.items[i]
			if it.over {
				require.Equal(t, added[it.out], out[it.out])
			} else {
				out[it.out]++
			}
		}
		return nil
	})
	at := make([]int64, len(packs))
	for range 2000 {
		o := &output{}
		n := 1 + rng.IntN(4)
		for i := range n + rng.IntN(4) {
			id := rng.IntN(3)
			if i >= n {
				id = 3 + rng.IntN(5)
			} else {
				added[o]++
			}
			at[id] += int64(rng.IntN(2 * batchGap))
			require.NoError(t, g.add(item{chunk: repo.Chunk{Pack: id, Offset: at[id], Stored: 1000, Plain: 1 << 20}, out: o, over: i >= n}))
			at[id] += 1000
		}
	}
	require.NoError(t, g.flushAll())
	require.Equal(t, added, out)
}

// A file's chunks need not be there when what is written over them is.
func TestOverWaits(t *testing.T) {
	o := &output{acrossDone: make(chan struct{}), crcs: make([]pieceCRC, 1)}
	o.across.Store(1)
	done := make(chan error)
	go func() {
		done <- o.write(t.Context(), &item{out: o, over: true}, nil)
	}()
	select {
	case <-done:
		t.Fatal("it did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	require.NoError(t, o.write(t.Context(), &item{out: o, spans: []span{}}, nil))
	require.NoError(t, <-done)
}
