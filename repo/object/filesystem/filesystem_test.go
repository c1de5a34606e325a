package filesystem_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/limit"
	"github.com/walkeep/walkeep/repo/object/prefix"
	"github.com/walkeep/walkeep/repo/object/retry"
	"github.com/walkeep/walkeep/repo/object/storetest"
)

func at(t *testing.T, path string) *filesystem.Store {
	t.Helper()
	store, err := filesystem.New(filesystem.Options{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store { return at(t, t.TempDir()) })
}

func TestStoreStacked(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store {
		store, err := prefix.New(at(t, t.TempDir()), "hippo")
		require.NoError(t, err)
		return retry.New(limit.New(store, limit.Options{Requests: 8}), retry.Options{})
	}, storetest.Prefixed(len("hippo/")), storetest.Keys(1100), storetest.Large(12<<20))
}

func put(t *testing.T, store object.Store, key, content string) object.Info {
	t.Helper()
	info, err := store.Put(t.Context(), key, strings.NewReader(content), object.PutOptions{})
	require.NoError(t, err)
	return info
}

func list(t *testing.T, store object.Store) (keys []string) {
	t.Helper()
	require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, i.Key)
		return nil
	}))
	return keys
}

// names lists a directory, without following anything.
func names(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestRoot(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "not/mounted")
	_, err := filesystem.New(filesystem.Options{Path: missing})
	require.ErrorContains(t, err, missing)
	require.ErrorContains(t, err, "does not exist (not mounted, or not created yet)")
	_, err = filesystem.New(filesystem.Options{Path: "relative"})
	require.ErrorContains(t, err, "not an absolute path")

	store, err := filesystem.New(filesystem.Options{Path: missing, Create: true})
	require.NoError(t, err)
	require.Empty(t, names(t, missing), "nothing is written before the first Put")
	put(t, store, "k", "x")
	require.Equal(t, "filesystem:"+missing, store.String())
	require.NoError(t, store.Close())

	file := filepath.Join(missing, "k")
	_, err = filesystem.New(filesystem.Options{Path: file})
	require.ErrorContains(t, err, "in the way")
	require.True(t, object.IsPermanent(err))

	// The root itself may be a link: that is how people move repositories.
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(missing, link))
	require.Equal(t, []string{"k"}, list(t, at(t, link)))
}

func TestRootVanishesAndComesBack(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.Mkdir(root, 0o700))
	store := at(t, root)
	put(t, store, "a/b", "x")
	require.NoError(t, os.RemoveAll(root))
	_, err := store.Put(t.Context(), "a/b", strings.NewReader("x"), object.PutOptions{})
	require.ErrorContains(t, err, "does not exist")
	require.NoError(t, os.Mkdir(root, 0o700))
	put(t, store, "a/b", "y")
	require.Equal(t, []string{"a/b"}, list(t, at(t, root)))
}

func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, c := range []struct{ file, dir, wantFile, wantDir fs.FileMode }{
		{0, 0, 0o600, 0o700},
		{0o640, 0o750, 0o640, 0o750},
		{0o664, 0o775, 0o664, 0o775},
	} {
		root := t.TempDir()
		store, err := filesystem.New(filesystem.Options{Path: root, FileMode: c.file, DirMode: c.dir})
		require.NoError(t, err)
		put(t, store, "d/e/k", "x")
		mode := func(path string) fs.FileMode {
			st, err := os.Stat(filepath.Join(root, path))
			require.NoError(t, err)
			return st.Mode().Perm()
		}
		require.Equal(t, c.wantFile, mode("d/e/k"))
		require.Equal(t, c.wantDir, mode("d/e"))
		require.Equal(t, c.wantDir, mode("d"))
		require.NoError(t, store.Close())
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	root := t.TempDir()
	store := at(t, root)
	put(t, store, "d/k", "x")
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "out")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "d/link")))
	require.NoError(t, os.Symlink("k", filepath.Join(root, "d/inner")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "d/pipe"), 0o600))

	require.Equal(t, []string{"d/k"}, list(t, store))
	for _, key := range []string{"out/secret", "d/link", "d/inner", "d/pipe", "out"} {
		_, err := store.Get(t.Context(), key, 0, -1)
		require.ErrorIs(t, err, object.ErrNotFound, key)
		_, err = store.Stat(t.Context(), key)
		require.ErrorIs(t, err, object.ErrNotFound, key)
		require.NoError(t, store.Delete(t.Context(), key))
	}
	_, err := store.Put(t.Context(), "out/new", strings.NewReader("x"), object.PutOptions{})
	require.ErrorContains(t, err, "in the way")
	require.True(t, object.IsPermanent(err))

	// An overwrite replaces a link and does not write through it.
	put(t, store, "d/link", "ours")
	require.Equal(t, []string{"secret"}, names(t, outside))
	b, err := os.ReadFile(filepath.Join(outside, "secret"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(b))
	require.Equal(t, []string{"d/k", "d/link"}, list(t, store))
}

