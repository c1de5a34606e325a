package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, conninfo string) *Conn {
	t.Helper()
	c, err := Connect(testContext(t), conninfo, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func eachMajor(t *testing.T, f func(t *testing.T, major int)) {
	for _, major := range postgres.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) { f(t, major) })
	}
}

// TestBackupOfPrimary does it as a role with nothing but the grants that the
// hint of the refusal names.
func TestBackupOfPrimary(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		ctx := testContext(t)
		env := postgres.New(t)
		s := env.Primary(t, postgres.Options{Major: major, Checksums: true, SegmentSize: 1 << 20, Settings: map[string]string{"archive_mode": "on"}})
		space := env.TempDir(t, "space")
		s.MustExec(t, `create role "wal keep" login`)
		s.MustExec(t, fmt.Sprintf(`create tablespace space location '%s'`, space))
		// Settings of the role that must not get in the way.
		s.MustExec(t, `alter role "wal keep" set statement_timeout = '200ms'; alter role "wal keep" set search_path = nowhere; alter role "wal keep" set datestyle = 'German'; alter role "wal keep" set default_transaction_read_only = on`)
		c := connect(t, fmt.Sprintf("host=127.0.0.1 port=%d user='wal keep' dbname=postgres sslmode=disable", s.Port))

		for setting, want := range map[string]string{"statement_timeout": "0", "search_path": "pg_catalog", "DateStyle": "ISO, YMD", "default_transaction_read_only": "off"} {
			var got string
			require.NoError(t, c.queryRow(ctx, "test", "select current_setting($1)", []any{setting}, &got))
			require.Equal(t, want, got, setting)
		}

		_, err := c.StartBackup(ctx, "test", true)
		require.ErrorIs(t, err, ErrPrivileges)
		var e *Error
		require.ErrorAs(t, err, &e)
		before, err := c.Privileges(ctx)
		require.NoError(t, err)
		_, grants, ok := strings.Cut(e.Hint(), "\n")
		require.True(t, ok)
		s.MustExec(t, grants)
		after, err := c.Privileges(ctx)
		require.NoError(t, err)
		require.Len(t, after, len(before))
		refused := 0
		for i := range after {
			require.True(t, after[i].Granted, after[i].Name)
			if !before[i].Granted {
				refused++
			}
		}
		require.GreaterOrEqual(t, refused, 4)

		info, err := c.Info(ctx)
		require.NoError(t, err)
		id, err := s.SystemID(ctx)
		require.NoError(t, err)
		require.Equal(t, major, info.Major)
		require.Equal(t, major, c.Major())
		require.Equal(t, id, info.SystemID)
		require.Equal(t, pg.Timeline(1), info.Timeline)
		require.Equal(t, pg.SegmentSize(1<<20), info.SegmentSize)
		require.Equal(t, 8192, info.BlockSize)
		require.Equal(t, s.DataDir, info.DataDirectory)
		require.Equal(t, "replica", info.WALLevel)
		require.Equal(t, "on", info.ArchiveMode)
		require.Empty(t, info.ArchiveCommand)
		require.True(t, info.DataChecksums)
		require.True(t, info.FullPageWrites)
		require.False(t, info.InRecovery)
		require.False(t, info.Superuser)
		require.False(t, info.ExclusiveBackup)

		start, err := c.StartBackup(ctx, "a label", true)
		require.NoError(t, err)
		require.False(t, start.FromStandby)
		require.Equal(t, pg.Timeline(1), start.Timeline)
		require.Len(t, start.Tablespaces, 1)
		require.Equal(t, space, start.Tablespaces[0].Location)
		link, err := os.Readlink(filepath.Join(s.DataDir, "pg_tblspc", strconv.Itoa(int(start.Tablespaces[0].OID))))
		require.NoError(t, err)
		require.Equal(t, space, link)
		_, err = c.StartBackup(ctx, "a second", true)
		require.Error(t, err)

		s.MustExec(t, "create table t as select generate_series(1, 10000) i")
		stop, err := c.StopBackup(ctx)
		require.NoError(t, err)
		require.Greater(t, stop.LSN, start.LSN)
		require.Equal(t, start.LSN, stop.Label.StartLSN)
		require.Equal(t, pg.Timeline(1), stop.Timeline)
		require.Equal(t, "a label", stop.Label.Label)
		require.False(t, stop.Label.FromStandby)
		require.Equal(t, "streamed", stop.Label.Method)
		require.Equal(t, info.SegmentSize.Name(1, info.SegmentSize.SegmentOf(start.LSN)), stop.Label.StartSegment)
		require.Contains(t, string(stop.TablespaceMap), space)
		_, err = c.StopBackup(ctx)
		require.ErrorIs(t, err, ErrNoBackup)

		// The history file is a label too.
		files, err := filepath.Glob(filepath.Join(s.DataDir, "pg_wal", "*.backup"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		b, err := os.ReadFile(files[0])
		require.NoError(t, err)
		history, err := pg.ParseBackupLabel(b)
		require.NoError(t, err)
		require.Equal(t, stop.LSN, history.StopLSN)
		require.Equal(t, stop.Timeline, history.StopTimeline)

		// The same connection again, and switches on an idle server.
		_, err = c.StartBackup(ctx, "again", true)
		require.NoError(t, err)
		_, err = c.StopBackup(ctx)
		require.NoError(t, err)
		lsn, err := c.CreateRestorePoint(ctx, "here")
		require.NoError(t, err)
		var last pg.SegmentName
		for range 3 {
			sw, err := c.SwitchWAL(ctx)
			require.NoError(t, err)
			require.Greater(t, sw.LSN, lsn)
			require.Greater(t, sw.Segment, last)
			require.Equal(t, info.SegmentSize.Name(1, info.SegmentSize.SegmentOf(sw.LSN-1)), sw.Segment)
			lsn, last = sw.LSN, sw.Segment
		}
		current, err := c.CurrentLSN(ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, current, lsn)
	})
}

