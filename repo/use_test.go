package repo

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/codec"
)

func TestUses(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	r := testRepo(t, store, nil, codec.Codec{})
	r.clock = time.Now
	e := testEpoch(t, r)
	_, _, err := e.UseBackup(ctx, testLabel, LeaseOptions{})
	require.ErrorIs(t, err, ErrNotFound)
	uses, err := r.Uses(ctx)
	require.NoError(t, err)
	require.Empty(t, uses, "the mark of a use that failed is gone")

	b, err := e.CreateBackup(ctx, testLabel)
	require.NoError(t, err)
	uses, err = r.Uses(ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	require.True(t, uses[0].Writing)
	require.Equal(t, testLabel, uses[0].Label)
	_, err = e.CreateBackup(ctx, testLabel)
	require.ErrorIs(t, err, ErrExists, "two writers of one label")
	require.NoError(t, b.Abort(ctx))

	_, err = writeBackup(ctx, e, testLabel, testFiles()[:2])
	require.NoError(t, err)
	before := contents(t, store)
	first, s, err := e.UseBackup(ctx, testLabel, LeaseOptions{What: "restore"})
	require.NoError(t, err)
	require.Equal(t, testLabel, s.Label)
	second, _, err := e.UseBackup(ctx, testLabel, LeaseOptions{What: "verify"})
	require.NoError(t, err)
	uses, err = r.Uses(ctx)
	require.NoError(t, err)
	require.Len(t, uses, 2)
	for _, u := range uses {
		require.False(t, u.Stale || u.Writing)
		broken, err := r.BreakStale(ctx, u)
		require.NoError(t, err)
		require.False(t, broken, "its holder lives")
	}
	require.NoError(t, first.Release(ctx))
	require.NoError(t, second.Release(ctx))
	require.Equal(t, before, contents(t, store))
}

// A mark whose holder is on another host and gone is watched, then removed.
func TestBreakStaleUse(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	r := testRepo(t, store, nil, codec.Codec{})
	r.clock = time.Now
	testEpoch(t, r)
	record := leaseRecord{
		Format: 1, Name: "use." + string(testLabel) + ".X", Token: "other", Holder: "pg-9", Renewed: time.Now().Add(-time.Hour), TTL: 0.2,
		process: process{Host: "pg-9", Boot: "b", Namespace: "n", PID: 1, Start: "1"},
	}
	content, err := seal(record)
	require.NoError(t, err)
	put(t, store, leaseKey(record.Name), content)
	uses, err := r.Uses(ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	require.True(t, uses[0].Stale)
	broken, err := r.BreakStale(ctx, uses[0])
	require.NoError(t, err)
	require.True(t, broken)
	uses, err = r.Uses(ctx)
	require.NoError(t, err)
	require.Empty(t, uses)
}

// Who watches does not wait: a mark that looks stale is left until it did not
// change for its TTL, and one that is renewed stays.
func TestBreakWatchedUse(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	r := testRepo(t, store, nil, codec.Codec{})
	r.clock = time.Now
	testEpoch(t, r)
	mark := func(count int64, ttl float64) Use {
		record := leaseRecord{
			Format: 1, Name: "label." + string(testLabel), Token: "other", Holder: "pg-9", Renewed: time.Now().Add(-time.Hour), TTL: ttl, Count: count,
			process: process{Host: "pg-9", Boot: "b", Namespace: "n", PID: 1, Start: "1"},
		}
		content, err := seal(record)
		require.NoError(t, err)
		put(t, store, leaseKey(record.Name), content)
		uses, err := r.Uses(ctx)
		require.NoError(t, err)
		require.Len(t, uses, 1)
		require.True(t, uses[0].Stale)
		return uses[0]
	}
	var w UseWatch
	for count := range int64(3) {
		broken, err := r.BreakWatched(ctx, mark(count, 3600), &w)
		require.NoError(t, err)
		require.False(t, broken, "not seen for long enough")
	}
	u := mark(9, 0.1)
	require.Eventually(t, func() bool {
		broken, err := r.BreakWatched(ctx, u, &w)
		require.NoError(t, err)
		return broken
	}, time.Minute, 20*time.Millisecond)
	uses, err := r.Uses(ctx)
	require.NoError(t, err)
	require.Empty(t, uses)
	require.Empty(t, w.marks)
}

// Who renews is alive, even if his clock says that he is long dead.
func TestLeaseOfHolderWithWrongClock(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	theirs := testRepo(t, store, nil, codec.Codec{})
	theirs.clock = func() time.Time { return time.Now().Add(-5 * time.Hour) }
	lease, err := theirs.AcquireLease(ctx, "x", LeaseOptions{TTL: time.Second})
	require.NoError(t, err)
	lease.mu.Lock()
	lease.record.Boot = "another host"
	lease.mu.Unlock()
	time.Sleep(600 * time.Millisecond) // until it has said so
	ours := testRepo(t, store, nil, codec.Codec{})
	ours.clock = time.Now
	_, err = ours.AcquireLease(ctx, "x", LeaseOptions{TTL: time.Second})
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, lease.Release(ctx))
}

func TestPins(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		store := newMemory()
		e := testEpoch(t, testRepo(t, store, keys, codec.Codec{}))
		require.ErrorIs(t, e.PutPin(ctx, Pin{Label: testLabel}, 0), ErrNotFound)
		_, err := writeBackup(ctx, e, testLabel, testFiles()[:2])
		require.NoError(t, err)
		before := contents(t, store)
		until := testTime.Add(time.Hour)
		require.NoError(t, e.PutPin(ctx, Pin{Label: testLabel, Until: &until, By: "ann"}, 0))
		require.NoError(t, e.PutPin(ctx, Pin{Label: testLabel}, 0))
		pins, err := e.Pins(ctx)
		require.NoError(t, err)
		require.Len(t, pins, 2)
		for _, p := range pins {
			require.True(t, p.Holds(testTime))
			require.Equal(t, p.Until == nil, p.Holds(until))
		}
		put(t, store, pins[0].key, []byte("x"))
		pins, err = e.Pins(ctx)
		require.ErrorIs(t, err, ErrIntegrity)
		require.Len(t, pins, 2, "what cannot be read may be a pin for ever")
		require.NoError(t, e.DeletePins(ctx, pins...))
		require.Equal(t, before, contents(t, store))
	})
}
