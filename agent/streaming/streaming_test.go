package streaming_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/agent/streaming"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

const size pg.SegmentSize = 1 << 20

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// store is one that can be switched off.
type store struct {
	object.Store
	off atomic.Bool
}

func newStore() *store { return &store{Store: memory.New()} }

var errOff = errors.New("switched off")

func (s *store) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	if s.off.Load() {
		return object.Info{}, errOff
	}
	return s.Store.Put(ctx, key, body, o)
}

func (s *store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if s.off.Load() {
		return nil, errOff
	}
	return s.Store.Get(ctx, key, offset, length)
}

func (s *store) List(ctx context.Context, prefix string, o object.ListOptions, fn func(object.Info) error) error {
	if s.off.Load() {
		return errOff
	}
	return s.Store.List(ctx, prefix, o, fn)
}

func repositories(t *testing.T, stores ...object.Store) (all []*repo.Repository) {
	for i, s := range stores {
		r, err := repo.Open(repo.Options{Name: fmt.Sprintf("repo%d", i+1), Store: s, Cluster: "hippo"})
		require.NoError(t, err)
		all = append(all, r)
	}
	return all
}

func primary(t *testing.T, env *postgres.Env, major int) *postgres.Server {
	s := env.Primary(t, postgres.Options{Major: major, SegmentSize: size, NoFsync: true})
	s.MustExec(t, `create table t (i int, x text)`)
	return s
}

// running is a receiver at work.
type running struct {
	*streaming.Receiver
	stop func() error
}

// start runs a receiver with an interval that suits tests.
func start(t *testing.T, o streaming.Options, servers ...*postgres.Server) running {
	t.Helper()
	for _, s := range servers {
		o.Servers = append(o.Servers, streaming.Server{Name: s.Name, ConnInfo: s.ConnInfo()})
	}
	if o.Spool == "" {
		o.Spool = filepath.Join(t.TempDir(), "spool")
	}
	if o.Interval == 0 {
		o.Interval = 50 * time.Millisecond
	}
	o.Retry, o.Recheck = 300*time.Millisecond, 300*time.Millisecond
	r, err := streaming.New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return running{r, stop}
}

// caughtUp waits until the repositories (all, or those of that number) have all
// that the server has.
func (r running) caughtUp(t *testing.T, s *postgres.Server, repos ...int) {
	t.Helper()
	lsn, err := s.LSN(testContext(t))
	require.NoError(t, err)
	err = s.Poll(testContext(t), "streaming to catch up", func() (bool, error) {
		st := r.Status()
		for i, repository := range st.Repos {
			wanted := len(repos) == 0
			for _, j := range repos {
				wanted = wanted || i == j
			}
			if wanted && repository.ArchivedLSN < lsn {
				return false, fmt.Errorf("%s of %+v", lsn, st)
			}
		}
		return check(st.Connected, st)
	})
	require.NoError(t, err)
}

// check is what Poll wants: done, or what is wrong.
func check(ok bool, seen any) (bool, error) {
	if ok {
		return true, nil
	}
	return false, fmt.Errorf("%+v", seen)
}

// insert writes about n segments.
func insert(t *testing.T, s *postgres.Server, n int) {
	t.Helper()
	for range n {
		s.MustExec(t, `insert into t select i, repeat(md5(i::text), 8) from generate_series(1, 2500) i`)
	}
}

func epoch(t *testing.T, r *repo.Repository, s *postgres.Server) *repo.Epoch {
	t.Helper()
	id, err := s.SystemID(testContext(t))
	require.NoError(t, err)
	return r.Epoch(id)
}

// wantWhole requires that all segments from one to another are archived as the
// server has them in pg_wal.
func wantWhole(t *testing.T, e *repo.Epoch, s *postgres.Server, timeline pg.Timeline, from, to pg.SegmentNo) {
	t.Helper()
	for ; from <= to; from++ {
		name := size.Name(timeline, from)
		var got bytes.Buffer
		_, err := e.GetWAL(testContext(t), repo.SegmentFile(name), &got)
		require.NoError(t, err, name)
		want, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", string(name)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got.Bytes()), name)
	}
}

func partials(t *testing.T, e *repo.Epoch) []repo.Partial {
	t.Helper()
	all, err := e.Partials(testContext(t))
	require.NoError(t, err)
	return all
}

func current(t *testing.T, s *postgres.Server) pg.SegmentNo {
	t.Helper()
	lsn, err := s.LSN(testContext(t))
	require.NoError(t, err)
	return size.SegmentOf(lsn)
}

