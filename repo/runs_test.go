package repo

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/codec"
)

func TestRuns(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		store := newMemory()
		r := testRepo(t, store, keys, codec.Codec{})
		first, err := r.BeginRun(ctx, JobRun{Kind: "full", Due: testTime, Started: testTime, Attempt: 1})
		require.NoError(t, err)
		second, err := r.BeginRun(ctx, JobRun{Kind: "expire", Due: testTime, Started: testTime.Add(time.Hour), Attempt: 1})
		require.NoError(t, err)
		require.Error(t, r.EndRun(ctx, first))
		first.Ended, first.Outcome, first.Label = testTime.Add(time.Minute), RunDone, testLabel
		require.NoError(t, r.EndRun(ctx, first))
		later := first
		later.Outcome = RunLost
		require.ErrorIs(t, r.EndRun(ctx, later), ErrExists, "the first record counts")
		runs, err := r.Runs(ctx, testTime.Add(-time.Hour))
		require.NoError(t, err)
		require.Equal(t, []JobRun{first, second}, runs)
		require.True(t, runs[1].Running())
		put(t, store, runKey(second.ID, "begin"), []byte("x"))
		runs, err = r.Runs(ctx, testTime.Add(-time.Hour))
		require.ErrorIs(t, err, ErrIntegrity)
		require.Len(t, runs, 1)
		n, err := r.DeleteRuns(ctx, testTime.Add(time.Minute))
		require.NoError(t, err)
		require.Equal(t, 2, n)
		_, err = r.FindRun(ctx, first.ID)
		require.ErrorIs(t, err, ErrNotFound)
	})
}

func TestFindRun(t *testing.T) {
	ctx := context.Background()
	r := testRepo(t, newMemory(), nil, codec.Codec{})
	asked := map[string]string{"why": "upgrade"}
	run, err := r.BeginRun(ctx, JobRun{Kind: "full", Due: testTime, Started: testTime, Attempt: 1, Manual: true, Key: "once", Annotations: asked})
	require.NoError(t, err)
	found, err := r.FindRun(ctx, run.ID)
	require.NoError(t, err)
	require.Equal(t, run, found)
	run.Ended, run.Outcome, run.Node = testTime.Add(time.Minute), RunDone, "pg-1"
	require.NoError(t, r.EndRun(ctx, run))
	found, err = r.FindRun(ctx, run.ID)
	require.NoError(t, err)
	require.Equal(t, run, found)
	runs, err := r.NewRuns(ctx, testTime.Add(-time.Hour), func(id string) bool { return id == run.ID })
	require.NoError(t, err)
	require.Empty(t, runs)
	require.NoError(t, r.RemoveRuns(ctx, run.ID))
	runs, err = r.Runs(ctx, testTime.Add(-time.Hour))
	require.NoError(t, err)
	require.Empty(t, runs)
}

func TestPause(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		store := newMemory()
		r := testRepo(t, store, keys, codec.Codec{})
		p, err := r.Paused(ctx)
		require.NoError(t, err)
		require.Nil(t, p)
		require.NoError(t, r.PutPause(ctx, Pause{Since: testTime.Add(time.Hour), By: "bob"}))
		require.NoError(t, r.PutPause(ctx, Pause{Since: testTime, By: "ann"}))
		p, err = r.Paused(ctx)
		require.NoError(t, err)
		require.Equal(t, "ann", p.By)
		require.NoError(t, r.EndPause(ctx))
		require.NoError(t, r.EndPause(ctx))
		put(t, store, pausePrefix+"X", []byte("damage"))
		p, err = r.Paused(ctx)
		require.NoError(t, err)
		require.NotNil(t, p)
	})
}
