package restore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/faulty"
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

// What later backups changed is put into the holes of a full backup's chunks, in
// files of any pattern of changed pages.
func TestRunFillsHoles(t *testing.T) {
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

// changedPages makes a full backup, and an incremental one of scattered pages of one
// file, of which every chunk is a pack if size is 1.
func changedPages(t *testing.T, size int64) (*synthetic, content, repo.Summary) {
	t.Helper()
	rng := rand.New(rand.NewPCG(64, 1))
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	c["base/5/3000"] = someData(rng, 8192*4096) // 32 MiB
	s.backup(c, repo.Full, 4<<20, nil)
	c["base/5/3000"] = scatter(rng, c["base/5/3000"], 900) // 7 MiB
	return s, c, s.backup(c, repo.Incremental, size, nil)
}

// Chunks that go into holes are read many at a time, and each once.
func TestLaterChunksAreReadAhead(t *testing.T) {
	s, c, sum := changedPages(t, 16<<20)
	watched := faulty.New(s.store)
	plan := s.plan(sum)
	plan.epoch = s.reopen(watched)
	dir := filepath.Join(t.TempDir(), "data")
	o := options(dir)
	o.Workers = 2
	_, err := Run(t.Context(), plan, o)
	require.NoError(t, err)
	requireRestored(t, dir, c, nil)
	asked := 0
	for _, call := range watched.Calls() {
		if strings.Contains(call.Key, string(sum.Label)+"/pack/") {
			asked++
		}
	}
	require.Positive(t, asked)
	require.LessOrEqual(t, asked, 12, "chunks of 1 MiB that hardly compress, and what lies between")
}

// A chunk that goes into holes is taken from another repository if need be.
func TestLaterChunksFromAnotherRepository(t *testing.T) {
	s, c, sum := changedPages(t, 1)
	other := openAs(t, "repo2", copyStore(t, s.store))
	spoiled := 0
	for _, k := range packKeys(t, s.store) {
		if strings.Contains(k, string(sum.Label)+"/pack/") {
			spoil(t, s.store, k)
			spoiled++
		}
	}
	require.Greater(t, spoiled, 4)
	p := s.plan(sum)
	p.Repository, p.epoch = "repo1", s.reopen(s.store)
	dir := filepath.Join(t.TempDir(), "data")
	o := options(dir)
	_, err := Run(t.Context(), p, o)
	require.ErrorIs(t, err, repo.ErrIntegrity)
	o.Archives = []*repo.Repository{other}
	_, err = Run(t.Context(), p, o)
	require.NoError(t, err)
	requireRestored(t, dir, c, nil)
}

// Few later chunks are in memory, none that is in use is forgotten, and none stays.
func TestLatersAreBounded(t *testing.T) {
	s := &laters{max: 2}
	var all []*later
	for range 4 {
		l := &later{data: []byte{1}}
		l.uses.Add(1)
		all = append(all, l)
	}
	touch := func(l *later) {
		l.mu.Lock()
		s.touch(l)
		l.mu.Unlock()
	}
	touch(all[0])
	touch(all[1])
	touch(all[0])
	touch(all[2])
	require.Nil(t, all[1].data, "the one that was used longest ago")
	require.NotNil(t, all[0].data)
	all[0].mu.Lock()
	touch(all[3])
	all[0].mu.Unlock()
	require.NotNil(t, all[0].data, "it is in use")
	require.Nil(t, all[2].data)
	for _, l := range all {
		s.used(l)
		require.Nil(t, l.data)
	}
	require.Empty(t, s.decoded)
}
