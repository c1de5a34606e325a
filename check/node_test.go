package check

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// archiver carries what archive_command copied into a directory on to
// repositories, in place of the programs that this package does not know.
type archiver struct {
	dir   string
	repos []*repo.Repository
	mu    sync.Mutex // guards done
	done  map[string]bool
}

// command is the archive_command.
func (a *archiver) command() string {
	return fmt.Sprintf(`cp "%%p" '%[1]s/%%f.tmp' && mv '%[1]s/%%f.tmp' '%[1]s/%%f' # walkeep-wal`, a.dir)
}

func startArchiver(t *testing.T, env *postgres.Env, repos ...*repo.Repository) *archiver {
	a := &archiver{dir: env.TempDir(t, "archive"), repos: repos, done: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			a.pass(ctx)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return a
}

func (a *archiver) pass(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	entries, _ := os.ReadDir(a.dir)
	for _, e := range entries {
		name, err := pg.ParseSegmentName(e.Name())
		if err != nil || a.done[e.Name()] {
			continue
		}
		b, err := os.ReadFile(filepath.Join(a.dir, e.Name()))
		if err != nil {
			continue
		}
		w, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{})
		if err != nil {
			continue
		}
		for _, r := range a.repos {
			if r.Init(ctx) != nil {
				continue
			}
			epoch, err := r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: w.SystemID, PGMajor: w.Major, SegmentSize: w.SegmentSize})
			if err != nil {
				continue
			}
			_ = epoch.PutWAL(ctx, repo.WALHead{
				Kind: repo.WALKind(pg.FileSegment), Name: string(name), SystemID: w.SystemID, Timeline: w.Timeline, SegmentSize: w.SegmentSize,
				PGMajor: w.Major, XXH3: w.Digest.String(), Length: w.Length, Start: w.Start, ValidTo: w.ValidTo, Complete: true,
			}, bytes.NewReader(b))
		}
		a.done[e.Name()] = true
	}
}

// TestHealthyCluster: all that is well is said to be well, on every version.
func TestHealthyCluster(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			env := postgres.New(t)
			id, err := age.GenerateX25519Identity()
			require.NoError(t, err)
			keys, err := repo.NewKeys(repo.KeyOptions{Identity: id.String()})
			require.NoError(t, err)
			plain, encrypted := openRepo(t, memory.New(), nil), openRepo(t, memory.New(), keys)
			a := startArchiver(t, env, plain, encrypted)
			p := env.Primary(t, postgres.Options{Major: major, Checksums: true, SegmentSize: 1 << 20, Settings: map[string]string{
				"archive_mode": "always", "archive_command": a.command(),
			}})
			s := env.StartStandby(t, p, postgres.Options{Settings: map[string]string{"archive_command": "true # walkeep-wal %p"}})
			o := Options{
				Cluster: "hippo", Repos: []*repo.Repository{plain, encrypted},
				Nodes: []Node{{Name: "a", ConnInfo: p.ConnInfo(), PGData: p.DataDir}, {Name: "b", ConnInfo: s.ConnInfo()}},
			}
			for range 2 { // the second time the server is idle and the repositories known
				r := Run(t.Context(), o)
				require.Equal(t, OK, r.Status, text(t, r))
				require.NoError(t, r.Err())
				arrived := 0
				for _, section := range r.Sections {
					for _, c := range section.Checks {
						require.Equal(t, OK, c.Status, "%s: %s", c.label(), c.Detail)
						if c.Name == "arrival" {
							arrived++
						}
					}
				}
				require.Equal(t, 2, arrived)
			}
		})
	}
}

func nodeReport(t *testing.T, o Options) Report {
	t.Helper()
	o.Cluster = "hippo"
	r := Run(t.Context(), o)
	requireAdvice(t, r)
	return r
}

func TestPrivileges(t *testing.T) {
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{})
	p.MustExec(t, "create role walkeep login")
	o := Options{NoSwitch: true, Nodes: []Node{{Name: "a", ConnInfo: p.ConnInfoFor("walkeep", "postgres")}}}
	r := nodeReport(t, o)
	c := find(t, r, "privilege", Failed)
	require.Contains(t, c.Target, "pg_backup_start")
	find(t, r, "privilege", Warning)
	find(t, r, "pgdata", Warning)
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if c.Name == "privilege" {
				_, sql, ok := strings.Cut(c.Advice, ": ")
				require.True(t, ok)
				p.MustExec(t, sql)
			}
		}
	}
	r = nodeReport(t, o)
	find(t, r, "privileges", OK)
	find(t, r, "pgdata", OK)
}

func TestSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		settings map[string]string
		check    string
		status   Status
		advice   string
	}{
		"nothing archived":    {map[string]string{}, "archive_mode", Failed, "archive_mode = always"},
		"no command":          {map[string]string{"archive_mode": "on"}, "archive_command", Failed, "walkeep-wal push"},
		"command of others":   {map[string]string{"archive_mode": "on", "archive_command": "cp %p /somewhere"}, "archive_command", Warning, "walkeep-wal push"},
		"no path":             {map[string]string{"archive_mode": "on", "archive_command": "walkeep-wal push"}, "archive_command", Failed, "%p"},
		"library":             {map[string]string{"archive_mode": "on", "archive_library": "basic_archive"}, "archive_library", Failed, "archive_library = ''"},
		"minimal":             {map[string]string{"wal_level": "minimal", "max_wal_senders": "0"}, "wal_level", Failed, "wal_level = replica"},
		"full_page_writes":    {map[string]string{"full_page_writes": "off"}, "full_page_writes", Warning, "full_page_writes = on"},
		"without checksums":   {map[string]string{}, "data_checksums", Warning, "pg_checksums"},
		"archiver that fails": {map[string]string{"archive_mode": "on", "archive_command": `: walkeep "%p"; false`}, "arrival", Failed, "archiver of a fails"},
		"archiver not found":  {map[string]string{"archive_mode": "on", "archive_command": "/nowhere/walkeep-wal push %p"}, "arrival", Failed, "exit code 127"},
		"archiver elsewhere":  {map[string]string{"archive_mode": "on", "archive_command": `: walkeep "%p"`}, "arrival", Failed, "another place"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := postgres.New(t)
			p := env.Primary(t, postgres.Options{Settings: tc.settings, NoFsync: true})
			r := nodeReport(t, Options{
				NoSwitch: tc.check != "arrival", ArchiveTimeout: 3 * time.Second,
				Nodes: []Node{{Name: "a", ConnInfo: p.ConnInfo()}}, Repos: []*repo.Repository{openRepo(t, memory.New(), nil)},
			})
			c := find(t, r, tc.check, tc.status)
			require.Contains(t, c.Advice, tc.advice)
		})
	}
}

func TestClusterOfSeveral(t *testing.T) {
	ctx := t.Context()
	env := postgres.New(t)
	a := env.Primary(t, postgres.Options{Settings: map[string]string{"archive_mode": "on", "archive_command": "true # walkeep %p", "full_page_writes": "off"}})
	b := env.StartStandby(t, a, postgres.Options{})
	nodes := []Node{{Name: "a", ConnInfo: a.ConnInfo()}, {Name: "b", ConnInfo: b.ConnInfo()}}

	r := nodeReport(t, Options{NoSwitch: true, Nodes: nodes})
	require.Equal(t, "a", find(t, r, "primary", OK).Detail)
	require.Contains(t, find(t, r, "archive_mode", Warning).Advice, "always")
	find(t, r, "full_page_writes", Failed)

	r = nodeReport(t, Options{Nodes: nodes[1:]})
	find(t, r, "primary", Warning)
	find(t, r, "wal_switch", Skipped)

	// The data directory of one and the connection of the other.
	r = nodeReport(t, Options{NoSwitch: true, Nodes: []Node{{Name: "a", ConnInfo: a.ConnInfo(), PGData: b.DataDir}}})
	require.Contains(t, find(t, r, "pgdata", Failed).Detail, b.DataDir)
	r = nodeReport(t, Options{NoSwitch: true, Nodes: []Node{{Name: "a", ConnInfo: a.ConnInfo(), PGData: "/nowhere/data"}}})
	find(t, r, "pgdata", Skipped)

	// Two primaries, and then one that is not there.
	require.NoError(t, b.Promote(ctx))
	r = nodeReport(t, Options{Nodes: nodes})
	require.Contains(t, find(t, r, "primary", Failed).Detail, "a and b")
	find(t, r, "wal_switch", Skipped)
	require.NoError(t, b.Stop(ctx, postgres.Fast))
	r = nodeReport(t, Options{NoSwitch: true, Nodes: nodes})
	require.Contains(t, find(t, r, "connection", Failed).Advice, "Is the server running")
	find(t, r, "primary", OK)

	// Another cluster, and a repository of another.
	other := env.Primary(t, postgres.Options{})
	r = nodeReport(t, Options{NoSwitch: true, Nodes: []Node{nodes[0], {Name: "c", ConnInfo: other.ConnInfo()}}})
	find(t, r, "system_identifier", Failed)
	foreign := openRepo(t, memory.New(), nil)
	require.NoError(t, foreign.Init(ctx))
	_, err := foreign.EnsureEpoch(ctx, repo.EpochInfo{SystemID: 42, PGMajor: 15, SegmentSize: pg.DefaultSegmentSize})
	require.NoError(t, err)
	r = nodeReport(t, Options{NoSwitch: true, Nodes: nodes[:1], Repos: []*repo.Repository{foreign}})
	require.Contains(t, find(t, r, "epoch", Warning).Detail, "42")
	id, err := a.SystemID(ctx)
	require.NoError(t, err)
	_, err = foreign.EnsureEpoch(ctx, repo.EpochInfo{SystemID: id, PGMajor: 15, SegmentSize: 1 << 20})
	require.NoError(t, err)
	r = nodeReport(t, Options{NoSwitch: true, Nodes: nodes[:1], Repos: []*repo.Repository{foreign}})
	find(t, r, "epoch", Failed)
}

func TestExclusiveBackupAndClock(t *testing.T) {
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 13})
	p.MustExec(t, "select pg_start_backup('forgotten', true)")
	ahead := func() time.Time { return time.Now().Add(time.Hour) }
	r := nodeReport(t, Options{NoSwitch: true, Clock: ahead, Nodes: []Node{{Name: "a", ConnInfo: p.ConnInfo()}}})
	require.Contains(t, find(t, r, "exclusive_backup", Warning).Advice, "pg_stop_backup")
	require.Contains(t, find(t, r, "clock", Failed).Detail, "1h0m0s")
}
