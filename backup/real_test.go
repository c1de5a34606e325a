package backup_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// world is a primary under load, whose archived WAL goes into a repository.
type world struct {
	*postgres.Env
	t       *testing.T
	major   int
	wal     string
	primary *postgres.Server
	repo    *repo.Repository
}

func newWorld(t *testing.T, major int) *world {
	ctx := context.Background()
	env := postgres.New(t)
	w := &world{Env: env, t: t, major: major, wal: env.TempDir(t, "wal")}
	w.primary = env.Primary(t, postgres.Options{
		Major: major, Checksums: true, NoFsync: true,
		Settings: map[string]string{"archive_mode": "on", "archive_command": backup.ArchiveCommand(w.wal), "checkpoint_timeout": "30s", "allow_in_place_tablespaces": "on"},
	})
	id, err := w.primary.SystemID(ctx)
	require.NoError(t, err)
	w.repo, err = repo.Open(repo.Options{Name: "repo1", Store: memory.New(), Codec: codec.Codec{Name: codec.Zstd, Level: 1}, Cluster: "test"})
	require.NoError(t, err)
	backup.StartArchiver(t, w.wal, id, 16<<20, w.repo)
	w.primary.MustExec(t, `
		create table accounts (id int primary key, balance bigint not null, filler text);
		insert into accounts select g, 1000, repeat('x', 100) from generate_series(1, 20000) g;
		create unlogged table fast (i int); insert into fast select generate_series(1, 10000);
		create table churn (i int, t text)`)
	return w
}

func (w *world) connect(s *postgres.Server) *server.Conn {
	c, err := server.Connect(context.Background(), s.ConnInfo(), zaptest.NewLogger(w.t))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// load moves money between accounts, so that their sum never changes, and
// makes files come, grow, shrink and go, until stop is called.
func (w *world) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	run := func(statements ...string) {
		all.Go(func() {
			conn, err := w.primary.Connect(ctx)
			if err != nil {
				return
			}
			defer conn.Close(context.Background())
			for ctx.Err() == nil {
				for _, sql := range statements {
					_, _ = conn.Exec(ctx, sql)
				}
			}
		})
	}
	run(`do $$ declare a int := 1 + random() * 19999; b int := 1 + random() * 19999; begin
		update accounts set balance = balance - 1 where id = a; update accounts set balance = balance + 1 where id = b; end $$`)
	run(`insert into churn select g, md5(g::text) from generate_series(1, 20000) g`, `delete from churn where i > 5000`, `vacuum churn`, `truncate churn`)
	run(`create table come as select generate_series(1, 5000) i`, `create index on come (i)`, `create temp table t as select 1`, `drop table t`, `drop table come`)
	return func() { cancel(); all.Wait() }
}

func (w *world) options(s *postgres.Server) backup.Options {
	return backup.Options{
		Repos: []*repo.Repository{w.repo}, Source: backup.Local(s.DataDir), Server: w.connect(s), Workers: 2, PackSize: 4 << 20,
		ArchiveTimeout: time.Minute, Log: zaptest.NewLogger(w.t), Node: s.Name,
	}
}

// restore writes a backup into a new directory and starts a server on it that
// replays to the end of the archived WAL. spaces says where tablespaces go.
func (w *world) restore(s repo.Summary, spaces map[string]string) *postgres.Server {
	t, ctx := w.t, context.Background()
	dir := w.TempDir(t, "restored")
	backup.RestoreBackup(t, w.repo.Epoch(s.SystemID), s.Label, dir, spaces)
	if err := os.Remove(filepath.Join(dir, "standby.signal")); err != nil { // the backup of a standby has it
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o600))
	require.NoError(t, w.Own(dir))
	for _, to := range spaces {
		require.NoError(t, w.Own(to))
	}
	r, err := w.Open(dir, map[string]string{
		"restore_command": "cp " + w.wal + "/%f %p", "archive_mode": "off", "primary_conninfo": "",
		"recovery_target_timeline": "latest",
	})
	require.NoError(t, err)
	require.NoError(t, r.Start(ctx))
	require.NoError(t, r.WaitFor(ctx, "select not pg_is_in_recovery()"))
	return r
}

// check is what must hold at every moment that can be restored.
func (w *world) check(r *postgres.Server) {
	require.Equal(w.t, "20000000", r.MustText(w.t, "select sum(balance) from accounts"))
	require.Equal(w.t, "20000", r.MustText(w.t, "select count(*) from accounts"))
	require.Equal(w.t, "0", r.MustText(w.t, "select count(*) from fast"), "unlogged tables are empty")
	require.Equal(w.t, "7", r.MustText(w.t, "select sum(i) from spaced"))
	r.MustExec(w.t, "insert into fast values (1); select count(*) from churn")
	r.MustExec(w.t, "vacuum accounts")
}