func TestBackupOfStandby(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		ctx := testContext(t)
		env := postgres.New(t)
		p := env.Primary(t, postgres.Options{Major: major, SegmentSize: 1 << 20})
		s := env.StartStandby(t, p, postgres.Options{Slot: "s"})
		second := env.StartStandby(t, s, postgres.Options{Name: "cascading", Settings: map[string]string{"recovery_target_timeline": "latest"}})
		c := connect(t, s.ConnInfo())

		start, err := c.StartBackup(ctx, "standby", true)
		require.NoError(t, err)
		require.True(t, start.FromStandby)
		require.Equal(t, pg.Timeline(1), start.Timeline)
		p.MustExec(t, "create table t as select generate_series(1, 20000) i; checkpoint")
		lsn, err := p.LSN(ctx)
		require.NoError(t, err)
		require.NoError(t, s.WaitReplay(ctx, lsn))
		stop, err := c.StopBackup(ctx)
		require.NoError(t, err)
		require.True(t, stop.Label.FromStandby)
		require.Equal(t, start.LSN, stop.Label.StartLSN)
		require.Equal(t, pg.Timeline(1), stop.Timeline)
		require.GreaterOrEqual(t, stop.LSN, start.LSN)
		replay, err := c.ReplayLSN(ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, replay, lsn)
		_, err = c.ReceiveLSN(ctx)
		require.NoError(t, err)
		_, err = c.SwitchWAL(ctx)
		require.ErrorIs(t, err, ErrRecovery)
		_, err = c.CurrentLSN(ctx)
		require.ErrorIs(t, err, ErrRecovery)

		// Promoted in between; the standby below it follows.
		below := connect(t, second.ConnInfo())
		belowStart, err := below.StartBackup(ctx, "through a promotion", true)
		require.NoError(t, err)
		_, err = c.StartBackup(ctx, "will be promoted", true)
		require.NoError(t, err)
		require.NoError(t, p.Kill9())
		require.NoError(t, s.Promote(ctx))
		info, err := c.Info(ctx)
		require.NoError(t, err)
		require.False(t, info.InRecovery)
		require.Equal(t, pg.Timeline(2), info.Timeline, "at once, though pg_control may lag")
		_, err = c.StopBackup(ctx)
		require.ErrorIs(t, err, ErrPromoted)

		// The promoted one is a primary like any other.
		c = connect(t, s.ConnInfo())
		start, err = c.StartBackup(ctx, "after promotion", true)
		require.NoError(t, err)
		require.Equal(t, pg.Timeline(2), start.Timeline)
		stop, err = c.StopBackup(ctx)
		require.NoError(t, err)
		require.Equal(t, pg.Timeline(2), stop.Timeline)

		s.MustExec(t, "create table u as select generate_series(1, 20000) i; checkpoint")
		lsn, err = s.LSN(ctx)
		require.NoError(t, err)
		require.NoError(t, second.WaitReplay(ctx, lsn))
		require.NoError(t, second.Exec(ctx, "checkpoint"))
		info, err = below.Info(ctx)
		require.NoError(t, err)
		require.Equal(t, pg.Timeline(2), info.Timeline)
		stop, err = below.StopBackup(ctx)
		require.NoError(t, err)
		require.Equal(t, belowStart.Timeline, stop.Label.StartTimeline)
		require.Equal(t, pg.Timeline(2), stop.Timeline, "the standby followed the promotion")
	})
}

