package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// The test binary runs itself as the process to be killed: WALKEEP_TEST_CHILD
// says what to do, with the rules, the repositories' directories and the file
// as arguments.
func TestMain(m *testing.M) {
	if what := os.Getenv("WALKEEP_TEST_CHILD"); what != "" {
		os.Exit(child(what, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func child(what string, args []string) int {
	err := func() error {
		var repos []*repo.Repository
		for i, dir := range args[1:3] {
			var store object.Store
			store, err := filesystem.New(filesystem.Options{Path: dir, Create: true})
			if err != nil {
				return err
			}
			if i == 1 {
				rules, err := faulty.Parse(args[0])
				if err != nil {
					return err
				}
				store = faulty.New(store, rules...)
			}
			r, err := repo.Open(repo.Options{Name: fmt.Sprintf("repo%d", i+1), Store: store, Cluster: "hippo"})
			if err != nil {
				return err
			}
			repos = append(repos, r)
		}
		a, err := archive.New(archive.Options{Repos: repos})
		if err != nil {
			return err
		}
		switch what {
		case "push":
			_, err = a.Push(context.Background(), args[3])
		case "repair": // the second from the first
			_, err = archive.Repair(context.Background(), archive.RepairOptions{
				Target: repos[1].Epoch(cluster), Missing: middle, Workers: 1,
				Sources: []archive.Source{archive.SiblingSource(repos[0].Epoch(cluster))},
			})
		case "get": // into a file system of 512 KiB
			if err := unix.Mount("tmpfs", args[4], "tmpfs", 0, "size=512k"); err != nil {
				return fmt.Errorf("mount: %w", err)
			}
			_, err = a.Get(context.Background(), args[3], filepath.Join(args[4], "RECOVERYXLOG"))
			left, _ := os.ReadDir(args[4])
			if len(left) > 0 {
				err = fmt.Errorf("left behind: %v: %w", left, err)
			}
		}
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runChild(t *testing.T, what string, args ...string) (killed bool, output string, err error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "WALKEEP_TEST_CHILD="+what)
	if what == "get" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		} else {
			cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // makes / private, so that the mount stays inside
		}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		killed = exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	}
	return killed, string(out), err
}

// kill -9 before, in the middle of, and after every call of a push: nothing is
// half there, and the next push and a get succeed.
func TestKilledAtEveryCall(t *testing.T) {
	for what, make := range map[string]func() (string, []byte){
		"segment": segment,
		"history": func() (string, []byte) { return "00000002.history", []byte("1\t0/3000000\tx\n") },
	} {
		name, b := make()
		path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
		killedEver := 0
		for k, more := 1, true; more; k++ {
			more = false
			for _, fault := range []string{"kill", "kill:10000", "kill-after"} {
				dirs := []string{t.TempDir(), t.TempDir()}
				killed, out, err := runChild(t, "push", fmt.Sprintf("#%d=%s", k, fault), dirs[0], dirs[1], path)
				switch {
				case killed:
					killedEver++
					more = true
				case err != nil: // the body ended before the 10000th byte
					require.Contains(t, out, "injected fault")
					more = true
				}
				_, out, err = runChild(t, "push", "", dirs[0], dirs[1], path)
				require.NoError(t, err, "%s, call %d of %s: %s", fault, k, what, out)
				for _, dir := range dirs {
					store, err := filesystem.New(filesystem.Options{Path: dir})
					require.NoError(t, err)
					got, _, err := get(t, newArchive(t, archive.Options{}, store), name)
					require.NoError(t, err, "%s, call %d of %s", fault, k, what)
					require.True(t, bytes.Equal(b, got))
				}
			}
		}
		require.GreaterOrEqual(t, killedEver, 9, what)
	}
}

// A full disk is said to be one, is not blamed on a repository, is no reason to
// end recovery, and leaves nothing behind.
func TestGetOntoFullDisk(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	dirs := []string{t.TempDir(), t.TempDir()}
	_, out, err := runChild(t, "push", "", dirs[0], dirs[1], path)
	require.NoError(t, err, out)
	_, out, err = runChild(t, "get", "", dirs[0], dirs[1], name, t.TempDir())
	require.Error(t, err)
	require.Contains(t, out, "no space left on device")
	require.Contains(t, out, "cannot write the file")
	require.NotContains(t, out, "left behind")
	require.NotContains(t, out, "repo1")
}
