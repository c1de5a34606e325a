package archive_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// Whatever call of whatever repository fails, in whatever way: if push
// succeeds the file is there, and the next push succeeds.
func TestEveryCallFails(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	count := faulty.New(memory.New())
	_, err := newArchive(t, archive.Options{}, count).Push(ctx, path)
	require.NoError(t, err)
	calls := len(count.Calls())
	require.GreaterOrEqual(t, calls, 4)
	for _, rule := range []faulty.Rule{
		{Fault: faulty.Fail},
		{Fault: faulty.Deny},
		{Fault: faulty.LoseAnswer},
		{Fault: faulty.Throttle},
		{Fault: faulty.Truncate},
		{Fault: faulty.Truncate, Bytes: 100},
		{Fault: faulty.Truncate, Bytes: 5000},
	} {
		for k := 1; k <= calls; k++ {
			rule.At = k
			below := memory.New()
			a := newArchive(t, archive.Options{}, faulty.New(below, rule))
			_, err := a.Push(ctx, path)
			if err == nil {
				got, _, err := get(t, newArchive(t, archive.Options{}, below), name)
				require.NoError(t, err, "%+v", rule)
				require.True(t, bytes.Equal(b, got))
			}
			_, err = newArchive(t, archive.Options{}, below).Push(ctx, path)
			require.NoError(t, err, "%+v", rule)
			got, _, err := get(t, newArchive(t, archive.Options{}, below), name)
			require.NoError(t, err, "%+v", rule)
			require.True(t, bytes.Equal(b, got))
		}
	}
}

// Whatever call fails: get brings the right file or none, and never says that
// the file is not archived.
func TestGetEveryCallFails(t *testing.T) {
	name, b := segment()
	below := memory.New()
	_, err := newArchive(t, archive.Options{}, below).Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.NoError(t, err)
	for _, fault := range []faulty.Fault{faulty.Fail, faulty.Deny, faulty.LoseAnswer, faulty.Throttle, faulty.Truncate} {
		for k := 1; k <= 3; k++ {
			for bytesRead := range int64(3) {
				s := faulty.New(below, faulty.Rule{At: k, Fault: fault, Bytes: bytesRead * 9000})
				got, _, err := get(t, newArchive(t, archive.Options{}, s), name)
				if err != nil {
					require.NotErrorIs(t, err, archive.ErrNotArchived)
					continue
				}
				require.True(t, bytes.Equal(b, got))
			}
		}
	}
}

// Damage in the archive is never overwritten, and never taken for success.
func TestPushOntoDamage(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	store := memory.New()
	_, err := newArchive(t, archive.Options{}, store).Push(ctx, path)
	require.NoError(t, err)
	flip(t, store, func(int64) int64 { return 40 })
	_, err = newArchive(t, archive.Options{}, store).Push(ctx, path)
	require.ErrorIs(t, err, repo.ErrIntegrity)
	require.ErrorContains(t, err, name)
}
