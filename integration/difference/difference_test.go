package difference

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
)

var (
	soak = flag.Duration("soak", 0, "go on for so long, chain after chain")
	seed = flag.Uint64("seed", 0, "the seed of the first chain (0: with -soak by the clock, else a fixed one)")
	only = flag.Int("major", 0, "one version of PostgreSQL only")
)

func TestMain(m *testing.M) {
	code := m.Run()
	walkeep.Clean()
	os.Exit(code)
}

func TestDifference(t *testing.T) {
	majors := []int{15, 17}
	if *soak > 0 {
		majors = []int{15, 17, 18}
	}
	if *only != 0 {
		majors = []int{*only}
	}
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			for n := uint64(0); ; n++ {
				s := firstSeed() + n
				t.Run(fmt.Sprint(s), func(t *testing.T) { chain(t, major, s, "files") })
				if time.Since(began) >= *soak || t.Failed() {
					return
				}
			}
		})
	}
}

// TestDifferenceOverSQL: the same where the files are read through the server.
func TestDifferenceOverSQL(t *testing.T) {
	t.Parallel()
	s := firstSeed()
	t.Run(fmt.Sprint(s), func(t *testing.T) { chain(t, 17, s, "sql") })
}

// firstSeed is fixed in a test run, so that what it goes through is nearly the
// same each time; a soak explores.
func firstSeed() uint64 {
	switch {
	case *seed != 0:
		return *seed
	case *soak > 0:
		return uint64(time.Now().UnixNano())
	}
	return 20261127
}

// world is a primary that is worked on, and a repository.
type world struct {
	env    *postgres.Env
	site   *walkeep.Site
	repo   string
	server *postgres.Server // the primary
	major  int
	source string // how backups read
	full   string // label
	links  []link

	moving    bool // there is a standby, which is backed up, and takes over now and then
	standby   *postgres.Server
	failovers int
}

// link is one backup of the chain, and a moment after it.
type link struct{ label, point string }

// chain takes a full backup and backups on it, on a cluster that is worked on,
// and then looks at each.
func chain(t *testing.T, major int, seed uint64, source string) {
	ctx, cancel := context.WithTimeout(context.Background(), max(15*time.Minute, *soak))
	defer cancel()
	rng := rand.New(rand.NewPCG(seed, uint64(major)))
	w := newWorld(t, major, map[string]string{"wal_log_hints": []string{"on", "off"}[rng.IntN(2)], "archive_mode": "always"}, rng.IntN(2) == 0)
	w.source = source
	links := 3
	w.moving = major == 17 && source == "files"
	switch {
	case *soak > 0:
		links = 3 + rng.IntN(6)
		w.moving = rng.IntN(2) == 0 && source == "files"
	case source == "sql":
		links = 2
	}
	if w.moving {
		w.follow(t)
	}
	w.full = w.backup(t, ctx, rng, "full", "")
	for n := range links {
		w.work(ctx, rng, 12)
		switch {
		case w.moving && n%2 == 1:
			w.failover(t, ctx, rng)
		case rng.IntN(4) == 0:
			require.NoError(t, w.server.Kill9())
			require.NoError(t, w.server.Start(ctx))
		}
		kind := []string{"incremental", "incremental", "differential"}[rng.IntN(3)]
		label := w.backup(t, ctx, rng, kind, w.rung(rng))
		w.work(ctx, rng, 4)
		point := fmt.Sprintf("point%d", n)
		w.server.MustExec(t, "select pg_create_restore_point('"+point+"')")
		w.links = append(w.links, link{label, point})
	}
	last, err := w.server.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, w.server.WaitArchived(ctx, last))
	if w.moving {
		// A standby that took over may have a whole segment for which nobody calls
		// archive_command: if the old primary ended it early and died while it was
		// sending the rest of it. An agent would have found it.
		w.site.Must(t, 0, "wal", "push", filepath.Join(w.server.DataDir, "pg_wal"))
	}
	for _, l := range w.links {
		w.compare(t, ctx, l)
	}
}

