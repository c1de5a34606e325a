package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/repo"
)

// acknowledged are the rows whose commit the client was told of, one every few
// milliseconds.
type acknowledged struct {
	mu sync.Mutex
	at []time.Time // of row i
}

func (a *acknowledged) rows() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// write inserts rows until the server is gone.
func (a *acknowledged) write(s *postgres.Server) {
	conn, err := s.Connect(context.Background())
	if err != nil {
		return
	}
	defer conn.Close(context.Background()) //nolint:errcheck // the server is gone
	for i := 0; ; i++ {
		if _, err := conn.Exec(context.Background(), `insert into t values ($1)`, i); err != nil {
			return
		}
		a.mu.Lock()
		a.at = append(a.at, time.Now())
		a.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

// TestStreamingLosesSeconds: a streaming agent and the only node die at once,
// in the middle of a segment, and the node's disk with them. What is restored
// has all but the last moments.
func TestStreamingLosesSeconds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	env := postgres.New(t)
	dir := env.TempDir(t, "repo1")
	yaml := func(s *postgres.Server, pgdata, more string) string {
		return fmt.Sprintf(`cluster: hippo
postgres: {nodes: [{name: pg-0, conninfo: "%s", pgdata: %s}]}
%srepos: [{name: repo1, filesystem: {path: %s}}]
`, s.ConnInfo(), pgdata, more, dir)
	}
	p, err := env.InitDB(ctx, postgres.Options{Major: 15, SegmentSize: 16 << 20})
	require.NoError(t, err)
	site, err := walkeep.NewSite(env, yaml(p, p.DataDir, ""))
	require.NoError(t, err)
	require.NoError(t, p.Configure(site.ArchiveSettings()))
	require.NoError(t, p.Start(ctx))
	p.MustExec(t, `create table t (i int)`)
	site.Must(t, 0, "backup", "--repo", "repo1")
	e := epochIn(t, dir, p)

	// On another machine: no data directory there.
	elsewhere, err := walkeep.NewSite(env, yaml(p, "/nonexistent/pgdata", fmt.Sprintf("archive: {stream: true, stream-interval: 1s, stream-spool: %s}\n", env.TempDir(t, "spool"))))
	require.NoError(t, err)
	agent := elsewhere.Start(t, "agent", "agent", "--stream-only")

	var rows acknowledged
	writing := make(chan struct{})
	go func() { rows.write(p); close(writing) }()
	longest := func() (best repo.Partial) {
		all, err := e.Partials(ctx)
		require.NoError(t, err)
		for _, part := range all {
			if part.ValidTo > best.ValidTo {
				best = part
			}
		}
		return best
	}
	// Till rows that were told of are stored, in a segment that is not finished.
	require.NoError(t, p.Poll(ctx, "rows", func() (bool, error) { return rows.rows() >= 200, nil }))
	lsn, err := p.LSN(ctx)
	require.NoError(t, err)
	certain := 200
	require.NoError(t, p.Poll(ctx, "their storage", func() (bool, error) { return longest().ValidTo >= lsn, nil }))
	time.Sleep(1500 * time.Millisecond) // into the middle of an interval
	agent.Kill(syscall.SIGKILL)
	died := time.Now()
	require.NoError(t, p.Kill9())
	<-writing
	require.NoError(t, os.RemoveAll(p.DataDir))

	restored := func(name string, withPartial bool) int {
		clone := filepath.Join(env.TempDir(t, name), "data")
		site.Must(t, 0, "restore", "--pgdata", clone)
		if withPartial {
			part := longest()
			require.NotEmpty(t, part.Segment)
			site.Must(t, 0, "wal", "get", string(part.Segment)+".partial", filepath.Join(clone, "pg_wal", string(part.Segment)))
		}
		s, err := env.Open(clone, map[string]string{"archive_mode": "off"})
		require.NoError(t, err)
		require.NoError(t, s.Start(ctx))
		require.NoError(t, s.WaitFor(ctx, `select not pg_is_in_recovery()`))
		var n int
		require.NoError(t, s.Scan(ctx, `select count(*) from t`, &n))
		gaps := s.MustText(t, `select count(*) from generate_series(0, (select max(i) from t)) i where not exists (select from t where t.i = i.i)`)
		require.Equal(t, "0", gaps)
		require.NoError(t, s.Stop(ctx, postgres.Fast))
		return n
	}
	without := restored("without", false)
	with := restored("with", true)
	told := rows.rows()
	lost := max(0, told-with)
	since := time.Duration(0)
	if lost > 0 {
		since = died.Sub(rows.at[with])
	}
	t.Logf("told of %d rows: %d restored from whole segments, %d with the partial: %d rows, %s lost", told, without, with, lost, since.Round(time.Millisecond))
	require.GreaterOrEqual(t, with, certain)
	require.Less(t, without, with)
}
