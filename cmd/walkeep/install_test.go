package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInstallProgram(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "p"), filepath.Join(t.TempDir(), "p")
	for _, text := range []string{"one", "two"} { // over an older one, too
		require.NoError(t, os.WriteFile(from, []byte(text), 0o700))
		require.NoError(t, installProgram(from, to))
		got, err := os.ReadFile(to)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
	st, err := os.Stat(to)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), st.Mode())
	require.ErrorIs(t, installProgram(from+"x", to), os.ErrNotExist)
	require.ErrorIs(t, installProgram(from, filepath.Join(t.TempDir(), "no", "p")), os.ErrNotExist)
	left, err := os.ReadDir(filepath.Dir(to))
	require.NoError(t, err)
	require.Len(t, left, 1)
}
