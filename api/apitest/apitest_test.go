package apitest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

// TestBackupsAreOfOneChain: labels are labels, and every parent is there.
func TestBackupsAreOfOneChain(t *testing.T) {
	for _, n := range []int{1, 2, 20, 5000} {
		known := map[repo.Label]bool{"": true}
		list := Backups(n)
		require.Len(t, list, n)
		for i := len(list) - 1; i >= 0; i-- {
			b := list[i]
			l, err := repo.ParseLabel(string(b.Label))
			require.NoError(t, err)
			require.Equal(t, b.Type, l.Type(), b.Label)
			require.True(t, known[b.Parent], "parent of %s", b.Label)
			require.True(t, b.Stop.Before(Now()))
			known[b.Label] = true
		}
	}
}

func TestRunsAreBusyAndIdempotent(t *testing.T) {
	s := New(Sample(), Now)
	_, err := s.Backup(t.Context(), api.BackupRequest{Repo: "repo1", Type: "full"})
	require.ErrorIs(t, err, api.ErrBusy)
	changed := s.Changed()
	run, err := s.Backup(t.Context(), api.BackupRequest{Repo: "repo2", Type: "full", Key: "k"})
	require.NoError(t, err)
	<-changed
	again, err := s.Backup(t.Context(), api.BackupRequest{Repo: "repo2", Type: "full", Key: "k"})
	require.NoError(t, err)
	require.Equal(t, run, again)
	_, err = s.Cancel(t.Context(), run.ID)
	require.NoError(t, err)
	_, err = s.Cancel(t.Context(), run.ID)
	require.ErrorIs(t, err, api.ErrNotRunning)
	require.NoError(t, s.Pause(t.Context(), "repo2", true))
	_, err = s.Backup(t.Context(), api.BackupRequest{Repo: "repo2", Type: "full"})
	require.ErrorIs(t, err, api.ErrPaused)
}
