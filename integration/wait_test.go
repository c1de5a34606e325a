package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestWait lets walkeep start the restored server and follow it to every end
// that recovery can come to.
func TestWait(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			s := newSteps(t, ctx, major)
			w := &waits{steps: s, bindir: filepath.Dir(s.server.Install.Path("postgres"))}
			t.Run("promote", w.promote)
			t.Run("pause", w.pause)
			t.Run("shutdown", w.shutdown)
			t.Run("standby", w.standby)
			t.Run("target not reached", w.notReached)
			t.Run("never comes up", w.neverUp)
			t.Run("Ctrl-C", func(t *testing.T) { w.interrupted(t, ctx) })
		})
	}
}

type waits struct {
	*steps
	bindir string
}

// run restores with --wait into a new directory. What runs there in the end is
// stopped when the test ends.
func (w *waits) run(t *testing.T, code int, args ...string) (dir string, r walkeep.Result) {
	t.Helper()
	dir = w.clone(t)
	return dir, w.site.Must(t, code, w.args(dir, args...)...)
}

func (w *waits) clone(t *testing.T) string {
	dir := filepath.Join(w.env.TempDir(t, "clone"), "data")
	t.Cleanup(func() {
		w.stop(dir)
		os.RemoveAll(filepath.Dir(dir))
	})
	return dir
}

func (w *waits) args(dir string, args ...string) []string {
	return append([]string{
		"restore", "--pgdata", dir, "--wait", "--bindir", w.bindir,
		"--set", "listen_addresses=", "--set", fmt.Sprintf("port=%d", w.server.Port), "--set", "unix_socket_directories=" + filepath.Dir(dir),
	}, args...)
}

func (w *waits) stop(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _ = w.env.Run(ctx, filepath.Join(w.bindir, "pg_ctl"), "-D", dir, "-m", "immediate", "stop")
}

func (w *waits) query(t *testing.T, dir, sql string) string {
	t.Helper()
	out, err := w.try(dir, sql)
	require.NoError(t, err)
	return out
}

func (w *waits) try(dir, sql string) (text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", filepath.Dir(dir), w.server.Port))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, sql).Scan(&text)
	return text, err
}

func (w *waits) third() string { return w.rows[stepsInBackup].after.Format(time.RFC3339Nano) }

func (w *waits) promote(t *testing.T) {
	dir, r := w.run(t, 0, "--target-time", w.third())
	require.Contains(t, r.Stdout, "The target was reached: the server is open for writing")
	require.Contains(t, r.Stdout, "timeline 2")
	require.Equal(t, "3 f", w.query(t, dir, "select count(*) || ' ' || case when pg_is_in_recovery() then 't' else 'f' end from steps"))
	conf, err := os.ReadFile(filepath.Join(dir, "postgresql.auto.conf"))
	require.NoError(t, err)
	require.NotRegexp(t, `(?m)^(recovery|restore)_`, string(conf))

	_, r = w.run(t, 0, "--json") // the end of WAL
	var told struct {
		Recovery struct {
			End      string
			Timeline int
			LSN      string
			Reason   string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(r.Stdout), &told), r.Stdout)
	require.Equal(t, "open", told.Recovery.End)
	require.Equal(t, 2, told.Recovery.Timeline)
	require.Equal(t, "no recovery target specified", told.Recovery.Reason)
}

func (w *waits) pause(t *testing.T) {
	dir, r := w.run(t, 0, "--target-time", w.third(), "--target-action", "pause")
	require.Contains(t, r.Stdout, "paused there")
	require.Equal(t, "3 t", w.query(t, dir, "select count(*) || ' ' || case when pg_is_in_recovery() then 't' else 'f' end from steps"))
}

func (w *waits) shutdown(t *testing.T) {
	dir, r := w.run(t, 0, "--target-time", w.third(), "--target-action", "shutdown")
	require.Contains(t, r.Stdout, "shut down there")
	require.NoFileExists(t, filepath.Join(dir, "postmaster.pid"))
}

func (w *waits) standby(t *testing.T) {
	dir, r := w.run(t, 0, "--type", "standby")
	require.Contains(t, r.Stdout, "a standby")
	require.Equal(t, "7 t", w.query(t, dir, "select count(*) || ' ' || case when pg_is_in_recovery() then 't' else 'f' end from steps"))
}

// The plan takes an xid for likely that has not ended: recovery finds out.
func (w *waits) notReached(t *testing.T) {
	w.server.MustExec(t, "create table earlier as select 1")
	conn, err := w.server.Connect(context.Background())
	require.NoError(t, err)
	defer conn.Close(context.Background())
	var open string
	_, err = conn.Exec(context.Background(), "begin")
	require.NoError(t, err)
	require.NoError(t, conn.QueryRow(context.Background(), "select (pg_current_xact_id()::text::bigint & 4294967295)::text").Scan(&open))
	w.server.MustExec(t, "create table later as select 1")
	last, err := w.server.SwitchWAL(context.Background())
	require.NoError(t, err)
	require.NoError(t, w.server.WaitArchived(context.Background(), last))
	w.server.MustExec(t, "drop table earlier, later")
	_, r := w.run(t, 4, "--target-xid", open)
	require.Contains(t, r.Stderr, "recovery ended before configured recovery target was reached")
	require.Contains(t, r.Stderr, "server.log")
}

func (w *waits) neverUp(t *testing.T) {
	_, r := w.run(t, 1, "--set", "shared_preload_libraries=no_such_library")
	require.Contains(t, r.Stderr, "no_such_library")
	_, r = w.run(t, 2, "--bindir", "/nowhere")
	require.Contains(t, r.Stderr, "--bindir")

	// It waits for WAL that does not come.
	dir, r := w.run(t, 1, "--set", "restore_command=sleep 1000", "--wait-timeout", "2s")
	require.Contains(t, r.Stderr, "has not reached the target in time")
	require.Contains(t, r.Stderr, "pg_ctl -D "+dir+" stop")
	require.FileExists(t, filepath.Join(dir, "postmaster.pid"))
}

// Nobody waits any more: the server goes on.
func (w *waits) interrupted(t *testing.T, ctx context.Context) {
	dir := w.clone(t)
	gate := filepath.Join(filepath.Dir(dir), "gate")
	get := fmt.Sprintf(`while ! test -e %s; do sleep 0.1; done; %s --config %s get %%f "%%p"`, gate, w.site.Programs.WAL(), w.site.Config)
	cmd := w.site.Command(ctx, w.args(dir, "--set", "restore_command="+get)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return fileExists(filepath.Join(dir, "postmaster.pid")) }, time.Minute, 20*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), errs.String())
	require.Contains(t, errs.String(), "The server goes on by itself")
	require.NoError(t, os.WriteFile(gate, nil, 0o644))
	require.Eventually(t, func() bool {
		open, err := w.try(dir, "select (not pg_is_in_recovery())::text")
		return err == nil && open == "true"
	}, time.Minute, 200*time.Millisecond)
}
