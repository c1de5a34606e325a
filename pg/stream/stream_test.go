package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
)

const testSize pg.SegmentSize = 1 << 20

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, s *postgres.Server, o Options) *Conn {
	t.Helper()
	c, err := Connect(testContext(t), s.ConnInfo(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func primary(t *testing.T, env *postgres.Env, major int) *postgres.Server {
	return env.Primary(t, postgres.Options{Major: major, SegmentSize: testSize, NoFsync: true, Settings: map[string]string{"wal_keep_size": "64MB"}})
}

// write fills about n segments.
func write(t *testing.T, s *postgres.Server, n int) {
	t.Helper()
	s.MustExec(t, `create table if not exists t (x text)`)
	for range n {
		s.MustExec(t, `insert into t select repeat(md5(i::text), 8) from generate_series(1, 2500) i`)
	}
}

// segmentAt is the segment that the server is in.
func segmentAt(t *testing.T, s *postgres.Server, timeline pg.Timeline) pg.SegmentName {
	t.Helper()
	lsn, err := s.LSN(testContext(t))
	require.NoError(t, err)
	return testSize.Name(timeline, testSize.SegmentOf(lsn))
}

func file(t *testing.T, s *postgres.Server, name pg.SegmentName) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", string(name)))
	require.NoError(t, err)
	return b
}

// TestSegments streams from primaries and standbys what lies in their pg_wal.
func TestSegments(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			env := postgres.New(t)
			p := primary(t, env, major)
			standby := env.StartStandby(t, p, postgres.Options{})
			first := segmentAt(t, p, 1)
			write(t, p, 3)
			ctx := testContext(t)
			_, err := p.SwitchWAL(ctx)
			require.NoError(t, err)
			last := segmentAt(t, p, 1)
			n, err := last.Number(testSize)
			require.NoError(t, err)
			require.Greater(t, last, first)
			require.NoError(t, standby.WaitReplay(ctx, testSize.Start(n)))
			for _, s := range []*postgres.Server{p, standby} {
				from, err := first.Number(testSize)
				require.NoError(t, err)
				for ; from < n; from++ {
					name := testSize.Name(1, from)
					var got bytes.Buffer
					require.NoError(t, connect(t, s, Options{}).Segment(ctx, name, &got), name)
					require.True(t, bytes.Equal(file(t, p, name), got.Bytes()), name)
				}
				var got bytes.Buffer
				require.ErrorIs(t, connect(t, s, Options{}).Segment(ctx, testSize.Name(1, n+1), &got), ErrEndsEarly)
				require.ErrorIs(t, connect(t, s, Options{}).Segment(ctx, testSize.Name(7, n-1), &got), ErrNotOnPath)

				c := connect(t, s, Options{})
				sys, err := c.Identify(ctx)
				require.NoError(t, err)
				id, err := p.SystemID(ctx)
				require.NoError(t, err)
				require.Equal(t, id, sys.SystemID)
				require.Equal(t, pg.Timeline(1), sys.Timeline)
				size, err := c.SegmentSize(ctx)
				require.NoError(t, err)
				require.Equal(t, testSize, size)
				_, err = c.History(ctx, 5)
				require.ErrorIs(t, err, fs.ErrNotExist)
				_, err = c.Identify(ctx) // the connection survives that
				require.NoError(t, err)
				_, err = c.Start(ctx, Start{Timeline: 1, LSN: sys.Flushed + 1<<30})
				require.ErrorIs(t, err, ErrNotOnPath)
				failing := errors.New("full")
				require.ErrorIs(t, c.Segment(ctx, first, writer(func([]byte) (int, error) { return 0, failing })), failing)
			}
		})
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// TestPromotion follows a standby through its promotion, onto the next timeline.
func TestPromotion(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			env := postgres.New(t)
			p := primary(t, env, major)
			standby := env.StartStandby(t, p, postgres.Options{})
			c := connect(t, standby, Options{})
			sys, err := c.Identify(ctx)
			require.NoError(t, err)
			start := testSize.Start(testSize.SegmentOf(sys.Flushed))
			s, err := c.Start(ctx, Start{Timeline: 1, LSN: start})
			require.NoError(t, err)

			ends := make(chan error, 1)
			var got bytes.Buffer
			go func() {
				for {
					m, err := s.Next(ctx)
					if err != nil {
						ends <- err
						return
					}
					got.Write(m.Data)
				}
			}()
			write(t, p, 2)
			lsn, err := p.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitReplay(ctx, lsn))
			require.NoError(t, p.Kill9())
			require.NoError(t, standby.Promote(ctx))
			standby.MustExec(t, `select pg_switch_wal()`) // a walsender that waits notices with new WAL
			err = <-ends
			var end *TimelineEnd
			require.ErrorAs(t, err, &end)
			require.Equal(t, pg.Timeline(2), end.Next)
			require.Equal(t, s.At(), end.At)
			require.GreaterOrEqual(t, end.At, lsn)
			require.Equal(t, int(end.At-start), got.Len())
			_, err = s.Next(ctx)
			require.ErrorAs(t, err, &end)

			history, err := c.Ancestry(ctx, 2)
			require.NoError(t, err)
			require.Equal(t, end.At, history.Entries[0].End)
			b, err := c.History(ctx, 2)
			require.NoError(t, err)
			onDisk, err := os.ReadFile(filepath.Join(standby.DataDir, "pg_wal", "00000002.history"))
			require.NoError(t, err)
			require.Equal(t, string(onDisk), string(b))

			// Timeline 2 from the beginning of its first segment, a part of
			// which is timeline 1's.
			write(t, standby, 2)
			n := testSize.SegmentOf(end.At)
			var second bytes.Buffer
			require.NoError(t, connect(t, standby, Options{}).Segment(ctx, testSize.Name(2, n), &second))
			require.True(t, bytes.Equal(file(t, standby, testSize.Name(2, n)), second.Bytes()))
			// The same one on timeline 1 ends before it is whole.
			require.ErrorIs(t, connect(t, standby, Options{}).Segment(ctx, testSize.Name(1, n), io.Discard), ErrEndsEarly)
			s, err = c.Start(ctx, Start{Timeline: 2, LSN: testSize.Start(n)})
			require.NoError(t, err)
			m, err := s.Next(ctx)
			require.NoError(t, err)
			require.NotEmpty(t, m.Data)
			// A start behind the switch point, on the timeline that ended.
			_, err = connect(t, standby, Options{}).Start(ctx, Start{Timeline: 1, LSN: end.At + pg.LSN(testSize)})
			require.ErrorIs(t, err, ErrNotOnPath)
			_, err = connect(t, standby, Options{}).Start(ctx, Start{Timeline: 1, LSN: end.At})
			require.ErrorAs(t, err, &end)
		})
	}
}

