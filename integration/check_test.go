package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

// TestCheck runs `walkeep check` on a primary and a standby that archive
// through walkeep-wal: as it should be, with a repository that is not mounted,
// and with an archive_command that fails.
func TestCheck(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	env := postgres.New(t)
	one, two := env.TempDir(t, "one"), env.TempDir(t, "two")
	repos := fmt.Sprintf("repos:\n  - {name: repo1, filesystem: {path: %s}}\n  - {name: repo2, filesystem: {path: %s}}\n", one, two)
	site, err := walkeep.NewSite(env, "cluster: hippo\n"+repos)
	require.NoError(t, err)
	settings := site.ArchiveSettings()
	settings["archive_mode"] = "always"
	primary := env.Primary(t, postgres.Options{Checksums: true, Settings: settings})
	standby := env.StartStandby(t, primary, postgres.Options{})
	nodes := fmt.Sprintf("postgres:\n  nodes:\n    - {name: a, conninfo: %q, pgdata: %s}\n    - {name: b, conninfo: %q}\n",
		primary.ConnInfo(), primary.DataDir, standby.ConnInfo())
	require.NoError(t, site.Configure("cluster: hippo\n"+nodes+repos))

	for range 2 {
		out := site.Must(t, 0, "check").Stdout
		require.Regexp(t, `ok +arrival repo1 +after`, out)
		require.Regexp(t, `ok +arrival repo2 +after`, out)
		require.Regexp(t, `(?m)^all \d+ checks passed$`, out)
	}

	// Not mounted: the segment still arrives in the other one.
	require.NoError(t, os.Rename(two, two+".away"))
	begun := time.Now()
	out := site.Must(t, 1, "check").Stdout
	require.Regexp(t, `FAILED +reachable .*not mounted`, out)
	require.Regexp(t, `ok +arrival repo1 +after`, out)
	require.Regexp(t, `skipped +arrival repo2`, out)
	require.Less(t, time.Since(begun), time.Minute)
	require.NoError(t, os.Rename(two+".away", two))
	require.NoError(t, primary.WaitFor(ctx, "select last_failed_time is null or last_archived_time > last_failed_time from pg_stat_archiver"))

	// archive_command that fails.
	require.NoError(t, primary.Configure(map[string]string{"archive_command": "false walkeep %p"}))
	require.NoError(t, primary.Reload(ctx))
	require.NoError(t, standby.Configure(map[string]string{"archive_command": "false walkeep %p"}))
	require.NoError(t, standby.Reload(ctx))
	out = site.Must(t, 1, "check", "--timeout", "4s").Stdout
	require.Regexp(t, `FAILED +arrival repo1 .*did not arrive within 4s`, out)
	require.Contains(t, out, "The archiver of a fails")
}
