package archive_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestGetFallsThrough(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	good, bad, empty := memory.New(), memory.New(), memory.New()
	for _, s := range []object.Store{good, bad} {
		_, err := newArchive(t, archive.Options{}, s).Push(ctx, path)
		require.NoError(t, err)
	}
	flip(t, bad, func(size int64) int64 { return size / 2 })
	dead := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
	breaks := faulty.New(good, faulty.Rule{Op: faulty.Get, Key: "/wal/", Fault: faulty.Truncate, Bytes: 20000})
	hangs := faulty.New(good, faulty.Rule{Fault: faulty.Delay, Delay: time.Hour})

	for what, c := range map[string]struct {
		stores []object.Store
		from   string
	}{
		"damaged":      {[]object.Store{bad, good}, "repo2"},
		"dead":         {[]object.Store{dead, good}, "repo2"},
		"breaks":       {[]object.Store{breaks, good}, "repo2"},
		"empty":        {[]object.Store{empty, good}, "repo2"},
		"all of these": {[]object.Store{empty, bad, dead, good}, "repo4"},
		"hangs":        {[]object.Store{hangs, good}, "repo2"},
	} {
		got, from, err := get(t, newArchive(t, archive.Options{Hedge: 50 * time.Millisecond}, c.stores...), name)
		require.NoError(t, err, what)
		require.Equal(t, c.from, from, what)
		require.True(t, bytes.Equal(b, got), what)
	}

	// Nobody has it, but that is certain only if everybody said so.
	_, _, err := get(t, newArchive(t, archive.Options{}, empty, empty), name)
	require.ErrorIs(t, err, archive.ErrNotArchived)
	for what, s := range map[string]object.Store{"damaged": bad, "dead": dead, "breaks": breaks} {
		_, _, err := get(t, newArchive(t, archive.Options{}, empty, s), name)
		require.Error(t, err)
		require.NotErrorIs(t, err, archive.ErrNotArchived, what)
	}
	_, _, err = get(t, newArchive(t, archive.Options{}, bad), name)
	require.ErrorIs(t, err, repo.ErrIntegrity)
	_, _, err = get(t, newArchive(t, archive.Options{}, good), "nonsense")
	require.Error(t, err)
	require.NotErrorIs(t, err, archive.ErrNotArchived)
}

// Leftovers of killed gets go away; those of running ones stay.
func TestSweep(t *testing.T) {
	name, b := segment()
	a := newArchive(t, archive.Options{}, memory.New())
	n := newNode(t, cluster, pg.StateProduction)
	_, err := a.Push(ctx, n.file(t, name, b))
	require.NoError(t, err)
	dest := newNode(t, cluster, pg.StateArchiveRecovery)
	old, young := dest.file(t, ".walkeep-get-1", nil), dest.file(t, ".walkeep-get-2", nil)
	require.NoError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-2*time.Hour)))
	_, err = a.Get(ctx, name, filepath.Join(dest.dir, "pg_wal", "RECOVERYXLOG"))
	require.NoError(t, err)
	require.NoFileExists(t, old)
	require.FileExists(t, young)
}

