package filesystem_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// Tests that need another process run their own binary again with these set: the
// name of a function in children, and the directory for it.
const (
	childEnv = "FILESYSTEM_TEST_CHILD"
	dirEnv   = "FILESYSTEM_TEST_DIR"
)

var children = map[string]func(context.Context, string) error{
	"write until killed": writeUntilKilled,
	"count up":           countUp,
	"fill up":            fillUp,
}

func TestMain(m *testing.M) {
	run := children[os.Getenv(childEnv)]
	if run == nil {
		os.Exit(m.Run())
	}
	if err := run(context.Background(), os.Getenv(dirEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name, dirEnv+"="+dir)
	return cmd
}

// selfChecking returns n random bytes behind their own digest.
func selfChecking(n int) []byte {
	b := make([]byte, sha256.Size+n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(b[sha256.Size:])
	copy(b, sum[:])
	return b
}

func isWhole(b []byte) bool {
	if len(b) < sha256.Size {
		return false
	}
	sum := sha256.Sum256(b[sha256.Size:])
	return bytes.Equal(sum[:], b[:sha256.Size])
}

// writeUntilKilled creates, overwrites and deletes from several goroutines.
func writeUntilKilled(ctx context.Context, dir string) error {
	store, err := filesystem.New(filesystem.Options{Path: dir})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range 4 {
		go func() {
			for {
				key := fmt.Sprintf("d%d/e%d/k%d", rand.N(3), rand.N(3), rand.N(5))
				_, err := store.Put(ctx, key, bytes.NewReader(selfChecking(rand.N(200_000))), object.PutOptions{IfAbsent: rand.N(2) == 0})
				if errors.Is(err, object.ErrExists) {
					err = store.Delete(ctx, key)
				}
				if err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

func TestKilledAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	store := at(t, dir)
	leftovers := 0
	for range 25 {
		cmd := child(t, "write until killed", dir)
		var out bytes.Buffer
		cmd.Stderr = &out
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool { // it writes; on a busy machine that takes a while
			uploads, _ := os.ReadDir(filepath.Join(dir, ".uploads."))
			return len(uploads) > leftovers
		}, time.Minute, time.Millisecond)
		time.Sleep(time.Duration(rand.N(80)) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		require.Empty(t, out.String())

		require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
			r, err := store.Get(t.Context(), i.Key, 0, -1)
			require.NoError(t, err)
			b, err := io.ReadAll(r)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			require.Len(t, b, int(i.Size))
			require.True(t, isWhole(b), i.Key)
			return nil
		}))
		leftovers = len(names(t, filepath.Join(dir, ".uploads.")))
	}
	require.Greater(t, leftovers, 1, "a test that never hit an upload proves nothing")

	// What was left is no obstacle, is removed when it is old, and only then.
	put(t, at(t, dir), "next", "x")
	require.GreaterOrEqual(t, len(names(t, filepath.Join(dir, ".uploads."))), leftovers)
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range names(t, filepath.Join(dir, ".uploads.")) {
		require.NoError(t, os.Chtimes(filepath.Join(dir, ".uploads.", name), old, old))
	}
	put(t, at(t, dir), "next", "y")
	require.Equal(t, []string{"lock"}, names(t, filepath.Join(dir, ".uploads.")))
}

// TestKilledBetweenLinkAndUnlink has an object with its second name left behind:
// it is there, is one object, and survives the removal of that name.
func TestKilledBetweenLinkAndUnlink(t *testing.T) {
	dir := t.TempDir()
	store := at(t, dir)
	put(t, store, "d/k", "content")
	left := filepath.Join(dir, ".uploads.", "left")
	require.NoError(t, os.Link(filepath.Join(dir, "d/k"), left))
	old := time.Now().Add(-25 * time.Hour)
	require.NoError(t, os.Chtimes(left, old, old))

	require.Equal(t, []string{"d/k"}, list(t, store))
	_, err := store.Put(t.Context(), "d/k", strings.NewReader("other"), object.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, object.ErrExists)
	put(t, at(t, dir), "other", "x") // sweeps
	require.NoFileExists(t, left)
	r, err := store.Get(t.Context(), "d/k", 0, -1)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "content", string(b))
	require.NoError(t, r.Close())
}

const countEach = 25

// countUp counts with compare and swap.
func countUp(ctx context.Context, dir string) error {
	store, err := filesystem.New(filesystem.Options{Path: dir})
	if err != nil {
		return err
	}
	for done := 0; done < countEach; {
		stat, err := store.Stat(ctx, "counter")
		if err != nil {
			return err
		}
		r, err := store.Get(ctx, "counter", 0, -1)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
		n, err := strconv.Atoi(string(b))
		if err != nil {
			return err
		}
		_, err = store.Put(ctx, "counter", strings.NewReader(strconv.Itoa(n+1)), object.PutOptions{IfMatch: stat.Version})
		switch {
		case err == nil:
			done++
		case !errors.Is(err, object.ErrChanged):
			return err
		}
	}
	return store.Close()
}

// TestVersionsBetweenProcesses races processes for one key.
func TestVersionsBetweenProcesses(t *testing.T) {
	dir := t.TempDir()
	store := at(t, dir)
	put(t, store, "counter", "0")
	var running []*exec.Cmd
	for range 4 {
		cmd := child(t, "count up", dir)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		running = append(running, cmd)
	}
	for _, cmd := range running {
		require.NoError(t, cmd.Wait())
	}
	b, err := os.ReadFile(filepath.Join(dir, "counter"))
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(4*countEach), string(b))
}

// fillUp runs in a file system of 4 MiB or, where it may not mount one, with
// files limited to 1 MiB, which fails the same writes with another error.
func fillUp(ctx context.Context, dir string) error {
	full := unix.ENOSPC
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		full = unix.EFBIG
		signal.Ignore(unix.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
			return err
		}
	}
	store, err := filesystem.New(filesystem.Options{Path: dir})
	if err != nil {
		return err
	}
	small := func(key, content string) error {
		_, err := store.Put(ctx, key, strings.NewReader(content), object.PutOptions{})
		return err
	}
	if err := small("old", "content"); err != nil {
		return err
	}
	for _, key := range []string{"old", "new", "d/new"} {
		_, err := store.Put(ctx, key, bytes.NewReader(make([]byte, 8<<20)), object.PutOptions{})
		switch {
		case !errors.Is(err, full):
			return fmt.Errorf("8 MiB: %w, not %w", err, full)
		case !object.IsPermanent(err):
			return fmt.Errorf("8 MiB: another try would not help: %w", err)
		case full == unix.ENOSPC && !strings.Contains(err.Error(), "the file system of the repository is full"):
			return fmt.Errorf("8 MiB: not clear: %w", err)
		}
	}
	// Nothing is left of it, in the way or in sight, so there is room.
	if err := small("after", "content"); err != nil {
		return err
	}
	var keys []string
	err = store.List(ctx, "", object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, fmt.Sprint(i.Key, i.Size))
		return nil
	})
	if err != nil || strings.Join(keys, " ") != "after7 old7" {
		return fmt.Errorf("listed %v (%v)", keys, err)
	}
	left, err := os.ReadDir(filepath.Join(dir, ".uploads."))
	if err != nil || len(left) != 0 {
		return fmt.Errorf("left in uploads: %v (%v)", left, err)
	}
	return nil
}

func TestDiskFull(t *testing.T) {
	cmd := child(t, "fill up", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var refused *os.PathError
	if errors.As(err, &refused) { // no name spaces here
		cmd = child(t, "fill up", t.TempDir())
		out, err = cmd.CombinedOutput()
	}
	require.NoError(t, err, string(out))
}
