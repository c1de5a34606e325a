package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestDrill rehearses restores that work and some that do not.
func TestDrill(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			drills(t, ctx, major)
		})
	}
}

func drills(t *testing.T, ctx context.Context, major int) {
	env := postgres.New(t)
	store, scratch := env.TempDir(t, "repo"), env.TempDir(t, "scratch")
	repo := "repos:\n  - {name: repo1, filesystem: {path: " + store + "}}\n"
	site, err := walkeep.NewSite(env, "cluster: hippo\n"+repo)
	require.NoError(t, err)
	server := env.Primary(t, postgres.Options{Major: major, Checksums: true, Settings: site.ArchiveSettings()})
	configure := func(check string) {
		t.Helper()
		require.NoError(t, site.Configure(fmt.Sprintf(`cluster: hippo
postgres:
  nodes:
    - {name: pg, conninfo: %q, pgdata: %s}
drills:
  scratch: %s
  bindir: %s
  amcheck: %v
  checks:
    - {name: count, database: postgres, sql: %q}
%s`, server.ConnInfo(), server.DataDir, scratch, filepath.Dir(server.Install.Path("postgres")), server.Install.Path("pg_amcheck") != "", check, repo)))
	}
	configure("select count(*) between 1000 and 3000 from t")
	site.Must(t, 3, "drill")
	server.MustExec(t, "create table t as select i from generate_series(1, 1000) i; create index on t (i)")
	label := site.Must(t, 0, "backup", "--repo", "repo1", "--type", "full").LastLine()
	for i := range 3 {
		server.MustExec(t, fmt.Sprintf("insert into t select i from generate_series(%d, %d) i", 2000+i, 2000+i))
	}
	last, err := server.SwitchWAL(ctx)
	require.NoError(t, err)
	require.NoError(t, server.WaitArchived(ctx, last))

	r := site.Must(t, 0, "drill")
	require.Contains(t, r.Stdout, "drill of the newest moment passed: backup "+label)
	r = site.Must(t, 0, "drill", "--random", "--json")
	require.Contains(t, r.Stdout, `"target"`)
	require.Contains(t, site.Must(t, 0, "list").Stdout, "passed: backup "+label)

	// The user's own check says no; list shows that, and the last one that passed.
	configure("select false")
	r = site.Must(t, 1, "drill")
	require.Contains(t, r.Stderr, "count: it yields false")
	r = site.Must(t, 0, "list")
	require.Contains(t, r.Stdout, "drill of the newest moment FAILED: count: it yields false")
	require.Regexp(t, `drill of 20.* passed`, r.Stdout)
	configure("select nothing")
	require.Contains(t, site.Must(t, 1, "drill").Stderr, `column "nothing" does not exist`)
	configure("select true")

	// A backup that cannot be restored any more.
	packs, err := filepath.Glob(filepath.Join(store, "*", "*", "backup", label, "pack", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, packs)
	require.NoError(t, os.Truncate(packs[0], 100))
	site.Must(t, 6, "drill")
	var told struct {
		Repos []struct {
			Drills []struct {
				Error  string
				Checks []struct{ Name, Error string }
			}
		}
	}
	r = site.Must(t, 0, "list", "--json")
	require.NoError(t, json.Unmarshal([]byte(r.Stdout), &told))
	all := told.Repos[0].Drills
	require.Len(t, all, 5) // the first one had nothing to restore
	require.NotEmpty(t, all[4].Error)
	require.Empty(t, all[4].Checks)
	found, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Empty(t, found)
}
