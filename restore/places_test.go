package restore

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
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

// Who may not write there is told so, and nothing is touched. For root, what
// stops everybody else is taken away first.
func TestRunRefusesForeignDirectory(t *testing.T) {
	storeDir := filepath.Join(t.TempDir(), "repo")
	store, err := filesystem.New(filesystem.Options{Path: storeDir, Create: true})
	require.NoError(t, err)
	s := newSynthetic(t, store)
	c := syntheticContent(rand.New(rand.NewPCG(72, 1)))
	sum := s.backup(c, repo.Full, 300_000, nil)
	b, err := json.Marshal(sum)
	require.NoError(t, err)
	summary := filepath.Join(t.TempDir(), "summary")
	require.NoError(t, os.WriteFile(summary, b, 0o600))
	restore := func(how, dir string) (string, error) {
		args := []string{os.Args[0], storeDir, summary, dir}
		if os.Geteuid() == 0 {
			args = append([]string{"setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"}, args...)
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), childVariable+"="+how)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	foreign := func(dir string) {
		t.Helper()
		if os.Geteuid() == 0 {
			require.NoError(t, os.Chown(dir, 12345, 12345))
			require.NoError(t, os.Chmod(dir, 0o700))
		} else {
			require.NoError(t, os.Chmod(dir, 0))
		}
		t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	}

	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.Mkdir(empty, 0o700))
	foreign(empty)
	out, err := restore("restore", empty)
	require.Error(t, err)
	require.Contains(t, out, empty)
	require.Contains(t, out, "permission denied")

	full := filepath.Join(t.TempDir(), "full")
	_, err = Run(t.Context(), s.plan(sum), options(full))
	require.NoError(t, err)
	foreign(full)
	out, err = restore("delta", full)
	require.Error(t, err)
	require.Contains(t, out, "permission denied")
	require.NoError(t, os.Chmod(full, 0o700))
	requireRestored(t, full, c, nil)
}

// PostgreSQL refuses a data directory that others may write to, or read, and
// one that is another user's.
func TestRunOwnsDirectory(t *testing.T) {
	s := newSynthetic(t, nil)
	sum := s.backup(syntheticContent(rand.New(rand.NewPCG(73, 1))), repo.Full, 300_000, nil)
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err := Run(t.Context(), s.plan(sum), options(dir))
	require.NoError(t, err)
	st, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), st.Mode().Perm())
	nobody, err := user.Lookup("nobody") // who has the files in the backup
	require.NoError(t, err)
	for _, name := range []string{".", "PG_VERSION", "recovery.signal", "global"} {
		st, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		uid, _, ok := ownerOf(st)
		require.True(t, ok)
		want := fmt.Sprint(os.Geteuid())
		if want == "0" { // only root can give files away
			want = nobody.Uid
		}
		require.Equal(t, want, fmt.Sprint(uid), name)
	}

	// A user who does not exist here.
	o := &owners{root: true, uid: 7, gid: 8, users: map[string]int{}, groups: map[string]int{}}
	uid, gid, ok := o.of(&repo.FileEntry{Owner: "no such user", Group: "no such group", UID: 1, GID: 1})
	require.True(t, ok)
	require.Equal(t, []int{7, 8}, []int{uid, gid})
}
