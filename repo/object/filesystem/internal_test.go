package filesystem

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
)

// TestSmallListBatches lists directories that need many batches.
func TestSmallListBatches(t *testing.T) {
	for _, batch := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			store, err := New(Options{Path: t.TempDir()})
			require.NoError(t, err)
			store.listBatch = batch
			var want []string
			for _, d := range []string{"a", "a-", "a.", "b"} {
				for i := range 10 {
					want = append(want, fmt.Sprintf("%sx/%d", d, i), fmt.Sprintf("%s%d", d, i))
				}
			}
			for _, k := range want {
				_, err := store.Put(t.Context(), k, strings.NewReader(""), object.PutOptions{})
				require.NoError(t, err)
			}
			var got []string
			require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
				got = append(got, i.Key)
				return nil
			}))
			require.IsIncreasing(t, got)
			require.ElementsMatch(t, want, got)
			require.NoError(t, store.Close())
		})
	}
}

func TestNamesKeepsTheSmallest(t *testing.T) {
	for size := range 20 {
		var n names
		for i := range size {
			n.add(fmt.Sprintf("%02d", (i*7)%size), 5)
		}
		require.Len(t, n, min(size, 5))
	}
	var n names
	for _, s := range []string{"e", "b", "d", "a", "f", "c"} {
		n.add(s, 3)
	}
	require.ElementsMatch(t, []string{"a", "b", "c"}, n)
}

// TestDirsAreBounded opens more directories than are kept.
func TestDirsAreBounded(t *testing.T) {
	store, err := New(Options{Path: t.TempDir()})
	require.NoError(t, err)
	for i := range 3 * maxOpenDirs {
		_, err := store.Put(t.Context(), fmt.Sprintf("d%d/k", i), strings.NewReader(""), object.PutOptions{})
		require.NoError(t, err)
		require.LessOrEqual(t, len(store.dirs.open), maxOpenDirs)
	}
	for _, d := range store.dirs.open {
		require.Zero(t, d.users)
	}
	require.NoError(t, store.Close())
	require.Empty(t, store.dirs.open)
}

// TestSyncIsShared has many wait for one directory: all return, with fewer
// fsyncs than callers only if they overlap, which is not asserted.
func TestSyncIsShared(t *testing.T) {
	d := newDirs(t.TempDir(), 0o700)
	one, err := d.acquire("a/b/c")
	require.NoError(t, err)
	var running sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		running.Go(func() { errs[i] = one.sync() })
	}
	running.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	d.release(one)
	require.NoError(t, d.close())
}

// TestDeadDirectory keeps a directory open that is removed and made again: what
// is put goes to the new one.
func TestDeadDirectory(t *testing.T) {
	root := t.TempDir()
	store, err := New(Options{Path: root})
	require.NoError(t, err)
	put := func(content string) {
		_, err := store.Put(t.Context(), "a/b/k", strings.NewReader(content), object.PutOptions{})
		require.NoError(t, err)
	}
	put("x")
	require.NoError(t, os.RemoveAll(root+"/a"))
	put("y")
	require.NoError(t, os.RemoveAll(root+"/a"))
	require.NoError(t, os.MkdirAll(root+"/a/b", 0o700))
	put("z")
	b, err := os.ReadFile(root + "/a/b/k")
	require.NoError(t, err)
	require.Equal(t, "z", string(b))
	require.NoError(t, os.RemoveAll(root+"/"+uploads))
	put("without uploads")
	require.NoError(t, store.Close())
}

func TestExplain(t *testing.T) {
	s := &Store{root: "/backups"}
	for errno, want := range map[unix.Errno]struct {
		is        error
		permanent bool
		text      string
	}{
		unix.ENOSPC:  {unix.ENOSPC, true, "the file system of the repository is full"},
		unix.EDQUOT:  {unix.EDQUOT, true, "the file system of the repository is full"},
		unix.EACCES:  {object.ErrDenied, true, "permission denied"},
		unix.EROFS:   {object.ErrDenied, true, "read-only file system"},
		unix.ENOTDIR: {unix.ENOTDIR, true, "in the way"},
		unix.ENOTSUP: {unix.ENOTSUP, true, "lacks hard links"},
		unix.EIO:     {unix.EIO, false, "input/output error"},
		unix.ESTALE:  {unix.ESTALE, false, "stale"},
	} {
		err := s.explain("put", "k", fmt.Errorf("write: %w", errno))
		require.ErrorIs(t, err, want.is)
		require.ErrorContains(t, err, want.text)
		require.ErrorContains(t, err, "put k in /backups")
		require.Equal(t, want.permanent, object.IsPermanent(err), errno)
	}
	require.ErrorIs(t, s.explain("get", "k", unix.ENOENT), object.ErrNotFound)
}

// TestInUse: an object that has been in a directory for a while, and nothing
// else, proves that the ancestors were made durable.
func TestInUse(t *testing.T) {
	path := t.TempDir()
	check := func(want bool, later time.Duration) {
		t.Helper()
		leaf, err := os.Open(path)
		require.NoError(t, err)
		defer leaf.Close()
		require.Equal(t, want, inUse(leaf, time.Now().Add(later)))
	}
	check(false, time.Hour)
	require.NoError(t, os.Mkdir(filepath.Join(path, "sub"), 0o755))
	require.NoError(t, os.Symlink("sub", filepath.Join(path, "link")))
	check(false, time.Hour)
	require.NoError(t, os.WriteFile(filepath.Join(path, "object"), nil, 0o600))
	check(false, 0) // somebody may have copied it here just now
	check(true, time.Hour)
}

// TestNamesOnlySeesHalfWayPuts: a listing of names looks at the objects as soon
// as one upload, of a Put that has not come to its end or never will, has a
// second name; then it makes durable what it tells of.
func TestNamesOnlySeesHalfWayPuts(t *testing.T) {
	store, err := New(Options{Path: t.TempDir()})
	require.NoError(t, err)
	list := func() (sizes []int64) {
		require.NoError(t, store.List(t.Context(), "", object.ListOptions{NamesOnly: true}, func(i object.Info) error {
			sizes = append(sizes, i.Size)
			return nil
		}))
		return sizes
	}
	require.False(t, store.unsettled(), "nothing was ever put")
	for _, key := range []string{"d/a", "d/b"} {
		_, err := store.Put(t.Context(), key, strings.NewReader("content"), object.PutOptions{})
		require.NoError(t, err)
	}
	require.Equal(t, []int64{0, 0}, list())
	other := filepath.Join(store.root, uploads, "other")
	require.NoError(t, os.WriteFile(other, []byte("an upload that grows"), 0o600))
	require.Equal(t, []int64{0, 0}, list())
	second := filepath.Join(store.root, uploads, "second")
	require.NoError(t, os.Link(filepath.Join(store.root, "d", "b"), second))
	require.Equal(t, []int64{7, 7}, list())
	require.NoError(t, os.Remove(second))
	require.Equal(t, []int64{0, 0}, list())
	require.NoError(t, store.Close())
}

// A failed write-back that is told while an object is written is not told again by
// fsync, so fill fails with it. A pipe cannot be waited for, and says so.
func TestFillTellsOfFailedWriteBack(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	go func() { _, _ = io.Copy(io.Discard, r) }()
	up := &upload{file: w}
	require.NoError(t, up.fill(t.Context(), bytes.NewReader(make([]byte, 2*writeBack-1))), "nothing is waited for yet")
	err = up.fill(t.Context(), bytes.NewReader(make([]byte, 2*writeBack)))
	require.ErrorIs(t, err, unix.ESPIPE)
}