// TestStreaming: every segment arrives, the growing one as a partial that goes
// as far as the server, and of the outdated ones nothing stays.
func TestStreaming(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			env := postgres.New(t)
			p := primary(t, env, major)
			p.MustExec(t, `select pg_create_physical_replication_slot('walkeep', true)`)
			repos := repositories(t, newStore(), newStore())
			r := start(t, streaming.Options{Repos: repos, Slot: "walkeep"}, p)
			r.caughtUp(t, p)
			first := current(t, p)
			for range 6 {
				p.MustExec(t, `insert into t select i, md5(i::text) from generate_series(1, 500) i`)
				r.caughtUp(t, p)
			}
			insert(t, p, 4)
			r.caughtUp(t, p)
			_, err := p.SwitchWAL(ctx)
			require.NoError(t, err)
			p.MustExec(t, `insert into t values (1, 'after the switch')`)
			r.caughtUp(t, p)
			last := current(t, p)
			require.Greater(t, last, first+2)
			lsn, err := p.LSN(ctx)
			require.NoError(t, err)
			for _, repository := range repos {
				e := epoch(t, repository, p)
				wantWhole(t, e, p, 1, first, last-1)
				require.NoError(t, p.Poll(ctx, "one partial", func() (bool, error) {
					all := partials(t, e)
					return check(len(all) == 1, all)
				}))
				part := partials(t, e)[0]
				require.Equal(t, size.Name(1, last), part.Segment)
				require.GreaterOrEqual(t, part.ValidTo, lsn)
			}
			// The slot follows what is durable.
			require.NoError(t, p.WaitFor(ctx, fmt.Sprintf(`select restart_lsn >= '%s' from pg_replication_slots`, lsn)))
			st := r.Status()
			require.Equal(t, "walkeep", st.Slot)
			require.GreaterOrEqual(t, st.ServerLSN, lsn)
			require.Greater(t, st.Repos[0].Partials, 5)
			require.Empty(t, st.Repos[0].Error)
			require.ErrorIs(t, r.stop(), context.Canceled)
		})
	}
}

// TestPartialContent: what a partial is said to hold is what it holds.
func TestPartialContent(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := primary(t, env, 15)
	repos := repositories(t, newStore())
	r := start(t, streaming.Options{Repos: repos, Interval: time.Hour}, p)
	p.MustExec(t, `insert into t values (1, 'kept')`)
	require.NoError(t, p.Poll(ctx, "receipt", func() (bool, error) {
		lsn, err := p.LSN(ctx)
		return r.Status().Received >= lsn, err
	}))
	// An hour has not passed, but what was received is stored before the end.
	lsn, err := p.LSN(ctx)
	require.NoError(t, err)
	require.ErrorIs(t, r.stop(), context.Canceled)
	e := epoch(t, repos[0], p)
	all := partials(t, e)
	part := all[len(all)-1]
	require.GreaterOrEqual(t, part.ValidTo, lsn)
	var got bytes.Buffer
	head, err := e.GetWAL(ctx, repo.PartialFile(part.Segment, part.ValidTo), &got)
	require.NoError(t, err)
	b := append(got.Bytes(), make([]byte, int(size)-got.Len())...)
	report, err := wal.Examine(bytes.NewReader(b), part.Segment, size, wal.Options{})
	require.NoError(t, err)
	require.Equal(t, part.ValidTo, report.ValidTo)
	require.NotZero(t, head.Commits)
}

// TestConnectionLost: the primary is killed and comes back; the segment goes
// on, and the outdated partials go.
func TestConnectionLost(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 18, SegmentSize: size})
	p.MustExec(t, `create table t (i int, x text)`)
	repos := repositories(t, newStore())
	r := start(t, streaming.Options{Repos: repos}, p)
	r.caughtUp(t, p)
	first := current(t, p)
	for range 3 {
		p.MustExec(t, `insert into t select i, md5(i::text) from generate_series(1, 700) i`)
		r.caughtUp(t, p)
		require.NoError(t, p.Kill9())
		require.NoError(t, p.Poll(ctx, "the loss", func() (bool, error) { return !r.Status().Connected, nil }))
		require.NotEmpty(t, r.Status().Reason)
		require.NoError(t, p.Start(ctx))
		r.caughtUp(t, p)
	}
	insert(t, p, 2)
	r.caughtUp(t, p)
	wantWhole(t, epoch(t, repos[0], p), p, 1, first, current(t, p)-1)
	require.NoError(t, p.Poll(ctx, "one partial", func() (bool, error) {
		return len(partials(t, epoch(t, repos[0], p))) <= 1, nil
	}))
	// A shutdown does not wait for ever for a receiver.
	require.NoError(t, p.Stop(ctx, postgres.Fast))
}

