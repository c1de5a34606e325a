package backup

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// watched tells of every object that was stored.
type watched struct {
	object.Store
	mu   sync.Mutex
	told func(key string)
}

func (w *watched) watch(told func(string)) { w.mu.Lock(); w.told = told; w.mu.Unlock() }

func (w *watched) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	i, err := w.Store.Put(ctx, key, body, o)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.told != nil {
		w.told(key)
	}
	return i, err
}

// interrupted runs a backup until so many packs and another part of its journal
// are stored.
func interrupted(t *testing.T, o Options, store *watched, packs int) repo.Label {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store.watch(func(key string) {
		if strings.Contains(key, "/pack/") {
			packs--
		} else if strings.Contains(key, "/resume/") && packs <= 0 {
			cancel()
		}
	})
	result, err := Run(ctx, o)
	store.watch(nil)
	require.ErrorIs(t, err, context.Canceled)
	return result.Label
}

func (c *cluster) resumable(t *testing.T) (*watched, *repo.Repository, Options) {
	for _, p := range resumed {
		c.relation(p, 2*rangeSize/pageSizeOfTests)
		c.settle(p)
	}
	store := &watched{Store: memory.New()}
	r := repository(t, "repo1", store, codec.Codec{Name: codec.None})
	o := c.options(r)
	o.PackSize, o.JournalEvery, o.ReadLimit = 1<<20, time.Millisecond, Limit(100<<20)
	return store, r, o
}

const pageSizeOfTests = 8192

// resumed are many, so that what is stored when a part of the journal comes
// late on a slow machine is not all.
var resumed = []string{"base/5/16384", "base/5/16385", "base/5/16386", "base/5/16387", "base/5/16388", "base/5/16389"}

func (c *cluster) requireSame(t *testing.T, r *repo.Repository, label repo.Label) []repo.FileEntry {
	t.Helper()
	files, entries := readBackup(t, r.Epoch(testSystem), label)
	for _, p := range append([]string{"pg_xact/0000"}, resumed...) {
		require.True(t, bytes.Equal(c.file(p), files[p]), p)
	}
	return entries
}

func TestResume(t *testing.T) {
	ctx := context.Background()
	c := newCluster(t)
	store, r, o := c.resumable(t)
	e := r.Epoch(testSystem)
	first := interrupted(t, o, store, 10)
	left, err := e.Remains(ctx)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, first, left[0].Label)

	// Changed after the first began: its pages of these are of no use.
	c.advance(0x2100000)
	c.touch("base/5/16384", 3, c.start()-8)
	c.advance(0x2100000)
	c.touch("base/5/16384", 900, c.start()+8)
	second := interrupted(t, o, store, 10)
	c.advance(0x2100000)
	result, err := Run(ctx, o)
	require.NoError(t, err)
	s := result.Repos[0].Summary
	require.Equal(t, repo.Full, s.Type)
	require.NotEmpty(t, s.References)
	require.NotContains(t, s.References, s.Label)
	require.Subset(t, []repo.Label{first, second}, s.References)
	require.NotEmpty(t, result.Repos[0].Notes)
	entries := c.requireSame(t, r, s.Label)
	scanned := 0
	for _, f := range entries {
		if f.Detect == string(DetectScan) {
			scanned++
		}
	}
	require.NotZero(t, scanned)
	require.Greater(t, s.StoredBytes, s.Bytes*9/10, "what was stored before counts")

	// No journal is left of what was used, and the next backup builds on it.
	left, err = e.Remains(ctx)
	require.NoError(t, err)
	for _, l := range left {
		require.NotContains(t, []repo.Label{s.Label, s.References[len(s.References)-1]}, l.Label)
	}
	c.advance(0x2100000)
	o.Type = repo.Incremental
	c.touch("base/5/16385", 5, c.start()+8)
	inc, err := Run(ctx, o)
	require.NoError(t, err)
	require.Equal(t, s.Label, inc.Repos[0].Summary.Parent)
	c.requireSame(t, r, inc.Label)
}

// An incremental backup that is killed has its changed pages, and its parent's.
func TestResumeIncremental(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []repo.BackupType{repo.Incremental, repo.Differential} {
		c := newCluster(t)
		store, r, o := c.resumable(t)
		full, err := Run(ctx, o)
		require.NoError(t, err)
		c.advance(0x2100000)
		for n := range 2 * rangeSize / pageSizeOfTests {
			c.touch("base/5/16384", n, c.start()+8)
			c.touch("base/5/16387", n, c.start()+8)
			c.touch("base/5/16388", n, c.start()+8)
			if n%3 == 0 {
				c.touch("base/5/16386", n, c.start()+8)
			}
		}
		c.advance(0x2100000)
		o.Type = kind
		killed := interrupted(t, o, store, 10)
		c.advance(0x2100000)
		c.touch("base/5/16384", 77, c.start()-8)
		result, err := Run(ctx, o)
		require.NoError(t, err)
		s := result.Repos[0].Summary
		require.Equal(t, kind, s.Type)
		require.Equal(t, full.Label, s.Parent)
		require.Equal(t, []repo.Label{full.Label, killed}, s.References)
		c.requireSame(t, r, s.Label)
	}
}

// What is left of a backup of another history, or of another type, is not used.
func TestResumeRefuses(t *testing.T) {
	ctx := context.Background()
	c := newCluster(t)
	store, r, o := c.resumable(t)
	interrupted(t, o, store, 10)
	// The server has come less far than the journal says: it went back.
	c.mu.Lock()
	c.moved -= 0x1000000
	c.mu.Unlock()
	result, err := Run(ctx, o)
	require.NoError(t, err)
	require.Empty(t, result.Repos[0].Summary.References)
	c.requireSame(t, r, result.Label)
}

// Nobody uses what another works on.
func TestResumeLeavesWhatIsInUse(t *testing.T) {
	ctx := context.Background()
	c := newCluster(t)
	store, r, o := c.resumable(t)
	killed := interrupted(t, o, store, 10)
	e := r.Epoch(testSystem)
	lock, err := r.LockLabel(ctx, killed, repo.LeaseOptions{TTL: 2 * time.Second})
	require.NoError(t, err)
	o.resumePatience = time.Millisecond
	result, err := Run(ctx, o)
	require.NoError(t, err, "it goes on without")
	require.Empty(t, result.Repos[0].Summary.References)
	require.NoError(t, lock.Release(ctx))
	labels, err := e.StoredLabels(ctx)
	require.NoError(t, err)
	require.Contains(t, labels, killed)
}