func newWorld(t *testing.T, major int, more map[string]string, checksums bool) *world {
	w := &world{env: postgres.New(t), major: major, source: "files"}
	w.repo = w.env.TempDir(t, "repo")
	var err error
	w.site, err = walkeep.NewSite(w.env, "cluster: hippo\n"+w.repos())
	require.NoError(t, err)
	settings := w.site.ArchiveSettings()
	for k, v := range map[string]string{
		"autovacuum": "off", "max_prepared_transactions": "5", "full_page_writes": "on", "checkpoint_timeout": "30s",
	} {
		settings[k] = v
	}
	maps.Copy(settings, more)
	if major >= 17 {
		settings["summarize_wal"] = "on"
	}
	w.server = w.env.Primary(t, postgres.Options{Major: major, Checksums: checksums, NoFsync: true, Settings: settings})
	w.configure(t)
	w.server.MustExec(t, fmt.Sprintf("create tablespace side location '%s'", w.env.TempDir(t, "space")))
	w.server.MustExec(t, setup)
	return w
}

func (w *world) repos() string {
	return "repos:\n  - {name: repo1, filesystem: {path: " + w.repo + "}, compression: {codec: lz4}}\n"
}

// configure names the servers that there are: a standby is backed up rather
// than its primary.
func (w *world) configure(t *testing.T) {
	var nodes strings.Builder
	for _, s := range []*postgres.Server{w.server, w.standby} {
		if s != nil {
			fmt.Fprintf(&nodes, "    - {name: %s, conninfo: %q, pgdata: %s}\n", s.Name, s.ConnInfo(), s.DataDir)
		}
	}
	require.NoError(t, w.site.Configure("cluster: hippo\npostgres:\n  nodes:\n"+nodes.String()+w.repos()))
}

// follow makes a standby.
func (w *world) follow(t *testing.T) {
	name := fmt.Sprintf("follower%d", w.failovers)
	w.standby = w.env.StartStandby(t, w.server, postgres.Options{Name: name, Slot: name, NoFsync: true})
	w.configure(t)
}

// failover kills the primary, with or without WAL that the standby has not
// received, and has the standby take over.
func (w *world) failover(t *testing.T, ctx context.Context, rng *rand.Rand) {
	if rng.IntN(2) == 0 {
		lsn, err := w.server.LSN(ctx)
		require.NoError(t, err)
		require.NoError(t, w.standby.WaitReplay(ctx, lsn))
	}
	require.NoError(t, w.server.Kill9())
	// What is still replayed may cancel the session that asks.
	require.NoError(t, w.standby.Poll(ctx, "promotion", func() (bool, error) {
		_ = w.standby.Exec(ctx, `select pg_promote(false)`)
		text, err := w.standby.Text(ctx, `select pg_is_in_recovery()`)
		return text == "f", err
	}))
	w.server, w.failovers = w.standby, w.failovers+1
	w.follow(t)
}

// settle brings a standby to where a backup of it has something new to begin at.
func (w *world) settle(t *testing.T, ctx context.Context) {
	w.server.MustExec(t, "checkpoint")
	lsn, err := w.server.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, w.standby.WaitReplay(ctx, lsn))
	w.standby.MustExec(t, "checkpoint")
}

// rung is the one to force, or "" for the best.
func (w *world) rung(rng *rand.Rand) string {
	rungs := []string{"", "changes", "scan"}
	if w.major >= 17 {
		rungs = append(rungs, "summaries")
	}
	return rungs[rng.IntN(len(rungs))]
}

// backup takes a backup while the cluster is worked on.
func (w *world) backup(t *testing.T, ctx context.Context, rng *rand.Rand, kind, detect string) string {
	busy, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	if rng.IntN(2) == 0 {
		beside := rand.New(rand.NewPCG(rng.Uint64(), 0))
		all.Go(func() { w.work(busy, beside, 1000) })
	}
	if w.standby != nil {
		w.settle(t, ctx)
	}
	args := []string{"backup", "--type", kind, "--source", w.source}
	var r walkeep.Result
	if detect != "" {
		var err error
		r, err = w.site.Run(ctx, append(args, "--detect", detect)...)
		require.NoError(t, err)
		// Not every rung can be had on a standby, or from before a failover.
		if w.moving && r.Code != 0 && strings.Contains(r.Stderr, "changes cannot be detected by") {
			t.Logf("by %q: %s", detect, strings.TrimSpace(r.Stderr))
			detect = ""
		} else {
			require.Zero(t, r.Code, r)
		}
	}
	if detect == "" {
		r = w.site.Must(t, 0, args...)
	}
	stop()
	all.Wait()
	t.Logf("%s by %q: %s", kind, detect, strings.TrimSpace(r.Stderr))
	return r.LastLine()
}