func TestPrimary(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			w := newWorld(t, major)
			space := w.TempDir(t, "space")
			w.primary.MustExec(t, "create tablespace elsewhere location '"+space+"'")
			w.primary.MustExec(t, "create table spaced (i int) tablespace elsewhere; insert into spaced values (3), (4)")
			oid := w.primary.MustText(t, "select oid from pg_tablespace where spcname = 'elsewhere'")
			damaged := w.damage()
			stop := w.load()
			result, err := backup.Run(context.Background(), w.options(w.primary))
			stop()
			require.NoError(t, err)
			s := result.Repos[0].Summary
			require.Equal(t, damaged, s.PageErrors)
			require.False(t, s.FromStandby)

			w.requirePaths(s, "pg_tblspc/"+oid+"/PG_"+fmt.Sprint(major)+"_")
			r := w.restore(s, map[string]string{oid: w.TempDir(t, "space2")})
			w.check(r)
		})
	}
}

// damage breaks one page on disk that the server does not read again, and
// returns how many it broke.
func (w *world) damage() int64 {
	w.primary.MustExec(w.t, "create table broken as select repeat('b', 1000) t from generate_series(1, 100)")
	w.primary.MustExec(w.t, "checkpoint")
	path := filepath.Join(w.primary.DataDir, w.primary.MustText(w.t, "select pg_relation_filepath('broken')"))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(w.t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("damage"), 3*8192+5000)
	require.NoError(w.t, err)
	return 1
}

// requirePaths looks at what is in a backup and what is not.
func (w *world) requirePaths(s repo.Summary, tablespace string) {
	t := w.t
	var all []string
	found := false
	for _, f := range backup.ReadEntries(t, w.repo.Epoch(s.SystemID), s.Label) {
		all = append(all, f.Path)
		found = found || strings.HasPrefix(f.Path, tablespace)
		require.NotContains(t, f.Path, "pgsql_tmp")
		require.False(t, strings.HasPrefix(f.Path, "pg_wal/0"), f.Path)
	}
	require.True(t, found, tablespace)
	n := len(all)
	require.Equal(t, "global/pg_control", all[n-1])
	require.Contains(t, all[n-3:], "backup_label")
	require.NotContains(t, all, "postmaster.pid")
	unlogged := strings.TrimSpace(w.primary.MustText(t, "select pg_relation_filepath('fast')"))
	require.Contains(t, all, unlogged+"_init")
	require.NotContains(t, all, unlogged)
}

func TestStandby(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			w := newWorld(t, major)
			// Two servers on one machine cannot share a tablespace's path.
			w.primary.MustExec(t, "create tablespace inside location ''")
			w.primary.MustExec(t, "create table spaced (i int) tablespace inside; insert into spaced values (3), (4)")
			oid := w.primary.MustText(t, "select oid from pg_tablespace where spcname = 'inside'")
			standby := w.StartStandby(t, w.primary, postgres.Options{})
			stop := w.load()
			time.Sleep(500 * time.Millisecond)
			require.NoError(t, standby.Exec(context.Background(), "checkpoint"))
			o := w.options(standby)
			o.Primary = w.connect(w.primary)
			result, err := backup.Run(context.Background(), o)
			stop()
			require.NoError(t, err)
			s := result.Repos[0].Summary
			require.True(t, s.FromStandby)
			require.Zero(t, s.PageErrors)
			w.requirePaths(s, "pg_tblspc/"+oid+"/PG_"+fmt.Sprint(major)+"_")
			w.check(w.restore(s, nil))
		})
	}
}

// A standby that is promoted in the middle has no backup, and says why.
func TestStandbyPromoted(t *testing.T) {
	w := newWorld(t, 15)
	standby := w.StartStandby(t, w.primary, postgres.Options{})
	o := w.options(standby)
	promoted := false
	o.Progress = onStage(func(what string) {
		if strings.HasPrefix(what, "ending") && !promoted {
			promoted = true
			require.NoError(t, standby.Promote(context.Background()))
		}
	})
	_, err := backup.Run(context.Background(), o)
	require.ErrorIs(t, err, server.ErrPromoted)
	all, err := w.repo.Epoch(mustID(t, w.primary)).Backups(context.Background())
	require.NoError(t, err)
	require.Empty(t, all)
}

func mustID(t *testing.T, s *postgres.Server) pg.SystemID {
	id, err := s.SystemID(context.Background())
	require.NoError(t, err)
	return id
}

// Cancelled, a backup takes the server out of backup mode.
func TestCancelledOnRealServer(t *testing.T) {
	w := newWorld(t, 15)
	ctx, cancel := context.WithCancelCause(context.Background())
	o := w.options(w.primary)
	pressed := fmt.Errorf("somebody pressed a key")
	o.Progress = onStage(func(what string) {
		if what == "copying" {
			cancel(pressed)
		}
	})
	_, err := backup.Run(ctx, o)
	require.ErrorIs(t, err, pressed)
	// The session is alive, and can begin another.
	o.Progress = nil
	_, err = backup.Run(context.Background(), o)
	require.NoError(t, err)
}

type onStage func(string)

func (f onStage) Stage(what string) { f(what) }
func (onStage) Total(int64)         {}
func (onStage) Add(int64)           {}
