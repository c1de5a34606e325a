package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/ports"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestNight types the recipes of docs/restore.md as they stand there into a
// shell, one disaster after the other, with the paths of a test in place of the
// page's.
func TestNight(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	n := newNight(t, ctx)
	orders := func() string { return n.sql("shop", "select count(*) from orders") }

	n.types("A")
	require.Equal(t, "100", orders())
	n.sql("shop", "drop table orders")
	n.types("G")
	require.Equal(t, "100", orders())

	n.sql("shop", "insert into orders values (-1); create table since (i int)")
	n.types("B")
	require.Equal(t, "100", orders())
	require.Equal(t, "t", n.sql("shop", "select to_regclass('since') is null"))

	// The server loses files, and what it wrote last is in its pg_wal only.
	n.sql("shop", "insert into orders values (101); checkpoint; insert into orders values (102)")
	for _, name := range []string{"1262", "1260"} {
		require.NoError(t, os.Truncate(filepath.Join(n.data, "global", name), 4096))
	}
	n.types("C")
	require.Equal(t, "102", orders())

	// The machine is gone.
	n.archive()
	n.run("pg_ctl -D /pgdata stop -m immediate && rm -r /pgdata")
	n.types("D")
	require.Equal(t, "102", orders())

	// A standby from the repository takes over while the primary goes on; then
	// that one follows it.
	n.archive()
	n.types("F")
	// The page: when it is open.
	n.run("psql -p 5433 -c 'alter system reset archive_mode' && pg_ctl -D /standby -l /tmp/standby.log restart && walkeep wal push /standby/pg_wal")
	n.sql("shop", "insert into orders values (-2)")
	n.run(`psql -p 5433 shop -c 'insert into orders values (103)'`)
	// The primary archives what it wrote since; the one that took over has not
	// filled a segment yet.
	n.archive()
	n.types("E")
	n.becomes("shop", "select pg_is_in_recovery() and count(*) = 103 and min(i) = 1 from orders", "t")
	n.becomes("shop", "select count(*) from pg_stat_wal_receiver where status = 'streaming'", "1")
	require.Empty(t, n.recipes, "recipes that nobody types")
}

// night is docs/restore.md and the cluster that its recipes are for.
type night struct {
	t       *testing.T
	ctx     context.Context //nolint:containedctx // of the test
	env     *postgres.Env
	recipes map[string]string // by letter, those that were not typed yet
	page    *strings.Replacer
	data    string
	log     string
	vars    []string
	moment  string
}