// TestPromotion: the primary is lost, and with it WAL that the standby never
// had; the receiver finds the new primary.
func TestPromotion(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind=%t", behind), func(t *testing.T) {
			ctx := testContext(t)
			env := postgres.New(t)
			p := primary(t, env, 15)
			standby := env.StartStandby(t, p, postgres.Options{})
			repos := repositories(t, newStore())
			r := start(t, streaming.Options{Repos: repos}, standby, p)
			insert(t, p, 2)
			r.caughtUp(t, p)
			lsn, err := p.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitReplay(ctx, lsn))
			if behind {
				standby.MustExec(t, `alter system set primary_conninfo = ''`)
				require.NoError(t, standby.Reload(ctx))
				require.NoError(t, p.WaitFor(ctx, fmt.Sprintf(`select count(*) = 0 from pg_stat_replication where application_name = '%s'`, standby.Name)))
				p.MustExec(t, `insert into t select i, md5(i::text) from generate_series(1, 700) i`)
				r.caughtUp(t, p)
			}
			end, err := p.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, p.Kill9())
			require.NoError(t, standby.Promote(ctx))
			require.NoError(t, standby.Poll(ctx, "timeline 2", func() (bool, error) {
				st := r.Status()
				return check(st.Connected && st.Timeline == 2, st)
			}))
			insert(t, standby, 2)
			r.caughtUp(t, standby)

			e := epoch(t, repos[0], standby)
			histories, err := e.Histories(ctx)
			require.NoError(t, err)
			require.Contains(t, histories, pg.Timeline(2))
			fork := histories[2].Entries[0].End
			wantWhole(t, e, standby, 2, size.SegmentOf(fork), current(t, standby)-1)
			// All that the lost primary had is there.
			var kept repo.Partial
			for _, part := range partials(t, e) {
				if part.Segment.Timeline() == 1 {
					kept = part
				}
			}
			if behind {
				require.Less(t, fork, end)
			}
			if size.SegmentOf(end)*pg.SegmentNo(size) != pg.SegmentNo(end) {
				require.Equal(t, size.Name(1, size.SegmentOf(end)), kept.Segment)
				require.GreaterOrEqual(t, kept.ValidTo, end)
			}
		})
	}
}

// TestDeadRepository: one repository's outage is not the other's, is made up
// for when it ends, and beyond the spool's limit is given up.
func TestDeadRepository(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := primary(t, env, 15)
	good, bad := newStore(), newStore()
	repos := repositories(t, good, bad)
	r := start(t, streaming.Options{Repos: repos, Require: 1, SpoolBytes: 4 * int64(size)}, p)
	r.caughtUp(t, p)
	first := current(t, p)

	bad.off.Store(true)
	insert(t, p, 2)
	r.caughtUp(t, p, 0)
	require.NoError(t, p.Poll(ctx, "the failure", func() (bool, error) { return r.Status().Repos[1].Error != "", nil }))
	st := r.Status()
	require.Greater(t, st.Repos[1].BehindBytes, uint64(0))
	bad.off.Store(false)
	r.caughtUp(t, p)
	for _, repository := range repos {
		wantWhole(t, epoch(t, repository, p), p, 1, first, current(t, p)-1)
	}
	require.Zero(t, r.Status().Repos[1].Skipped)

	bad.off.Store(true)
	insert(t, p, 12)
	r.caughtUp(t, p, 0)
	require.NoError(t, p.Poll(ctx, "giving up", func() (bool, error) { return r.Status().Repos[1].Skipped > 0, nil }))
	bad.off.Store(false)
	r.caughtUp(t, p)
	wantWhole(t, epoch(t, repos[0], p), p, 1, first, current(t, p)-1)
	st = r.Status()
	require.Zero(t, st.Repos[0].Skipped)
	require.LessOrEqual(t, st.Waiting, 4)
}

// TestAllRepositoriesDead: with a slot the server keeps what cannot be stored,
// and can be shut down all the same.
func TestAllRepositoriesDead(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := primary(t, env, 18)
	p.MustExec(t, `select pg_create_physical_replication_slot('walkeep', true)`)
	only := newStore()
	repos := repositories(t, only)
	r := start(t, streaming.Options{Repos: repos, Slot: "walkeep", SpoolBytes: 1}, p)
	r.caughtUp(t, p)
	first := current(t, p)
	only.off.Store(true)
	insert(t, p, 6)
	require.NoError(t, p.Poll(ctx, "the full spool", func() (bool, error) {
		return strings.Contains(r.Status().Reason, "too much WAL"), nil
	}))
	require.NoError(t, p.Exec(ctx, `checkpoint`))
	only.off.Store(false)
	r.caughtUp(t, p)
	wantWhole(t, epoch(t, repos[0], p), p, 1, first, current(t, p)-1)
	only.off.Store(true)
	p.MustExec(t, `insert into t values (1, 'x')`)
	require.NoError(t, p.Stop(ctx, postgres.Fast))
	require.False(t, p.Running())
}