func TestStandbyWithoutFullPageWrites(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Settings: map[string]string{"full_page_writes": "off"}})
	s := env.StartStandby(t, p, postgres.Options{})
	c := connect(t, s.ConnInfo())
	_, err := c.StartBackup(ctx, "x", true)
	require.ErrorIs(t, err, ErrFullPageWrites)
	require.ErrorContains(t, err, "full_page_writes = on on the primary")

	// The advice works.
	require.NoError(t, p.Configure(map[string]string{"full_page_writes": "on"}))
	require.NoError(t, p.Reload(ctx))
	require.NoError(t, p.WaitFor(ctx, "select current_setting('full_page_writes') = 'on'"))
	p.MustExec(t, "checkpoint")
	lsn, err := p.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, s.WaitReplay(ctx, lsn))
	s.MustExec(t, "checkpoint")
	_, err = c.StartBackup(ctx, "x", true)
	require.NoError(t, err)

	// Off in the middle.
	require.NoError(t, p.Configure(map[string]string{"full_page_writes": "off"}))
	require.NoError(t, p.Reload(ctx))
	require.NoError(t, p.WaitFor(ctx, "select current_setting('full_page_writes') = 'off'"))
	p.MustExec(t, "create table t (i int); checkpoint")
	lsn, err = p.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, s.WaitReplay(ctx, lsn))
	_, err = c.StopBackup(ctx)
	require.ErrorIs(t, err, ErrFullPageWrites)
}

func TestMinimalWAL(t *testing.T) {
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Settings: map[string]string{"wal_level": "minimal", "max_wal_senders": "0"}})
	c := connect(t, p.ConnInfo())
	_, err := c.StartBackup(testContext(t), "x", true)
	require.ErrorIs(t, err, ErrWALLevel)
	require.ErrorContains(t, err, "wal_level = replica")
}

func TestLostConnection(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{})

	c := connect(t, p.ConnInfo())
	_, err := c.StartBackup(ctx, "x", true)
	require.NoError(t, err)
	alive, stop := c.keepAlive(ctx, 10*time.Millisecond)
	defer stop()
	time.Sleep(50 * time.Millisecond)
	require.NoError(t, alive.Err())
	p.MustExec(t, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'walkeep'")
	select {
	case <-alive.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the loss went unnoticed")
	}
	require.ErrorIs(t, context.Cause(alive), ErrConnectionLost)
	_, err = c.StopBackup(ctx)
	require.ErrorIs(t, err, ErrConnectionLost)
	require.ErrorContains(t, err, "take it again")

	// Without anybody watching, and by a crash of the server.
	c = connect(t, p.ConnInfo())
	_, err = c.StartBackup(ctx, "x", true)
	require.NoError(t, err)
	require.NoError(t, p.Kill9())
	_, err = c.StopBackup(ctx)
	require.ErrorIs(t, err, ErrConnectionLost)
	_, err = c.StopBackup(ctx)
	require.ErrorIs(t, err, ErrConnectionLost)
	require.ErrorIs(t, c.Ping(ctx), ErrConnectionLost)
}

func TestCancel(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Settings: map[string]string{"checkpoint_timeout": "1h", "checkpoint_completion_target": "0.9", "shared_buffers": "64MB"}})
	c := connect(t, p.ConnInfo())

	// While the server waits for a checkpoint that is spread over an hour.
	p.MustExec(t, "create table t as select repeat('x', 500) from generate_series(1, 50000)")
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := c.StartBackup(short, "slow", false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begun), 8*time.Second)
	require.NoError(t, c.Ping(ctx), "the session outlives the cancelled statement")

	// The backup's context ends, and the stop is reached with another.
	backup, interrupt := context.WithCancelCause(ctx)
	_, err = c.StartBackup(backup, "cancelled", true)
	require.NoError(t, err)
	alive, stopAlive := c.KeepAlive(backup)
	interrupt(fmt.Errorf("interrupted"))
	<-alive.Done()
	stopAlive()
	_, err = c.StopBackup(ctx)
	require.NoError(t, err)

	// A stop that is itself cancelled leaves no backup mode behind.
	_, err = c.StartBackup(ctx, "cancelled stop", true)
	require.NoError(t, err)
	gone, cancelGone := context.WithCancel(ctx)
	cancelGone()
	_, err = c.StopBackup(gone)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, c.Ping(ctx), ErrConnectionLost)
	require.NoError(t, p.WaitFor(ctx, "select count(*) = 0 from pg_stat_activity where application_name = 'walkeep'"))
}

// TestPooled pretends that the pooler handed the statement to another session.
func TestPooled(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{})
	c := connect(t, p.ConnInfo())
	_, err := c.StartBackup(ctx, "x", true)
	require.NoError(t, err)
	c.backup.pid++
	_, err = c.StopBackup(ctx)
	require.ErrorIs(t, err, ErrPooled)
	require.ErrorContains(t, err, "pooler")
}

