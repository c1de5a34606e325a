package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPostmasterDataDir(t *testing.T) {
	dir := t.TempDir()
	_, err := postmasterDataDir(dir)
	require.ErrorIs(t, err, os.ErrNotExist)

	pid := filepath.Join(dir, "postmaster.pid")
	require.NoError(t, os.WriteFile(pid, []byte("123\n"), 0o600))
	_, err = postmasterDataDir(dir)
	require.ErrorContains(t, err, "no second line")

	require.NoError(t, os.WriteFile(pid, fmt.Appendf(nil, "123\n/var/lib/pg data\n1700000000\n5432\n"), 0o600))
	got, err := postmasterDataDir(dir)
	require.NoError(t, err)
	require.Equal(t, "/var/lib/pg data", got)
}

func TestReadControlGivesUp(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	_, _, _, err := readControl(ctx, Local(dir))
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.Mkdir(filepath.Join(dir, "global"), 0o700))
	torn := make([]byte, 8192)
	torn[9] = 1300 >> 8 // pg_control_version, little-endian
	torn[8] = 1300 & 0xff
	require.NoError(t, os.WriteFile(filepath.Join(dir, "global/pg_control"), torn, 0o600))
	cancel()
	_, _, _, err = readControl(ctx, Local(dir))
	require.ErrorIs(t, err, context.Canceled)
}
