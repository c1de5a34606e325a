package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
)

// TestTargets restores one history to every kind of target, and lets the
// server be the judge.
func TestTargets(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			s := newSteps(t, ctx, major)
			for _, c := range s.reachable() {
				t.Run(c.name, func(t *testing.T) {
					clone := s.restore(t, c.args...)
					require.NoError(t, clone.Start(ctx))
					c.check(t, ctx, clone)
					require.NoError(t, clone.Kill9())
				})
			}
			t.Run("unreachable", s.unreachable)
			t.Run("branches", func(t *testing.T) { s.branches(t, ctx) })
		})
	}
}

// steps is a table that got one row per transaction, five in all after a
// backup that has two, and what is known about each row.
type steps struct {
	env    *postgres.Env
	site   *walkeep.Site
	server *postgres.Server
	label  string
	rows   []step
	marks  []string // LSNs of the restore points
	end    pg.LSN
}

type step struct {
	committed time.Time // as the server says
	after     time.Time // between this commit and the next one
	lsn       pg.LSN    // right after the commit
	xid       string
}

const stepsInBackup = 2

func newSteps(t *testing.T, ctx context.Context, major int) *steps {
	env := postgres.New(t)
	s := &steps{env: env}
	repo := "repos:\n  - {name: repo1, filesystem: {path: " + env.TempDir(t, "repo") + "}}\n"
	var err error
	s.site, err = walkeep.NewSite(env, "cluster: hippo\n"+repo)
	require.NoError(t, err)
	settings := s.site.ArchiveSettings()
	settings["track_commit_timestamp"] = "on"
	s.server = env.Primary(t, postgres.Options{Major: major, Checksums: true, Settings: settings})
	require.NoError(t, s.site.Configure(fmt.Sprintf("cluster: hippo\npostgres:\n  nodes:\n    - {name: pg, conninfo: %q, pgdata: %s}\n%s",
		s.server.ConnInfo(), s.server.DataDir, repo)))
	s.server.MustExec(t, "create table steps (i int primary key)")
	s.row(t, ctx, s.server)
	s.row(t, ctx, s.server)
	s.label = s.site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full").LastLine()
	for i := range 5 {
		s.row(t, ctx, s.server)
		if i == 2 || i == 3 {
			s.marks = append(s.marks, s.server.MustText(t, "select pg_create_restore_point('it''s the mark')"))
		}
		if i == 3 {
			_, err := s.server.SwitchWAL(ctx)
			require.NoError(t, err)
		}
	}
	s.flush(t, ctx, s.server)
	return s
}

// row inserts the next row and notes what can be aimed at.
func (s *steps) row(t *testing.T, ctx context.Context, server *postgres.Server) {
	conn, err := server.Connect(ctx)
	require.NoError(t, err)
	defer conn.Close(ctx)
	var one step
	require.NoError(t, conn.QueryRow(ctx, "insert into steps select coalesce(max(i), 0) + 1 from steps returning xmin::text").Scan(&one.xid))
	require.NoError(t, conn.QueryRow(ctx, "select pg_xact_commit_timestamp(xmin) from steps order by i desc limit 1").Scan(&one.committed))
	one.lsn, err = server.LSN(ctx)
	require.NoError(t, err)
	time.Sleep(20 * time.Millisecond)
	require.NoError(t, conn.QueryRow(ctx, "select clock_timestamp()").Scan(&one.after))
	time.Sleep(20 * time.Millisecond)
	s.rows = append(s.rows, one)
}

func (s *steps) flush(t *testing.T, ctx context.Context, server *postgres.Server) {
	last, err := server.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, server.WaitArchived(ctx, last))
	s.end, err = server.LSN(ctx)
	require.NoError(t, err)
}

// restore restores into a new directory.
func (s *steps) restore(t *testing.T, args ...string) *postgres.Server {
	t.Helper()
	dir := filepath.Join(s.env.TempDir(t, "clone"), "data")
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(dir)) })
	s.site.Must(t, 0, append([]string{"restore", "--pgdata", dir}, args...)...)
	if verify := s.server.Install.Path("pg_verifybackup"); fileExists(verify) {
		_, err := s.env.Run(context.Background(), verify, "-n", dir)
		require.NoError(t, err)
	}
	clone, err := s.env.Open(dir, nil)
	require.NoError(t, err)
	return clone
}

func fileExists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

