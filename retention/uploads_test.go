package retention

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

// uploading is a store in which killed writers left uploads.
type uploading struct {
	object.Store
	left   int
	err    error
	before time.Time
}

func (u *uploading) AbortUploads(_ context.Context, _ string, before time.Time) (int, error) {
	u.before = before
	if u.err != nil {
		return 0, u.err
	}
	n := u.left
	u.left = 0
	return n, nil
}

func TestUnfinishedUploads(t *testing.T) {
	s := newSite(t)
	s.days()
	store := &uploading{Store: s.store, left: 3, err: object.ErrDenied}
	o := options(Policy{Full: 9})

	// Who may not list them loses nothing else.
	res, err := Run(t.Context(), open(t, store), o)
	require.NoError(t, err)
	require.Len(t, res.Postponed, 1)
	require.Contains(t, res.Postponed[0], "unfinished uploads")

	store.err = errors.New("broken")
	_, err = Run(t.Context(), open(t, store), o)
	require.ErrorIs(t, err, store.err)

	store.err = nil
	res, err = Run(t.Context(), open(t, store), o)
	require.NoError(t, err)
	require.Equal(t, 3, res.Done.Uploads)
	require.Equal(t, res.Plan.At.AddDate(0, 0, -7), store.before)
	require.Zero(t, store.left)

	o.DryRun, store.left = true, 1
	_, err = Run(t.Context(), open(t, store), o)
	require.NoError(t, err)
	require.Equal(t, 1, store.left)
}
