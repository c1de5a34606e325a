package backup_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// readers lets a role do what is documented for reading over SQL, and no more.
func (w *world) readers() {
	ctx := context.Background()
	w.primary.MustExec(w.t, "create role reader login")
	c := w.connect(w.primary)
	all, err := c.Privileges(ctx)
	require.NoError(w.t, err)
	more, err := c.ReadPrivileges(ctx)
	require.NoError(w.t, err)
	for _, p := range append(all, more...) {
		w.primary.MustExec(w.t, strings.Replace(p.Grant, `"postgres"`, "reader", 1))
	}
}

func (w *world) asReader(s *postgres.Server) *server.Conn {
	c, err := server.Connect(context.Background(), s.ConnInfoFor("reader", "postgres"), zaptest.NewLogger(w.t))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// overSQL is options for a backup that is read over SQL, as that role.
func (w *world) overSQL(s *postgres.Server) backup.Options {
	o := w.options(s)
	c := w.asReader(s)
	files, err := server.OpenFiles(context.Background(), s.ConnInfoFor("reader", "postgres")+" application_name=reading", c, 2, zaptest.NewLogger(w.t))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = files.Close(context.Background()) })
	o.Server, o.Source = c, backup.OverSQL(files)
	if s != w.primary {
		o.Primary = w.asReader(w.primary)
	}
	return o
}

// paths is what a backup holds, without what differs between one that was read
// over SQL and one that was not.
func (w *world) paths(s repo.Summary) []string {
	var all []string
	for _, f := range backup.ReadEntries(w.t, w.repo.Epoch(s.SystemID), s.Label) {
		if s.Source == backup.SourceSQL {
			require.Empty(w.t, f.Owner)
			require.Equal(w.t, 1<<32-1, f.UID)
		}
		all = append(all, fmt.Sprintf("%s %d %o %s", f.Path, f.Type, f.Mode, f.Link))
	}
	return all
}

func TestOverSQL(t *testing.T) {
	for major, rungs := range map[int][]backup.Detect{
		13: {backup.DetectScan},
		15: {backup.DetectChanges},
		17: {backup.DetectSummaries},
		18: {backup.DetectBest},
	} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			ctx := context.Background()
			w := newWorld(t, major)
			w.readers()
			// The archiver of these tests stores no block changes: they are read
			// from pg_wal, however much was written meanwhile.
			settings := map[string]string{"wal_keep_size": "16GB"}
			if major >= 17 {
				settings["summarize_wal"] = "on"
			}
			require.NoError(t, w.primary.Configure(settings))
			require.NoError(t, w.primary.Reload(ctx))
			space := w.TempDir(t, "space")
			w.primary.MustExec(t, "create tablespace elsewhere location '"+space+"'")
			w.primary.MustExec(t, "create table spaced (i int) tablespace elsewhere; insert into spaced values (3), (4)")
			oid := w.primary.MustText(t, "select oid from pg_tablespace where spcname = 'elsewhere'")
			damaged := w.damage()
			stop := w.load()
			result, err := backup.Run(ctx, w.overSQL(w.primary))
			stop()
			require.NoError(t, err)
			s := result.Repos[0].Summary
			require.Equal(t, damaged, s.PageErrors)
			require.Equal(t, backup.SourceSQL, s.Source)
			w.requirePaths(s, "pg_tblspc/"+oid+"/PG_"+fmt.Sprint(major)+"_")
			w.check(w.restore(s, map[string]string{oid: w.TempDir(t, "space2")}))

			for _, rung := range rungs {
				stop := w.load()
				time.Sleep(100 * time.Millisecond)
				o := w.overSQL(w.primary)
				o.Type, o.Detect = repo.Incremental, rung
				result, err := backup.Run(ctx, o)
				stop()
				require.NoError(t, err)
				s := result.Repos[0].Summary
				require.Equal(t, repo.Incremental, s.Type)
				if rung != backup.DetectBest {
					w.requireDetected(s, rung)
				}
				w.check(w.restore(s, map[string]string{oid: w.TempDir(t, "space2")}))
			}

			// The same files, when nothing happens.
			w.primary.MustExec(t, "checkpoint")
			over, err := backup.Run(ctx, w.overSQL(w.primary))
			require.NoError(t, err)
			local, err := backup.Run(ctx, w.options(w.primary))
			require.NoError(t, err)
			require.Equal(t, w.paths(local.Repos[0].Summary), w.paths(over.Repos[0].Summary))
		})
	}
}