// A standby asks again: a repository that is away or silent is not the end of
// its server, and does not hold it up. Damage still is.
func TestGetForStandby(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	good, bad, empty := memory.New(), memory.New(), memory.New()
	for _, s := range []object.Store{good, bad} {
		_, err := newArchive(t, archive.Options{}, s).Push(ctx, path)
		require.NoError(t, err)
	}
	flip(t, bad, func(size int64) int64 { return size / 2 })
	dead := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
	hangs := faulty.New(good, faulty.Rule{Fault: faulty.Delay, Delay: time.Hour})
	hasty := archive.Options{StandbyPatience: 100 * time.Millisecond}

	n := newNode(t, cluster, pg.StateArchiveRecovery)
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, "standby.signal"), nil, 0o600))
	dest := filepath.Join(n.dir, "pg_wal", "RECOVERYXLOG")
	for what, stores := range map[string][]object.Store{"dead": {dead, empty}, "silent": {empty, hangs}, "both": {hangs, dead}} {
		_, err := newArchive(t, hasty, stores...).Get(ctx, name, dest)
		require.ErrorIs(t, err, archive.ErrNotArchived, what)
		require.NoFileExists(t, dest)
	}
	// At the end of recovery standby.signal is gone, and the server asks for the
	// history of the timeline that it has followed.
	require.NoError(t, os.Remove(filepath.Join(n.dir, "standby.signal")))
	for _, history := range []string{"00000001.history", "00000002.history"} {
		if history != "00000001.history" { // which does not exist
			_, err := newArchive(t, hasty, dead).Get(ctx, history, dest)
			require.NotErrorIs(t, err, archive.ErrNotArchived)
			require.NoError(t, os.WriteFile(filepath.Join(n.dir, "pg_wal", history), []byte("1\t0/3000000\twhy\n"), 0o600))
		}
		_, err := newArchive(t, hasty, hangs, dead).Get(ctx, history, dest)
		require.ErrorIs(t, err, archive.ErrNotArchived, history)
	}
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, "standby.signal"), nil, 0o600))
	_, err := newArchive(t, hasty, dead, bad).Get(ctx, name, dest)
	require.ErrorIs(t, err, repo.ErrIntegrity)
	stopped, stop := context.WithCancel(ctx)
	stop()
	_, err = newArchive(t, hasty, hangs).Get(stopped, name, dest)
	require.NotErrorIs(t, err, archive.ErrNotArchived)

	from, err := newArchive(t, archive.Options{StandbyPatience: 2 * time.Second}, hangs, dead, good).Get(ctx, name, dest)
	require.NoError(t, err)
	require.Equal(t, "repo3", from)
}

// A repository that was silent is not asked by the next Gets of a standby, and
// asked last by those of a server that must know.
func TestSilentRepositoryIsSpared(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	good := memory.New()
	_, err := newArchive(t, archive.Options{}, good).Push(ctx, path)
	require.NoError(t, err)
	hangs := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Delay, Delay: time.Hour})
	dir := filepath.Join(t.TempDir(), "spool")
	hedge := 50 * time.Millisecond
	gets := func(of string, stores ...object.Store) *archive.Archive {
		o := archive.Options{StandbyPatience: 100 * time.Millisecond, Hedge: hedge}
		return newArchive(t, o, stores...).Remembering(dir, of)
	}
	n := newNode(t, cluster, pg.StateArchiveRecovery)
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, "standby.signal"), nil, 0o600))
	dest := filepath.Join(n.dir, "pg_wal", "RECOVERYXLOG")

	// Nobody has the file, and one does not say so.
	_, err = gets("hippo", hangs, memory.New()).Get(ctx, name, dest)
	require.ErrorIs(t, err, archive.ErrNotArchived)
	marks, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, marks, 1)
	asked := len(hangs.Calls())
	_, err = gets("hippo", hangs, memory.New()).Get(ctx, name, dest)
	require.ErrorIs(t, err, archive.ErrNotArchived)
	from, err := gets("hippo", hangs, good).Get(ctx, name, dest)
	require.NoError(t, err)
	require.Equal(t, "repo2", from)
	_, err = gets("hippo", hangs).Get(ctx, name, dest)
	require.ErrorIs(t, err, archive.ErrNotArchived, "asked again later")
	require.NoError(t, os.Remove(filepath.Join(n.dir, "standby.signal")))
	hedge = time.Minute // on a busy machine the good one takes longer than the other value
	from, err = gets("hippo", hangs, good).Get(ctx, name, dest)
	hedge = 50 * time.Millisecond
	require.NoError(t, err)
	require.Equal(t, "repo2", from)
	require.Len(t, hangs.Calls(), asked)

	// Another cluster's is another one; and it is asked again after a while.
	_, err = gets("rhino", hangs, good).Get(ctx, name, dest)
	require.NoError(t, err)
	require.Greater(t, len(hangs.Calls()), asked)
	asked = len(hangs.Calls())
	mark := filepath.Join(dir, marks[0].Name())
	require.NoError(t, os.Chtimes(mark, time.Time{}, time.Now().Add(-time.Hour)))
	_, err = gets("hippo", hangs, good).Get(ctx, name, dest)
	require.NoError(t, err)
	require.Greater(t, len(hangs.Calls()), asked)

	// It answers again.
	hangs.SetRules()
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, "standby.signal"), nil, 0o600))
	require.NoError(t, os.Chtimes(mark, time.Time{}, time.Now().Add(-time.Hour)))
	_, err = gets("hippo", hangs, memory.New()).Get(ctx, name, dest)
	require.ErrorIs(t, err, archive.ErrNotArchived)
	require.NotContains(t, err.Error(), "ask again")
}
