package check

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// Two servers on one timeline are a warning, two timelines of one number a
// failure.
func TestConflicts(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "hippo"})
	require.NoError(t, err)
	require.NoError(t, r.Init(ctx))
	e, err := r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: 7001, PGMajor: 15, SegmentSize: 1 << 20})
	require.NoError(t, err)
	conflict := func(kind pg.FileKind, name string) {
		sum := wal.DigestOf([]byte(name))
		require.NoError(t, e.PutConflict(ctx, repo.WALHead{
			Kind: repo.WALKind(kind), Name: name, SystemID: 7001, Timeline: 2, XXH3: sum.String(), Length: int64(len(name)),
		}, bytes.NewReader([]byte(name))))
	}
	conflict(pg.FileSegment, "000000020000000000000003")
	report := checkStore(t, store)
	c := find(t, report, "conflicts", Warning)
	require.Contains(t, c.Detail, "000000020000000000000003")
	requireAdvice(t, report)

	conflict(pg.FileHistory, "00000002.history")
	report = checkStore(t, store)
	c = find(t, report, "conflicts", Failed)
	require.Contains(t, c.Detail, "two servers chose timeline 2")
	requireAdvice(t, report)
}