type targetCase struct {
	name  string
	args  []string
	check func(*testing.T, context.Context, *postgres.Server)
}

func (s *steps) reachable() []targetCase {
	third := s.rows[stepsInBackup] // the first after the backup
	fourth := s.rows[stepsInBackup+1]
	stamp := func(at time.Time) string { return at.Format("2006-01-02 15:04:05.999999-07:00") }
	return []targetCase{
		{"end", nil, promotedWith(7)},
		{"immediate", []string{"--target-immediate"}, promotedWith(2)},
		{"time", []string{"--target-time", stamp(third.after)}, promotedWith(3)},
		{"time, action promote", []string{"--target-time", stamp(fourth.after), "--target-action", "promote"}, promotedWith(4)},
		{"commit time", []string{"--target-time", stamp(fourth.committed)}, promotedWith(4)},
		{"commit time, exclusive", []string{"--target-time", stamp(fourth.committed), "--exclusive"}, promotedWith(3)},
		{"LSN", []string{"--target-lsn", fourth.lsn.String()}, promotedWith(4)},
		{"LSN, exclusive", []string{"--target-lsn", third.lsn.String(), "--exclusive"}, promotedWith(3)},
		{"transaction", []string{"--target-xid", fourth.xid}, promotedWith(4)},
		{"transaction, exclusive", []string{"--target-xid", fourth.xid, "--exclusive"}, promotedWith(3)},
		{"first of two restore points", []string{"--target-name", "it's the mark"}, promotedWith(5)},
		{"pause", []string{"--target-time", stamp(third.after), "--target-action", "pause"}, pausedWith(3)},
		{"settings", []string{"--set", "work_mem=5MB", "--set", "cluster_name=it's \\ a clone"}, func(t *testing.T, ctx context.Context, clone *postgres.Server) {
			promotedWith(7)(t, ctx, clone)
			require.Equal(t, "5MB", clone.MustText(t, "show work_mem"))
			require.Equal(t, `it's \ a clone`, clone.MustText(t, "show cluster_name"))
		}},
	}
}

func promotedWith(rows int) func(*testing.T, context.Context, *postgres.Server) {
	return func(t *testing.T, ctx context.Context, clone *postgres.Server) {
		t.Helper()
		require.NoError(t, clone.WaitFor(ctx, "select not pg_is_in_recovery()"))
		require.Equal(t, fmt.Sprint(rows), clone.MustText(t, "select count(*)::text from steps"))
		require.Equal(t, "off", clone.MustText(t, "show archive_mode"))
	}
}

func pausedWith(rows int) func(*testing.T, context.Context, *postgres.Server) {
	return func(t *testing.T, ctx context.Context, clone *postgres.Server) {
		t.Helper()
		require.NoError(t, clone.WaitFor(ctx, "select pg_is_wal_replay_paused()"))
		require.Equal(t, fmt.Sprint(rows), clone.MustText(t, "select count(*)::text from steps"))
		require.Equal(t, "true", clone.MustText(t, "select pg_is_in_recovery()::text"))
	}
}

// unreachable asks for what is not there: nothing may be touched, and what can
// be reached is told to people and programs.
func (s *steps) unreachable(t *testing.T) {
	dir := filepath.Join(s.env.TempDir(t, "clone"), "data")
	for _, target := range [][]string{
		{"--target-time", "2999-01-01 00:00:00Z"},
		{"--target-time", s.rows[0].committed.Format(time.RFC3339Nano)},
		{"--target-time", s.rows[6].committed.Format("2006-01-02 15:04:05.999999-07:00")},
		{"--target-lsn", "FF/0"},
		{"--target-lsn", s.rows[0].lsn.String()},
		{"--target-lsn", s.end.String()},
		{"--target-name", "never made"},
		{"--target-xid", "3"},
		{"--target-xid", "99999999"},
		{"--target-timeline", "9"},
	} {
		args := append([]string{"restore", "--pgdata", dir}, target...)
		r := s.site.Must(t, 4, args...)
		require.Contains(t, r.Stderr, "what can be reached", target)
		require.Contains(t, r.Stderr, "repo1, timeline 1", target)
		require.NoDirExists(t, dir)
		r = s.site.Must(t, 4, append(args, "--json")...)
		var told struct {
			Unreachable struct {
				Refusals []struct {
					Windows []struct{ Earliest, Latest time.Time }
				}
			}
		}
		require.NoError(t, json.Unmarshal([]byte(r.Stdout), &told), r.Stdout)
		// What is offered instead is true.
		w := told.Unreachable.Refusals[0].Windows[0]
		for _, at := range []time.Time{w.Earliest, w.Latest} {
			s.site.Must(t, 0, "restore", "--pgdata", dir, "--dry-run", "--target-time", at.Format(time.RFC3339Nano))
		}
	}
	s.site.Must(t, 3, "restore", "--pgdata", dir, "--backup", "20200101-000000F")
	s.site.Must(t, 2, "restore", "--pgdata", dir, "--repo", "repo9")
	s.site.Must(t, 2, "restore", "--pgdata", dir, "--target-lsn", "0/1", "--target-immediate")
	s.site.Must(t, 2, "restore")
	require.NoDirExists(t, dir)
}

