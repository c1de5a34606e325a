package integration

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/integration/postgres"
)

// tmpfs mounts a file system of this size that the servers' user can write to.
// It needs root, as CI has it.
func tmpfs(t *testing.T, env *postgres.Env, size string) string {
	dir := env.TempDir(t, "tmpfs")
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0777,size="+size), "mounting needs root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// remount changes its size.
func remount(t *testing.T, dir, size string) {
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "mode=0777,size="+size))
}