// drain reads until the stream ends.
func drain(ctx context.Context, s *Stream) error {
	for {
		if _, err := s.Next(ctx); err != nil {
			return err
		}
	}
}

func streaming(t *testing.T, srv *postgres.Server, o Options, slot string) (*Conn, *Stream) {
	t.Helper()
	ctx := testContext(t)
	c := connect(t, srv, o)
	sys, err := c.Identify(ctx)
	require.NoError(t, err)
	s, err := c.Start(ctx, Start{Timeline: sys.Timeline, LSN: testSize.Start(testSize.SegmentOf(sys.Flushed)), Slot: slot})
	require.NoError(t, err)
	return c, s
}

// TestServerEnds: killed, stopped in order, and stopped in its tracks.
func TestServerEnds(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := primary(t, env, 15)

	_, s := streaming(t, p, Options{}, "")
	ended := make(chan error, 1)
	go func() { ended <- drain(ctx, s) }()
	write(t, p, 1)
	require.NoError(t, p.Kill9())
	err := <-ended
	require.ErrorIs(t, err, server.ErrConnectionLost)
	require.NotErrorIs(t, err, ErrShutdown)

	// A fast shutdown waits for what we reply.
	require.NoError(t, p.Start(ctx))
	_, s = streaming(t, p, Options{}, "")
	go func() { ended <- drain(ctx, s) }()
	write(t, p, 1)
	require.NoError(t, p.Stop(ctx, postgres.Fast))
	err = <-ended
	require.ErrorIs(t, err, server.ErrConnectionLost)
	require.ErrorIs(t, err, ErrShutdown)

	// A walsender that says nothing any more.
	require.NoError(t, p.Start(ctx))
	_, s = streaming(t, p, Options{Silence: time.Second, Status: 100 * time.Millisecond}, "")
	require.NoError(t, p.WaitFor(ctx, `select count(*) = 1 from pg_stat_replication where state = 'streaming'`))
	pid, err := strconv.Atoi(p.MustText(t, `select pid from pg_stat_replication`))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // it is killed with the server
	require.ErrorIs(t, drain(ctx, s), server.ErrConnectionLost)
}

// TestContext: a wait that ends leaves the stream usable.
func TestContext(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := primary(t, env, 18)
	_, s := streaming(t, p, Options{Silence: 2 * time.Second, Status: 50 * time.Millisecond}, "")
	because := errors.New("tick")
	for range 20 {
		short, cancel := context.WithTimeoutCause(ctx, 20*time.Millisecond, because)
		_, err := s.Next(short)
		cancel()
		if err != nil {
			require.ErrorIs(t, err, because)
		}
	}
	// An idle server is kept talking for longer than it may be silent.
	until, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	require.ErrorIs(t, drain(until, s), context.DeadlineExceeded)
	p.MustExec(t, `select pg_logical_emit_message(false, 'test', repeat('x', 100000))`)
	lsn, err := p.LSN(ctx)
	require.NoError(t, err)
	for s.At() < lsn {
		_, err := s.Next(ctx)
		require.NoError(t, err)
	}
}