// newNight makes a cluster with a backup, and a table that was dropped after the
// moment that the page restores to.
func newNight(t *testing.T, ctx context.Context) *night {
	env := postgres.New(t)
	n := &night{t: t, ctx: ctx, env: env, recipes: map[string]string{}}
	text, err := os.ReadFile("../docs/restore.md")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?ms)^## ([A-Z]): .*?^```sh\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		n.recipes[m[1]] = m[2]
	}
	room, port, clone := env.TempDir(t, "night"), ports.For(t).String(), ports.For(t).String()
	n.log = filepath.Join(room, "typed.log")
	for _, dir := range []string{"run", "tmp", "big", "repo"} {
		require.NoError(t, os.Mkdir(filepath.Join(room, dir), 0o700))
		require.NoError(t, env.Own(filepath.Join(room, dir)))
	}
	socket := filepath.Join(room, "run")
	yaml := func(data string) string {
		return fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg-0, conninfo: \"host=%s port=%s user=postgres\", pgdata: %s}\n"+
			"repos:\n  - {name: repo1, filesystem: {path: %s}}\n", socket, port, data, filepath.Join(room, "repo"))
	}
	site, err := walkeep.NewSite(env, yaml("/nonexistent"))
	require.NoError(t, err)
	server, err := env.InitDB(ctx, postgres.Options{Major: postgres.DebianMajor, Checksums: true, Settings: site.ArchiveSettings()})
	require.NoError(t, err)
	n.data = server.DataDir
	require.NoError(t, site.Configure(yaml(n.data)))
	require.NoError(t, server.Configure(map[string]string{"port": port, "unix_socket_directories": socket}))
	// The programs lie in one directory, as they do where they are installed.
	n.vars = []string{
		"PATH=" + filepath.Dir(site.Programs.Walkeep()) + ":" + server.Install.BinDir + ":" + os.Getenv("PATH"),
		"WALKEEP_CONFIG=" + site.Config, "PGHOST=" + socket, "PGPORT=" + port, "PGUSER=postgres",
	}
	n.page = strings.NewReplacer(
		"'host=pg-1 user=replicator passfile=/var/lib/postgresql/.pgpass'", fmt.Sprintf("'host=%s port=%s user=postgres'", socket, clone),
		"/var/run/postgresql", socket, "5433", clone, " /pgdata", " "+n.data, " /clone", " "+room+"/clone", " /standby", " "+room+"/standby",
		"/bigdisk", room+"/big", "/tmp/", room+"/tmp/", "2026-11-22 14:30:00+00", "$MOMENT")
	t.Cleanup(func() {
		for _, dir := range []string{"/pgdata", "/clone", "/standby"} {
			n.run("pg_ctl -D " + dir + " stop -m immediate || true")
		}
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(room, "tmp", "*.log"))
			for _, path := range append(logs, n.log) {
				b, _ := os.ReadFile(path)
				t.Logf("%s:\n%s", path, b)
			}
		}
	})
	n.run("pg_ctl -D /pgdata -l /tmp/first.log start && createdb shop")
	n.sql("shop", "create table orders as select i from generate_series(1, 99) i")
	n.run("walkeep backup --repo repo1 --type full")
	n.sql("shop", "insert into orders values (100)")
	moment := n.sql("shop", "select clock_timestamp() from pg_sleep(0.1)")
	n.moment = moment
	n.sql("shop", "drop table orders")
	n.archive()
	return n
}

// types runs the recipe of a letter.
func (n *night) types(letter string) {
	n.t.Helper()
	text, ok := n.recipes[letter]
	require.True(n.t, ok, "no recipe %s", letter)
	delete(n.recipes, letter)
	n.run(text)
}

// run runs lines of the page in a shell that ends at the first failure. The
// output goes to a file: servers that are started keep it open.
func (n *night) run(text string) {
	n.t.Helper()
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(n.t, err)
	defer out.Close()
	script := strings.ReplaceAll(n.page.Replace(text), "$MOMENT", n.moment)
	_, _ = fmt.Fprintf(out, "----\n%s\n", script)
	cmd := n.env.Command(context.WithoutCancel(n.ctx), "bash", "-euo", "pipefail", "-c", script)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(cmd.Env, n.vars...)
	require.NoError(n.t, cmd.Run(), "%s", script)
}

// sql runs statements on the main server, and returns what the last one says.
func (n *night) sql(database, sql string) string {
	n.t.Helper()
	out, err := n.ask(database, sql)
	require.NoError(n.t, err, sql)
	return out
}

func (n *night) ask(database, sql string) (string, error) {
	cmd := n.env.Command(n.ctx, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql)
	cmd.Env = append(cmd.Env, n.vars...)
	out, err := cmd.Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], err
}

// becomes waits for an answer.
func (n *night) becomes(database, sql, want string) {
	n.t.Helper()
	var got string
	var err error
	for n.ctx.Err() == nil {
		if got, err = n.ask(database, sql); err == nil && got == want {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	require.Fail(n.t, "not in time", "%s: %q, %v", sql, got, err)
}

// archive ends the segment and waits until it is archived.
func (n *night) archive() {
	n.t.Helper()
	last := n.sql("shop", "select pg_walfile_name(pg_switch_wal())")
	n.becomes("shop", "select last_archived_wal >= '"+last+"' from pg_stat_archiver", "t")
}
