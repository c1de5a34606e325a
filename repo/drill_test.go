package repo

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestDrills(t *testing.T) {
	store := memory.New()
	r, err := Open(Options{Name: "repo1", Store: store, Cluster: "test"})
	require.NoError(t, err)
	require.NoError(t, r.Init(t.Context()))
	all, err := r.Drills(t.Context(), 10)
	require.NoError(t, err)
	require.Empty(t, all)
	passed, last := LastDrills(all)
	require.Nil(t, passed)
	require.Nil(t, last)

	for i := range keptDrills + 3 {
		d := Drill{Started: testTime.Add(time.Duration(i) * time.Minute), Backup: testLabel}
		if i == keptDrills+2 {
			d.Error = "pg_amcheck: …"
		}
		require.NoError(t, r.PutDrill(t.Context(), d))
	}
	all, err = r.Drills(t.Context(), 1000)
	require.NoError(t, err)
	require.Len(t, all, keptDrills)
	require.True(t, all[0].Started.Equal(testTime.Add(3*time.Minute)))
	passed, last = LastDrills(all)
	require.False(t, last.OK())
	require.True(t, passed.OK())
	require.Equal(t, time.Minute, last.Started.Sub(passed.Started))

	// What cannot be read back is left out.
	keys, err := r.drillKeys(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.Delete(t.Context(), keys[0]))
	put(t, store, keys[0], []byte("damaged"))
	all, err = r.Drills(t.Context(), 1000)
	require.NoError(t, err)
	require.Len(t, all, keptDrills-1)

	// Who looks again reads what is new.
	reads := faulty.New(store)
	r, err = Open(Options{Name: "repo1", Store: reads, Cluster: "test"})
	require.NoError(t, err)
	var cache DrillCache
	look := func(reading int) {
		t.Helper()
		before := reads.Count(faulty.Get)
		passed, last, err = r.NewestDrills(t.Context(), &cache)
		require.NoError(t, err)
		require.Equal(t, reading, reads.Count(faulty.Get)-before)
	}
	look(2)
	require.False(t, last.OK())
	require.True(t, passed.OK())
	look(0)
	require.False(t, last.OK())
	require.NoError(t, r.PutDrill(t.Context(), Drill{Started: testTime.Add(24 * time.Hour), Backup: testLabel}))
	look(1)
	require.Equal(t, passed, last)
	require.True(t, last.Started.Equal(testTime.Add(24*time.Hour)))
}