// TestKeyBelowKey shows what this driver does with what is not defined: it
// refuses, without harm to what is there.
func TestKeyBelowKey(t *testing.T) {
	store := at(t, t.TempDir())
	put(t, store, "a", "x")
	_, err := store.Put(t.Context(), "a/b", strings.NewReader("y"), object.PutOptions{})
	require.ErrorContains(t, err, "in the way")
	require.True(t, object.IsPermanent(err))
	put(t, store, "d/e", "x")
	_, err = store.Put(t.Context(), "d", strings.NewReader("y"), object.PutOptions{})
	require.ErrorContains(t, err, "in the way")
	require.Equal(t, []string{"a", "d/e"}, list(t, store))
}

func TestForeignFilesAreNotListed(t *testing.T) {
	root := t.TempDir()
	store := at(t, root)
	put(t, store, "k", "x")
	for _, name := range []string{"ümlaut", "back\\slash", "dot.", "new\nline"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o600))
	}
	require.Equal(t, []string{"k"}, list(t, store))
}

func TestEmptyDirectoriesGo(t *testing.T) {
	root := t.TempDir()
	store := at(t, root)
	put(t, store, "a/b/c/k", "x")
	put(t, store, "a/k", "x")
	require.NoError(t, store.Delete(t.Context(), "a/b/c/k"))
	require.Equal(t, []string{"k"}, names(t, filepath.Join(root, "a")))
	require.NoError(t, store.Delete(t.Context(), "a/k"))
	require.Equal(t, []string{".uploads."}, names(t, root))
	require.DirExists(t, root)
	// What is not ours is not removed with it.
	put(t, store, "a/k", "x")
	require.NoError(t, os.WriteFile(filepath.Join(root, "a", "README."), nil, 0o600))
	require.NoError(t, store.Delete(t.Context(), "a/k"))
	require.Equal(t, []string{"README."}, names(t, filepath.Join(root, "a")))
}

// TestShortenedFile shows that a file which lost its end is an error, not a
// short object.
func TestShortenedFile(t *testing.T) {
	root := t.TempDir()
	store := at(t, root)
	put(t, store, "k", strings.Repeat("x", 10_000))
	r, err := store.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(root, "k"), 5000))
	b, err := io.ReadAll(r)
	require.Len(t, b, 5000)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, r.Close())
}

// TestVersionsOfReusedInodes overwrites so often that inode numbers return.
func TestVersionsOfReusedInodes(t *testing.T) {
	store := at(t, t.TempDir())
	seen := map[string]bool{}
	for range 300 {
		v := put(t, store, "lease/x", "same size").Version
		require.False(t, seen[v], v)
		seen[v] = true
	}
}

func TestModifiedIsTheClock(t *testing.T) {
	store := at(t, t.TempDir())
	before := time.Now()
	info := put(t, store, "k", "x")
	require.WithinRange(t, info.Modified, before.Add(-50*time.Millisecond), time.Now().Add(50*time.Millisecond))
}