// compare restores a link to its moment, from it and from the full backup.
func (w *world) compare(t *testing.T, ctx context.Context, l link) {
	one, two := w.restore(t, ctx, l.label, l.point), w.restore(t, ctx, w.full, l.point)
	differ, err := comparePages(one.DataDir, two.DataDir)
	require.NoError(t, err)
	if len(differ) > 0 {
		t.Logf("%s at %s, before it is known what matters:\n%s", l.label, l.point, short(differ))
		known := w.usable(t, ctx, one, differ)
		t.Logf("%d of %d differences are in files of relations; all:\n%s", len(known), len(differ), short(differ))
		differ = known
	}
	if len(differ) > 0 {
		if keep := os.Getenv("WALKEEP_TEST_KEEP"); keep != "" {
			_ = os.Rename(one.DataDir, filepath.Join(keep, "one"))
			_ = os.Rename(two.DataDir, filepath.Join(keep, "two"))
			_ = os.Rename(w.repo, filepath.Join(keep, "repo"))
		}
		t.Fatalf("%s at %s is not as the full backup at that moment:\n%s", l.label, l.point, short(differ))
	}
	rows := w.rows(t, ctx, one)
	require.Equal(t, w.rows(t, ctx, two), rows, l.label)
	w.sound(t, ctx, one)
	for _, s := range []*postgres.Server{one, two} {
		_ = s.Stop(ctx, postgres.Immediate)
		_ = os.RemoveAll(filepath.Dir(s.DataDir))
	}
}

// usable leaves out files that the server does not know: no relation of a
// database that can be used lies in them. Some ways to stop half way leave such
// files in one place and not in the other: a DROP DATABASE that is killed has
// removed files before it writes a record that says so (dbcommands.c, dropdb),
// an ALTER DATABASE SET TABLESPACE that is cancelled in its last checkpoint removes
// the copy that its record tells replay to make, and tells nobody (movedb).
func (w *world) usable(t *testing.T, ctx context.Context, s *postgres.Server, differ []string) []string {
	require.NoError(t, s.Start(ctx))
	known := map[string]bool{}
	var broken []string // databases that cannot be asked, which is what is looked for here
	for _, db := range query(t, ctx, s, "postgres", databases) {
		paths, err := tryQuery(ctx, s, db, `select pg_relation_filepath(oid) from pg_class where pg_relation_filepath(oid) is not null`)
		if err != nil {
			t.Logf("database %s: %v", db, err)
			broken = append(broken, query(t, ctx, s, "postgres", `select oid::text from pg_database where datname = '`+db+`'`)...)
		}
		for _, path := range paths {
			known[path] = true
		}
	}
	closed := query(t, ctx, s, "postgres", `select oid::text from pg_database where not datallowconn and datconnlimit <> -2`)
	require.NoError(t, s.Stop(ctx, postgres.Fast))
	return slices.DeleteFunc(slices.Clone(differ), func(line string) bool {
		path, _, _ := strings.Cut(line, ":")
		dir, file := filepath.Split(path)
		first, _, _ := strings.Cut(file, ".")
		return !known[dir+first] && !slices.Contains(closed, filepath.Base(dir)) && !slices.Contains(broken, filepath.Base(dir))
	})
}

