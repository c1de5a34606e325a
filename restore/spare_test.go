package restore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// copyStore is a copy of all objects, as one copies a bucket.
func copyStore(t *testing.T, from object.Store) object.Store {
	t.Helper()
	to := memory.New()
	var keys []string
	require.NoError(t, from.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, i.Key)
		return nil
	}))
	for _, k := range keys {
		put(t, to, k, readAll(t, from, k))
	}
	return to
}

// packKeys are the keys of all packs.
func packKeys(t *testing.T, s object.Store) []string {
	t.Helper()
	return keysWith(t, s, "/pack/")
}

// keysWith are the keys that contain a part.
func keysWith(t *testing.T, s object.Store, part string) (keys []string) {
	t.Helper()
	require.NoError(t, s.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		if strings.Contains(i.Key, part) {
			keys = append(keys, i.Key)
		}
		return nil
	}))
	return keys
}

// spoil flips a byte in the middle of an object.
func spoil(t *testing.T, s object.Store, key string) {
	t.Helper()
	b := bytes.Clone(readAll(t, s, key))
	b[len(b)/2] ^= 1
	require.NoError(t, s.Delete(t.Context(), key))
	put(t, s, key, b)
}

// What one repository has damaged, lost, or does not give any more, another one
// gives.
func TestRunTakesOverFromAnotherRepository(t *testing.T) {
	rng := rand.New(rand.NewPCG(60, 1))
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	sum := s.backup(c, repo.Full, 300_000, nil)
	copied := copyStore(t, s.store)
	other := openAs(t, "repo2", copied)
	packs := packKeys(t, s.store)
	require.Greater(t, len(packs), 4)
	spoil(t, s.store, packs[1])
	spoil(t, s.store, packs[3])
	require.NoError(t, s.store.Delete(t.Context(), packs[2]))

	run := func(store object.Store, archives ...*repo.Repository) error {
		p := s.plan(sum)
		p.Repository, p.epoch = "repo1", s.reopen(store)
		dir := filepath.Join(t.TempDir(), "data")
		o := options(dir)
		o.Archives, o.Workers = archives, 3
		_, err := Run(t.Context(), p, o)
		if err == nil {
			requireRestored(t, dir, c, nil)
		}
		return err
	}
	require.ErrorIs(t, run(s.store), repo.ErrIntegrity)
	require.ErrorIs(t, run(s.store, openAs(t, "repo1", s.store), openAs(t, "empty", memory.New())), repo.ErrIntegrity)
	require.NoError(t, run(s.store, openAs(t, "empty", memory.New()), other))

	// Both are damaged, in different places.
	spoil(t, copied, packs[0])
	require.NoError(t, run(s.store, other))

	// It dies half way.
	whole := newSynthetic(t, nil)
	sum = whole.backup(c, repo.Full, 300_000, nil)
	s = whole
	dead := errors.New("dead")
	broken := faulty.New(whole.store, faulty.Rule{Op: faulty.Get, Key: "/pack/", Fault: faulty.Fail, Err: dead})
	require.ErrorIs(t, run(broken), dead)
	broken = faulty.New(whole.store, faulty.Rule{Op: faulty.Get, Key: "/pack/", Fault: faulty.Fail, Err: dead})
	require.NoError(t, run(broken, openAs(t, "repo2", copyStore(t, whole.store))))
	asked := 0
	for _, call := range broken.Calls() {
		if strings.Contains(call.Key, "/pack/") {
			asked++
		}
	}
	require.LessOrEqual(t, asked, 2*3+2, "a dead one is not asked again and again")
}

// With AllowDamaged all is restored that can be, and the rest is listed.
func TestRunAllowsDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 1))
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	sum := s.backup(c, repo.Full, 300_000, nil)
	spoil(t, s.store, packKeys(t, s.store)[1])
	plan := s.plan(sum)
	plan.epoch = s.reopen(s.store)
	dir := filepath.Join(t.TempDir(), "data")
	_, err := Run(t.Context(), plan, options(dir))
	require.ErrorIs(t, err, repo.ErrIntegrity)
	require.Regexp(t, `file \S+, pages \d+ to \d+: `, err.Error())
	require.NoFileExists(t, filepath.Join(dir, controlFile))

	o := options(dir)
	o.AllowDamaged = true
	res, err := Run(t.Context(), plan, o)
	require.NoError(t, err)
	require.NotEmpty(t, res.Damaged)
	lost := map[string]bool{}
	for _, d := range res.Damaged {
		lost[d.Path] = true
		b, err := os.ReadFile(filepath.Join(dir, d.Path))
		require.NoError(t, err)
		want := bytes.Clone(c[d.Path])
		require.Len(t, b, len(want))
		clear(want[int(d.First)*8192 : min(len(want), int(d.Last+1)*8192)])
		require.Equal(t, want, b, d)
	}
	for path, want := range c {
		if !lost[path] && c.isFile(path) && !strings.HasSuffix(path, "/") && path != "postgresql.auto.conf" && path != "tablespace_map" {
			b, err := os.ReadFile(filepath.Join(dir, path))
			require.NoError(t, err)
			require.Equal(t, len(want), len(b), path)
			require.True(t, bytes.Equal(want, b), path)
		}
	}
}

// One worker finds that the repository is dead while others are in the middle of a
// range of it: what another repository does not have either, they read on in theirs.
func TestRunGoesOnWithAnOpenRange(t *testing.T) {
	rng := rand.New(rand.NewPCG(65, 1))
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	for i := range 64 {
		c[fmt.Sprintf("base/5/%d", 4000+i)] = someData(rng, 8192*16)
	}
	sum := s.backup(c, repo.Full, 4<<20, nil)
	packs := packKeys(t, s.store)
	copied := copyStore(t, s.store)
	for _, k := range packs[1:] {
		spoil(t, copied, k)
	}
	broken := faulty.New(s.store, faulty.Rule{Op: faulty.Get, Key: packs[0], Fault: faulty.Fail, Err: errors.New("dead"), At: 1})
	p := s.plan(sum)
	p.Repository, p.epoch = "repo1", s.reopen(broken)
	dir := filepath.Join(t.TempDir(), "data")
	o := options(dir)
	o.Archives, o.Workers = []*repo.Repository{openAs(t, "repo2", copied)}, 4
	_, err := Run(t.Context(), p, o)
	require.NoError(t, err)
	requireRestored(t, dir, c, nil)
}
