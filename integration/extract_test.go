package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestDatabases brings some databases back and not others, and takes one out.
func TestDatabases(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			d := newShops(t, ctx, major)
			t.Run("include", func(t *testing.T) { d.include(t, ctx) })
			t.Run("extract", func(t *testing.T) { d.extract(t, ctx) })
			t.Run("extract again after a kill", func(t *testing.T) { d.killed(t, ctx) })
		})
	}
}

// shops is a cluster with the databases shop and stock, of which stock lies in
// a tablespace too. Something bad happens to shop after moment.
type shops struct {
	env    *postgres.Env
	site   *walkeep.Site
	server *postgres.Server
	moment string
}

func newShops(t *testing.T, ctx context.Context, major int) *shops {
	env := postgres.New(t)
	d := &shops{env: env}
	repo := "repos:\n  - {name: repo1, filesystem: {path: " + env.TempDir(t, "repo") + "}}\n"
	var err error
	d.site, err = walkeep.NewSite(env, "cluster: hippo\n"+repo)
	require.NoError(t, err)
	d.server = env.Primary(t, postgres.Options{Major: major, Settings: d.site.ArchiveSettings()})
	require.NoError(t, d.site.Configure(fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg, conninfo: %q, pgdata: %s}\n%s",
		d.server.ConnInfo(), d.server.DataDir, repo)))
	d.server.MustExec(t, "create tablespace side location '"+env.TempDir(t, "side")+"'")
	d.server.MustExec(t, "create database shop")
	d.server.MustExec(t, "create database stock")
	d.in(t, ctx, "shop", "create table orders as select i, md5(i::text) m from generate_series(1, 5000) i")
	d.in(t, ctx, "shop", "create table notes (n text)")
	d.in(t, ctx, "stock", "create table items as select i, md5(i::text) m from generate_series(1, 50000) i; create table more tablespace side as select 1 i")
	d.site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full")
	// Replay meets pages of zeroes, with records that do not bring the page.
	d.in(t, ctx, "stock", "vacuum (freeze) items; checkpoint; delete from items where i % 7 = 0; vacuum items; insert into more values (2)")
	d.in(t, ctx, "shop", "insert into notes values ('after the backup')")
	time.Sleep(20 * time.Millisecond)
	d.moment = d.server.MustText(t, "select clock_timestamp()::text")
	time.Sleep(20 * time.Millisecond)
	d.in(t, ctx, "shop", "drop table orders")
	last, err := d.server.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, d.server.WaitArchived(ctx, last))
	return d
}

// in runs statements, each in a transaction of its own.
func (d *shops) in(t *testing.T, ctx context.Context, database, sql string) {
	t.Helper()
	conn := connectTo(t, ctx, d.server, database)
	defer conn.Close(ctx)
	for _, one := range splitStatements(sql) {
		_, err := conn.Exec(ctx, one)
		require.NoError(t, err, one)
	}
}

func splitStatements(sql string) (all []string) {
	for from, i := 0, 0; i <= len(sql); i++ {
		if i == len(sql) || sql[i] == ';' {
			all, from = append(all, sql[from:i]), i+1
		}
	}
	return all
}

func connectTo(t *testing.T, ctx context.Context, s *postgres.Server, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(ctx, s.ConnInfo()+" dbname="+database)
	require.NoError(t, err)
	return conn
}

func (d *shops) text(t *testing.T, ctx context.Context, s *postgres.Server, database, sql string) (text string) {
	t.Helper()
	conn := connectTo(t, ctx, s, database)
	defer conn.Close(ctx)
	require.NoError(t, conn.QueryRow(ctx, sql).Scan(&text), sql)
	return text
}

func (d *shops) include(t *testing.T, ctx context.Context) {
	dir := filepath.Join(d.env.TempDir(t, "clone"), "data")
	args := []string{"restore", "--pgdata", dir, "--tablespace-map-all", filepath.Join(filepath.Dir(dir), "ts"), "--target-time", d.moment}
	r := d.site.Must(t, 2, append(args, "--db-include", "shp")...)
	require.Contains(t, r.Stderr, "no such database")
	d.site.Must(t, 2, append(args, "--db-exclude", "postgres")...)
	r = d.site.Must(t, 0, append(args, "--db-include", "shop")...)
	require.Contains(t, r.Stdout, "Left out: stock.")
	if verify := d.server.Install.Path("pg_verifybackup"); fileExists(verify) {
		_, err := d.env.Run(ctx, verify, "-n", dir)
		require.NoError(t, err)
	}
	clone, err := d.env.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, clone.Start(ctx))
	defer clone.Kill9()
	require.NoError(t, clone.WaitFor(ctx, "select not pg_is_in_recovery()"))
	require.Equal(t, "5000 1", d.text(t, ctx, clone, "shop", "select (select count(*) from orders) || ' ' || (select count(*) from notes)"))
	if conn, err := pgx.Connect(ctx, clone.ConnInfo()+" dbname=stock"); err == nil {
		conn.Close(ctx)
		t.Error("a database that was left out lets itself be connected to")
	}
	clone.MustExec(t, "drop database stock")
	clone.MustExec(t, "drop tablespace side")
	require.NoError(t, clone.Restart(ctx))
	require.Equal(t, "off", clone.MustText(t, "show ignore_invalid_pages"), "for recovery only")
	require.Equal(t, "5000", d.text(t, ctx, clone, "shop", "select count(*)::text from orders"))
}