// sound has the server look at every table and B-tree: do the visibility map and
// the heap agree, the heap with itself, the indexes with the heap?
func (w *world) sound(t *testing.T, ctx context.Context, s *postgres.Server) {
	checks := []string{
		`select format('%s: not all visible: %s', c.oid::regclass, v.t_ctid) from pg_class c, lateral pg_check_visible(c.oid) v
			where relkind in ('r', 't') and relpersistence = 'p'`,
		`select format('%s: not all frozen: %s', c.oid::regclass, v.t_ctid) from pg_class c, lateral pg_check_frozen(c.oid) v
			where relkind in ('r', 't') and relpersistence = 'p'`,
		`select * from (select bt_index_check(c.oid, true)::text as said from pg_class c join pg_index i on i.indexrelid = c.oid
			where relkind = 'i' and relam = 403 and indisvalid and relpersistence = 'p' offset 0) x where said <> ''`,
	}
	if w.major >= 14 {
		checks = append(checks, `select format('%s: %s', c.oid::regclass, v.msg) from pg_class c, lateral verify_heapam(c.oid) v
			where relkind in ('r', 't') and relpersistence = 'p'`)
	}
	for _, db := range query(t, ctx, s, "postgres", databases) {
		conn, err := pgx.Connect(ctx, s.ConnInfoFor("postgres", db))
		require.NoError(t, err)
		_, err = conn.Exec(ctx, `create extension if not exists amcheck; create extension if not exists pg_visibility`)
		require.NoError(t, errors.Join(err, conn.Close(ctx)))
		for _, sql := range checks {
			require.Empty(t, query(t, ctx, s, db, sql), "%s: %s", db, sql)
		}
	}
}

// databases are those that can be looked into: not those that a DROP DATABASE
// was killed in (dbcommands.c, DATCONNLIMIT_INVALID_DB).
const databases = `select datname from pg_database where datallowconn and datconnlimit <> -2 order by 1`

// restore restores a backup to a restore point and returns a server that was
// promoted there and has stopped.
func (w *world) restore(t *testing.T, ctx context.Context, label, point string) *postgres.Server {
	dir := filepath.Join(w.env.TempDir(t, "clone"), "data")
	w.site.Must(t, 0, "restore", "--pgdata", dir, "--backup", label, "--target-name", point, "--target-action", "promote",
		"--tablespace-map-all", filepath.Join(filepath.Dir(dir), "spaces"))
	if _, err := os.Stat(w.server.Install.Path("pg_verifybackup")); err == nil {
		_, err := w.env.Run(ctx, w.server.Install.Path("pg_verifybackup"), "-n", dir)
		require.NoError(t, err)
	}
	settings := map[string]string{"autovacuum": "off", "fsync": "off"}
	if w.major >= 17 {
		settings["summarize_wal"] = "off"
	}
	s, err := w.env.Open(dir, settings)
	require.NoError(t, err)
	require.NoError(t, s.Start(ctx))
	// No session before the pages are compared: the first one on a promoted
	// server sets hint bits and prunes catalogs, one server here, the other
	// there, and with checksums or wal_log_hints that moves the pages' LSNs.
	require.NoError(t, waitPromoted(ctx, s))
	require.NoError(t, s.Stop(ctx, postgres.Fast))
	return s
}

// waitPromoted waits until a server has left recovery, as pg_control says it.
func waitPromoted(ctx context.Context, s *postgres.Server) error {
	for {
		running := s.Running()
		c, err := pg.ReadControl(s.DataDir)
		if err == nil && c.State == pg.StateProduction {
			return nil
		}
		if !running {
			return fmt.Errorf("the server of %s ended before it was promoted", s.DataDir)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for promotion of %s: %w (%v)", s.DataDir, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// rows is a digest of every table of every database.
func (w *world) rows(t *testing.T, ctx context.Context, s *postgres.Server) []string {
	require.NoError(t, s.Start(ctx))
	var sums []string
	for _, db := range query(t, ctx, s, "postgres", databases) {
		tables := query(t, ctx, s, db, `select format('%I.%I', nspname, relname) from pg_class c join pg_namespace n on n.oid = relnamespace
			where relkind = 'r' and relpersistence = 'p' and nspname not like 'pg_toast%' and nspname <> 'information_schema'
			and relname not in ('pg_statistic', 'pg_stat_io') order by 1`)
		for _, table := range tables {
			for _, sum := range query(t, ctx, s, db, `select count(*) || ' ' || coalesce(sum(hashtext(x::text)), 0) from `+table+` x`) {
				sums = append(sums, db+" "+table+" "+sum)
			}
		}
	}
	sort.Strings(sums)
	return sums
}

func query(t *testing.T, ctx context.Context, s *postgres.Server, db, sql string) []string {
	list, err := tryQuery(ctx, s, db, sql)
	require.NoError(t, err, "%s: %s", db, sql)
	return list
}

func tryQuery(ctx context.Context, s *postgres.Server, db, sql string) ([]string, error) {
	conn, err := pgx.Connect(ctx, s.ConnInfoFor("postgres", db))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
