package difference

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestVisibilityFlags: VACUUM marks pages as all visible. Without checksums and
// wal_log_hints that moves no page's LSN, so that the scan of LSNs must not rely
// on them: a page without its flag below a visibility map that has it makes
// index-only scans return deleted rows.
func TestVisibilityFlags(t *testing.T) {
	for _, hints := range []string{"off", "on"} {
		t.Run("wal_log_hints "+hints, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			rng := rand.New(rand.NewPCG(1, 1))
			w := newWorld(t, 15, map[string]string{"wal_log_hints": hints}, false)
			w.server.MustExec(t, `create extension pg_visibility;
				create table v (i int primary key, x text) with (autovacuum_enabled = off);
				insert into v select g, repeat('v', 100) from generate_series(1, 5000) g`)
			w.full = w.backup(t, ctx, rng, "full", "")
			w.server.MustExec(t, "vacuum v")
			r := w.site.Must(t, 0, "backup", "--type", "incremental", "--detect", "scan")
			w.server.MustExec(t, "select pg_create_restore_point('flags')")
			last, err := w.server.SwitchWAL(ctx)
			require.NoError(t, err)
			require.NoError(t, w.server.WaitArchived(ctx, last))
			clone := w.restore(t, ctx, r.LastLine(), "flags")
			require.NoError(t, clone.Start(ctx))
			require.Equal(t, []string{"0"}, query(t, ctx, clone, "postgres", "select count(*)::text from pg_check_visible('v')"))
			clone.MustExec(t, "delete from v where i between 10 and 4990")
			clone.MustExec(t, "alter database postgres set enable_seqscan = off; alter database postgres set enable_bitmapscan = off")
			got := query(t, ctx, clone, "postgres", "select count(*)::text from v where i > 0")
			require.Equal(t, []string{fmt.Sprint(5000 - 4981)}, got)
		})
	}
}