func (d *shops) extract(t *testing.T, ctx context.Context) {
	scratch := d.env.TempDir(t, "scratch")
	bindir := filepath.Dir(d.server.Install.Path("postgres"))
	args := []string{"extract", "--database", "shop", "--target-time", d.moment, "--scratch", scratch, "--bindir", bindir}
	out := filepath.Join(d.env.TempDir(t, "out"), "shop.dump")
	d.site.Must(t, 0, append(args, "--output", out)...)
	d.requireGone(t, scratch)
	list, err := d.env.Run(ctx, filepath.Join(bindir, "pg_restore"), "--list", out)
	require.NoError(t, err)
	require.Contains(t, list, "TABLE DATA public orders")
	require.Contains(t, list, "TABLE DATA public notes")

	// Into the live server: what it has is as it was, if it works or not.
	stock := d.text(t, ctx, d.server, "stock", "select count(*)::text from items")
	into := d.server.ConnInfo() + " dbname=shop"
	r := d.site.Must(t, 1, append(args, "--into", into)...)
	require.Contains(t, r.Stderr, `"notes" already exists`)
	require.Equal(t, "true", d.text(t, ctx, d.server, "shop", "select (to_regclass('orders') is null)::text"))
	d.requireGone(t, scratch)
	d.site.Must(t, 0, append(args, "--table", "orders", "--into", into)...)
	require.Equal(t, "5000 1", d.text(t, ctx, d.server, "shop", "select (select count(*) from orders) || ' ' || (select count(*) from notes)"))
	require.Equal(t, stock, d.text(t, ctx, d.server, "stock", "select count(*)::text from items"))
	d.in(t, ctx, "shop", "drop table orders")
	d.requireGone(t, scratch)

	// What cannot be.
	r = d.site.Must(t, 1, append(args, "--table", "nothing", "--output", out+"2")...)
	require.Contains(t, r.Stderr, "no matching tables")
	require.NoFileExists(t, out+"2")
	require.NoFileExists(t, out+"2.part")
	d.site.Must(t, 2, append(args, "--output", out, "--database", "shp")...)
	d.site.Must(t, 4, append(args, "--output", out, "--target-time", "2999-01-01 00:00:00Z")...)
	d.site.Must(t, 2, args...)
	d.requireGone(t, scratch)
}

func (d *shops) requireGone(t *testing.T, scratch string) {
	t.Helper()
	found, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Empty(t, found)
}

// killed kills an extract while its server recovers: the server ends too, and
// the next run removes what is left.
func (d *shops) killed(t *testing.T, ctx context.Context) {
	scratch := d.env.TempDir(t, "scratch")
	bindir := filepath.Dir(d.server.Install.Path("postgres"))
	out := filepath.Join(d.env.TempDir(t, "out"), "shop.dump")
	args := []string{"extract", "--database", "shop", "--target-time", d.moment, "--scratch", scratch, "--bindir", bindir, "--output", out}
	killed := ""
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		cmd := d.site.Command(ctx, args...)
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool {
			found, _ := filepath.Glob(filepath.Join(scratch, "walkeep-scratch-*", "data", "postmaster.pid"))
			if len(found) != 1 || found[0] == killed {
				return false
			}
			if signal == syscall.SIGKILL {
				killed = found[0]
			}
			return true
		}, time.Minute, 5*time.Millisecond)
		require.NoError(t, cmd.Process.Signal(signal))
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)
		if signal == syscall.SIGTERM {
			d.requireGone(t, scratch)
		}
	}
	require.NoError(t, os.Mkdir(filepath.Join(scratch, "walkeep-scratch-mine"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(scratch, "walkeep-scratch-mine", "x"), nil, 0o644))
	d.site.Must(t, 0, args...)
	found, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Len(t, found, 1, "what is not ours stays")
	require.FileExists(t, out)
}
