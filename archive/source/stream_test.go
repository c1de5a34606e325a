package source_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/archive/source"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// TestStream fetches what a promoted standby has, of both timelines.
func TestStream(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 15, SegmentSize: 1 << 20, NoFsync: true})
	standby := env.StartStandby(t, p, postgres.Options{})
	whole, err := p.SwitchWAL(ctx)
	require.NoError(t, err)
	p.MustExec(t, `create table t as select 1`)
	lsn, err := p.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, standby.WaitReplay(ctx, lsn))
	require.NoError(t, standby.Promote(ctx))
	next, err := standby.SwitchWAL(ctx)
	require.NoError(t, err)
	require.Equal(t, pg.Timeline(2), next.Timeline())

	s := source.Stream("pg-1", standby.ConnInfo(), nil)
	require.Equal(t, "replication from pg-1", s.Name())
	for _, name := range []repo.WALName{repo.SegmentFile(whole), repo.SegmentFile(next), repo.HistoryFile(2)} {
		var got bytes.Buffer
		require.NoError(t, s.Fetch(ctx, name, &got), name)
		want, err := os.ReadFile(filepath.Join(standby.DataDir, "pg_wal", name.Name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got.Bytes()), name)
	}
	size := pg.SegmentSize(1 << 20)
	ended := size.Name(1, size.SegmentOf(lsn))
	for _, name := range []repo.WALName{repo.SegmentFile(ended), repo.HistoryFile(3), repo.SegmentFile(size.Name(4, 5))} {
		require.ErrorIs(t, s.Fetch(ctx, name, io.Discard), archive.ErrSourceLacks, name)
	}
	err = s.Fetch(ctx, repo.PartialFile(ended, lsn), io.Discard)
	require.Error(t, err)
	require.NotErrorIs(t, err, archive.ErrSourceLacks)

	require.NoError(t, standby.Stop(ctx, postgres.Immediate))
	err = s.Fetch(ctx, repo.SegmentFile(whole), io.Discard)
	require.ErrorIs(t, err, server.ErrConnect)
	require.NotErrorIs(t, err, archive.ErrSourceLacks)
}
