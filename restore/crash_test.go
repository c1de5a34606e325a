package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// Tests that need a process of their own start this program again, with the
// name of what to do in this variable.
const childVariable = "WALKEEP_RESTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if how := os.Getenv(childVariable); how == "restore" || how == "delta" {
		if err := childRestore(os.Args[1], os.Args[2], os.Args[3], how == "delta"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childRestore restores a backup, whose summary is in a file, from a directory.
func childRestore(store, summary, dir string, delta bool) error {
	s, err := filesystem.New(filesystem.Options{Path: store})
	if err != nil {
		return err
	}
	r, err := repo.Open(repo.Options{Name: "repo1", Store: s, Cluster: "test"})
	if err != nil {
		return err
	}
	b, err := os.ReadFile(summary)
	if err != nil {
		return err
	}
	var sum repo.Summary
	if err := json.Unmarshal(b, &sum); err != nil {
		return err
	}
	plan := (&synthetic{epoch: r.Epoch(syntheticID)}).plan(sum)
	o := options(dir)
	o.Delta = delta
	_, err = Run(context.Background(), plan, o)
	return err
}

// TestRunKilled kills a restore with SIGKILL at random moments, again and
// again into the same directory, until one gets through. At no moment may
// there be a pg_control in a directory that is not complete.
func TestRunKilled(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, uint64(time.Now().UnixNano())))
	storeDir := filepath.Join(t.TempDir(), "repo")
	store, err := filesystem.New(filesystem.Options{Path: storeDir, Create: true})
	require.NoError(t, err)
	s := newSynthetic(t, store)
	c := syntheticContent(rng)
	ts := filepath.Join(t.TempDir(), "ts")
	c[syntheticVer+"/5/3000"] = someData(rng, 4<<20)
	sum := s.backup(c, repo.Full, 300_000, map[string]string{syntheticTS: ts})
	b, err := json.Marshal(sum)
	require.NoError(t, err)
	summary := filepath.Join(t.TempDir(), "summary")
	require.NoError(t, os.WriteFile(summary, b, 0o600))

	dir := filepath.Join(t.TempDir(), "data")
	run := func(limit time.Duration) (killed bool) {
		cmd := exec.Command(os.Args[0], storeDir, summary, dir)
		cmd.Env = append(os.Environ(), childVariable+"=restore")
		require.NoError(t, cmd.Start())
		timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		err := cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
			return true
		}
		require.NoError(t, err)
		return false
	}
	began := time.Now()
	require.False(t, run(time.Minute))
	whole := time.Since(began)
	kills := 0
	for round := 0; round < 25 || kills == 0; round++ {
		whole = max(whole*9/10, time.Millisecond) // or a slow first run might have been the only one to last so long
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.RemoveAll(ts))
		for run(time.Duration(rng.Int64N(int64(whole)))) {
			kills++
			if _, err := os.Lstat(filepath.Join(dir, controlFile)); err == nil {
				break // killed when it was complete
			}
			if kills%4 == 0 {
				whole += whole / 10 // or it might never get through on a busy machine
			}
		}
		requireComplete(t, dir, c, ts)
	}
	require.Positive(t, kills)
}

// requireComplete is requireRestored for a directory in which markers may be
// left.
func requireComplete(t *testing.T, dir string, c content, ts string) {
	t.Helper()
	for _, d := range []string{dir, ts} {
		if err := os.Remove(filepath.Join(d, markerFile)); err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
		}
	}
	requireRestored(t, dir, c, map[string]string{syntheticTS: ts})
}

// TestRunDiskFull restores onto a file system that is full, fills up, and is
// read-only.
func TestRunDiskFull(t *testing.T) {
	if dir := inMountNamespace(t); dir != "" {
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"))
		diskFull(t, dir)
	}
}

// inMountNamespace runs the test again in a mount namespace of its own, where
// it may mount what it wants whoever runs it, and gets a directory for that.
// Outside it is "".
func inMountNamespace(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(childVariable); dir != "" {
		return dir
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childVariable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	} else {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // makes / private, so that the mount stays inside
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS: "+t.Name())
	return ""
}

// TestDeltaOnSharedStorage: a server of another host may be using a directory on
// a file system that several hosts can mount, and its process is nobody's here.
func TestDeltaOnSharedStorage(t *testing.T) {
	mount := inMountNamespace(t)
	if mount == "" {
		return
	}
	s := newSynthetic(t, nil)
	c := syntheticContent(rand.New(rand.NewPCG(10, 10)))
	sum := s.backup(c, repo.Full, 300_000, nil)
	local, shared := filepath.Join(t.TempDir(), "data"), filepath.Join(mount, "data")
	_, err := Run(t.Context(), s.plan(sum), options(local))
	require.NoError(t, err)
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	pid := fmt.Sprintf("%d\n%s\n", gone.Process.Pid, shared)
	require.NoError(t, os.WriteFile(filepath.Join(local, "postmaster.pid"), []byte(pid), 0o600))
	require.NoError(t, unix.Mount("ramfs", mount, "ramfs", 0, "")) // not one of those that one host has for itself
	out, err := exec.Command("cp", "-a", local, shared).CombinedOutput()
	require.NoError(t, err, "%s", out)

	_, err = Run(t.Context(), s.plan(sum), deltaOptions(shared))
	require.ErrorIs(t, err, ErrServerRunning)
	require.ErrorContains(t, err, "remove that file")
	require.FileExists(t, filepath.Join(shared, "postmaster.pid"))
	require.NoError(t, os.Remove(filepath.Join(shared, "postmaster.pid")))
	requireRestored(t, shared, c, nil) // untouched
}

// requireClosed: this process has nothing open below a directory.
func requireClosed(t *testing.T, below string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		require.False(t, err == nil && strings.HasPrefix(to, below+"/"), "left open: %s", to)
	}
}

// diskFull restores about 15 MiB into 24.
func diskFull(t *testing.T, mount string) {
	rng := rand.New(rand.NewPCG(9, 9))
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	sum := s.backup(c, repo.Full, 300_000, nil)
	dir := filepath.Join(mount, "data")
	ballast := filepath.Join(mount, "ballast")
	fill := func(n int) error { return os.WriteFile(ballast, make([]byte, n), 0o600) }

	// Too little from the start: nothing is touched.
	require.NoError(t, fill(16<<20))
	_, err := Run(t.Context(), s.plan(sum), options(dir))
	require.ErrorIs(t, err, ErrNoSpace)
	require.NoDirExists(t, dir)

	// It fills up meanwhile.
	require.NoError(t, os.Remove(ballast))
	o := options(dir)
	o.fault = func(step string) error {
		if step == "marked" {
			return fill(18 << 20)
		}
		return nil
	}
	_, err = Run(t.Context(), s.plan(sum), o)
	require.ErrorIs(t, err, ErrNoSpace)
	require.ErrorContains(t, err, "run again")
	require.NoFileExists(t, filepath.Join(dir, controlFile))
	requireClosed(t, mount)

	// There is room again.
	require.NoError(t, os.Remove(ballast))
	_, err = Run(t.Context(), s.plan(sum), options(dir))
	require.NoError(t, err)
	requireRestored(t, dir, c, nil)

	// Nothing can be written at all: what is there stays, and can be started.
	require.NoError(t, unix.Mount("", mount, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	for _, o := range []Options{options(filepath.Join(mount, "new")), deltaOptions(dir)} {
		_, err = Run(t.Context(), s.plan(sum), o)
		require.ErrorIs(t, err, unix.EROFS)
	}
	requireRestored(t, dir, c, nil)
}
