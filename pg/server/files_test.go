package server

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
)

// reader makes a role that may do what is documented and no more.
func reader(t *testing.T, p *postgres.Server) (conninfo string) {
	t.Helper()
	p.MustExec(t, "create role reader login")
	conninfo = p.ConnInfoFor("reader", "postgres")
	c := connect(t, conninfo)
	c.reads = true
	for _, w := range c.wanted() {
		p.MustExec(t, c.grant(w))
	}
	return conninfo
}

func openFiles(t *testing.T, conninfo string, sessions int) *Files {
	t.Helper()
	f, err := OpenFiles(testContext(t), conninfo, connect(t, conninfo), sessions, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close(context.Background()) })
	return f
}

func TestFiles(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			ctx := testContext(t)
			env := postgres.New(t)
			p := env.Primary(t, postgres.Options{Major: major, NoFsync: true, ExtraInitdbArgs: []string{"--encoding=UTF8", "--allow-group-access"}})
			space := env.TempDir(t, "space")
			p.MustExec(t, "create tablespace space location '"+space+"'")
			dir := filepath.Join(p.DataDir, "mine")
			require.NoError(t, os.Mkdir(dir, 0o700))
			content := strings.Repeat("0123456789", 300000)
			for name, text := range map[string]string{"big": content, "empty": "", "B": "x", "odd\xff": "x", "grün": "x"} {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
			}
			require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
			require.NoError(t, env.Own(dir))
			f := openFiles(t, reader(t, p), 2)
			require.Equal(t, p.DataDir, f.Directory())
			require.Equal(t, uint32(0o750), f.DirectoryMode())

			l, err := f.List(ctx, "mine")
			require.NoError(t, err)
			var names []string
			for i := range l.Len() {
				names = append(names, l.Name(i))
			}
			require.Equal(t, []string{"B", "big", "dangling", "empty", "grün", "odd\xff", "sub"}, names)
			info, err := l.Info(1)
			require.NoError(t, err)
			st, err := os.Stat(filepath.Join(dir, "big"))
			require.NoError(t, err)
			require.Equal(t, FileInfo{Size: int64(len(content)), Modified: info.Modified}, info)
			require.Equal(t, st.ModTime().Unix(), info.Modified.Unix())
			_, err = l.Info(2)
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = l.Info(5)
			require.ErrorIs(t, err, ErrName)
			info, err = l.Info(6)
			require.NoError(t, err)
			require.True(t, info.Dir)
			l, err = f.List(ctx, "mine/none")
			require.NoError(t, err)
			require.Zero(t, l.Len())

			buf := make([]byte, 1<<20)
			for _, at := range []struct{ off, n int }{{0, 1 << 20}, {1<<20 + 3, 1 << 20}, {len(content) - 5, 5}, {len(content), 0}, {len(content) + 99, 0}} {
				n, err := f.ReadAt(ctx, "mine/big", buf, int64(at.off))
				require.NoError(t, err)
				require.Equal(t, at.n, n)
				require.Equal(t, content[min(at.off, len(content)):min(at.off, len(content))+n], string(buf[:n]))
			}
			n, err := f.ReadAt(ctx, "mine/grün", buf, 0)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			_, err = f.ReadAt(ctx, "mine/none", buf, 0)
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = f.Stat(ctx, "mine/none")
			require.ErrorIs(t, err, fs.ErrNotExist)
			info, err = f.Stat(ctx, ".")
			require.NoError(t, err)
			require.True(t, info.Dir)

			tablespaces, err := f.List(ctx, "pg_tblspc")
			require.NoError(t, err)
			require.Equal(t, 1, tablespaces.Len())
			var oid uint32
			_, err = fmt.Sscan(tablespaces.Name(0), &oid)
			require.NoError(t, err)
			location, err := f.TablespaceLocation(ctx, oid)
			require.NoError(t, err)
			require.Equal(t, space, location)
			_, err = f.TablespaceLocation(ctx, 4000000000)
			require.ErrorIs(t, err, fs.ErrNotExist)

			// No more than that.
			_, err = f.Stat(ctx, "/etc/passwd")
			require.ErrorIs(t, err, ErrPrivileges)
			_, err = f.ReadAt(ctx, "../x", buf, 0)
			require.ErrorIs(t, err, ErrPrivileges)

			// Lost sessions are opened again.
			before := sessions(t, p)
			require.Len(t, before, 2)
			p.MustExec(t, "select pg_terminate_backend(pid) from pg_stat_activity where pid::text = any('{"+strings.Join(before, ",")+"}')")
			for range 4 {
				n, err := f.ReadAt(ctx, "mine/B", buf, 0)
				require.NoError(t, err)
				require.Equal(t, 1, n)
			}
			after := sessions(t, p)
			require.Len(t, after, 2)
			for _, pid := range after {
				require.False(t, slices.Contains(before, pid))
			}
		})
	}
}

// A standby cancels statements that are in the way of replay: they are repeated.
func TestFilesRepeatConflicts(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{NoFsync: true})
	f := openFiles(t, p.ConnInfo(), 1)
	conflict := &pgconn.PgError{Code: stateSerializationFailure, Message: "canceling statement due to conflict with recovery"}
	tries := 0
	require.NoError(t, f.do(ctx, func(*Conn) error {
		if tries++; tries < conflicts {
			return conflict
		}
		return nil
	}))
	require.Equal(t, conflicts, tries)
	require.ErrorIs(t, f.do(ctx, func(*Conn) error { return conflict }), conflict)
}

// sessions are the backends that files are read over.
func sessions(t *testing.T, p *postgres.Server) []string {
	t.Helper()
	text := p.MustText(t, "select string_agg(pid::text, ',') from pg_stat_activity where usename = 'reader' and (query like '%pg_read_binary_file%' or query like '%pg_stat_file%')")
	return strings.Split(text, ",")
}

func TestFilesNeedPrivileges(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 17, NoFsync: true})
	p.MustExec(t, "create role reader login")
	c := connect(t, p.ConnInfoFor("reader", "postgres"))
	for _, w := range c.wanted() {
		p.MustExec(t, c.grant(w))
	}
	for {
		_, err := OpenFiles(ctx, p.ConnInfoFor("reader", "postgres"), c, 1, nil)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, ErrPrivileges)
		all, err := c.ReadPrivileges(ctx)
		require.NoError(t, err)
		i := slices.IndexFunc(all, func(p Privilege) bool { return !p.Granted })
		require.NotEqual(t, -1, i)
		p.MustExec(t, all[i].Grant)
	}
	all, err := c.ReadPrivileges(ctx)
	require.NoError(t, err)
	for _, p := range all {
		require.True(t, p.Granted, "none of them could be left out: %s", p.Name)
	}
	// WAL summaries need none.
	_, err = c.Summaries(ctx)
	require.NoError(t, err)
}

// All sessions must be with one server, also when they are opened again.
func TestFilesOfOneServer(t *testing.T) {
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{NoFsync: true})
	s := env.StartStandby(t, p, postgres.Options{})
	_, err := OpenFiles(ctx, s.ConnInfo(), connect(t, p.ConnInfo()), 1, nil)
	require.ErrorIs(t, err, ErrOtherServer)

	f := openFiles(t, p.ConnInfo(), 1)
	require.NoError(t, p.Restart(ctx))
	_, err = f.ReadAt(ctx, "PG_VERSION", make([]byte, 10), 0)
	require.ErrorIs(t, err, ErrOtherServer)
	require.ErrorIs(t, err, ErrConnectionLost)
	require.ErrorContains(t, err, "take the backup again")
}
