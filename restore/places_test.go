package restore

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// Modes are those of the backup, whatever the umask, and directories on the way
// to the target may be links.
func TestRunUnderUmask(t *testing.T) {
	rng := rand.New(rand.NewPCG(70, 1))
	storeDir := filepath.Join(t.TempDir(), "repo")
	store, err := filesystem.New(filesystem.Options{Path: storeDir, Create: true})
	require.NoError(t, err)
	s := newSynthetic(t, store)
	c := syntheticContent(rng)
	c[syntheticVer+"/5/3000"] = someData(rng, 100_000)
	ts := filepath.Join(t.TempDir(), "ts")
	sum := s.backup(c, repo.Full, 300_000, map[string]string{syntheticTS: ts})
	b, err := json.Marshal(sum)
	require.NoError(t, err)
	summary := filepath.Join(t.TempDir(), "summary")
	require.NoError(t, os.WriteFile(summary, b, 0o600))
	for _, umask := range []string{"000", "027", "077"} {
		real := filepath.Join(t.TempDir(), "real")
		require.NoError(t, os.Mkdir(real, 0o700))
		link := filepath.Join(t.TempDir(), "link")
		require.NoError(t, os.Symlink(real, link))
		require.NoError(t, os.RemoveAll(ts))
		dir := filepath.Join(link, "data")
		cmd := exec.Command("sh", "-c", fmt.Sprintf(`umask %s; exec "$@"`, umask), "sh", os.Args[0], storeDir, summary, dir)
		cmd.Env = append(os.Environ(), childVariable+"=restore")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		requireRestored(t, dir, c, map[string]string{syntheticTS: ts})
		require.NoError(t, filepath.WalkDir(filepath.Join(real, "data"), func(path string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			if d.Type()&fs.ModeSymlink != 0 {
				return nil
			}
			st, err := d.Info()
			require.NoError(t, err)
			want := fs.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			}
			require.Equal(t, want, st.Mode().Perm(), path)
			return nil
		}))
	}
}

// PGDATA itself may be a link to where it is.
func TestRunIntoLink(t *testing.T) {
	p := newInPlace(t, rand.New(rand.NewPCG(71, 1)))
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.MkdirAll(p.dir, 0o700))
	require.NoError(t, os.Symlink(p.dir, link))
	for _, o := range []Options{options(link), deltaOptions(link)} {
		require.NoError(t, p.restore(t, o))
		requireRestored(t, p.dir, p.c, map[string]string{syntheticTS: p.ts})
		st, err := os.Lstat(link)
		require.NoError(t, err)
		require.NotZero(t, st.Mode()&fs.ModeSymlink)
	}
}