// branches lets a clone archive: then there are two histories of the same
// hours, and each can be restored.
func (s *steps) branches(t *testing.T, ctx context.Context) {
	third := s.rows[stepsInBackup]
	clone := s.restore(t, "--target-time", third.after.Format(time.RFC3339Nano), "--archive-mode", "keep")
	require.NoError(t, clone.Start(ctx))
	require.NoError(t, clone.WaitFor(ctx, "select not pg_is_in_recovery()"))
	s.row(t, ctx, clone)
	clone.MustExec(t, "insert into steps values (100)")
	s.flush(t, ctx, clone)
	s.drawn(t, clone)
	require.NoError(t, clone.Kill9())

	for _, c := range []targetCase{
		{"latest", nil, promotedWith(5)},
		{"by number", []string{"--target-timeline", "1"}, promotedWith(7)},
		{"of the backup", []string{"--target-timeline", "current"}, promotedWith(7)},
	} {
		t.Run(c.name, func(t *testing.T) {
			again := s.restore(t, c.args...)
			require.NoError(t, again.Start(ctx))
			c.check(t, ctx, again)
			require.NoError(t, again.Kill9())
		})
	}
	// A moment that both have: the newest timeline is taken, with a word.
	dir := filepath.Join(s.env.TempDir(t, "clone"), "data")
	r := s.site.Must(t, 0, "restore", "--pgdata", dir, "--dry-run", "--target-time", s.rows[4].after.Format(time.RFC3339Nano))
	require.Contains(t, r.Stdout, "--target-timeline 1")
}

// drawn looks at walkeep timeline after a clone went its own way: what it says is
// what the servers say.
func (s *steps) drawn(t *testing.T, clone *postgres.Server) {
	var told struct {
		Repos []struct {
			Timelines []struct {
				Timeline, Parent pg.Timeline
				Fork             pg.LSN
				Backups          []struct{ Label string }
				RestorePoints    []struct{ Name, LSN string } `json:"restore_points"`
				LastCommit       time.Time                    `json:"last_commit"`
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(s.site.Must(t, 0, "timeline", "--json").Stdout), &told))
	both := told.Repos[0].Timelines
	require.Len(t, both, 2)
	one, two := both[0], both[1]
	require.Len(t, one.Backups, 1)
	require.Equal(t, s.label, one.Backups[0].Label)
	var marks []string // without those that end segments in tests
	for _, p := range one.RestorePoints {
		if p.Name == "it's the mark" {
			marks = append(marks, p.LSN)
		}
	}
	require.Equal(t, s.marks, marks)
	require.WithinDuration(t, s.rows[6].committed, one.LastCommit, 0)

	history, err := os.ReadFile(filepath.Join(clone.DataDir, "pg_wal", "00000002.history"))
	require.NoError(t, err)
	at := strings.Fields(string(history))[1]
	require.Equal(t, pg.Timeline(1), two.Parent)
	require.Equal(t, at, two.Fork.String())
	last := clone.MustText(t, "select to_char(pg_xact_commit_timestamp(xmin) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') from steps where i = 100")
	require.Equal(t, last, two.LastCommit.UTC().Format(time.DateTime))

	// The same for people.
	text := s.site.Must(t, 0, "timeline").Stdout
	require.Contains(t, text, "timeline 2, left timeline 1 at "+at)
	require.Equal(t, 2, strings.Count(text, `restore point "it's the mark"`))
	require.Less(t, strings.Index(text, s.label), strings.Index(text, "timeline 2"))
	require.Less(t, strings.Index(text, "timeline 2"), strings.Index(text, s.marks[0]))
}