// TestTwoReceivers stream the same cluster into the same repository.
func TestTwoReceivers(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := primary(t, env, 15)
	standby := env.StartStandby(t, p, postgres.Options{})
	repos := repositories(t, newStore())
	one := start(t, streaming.Options{Repos: repos}, p)
	two := start(t, streaming.Options{Repos: repos}, standby)
	one.caughtUp(t, p)
	first := current(t, p)
	e := epoch(t, repos[0], p)
	for range 15 {
		p.MustExec(t, `insert into t select i, md5(i::text) from generate_series(1, 1500) i`)
		one.caughtUp(t, p)
		two.caughtUp(t, p)
		// Whatever is deleted, the longest one stays.
		lsn, err := p.LSN(ctx)
		require.NoError(t, err)
		longest := size.Start(size.SegmentOf(lsn))
		for _, part := range partials(t, e) {
			longest = max(longest, part.ValidTo)
		}
		require.GreaterOrEqual(t, longest, lsn)
	}
	wantWhole(t, e, p, 1, first, current(t, p)-1)
	require.NoError(t, p.Poll(ctx, "the outdated to be gone", func() (bool, error) {
		all := partials(t, e)
		return check(len(all) <= 2, all)
	}))
}

// TestRestart: a receiver begins where the repository ends, whatever is in its
// spool, and says so when the server has removed what is missing.
func TestRestart(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 15, SegmentSize: size, NoFsync: true, Settings: map[string]string{"wal_keep_size": "4MB", "min_wal_size": "2MB", "max_wal_size": "2MB"}})
	p.MustExec(t, `create table t (i int, x text)`)
	repos := repositories(t, newStore())
	spool := filepath.Join(t.TempDir(), "spool")
	r := start(t, streaming.Options{Repos: repos, Spool: spool}, p)
	r.caughtUp(t, p)
	first := current(t, p)
	other, err := streaming.New(streaming.Options{Repos: repos, Spool: spool, Servers: []streaming.Server{{ConnInfo: p.ConnInfo()}}})
	require.NoError(t, err)
	require.ErrorContains(t, other.Run(ctx), "another process uses it")
	insert(t, p, 1)
	r.caughtUp(t, p)
	require.ErrorIs(t, r.stop(), context.Canceled)

	insert(t, p, 2)
	require.NoError(t, os.WriteFile(filepath.Join(spool, string(size.Name(1, first+1))), []byte("nonsense of a killed process"), 0o600))
	r = start(t, streaming.Options{Repos: repos, Spool: spool}, p)
	r.caughtUp(t, p)
	e := epoch(t, repos[0], p)
	wantWhole(t, e, p, 1, first, current(t, p)-1)
	require.ErrorIs(t, r.stop(), context.Canceled)

	insert(t, p, 3)
	missing := current(t, p)
	require.NoError(t, p.Poll(ctx, "removal", func() (bool, error) {
		if err := p.Exec(ctx, `select pg_switch_wal(); checkpoint`); err != nil {
			return false, err
		}
		_, err := os.Stat(filepath.Join(p.DataDir, "pg_wal", string(size.Name(1, missing))))
		return errors.Is(err, os.ErrNotExist), nil
	}))
	r = start(t, streaming.Options{Repos: repos, Spool: spool}, p)
	r.caughtUp(t, p)
	insert(t, p, 1)
	r.caughtUp(t, p)
	holes, err := e.MissingSegments(ctx, 1, first, current(t, p)-1)
	require.NoError(t, err)
	require.Contains(t, holes, missing)
}

func TestOptions(t *testing.T) {
	repos := repositories(t, newStore())
	server := []streaming.Server{{ConnInfo: "host=nowhere"}}
	for _, o := range []streaming.Options{
		{},
		{Repos: repos, Spool: "x"},
		{Servers: server, Spool: "x"},
		{Servers: server, Repos: repos},
		{Servers: server, Repos: repos, Spool: "x", Require: 2},
	} {
		_, err := streaming.New(o)
		require.Error(t, err)
	}
}

// TestOtherCluster: a server of another cluster is not streamed from.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	env := postgres.New(t)
	p := primary(t, env, 15)
	repos := repositories(t, newStore())
	r := start(t, streaming.Options{Repos: repos, SystemID: 42}, p)
	require.NoError(t, p.Poll(testContext(t), "the refusal", func() (bool, error) {
		return strings.Contains(r.Status().Reason, "not 42"), nil
	}))
	require.Empty(t, partials(t, epoch(t, repos[0], p)))
}