func TestExclusiveBackupIsSeen(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 14})
	p.MustExec(t, "select pg_start_backup('forgotten', true)")
	c := connect(t, p.ConnInfo())
	info, err := c.Info(ctx)
	require.NoError(t, err)
	require.True(t, info.ExclusiveBackup)
	_, err = c.StartBackup(ctx, "beside it", true)
	require.NoError(t, err)
	_, err = c.StopBackup(ctx)
	require.NoError(t, err)
}

// TestLabelBytes: a tablespace whose path is no valid text in the database's
// encoding arrives byte for byte.
func TestLabelBytes(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{})
	p.MustExec(t, `create database latin encoding 'LATIN1' template template0`)
	space := filepath.Join(env.Dir(), "gr\u00fcn")
	require.NoError(t, os.Mkdir(space, 0o700))
	require.NoError(t, env.Own(space))
	p.MustExec(t, fmt.Sprintf("create tablespace space location '%s'", space))
	c := connect(t, p.ConnInfoFor("postgres", "latin"))
	start, err := c.StartBackup(ctx, "x", true)
	require.NoError(t, err)
	require.Equal(t, space, start.Tablespaces[0].Location)
	stop, err := c.StopBackup(ctx)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%d %s\n", start.Tablespaces[0].OID, space), string(stop.TablespaceMap))
}

func TestConnectErrors(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{})
	hba := filepath.Join(p.DataDir, "pg_hba.conf")
	require.NoError(t, os.WriteFile(hba, []byte("host all postgres 127.0.0.1/32 trust\nhost all locked 127.0.0.1/32 scram-sha-256\n"), 0o600))
	p.MustExec(t, "create role locked login password 'right'; select pg_reload_conf()")
	// The reload is not awaited by pg_reload_conf.
	require.NoError(t, p.WaitFor(ctx, "select count(*) = 2 from pg_hba_file_rules"))
	time.Sleep(100 * time.Millisecond)

	const secret = "s3cr3t-w0rd"
	for name, tc := range map[string]struct{ conninfo, advice string }{
		"nobody there":      {"host=127.0.0.1 port=1 user=postgres sslmode=disable password=" + secret, "Is the server running"},
		"wrong password":    {p.ConnInfoFor("locked", "postgres") + " password=" + secret, "password file"},
		"not let in":        {p.ConnInfoFor("other", "postgres") + " password=" + secret, "pg_hba.conf"},
		"no database":       {p.ConnInfoFor("postgres", "none"), "dbname=postgres"},
		"nonsense":          {"password=" + secret + " nonsense", "conninfo"},
		"bad quote":         {"password='" + secret + " host=x", "conninfo"},
		"bad port":          {"port=" + secret, "conninfo"},
		"bad URI":           {"postgres://user:" + secret + "@host:port:x/db", "conninfo"},
		"percent in URI":    {"postgres://user:%zz" + secret + "@host/db", "conninfo"},
		"no such root cert": {"host=127.0.0.1 sslmode=verify-full sslrootcert=/nowhere password=" + secret, "conninfo"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Connect(ctx, tc.conninfo, nil)
			require.ErrorIs(t, err, ErrConnect)
			require.ErrorContains(t, err, tc.advice)
			require.NotContains(t, err.Error(), secret)
			require.NotContains(t, fmt.Sprintf("%+v", err), secret)
		})
	}

	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err := Connect(gone, p.ConnInfo(), nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestBadNames(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{})
	c := connect(t, p.ConnInfo())
	for _, label := range []string{"", "two\nlines", "gr\u00fcn", strings.Repeat("x", 1001)} {
		_, err := c.StartBackup(ctx, label, true)
		require.Error(t, err)
	}
	_, err := c.CreateRestorePoint(ctx, strings.Repeat("x", 64))
	require.Error(t, err)
	_, err = c.CreateRestorePoint(ctx, strings.Repeat("x", 63))
	require.NoError(t, err)
	require.NoError(t, c.Ping(ctx))
}

func TestRestartedStandbyKeepsItsTimeline(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 18})
	s := env.StartStandby(t, p, postgres.Options{})
	require.NoError(t, s.Promote(ctx))
	below := env.StartStandby(t, s, postgres.Options{Name: "below"})
	require.NoError(t, s.Stop(ctx, postgres.Fast))
	require.NoError(t, below.Restart(ctx))
	c := connect(t, below.ConnInfo())
	info, err := c.Info(ctx)
	require.NoError(t, err)
	require.Equal(t, pg.Timeline(2), info.Timeline, "with nobody to stream from")
	start, err := c.StartBackup(ctx, "x", true)
	require.NoError(t, err)
	require.Equal(t, pg.Timeline(2), start.Timeline)
	_, err = c.StopBackup(ctx)
	require.NoError(t, err)
}