// requireDetected: the changes of most files were found that way.
func (w *world) requireDetected(s repo.Summary, by backup.Detect) {
	n := 0
	for _, f := range backup.ReadEntries(w.t, w.repo.Epoch(s.SystemID), s.Label) {
		if f.Detect == string(by) {
			n++
		}
	}
	require.Greater(w.t, n, 100, by)
}

// With older versions integration/serve does it.
func TestStandbyOverSQL(t *testing.T) {
	const major = 17
	ctx := context.Background()
	w := newWorld(t, major)
	w.readers()
	w.primary.MustExec(t, "create tablespace inside location ''")
	w.primary.MustExec(t, "create table spaced (i int) tablespace inside; insert into spaced values (3), (4)")
	oid := w.primary.MustText(t, "select oid from pg_tablespace where spcname = 'inside'")
	standby := w.StartStandby(t, w.primary, postgres.Options{})
	require.NoError(t, standby.WaitFor(ctx, "select has_function_privilege('reader', 'pg_read_binary_file(text, bigint, bigint, boolean)', 'execute')"))
	for _, kind := range []repo.BackupType{repo.Full, repo.Incremental} {
		stop := w.load()
		time.Sleep(100 * time.Millisecond)
		w.primary.MustExec(t, "checkpoint")
		lsn, err := w.primary.LSN(ctx)
		require.NoError(t, err)
		require.NoError(t, standby.WaitReplay(ctx, lsn))
		require.NoError(t, standby.Exec(ctx, "checkpoint"))
		o := w.overSQL(standby)
		o.Type = kind
		result, err := backup.Run(ctx, o)
		stop()
		require.NoError(t, err)
		s := result.Repos[0].Summary
		require.True(t, s.FromStandby)
		require.Equal(t, kind, s.Type)
		require.Equal(t, backup.SourceSQL, s.Source)
		require.Zero(t, s.PageErrors)
		w.requirePaths(s, "pg_tblspc/"+oid+"/PG_"+fmt.Sprint(major)+"_")
		w.check(w.restore(s, nil))
	}
}

// Files that vanish or are cut while they are read, a pg_control that is torn, and
// sessions that are killed: all of that a backup gets over. Not the loss of the
// session that it runs on.
func TestFaultsOverSQL(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 15)
	w.readers()
	w.primary.MustExec(t, `create table spaced (i int); insert into spaced values (3), (4);
		create table gone as select g i, repeat('x', 500) t from generate_series(1, 12000) g;
		create table cut as select g i, repeat('x', 500) t from generate_series(1, 12000) g;
		create table killer as select g i, repeat('x', 500) t from generate_series(1, 12000) g; checkpoint`)
	acts := map[string]string{
		"gone":   "drop table gone; checkpoint",
		"cut":    "delete from cut where i > 100; vacuum cut",
		"killer": "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reading'",
	}
	once := map[string]*sync.Once{}
	byPath := map[string]string{}
	for name := range acts {
		path := w.primary.MustText(t, "select pg_relation_filepath('"+name+"')")
		byPath[path], once[path] = name, &sync.Once{}
	}
	done := make(chan string, len(acts))
	o := w.overSQL(w.primary)
	o.Source = backup.Hooked(o.Source, func(path string, off int64) {
		if byPath[path] == "" || off < 1<<20 {
			return
		}
		once[path].Do(func() {
			for sql := range strings.SplitSeq(acts[byPath[path]], ";") {
				if err := w.primary.Exec(ctx, sql); err != nil {
					t.Error(err)
				}
			}
			done <- byPath[path]
		})
	})
	result, err := backup.Run(ctx, o)
	require.NoError(t, err)
	require.Len(t, done, len(acts))
	r := w.restore(result.Repos[0].Summary, nil)
	w.check(r)
	require.Equal(t, "100", r.MustText(t, "select count(*) from cut"))
	require.Equal(t, "12000", r.MustText(t, "select count(*) from killer where length(t) = 500"))
	require.Equal(t, "0", r.MustText(t, "select count(*) from pg_class where relname = 'gone'"))

	// The session of the backup itself.
	o = w.overSQL(w.primary)
	o.Source = backup.Hooked(o.Source, func(path string, off int64) {
		if byPath[path] == "killer" && off >= 1<<20 {
			if err := w.primary.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'reader' and application_name = 'walkeep'"); err != nil {
				t.Error(err)
			}
		}
	})
	_, err = backup.Run(ctx, o)
	require.ErrorIs(t, err, server.ErrConnectionLost)
	all, err := w.repo.Epoch(mustID(t, w.primary)).Backups(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	_, err = backup.Run(ctx, w.overSQL(w.primary))
	require.NoError(t, err)
}
