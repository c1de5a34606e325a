package postgres

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestEveryVersion(t *testing.T) {
	for _, major := range Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			ctx := testContext(t)
			env := New(t)
			archive := env.TempDir(t, "archive")
			primary := env.Primary(t, Options{Major: major, Checksums: major%2 == 0, SegmentSize: 1 << 20, Settings: map[string]string{
				"archive_mode": "on", "archive_command": fmt.Sprintf(`cp "%%p" '%s/%%f'`, archive),
			}})
			require.Equal(t, strconv.Itoa(major), strconv.Itoa(mustInt(t, primary, "show server_version_num")/10000))
			require.Equal(t, map[bool]string{true: "on", false: "off"}[major%2 == 0], primary.MustText(t, "show data_checksums"))
			require.Equal(t, "1MB", primary.MustText(t, "show wal_segment_size"))

			space := env.TempDir(t, "space")
			primary.MustExec(t, fmt.Sprintf("create tablespace space location '%s'", space))
			primary.MustExec(t, "create table t tablespace space as select generate_series(1, 1000) i")
			standby := env.StartStandby(t, primary, Options{Slot: "standby"})
			require.Equal(t, "1000", standby.MustText(t, "select count(*) from t"))

			name, err := primary.SwitchWAL(ctx)
			require.NoError(t, err)
			require.NoError(t, primary.WaitArchived(ctx, name))
			require.FileExists(t, filepath.Join(archive, string(name)))

			primary.MustExec(t, "insert into t values (1001)")
			lsn, err := primary.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitReplay(ctx, lsn))
			require.NoError(t, primary.Kill9())
			require.False(t, primary.Running())
			require.NoError(t, standby.Promote(ctx))
			standby.MustExec(t, "insert into t values (1002)")
			require.NoError(t, primary.Start(ctx), "a killed server starts again")
			require.Equal(t, "1001", primary.MustText(t, "select count(*) from t"))
			require.NoError(t, standby.Restart(ctx))
			require.Equal(t, "1002", standby.MustText(t, "select count(*) from t"))
			require.NoError(t, primary.Stop(ctx, Smart))
		})
	}
}

func mustInt(t *testing.T, s *Server, sql string) int {
	n, err := strconv.Atoi(s.MustText(t, sql))
	require.NoError(t, err)
	return n
}

func TestClustersDifferAndCopiesOpen(t *testing.T) {
	ctx := testContext(t)
	env := New(t)
	a, b := env.Primary(t, Options{}), env.Primary(t, Options{})
	idA, err := a.SystemID(ctx)
	require.NoError(t, err)
	idB, err := b.SystemID(ctx)
	require.NoError(t, err)
	require.NotEqual(t, idA, idB)

	require.NoError(t, a.Stop(ctx, Fast))
	clone := filepath.Join(env.Dir(), "clone")
	require.NoError(t, copyTree(a.DataDir, clone))
	c, err := env.Open(clone, map[string]string{"work_mem": "5MB"})
	require.NoError(t, err)
	require.NoError(t, a.Start(ctx))
	require.NoError(t, c.Start(ctx))
	require.Equal(t, "5MB", c.MustText(t, "show work_mem"))
	idC, err := c.SystemID(ctx)
	require.NoError(t, err)
	require.Equal(t, idA, idC)
}

func TestStartSaysWhy(t *testing.T) {
	ctx := testContext(t)
	env := New(t)
	s, err := env.InitDB(ctx, Options{Settings: map[string]string{"no_such_setting": "1"}})
	require.NoError(t, err)
	err = s.Start(ctx)
	require.ErrorIs(t, err, ErrExited)
	require.ErrorContains(t, err, "no_such_setting")
}

// Somebody's connection has the server's port when it starts.
func TestStartWaitsForThePort(t *testing.T) {
	ctx := testContext(t)
	env := New(t)
	s, err := env.InitDB(ctx, Options{})
	require.NoError(t, err)
	taken, err := net.Listen("tcp", s.port.Address())
	require.NoError(t, err)
	defer taken.Close()
	refused := make(chan bool)
	go func() {
		for !s.portTaken(0) && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		refused <- s.portTaken(0)
		taken.Close()
	}()
	started := make(chan error)
	go func() { started <- s.Start(ctx) }()
	require.True(t, <-refused)
	require.NoError(t, <-started)
}

func TestCommandRunsAsTheServersUser(t *testing.T) {
	ctx := testContext(t)
	env := New(t)
	out, err := env.Run(ctx, "id", "-u")
	require.NoError(t, err)
	require.NotEqual(t, "0\n", out)

	// One that lies where only its owner can go.
	hidden := filepath.Join(t.TempDir(), "id")
	id, err := exec.LookPath("id")
	require.NoError(t, err)
	require.NoError(t, copyFile(id, hidden, 0o755))
	out, err = env.Run(ctx, hidden, "-u")
	require.NoError(t, err)
	require.NotEqual(t, "0\n", out)

	_, err = env.Run(ctx, "sh", "-c", "echo wrong >&2; exit 3")
	require.ErrorContains(t, err, "wrong")
}

// TestNothingSurvivesACrash starts a server in a child process that then kills
// itself, as a test that panics or runs into its time limit does.
func TestNothingSurvivesACrash(t *testing.T) {
	if dir := os.Getenv("WALKEEP_TEST_CRASH"); dir != "" {
		env, err := NewEnv()
		require.NoError(t, err)
		s := env.Primary(t, Options{})
		pid := s.process().cmd.Process.Pid
		require.NoError(t, os.WriteFile(dir+"/pid", fmt.Appendf(nil, "%d %s", pid, env.Dir()), 0o600))
		os.Exit(7)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingSurvivesACrash$")
	cmd.Env = append(os.Environ(), "WALKEEP_TEST_CRASH="+dir)
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "%s", out)
	b, err := os.ReadFile(dir + "/pid")
	require.NoError(t, err, "%s", out)
	pid, envDir, _ := strings.Cut(string(b), " ")
	t.Cleanup(func() { _ = os.RemoveAll(envDir) })
	n, err := strconv.Atoi(pid)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return zombie(n) }, 20*time.Second, 20*time.Millisecond)
}