func TestRemoved(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			env := postgres.New(t)
			p := env.Primary(t, postgres.Options{Major: major, SegmentSize: testSize, NoFsync: true, Settings: map[string]string{"wal_keep_size": "0", "min_wal_size": "2MB", "max_wal_size": "2MB"}})
			first := segmentAt(t, p, 1)
			write(t, p, 6)
			require.NoError(t, p.Poll(ctx, "removal of "+string(first), func() (bool, error) {
				if err := p.Exec(ctx, `select pg_switch_wal(); checkpoint`); err != nil {
					return false, err
				}
				_, err := os.Stat(filepath.Join(p.DataDir, "pg_wal", string(first)))
				return errors.Is(err, fs.ErrNotExist), nil
			}))
			err := connect(t, p, Options{}).Segment(ctx, first, io.Discard)
			require.ErrorIs(t, err, ErrRemoved)
			var removed *RemovedError
			require.ErrorAs(t, err, &removed)
			require.Greater(t, removed.Oldest, first)
			require.GreaterOrEqual(t, removed.Newest, removed.Oldest)
			require.Contains(t, err.Error(), "it still has "+string(removed.Oldest))

			// One that may stream and nothing more does not hear what is left.
			p.MustExec(t, `create role streamer login replication`)
			c, err := Connect(ctx, p.ConnInfoFor("streamer", "postgres"), Options{})
			require.NoError(t, err)
			defer c.Close() //nolint:errcheck // a test's end
			require.ErrorAs(t, c.Segment(ctx, first, io.Discard), &removed)
			require.Empty(t, removed.Oldest)

			p.MustExec(t, `create role nobody login`)
			_, err = Connect(ctx, p.ConnInfoFor("nobody", "postgres"), Options{})
			require.ErrorIs(t, err, server.ErrConnect)
			require.ErrorContains(t, err, `ALTER ROLE "nobody" REPLICATION`)
		})
	}
}

func TestSlot(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	env := postgres.New(t)
	p := primary(t, env, 15)
	c := connect(t, p, Options{})
	sys, err := c.Identify(ctx)
	require.NoError(t, err)
	start := Start{Timeline: 1, LSN: testSize.Start(testSize.SegmentOf(sys.Flushed))}
	for _, name := range []string{"there_is_none", `x" PHYSICAL 0/0; drop`} {
		start.Slot = name
		_, err = connect(t, p, Options{}).Start(ctx, start)
		require.ErrorIs(t, err, ErrSlot, name)
	}
	p.MustExec(t, `select pg_create_physical_replication_slot('keep', true)`)
	start.Slot = "nor_this"
	_, err = c.Start(ctx, start)
	require.ErrorIs(t, err, ErrSlot)
	start.Slot = "keep"
	s, err := c.Start(ctx, start) // a refusal does not end the connection
	require.NoError(t, err)
	write(t, p, 2)
	for lsn, err := p.LSN(ctx); s.At() < lsn; {
		require.NoError(t, err)
		_, err = s.Next(ctx)
		require.NoError(t, err)
	}
	_, err = connect(t, p, Options{}).Start(ctx, start)
	require.ErrorIs(t, err, ErrSlot) // in use
	restart := func() string { return p.MustText(t, `select restart_lsn from pg_replication_slots`) }
	require.NoError(t, s.Reply())
	before := restart()
	s.Confirm(s.At())
	s.Confirm(1) // never back
	require.NoError(t, s.Reply())
	require.NoError(t, p.WaitFor(ctx, fmt.Sprintf(`select restart_lsn = '%s' from pg_replication_slots`, s.At())))
	require.NotEqual(t, before, restart())
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(append([]byte{'w'}, make([]byte, 24)...), "WAL"...))
	f.Add(append([]byte{'k'}, make([]byte, 17)...))
	f.Add(bytes.Repeat([]byte{'w'}, 30))
	f.Add(append([]byte{'w'}, bytes.Repeat([]byte{0xff}, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err == nil && len(m.Data) > 0 {
			require.GreaterOrEqual(t, m.Start+pg.LSN(len(m.Data)), m.Start)
		}
	})
}

func TestParse(t *testing.T) {
	for text, want := range map[string]pg.SegmentSize{"1MB": 1 << 20, "16MB": 16 << 20, "1GB": 1 << 30, "1024kB": 1 << 20, "3MB": 0, "": 0, "2GB": 0, "MB": 0, "16XB": 0, "99999999999GB": 0} {
		got, err := parseSegmentSize(text)
		require.Equal(t, want, got, text)
		require.Equal(t, want == 0, err != nil, text)
	}
	for text, want := range map[string]pg.Timeline{"1": 1, "0": 0, "-1": 0xFFFFFFFF, "4294967295": 0xFFFFFFFF, "4294967296": 0, "-2147483649": 0, "x": 0} {
		got, err := parseTimeline(text)
		require.Equal(t, want, got, text)
		require.Equal(t, want == 0, err != nil, text)
	}
}
