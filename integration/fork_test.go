package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
)

// TestOldPrimaryGoesOn: a primary that was replaced goes on writing, and archives
// the segment in which it was replaced before its successor has filled one. A
// standby that follows the archive must not take it; one that is told to stay on
// the old timeline does.
func TestOldPrimaryGoesOn(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			env := postgres.New(t)
			site, err := walkeep.NewSite(env, fmt.Sprintf("cluster: hippo\nrepos:\n  - name: repo1\n    filesystem: {path: %s}\n", env.TempDir(t, "repo")))
			require.NoError(t, err)
			old := env.Primary(t, postgres.Options{Major: major, SegmentSize: 1 << 20, Settings: site.ArchiveSettings()})
			old.MustExec(t, "create table t (who text)")
			successor := env.StartStandby(t, old, postgres.Options{Name: "successor", Settings: map[string]string{"archive_mode": "on"}})
			follow := func(name, timeline string) *postgres.Server {
				s, err := env.Standby(ctx, old, postgres.Options{Name: name, NotFromPrimary: true, Settings: map[string]string{
					"archive_mode": "off", "recovery_target_timeline": timeline, "wal_retrieve_retry_interval": "200ms",
					"restore_command": fmt.Sprintf(`%s --config %s get "%%f" "%%p"`, site.Programs.WAL(), site.Config),
				}})
				require.NoError(t, err)
				require.NoError(t, s.Start(ctx))
				return s
			}
			follower, stays := follow("follower", "latest"), follow("stays", "current")

			insert := func(s *postgres.Server, who string) pg.SegmentName {
				s.MustExec(t, "insert into t values ($1)", who)
				last, err := s.SwitchWAL(ctx)
				require.NoError(t, err)
				require.NoError(t, s.WaitArchived(ctx, last))
				return last
			}
			insert(old, "both")
			at, err := old.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, successor.WaitReplay(ctx, at))
			require.NoError(t, follower.WaitFor(ctx, "select count(*) = 1 from t"))
			require.NoError(t, successor.Promote(ctx))
			require.NoError(t, successor.WaitFor(ctx, "select archived_count > 0 from pg_stat_archiver")) // the history file
			insert(old, "old")
			insert(old, "old")
			// The other one shows that the segments are there to be taken.
			require.NoError(t, stays.WaitFor(ctx, "select count(*) = 3 from t"))
			require.Equal(t, "both", follower.MustText(t, "select string_agg(who, ' ' order by who) from t"))

			insert(successor, "new")
			require.NoError(t, follower.WaitFor(ctx, "select count(*) = 2 from t"))
			require.Equal(t, "both new", follower.MustText(t, "select string_agg(who, ' ' order by who) from t"))
			require.Equal(t, "both old old", stays.MustText(t, "select string_agg(who, ' ' order by who) from t"))
		})
	}
}
