package follow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walkeep/walkeep/pg"
)

// End is what the server does when recovery ends.
type End string

// The ends.
const (
	Open     End = "open"     // it is promoted
	Pause    End = "pause"    // it waits at the target
	Shutdown End = "shutdown" // it shuts down there
	Standby  End = "standby"  // it goes on following, once it has replayed what was there
)

// Goal is what Wait waits for.
type Goal struct {
	End End
	// From is where replay begins, To where the target lies as far as that is
	// known: for the progress, and for what a standby has to replay.
	From, To    pg.LSN
	SegmentSize pg.SegmentSize
	// ConnInfo says as whom to connect; host and port are the server's. "": as
	// postgres.
	ConnInfo string
	// Timeout bounds the wait; 0: none.
	Timeout time.Duration
	// Progress is told how far replay is, whenever it has moved; nil: nobody.
	Progress func(Replay)
	// Clock tells the time; nil: time.Now.
	Clock func() time.Time
}

// Replay is how far recovery is.
type Replay struct {
	LSN pg.LSN // replayed up to here, or to here at least
	// Time is that of the last transaction replayed; zero if it is not known.
	Time time.Time
}

// Outcome is what became of a recovery.
type Outcome struct {
	End End
	// Timeline and LSN are where recovery stopped; LSN is 0 if that is not known.
	Timeline pg.Timeline
	LSN      pg.LSN
	Time     time.Time // of the last transaction seen on the way; zero: not known
	// Reason is what the server says of a new timeline's beginning, such as "at
	// restore point …".
	Reason string
	Took   time.Duration
}

// poll is how often the server is looked at.
const poll = 100 * time.Millisecond

// Wait follows recovery until its end. Errors: *ExitedError, ErrTimeout, and
// that of ctx; with the latter two the server goes on.
func (s *Server) Wait(ctx context.Context, g Goal) (*Outcome, error) {
	if g.Clock == nil {
		g.Clock = time.Now
	}
	w := &waiter{s: s, goal: g, began: g.Clock(), users: []string{""}}
	defer w.disconnect()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		done, err := w.look(ctx)
		if done || err != nil {
			if err != nil {
				return nil, err
			}
			return w.outcome(), nil
		}
		select {
		case <-s.done:
			return w.ended()
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		if g.Timeout > 0 && g.Clock().Sub(w.began) > g.Timeout {
			return nil, fmt.Errorf("%w: %s; it has replayed up to %s, and goes on", ErrTimeout, g.Timeout, w.at.LSN)
		}
	}
}

type waiter struct {
	s     *Server
	goal  Goal
	began time.Time
	at    Replay
	conn  *pgx.Conn
	users []string // still to be tried
	tries int
}

// look looks once; done says that the goal is reached.
func (w *waiter) look(ctx context.Context) (done bool, err error) {
	host, port, up := w.s.Host()
	if !up {
		w.progress(Replay{LSN: w.recovering()})
		return false, nil
	}
	recovering, paused, known := w.ask(ctx, host, port)
	if !known {
		recovering, paused = w.withoutConnection()
	}
	switch w.goal.End {
	case Pause:
		return paused, nil
	case Standby:
		return recovering && w.at.LSN >= w.goal.To, nil
	default:
		return !recovering, nil
	}
}

// ask asks the server, if it lets us in.
func (w *waiter) ask(ctx context.Context, host, port string) (recovering, paused, known bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if w.conn == nil && !w.connect(ctx, host, port) {
		return false, false, false
	}
	var lsn *string
	var last *time.Time
	err := w.conn.QueryRow(ctx, `select pg_is_in_recovery(), pg_is_in_recovery() and pg_is_wal_replay_paused(),
		case when pg_is_in_recovery() then pg_last_wal_replay_lsn()::text end, pg_last_xact_replay_timestamp()`).Scan(&recovering, &paused, &lsn, &last)
	if err != nil {
		w.disconnect()
		return false, false, false
	}
	var r Replay
	if lsn != nil {
		r.LSN, _ = pg.ParseLSN(*lsn)
	}
	if last != nil {
		r.Time = *last
	}
	w.progress(r)
	return recovering, paused, true
}

// connect tries as the user that is configured, then as the usual ones. After
// some refusals it gives up: then what can be seen without has to do.
func (w *waiter) connect(ctx context.Context, host, port string) bool {
	const most = 10
	if w.tries >= most {
		return false
	}
	w.tries++
	cfg, err := connConfig(w.goal.ConnInfo, host, port)
	if err != nil {
		return false
	}
	for _, user := range []string{cfg.User, "postgres"} {
		c := cfg.Copy()
		c.User = user
		if w.conn, err = pgx.ConnectConfig(ctx, c); err == nil {
			w.tries = 0
			return true
		}
	}
	w.conn = nil
	return false
}

// connConfig is a connection string that leads to the restored server.
func connConfig(conninfo, host, port string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(conninfo)
	if err != nil {
		return nil, fmt.Errorf("read the connection string: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of the server: %w", err)
	}
	cfg.Host, cfg.Port, cfg.Fallbacks, cfg.TLSConfig = host, uint16(n), nil, nil
	cfg.ConnectTimeout = 3 * time.Second
	if cfg.Database == "" || conninfo == "" {
		cfg.Database = "postgres"
	}
	if conninfo == "" {
		cfg.User = "postgres"
	}
	return cfg, nil
}

func (w *waiter) disconnect() {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
	w.conn = nil
}

// withoutConnection says what pg_control and the log tell.
func (w *waiter) withoutConnection() (recovering, paused bool) {
	w.progress(Replay{LSN: w.recovering()})
	c, err := pg.ReadControl(w.s.opts.PGData)
	if err != nil {
		return true, false // being written; next time
	}
	if c.State != pg.StateProduction && w.goal.End == Pause {
		text, _ := w.s.logTail()
		paused = strings.Contains(text, "recovery has paused") || strings.Contains(text, "pausing at the end of recovery")
	}
	// pg_control says so a moment before anybody can connect.
	f, ok := readPIDFile(w.s.opts.PGData)
	return c.State != pg.StateProduction || !ok || f.status != "ready", paused
}

func (w *waiter) progress(r Replay) {
	if r.LSN <= w.at.LSN && !r.Time.After(w.at.Time) {
		return
	}
	w.at = Replay{LSN: max(r.LSN, w.at.LSN), Time: w.at.Time}
	if r.Time.After(w.at.Time) {
		w.at.Time = r.Time
	}
	if w.goal.Progress != nil {
		w.goal.Progress(w.at)
	}
}

var recoveringTitle = regexp.MustCompile(`startup.*recovering ([0-9A-F]{24})`)

// recovering is the start of the segment that the title of the startup process
// names; 0 if there is none.
func (w *waiter) recovering() pg.LSN {
	pid := w.s.PID()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	for _, child := range strings.Fields(string(b)) {
		title, err := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
		if err != nil {
			continue
		}
		if m := recoveringTitle.FindSubmatch(title); m != nil {
			if n, err := pg.SegmentName(m[1]).Number(w.goal.SegmentSize); err == nil {
				return w.goal.SegmentSize.Start(n)
			}
		}
	}
	return 0
}

// ended judges a server that is not there any more.
func (w *waiter) ended() (*Outcome, error) {
	c, err := pg.ReadControl(w.s.opts.PGData)
	if err == nil && w.goal.End == Shutdown && w.s.err == nil && c.State == pg.StateShutDownInRecovery {
		w.progress(Replay{LSN: c.MinRecovery})
		return w.outcome(), nil
	}
	return nil, w.s.exited()
}

// outcome is what is known at the end. Where a promoted server stopped, its
// history file says.
func (w *waiter) outcome() *Outcome {
	o := &Outcome{End: w.goal.End, LSN: w.at.LSN, Time: w.at.Time, Took: w.goal.Clock().Sub(w.began)}
	c, err := pg.ReadControl(w.s.opts.PGData)
	if err != nil {
		return o
	}
	o.Timeline = c.Timeline
	if w.goal.End != Open {
		return o
	}
	// The checkpoint that tells the timeline may be still to come, but its
	// history file is there, and none of a later one.
	found, _ := filepath.Glob(filepath.Join(w.s.opts.PGData, "pg_wal", "*.history"))
	for _, path := range found {
		if t, err := pg.ParseTimeline(strings.TrimSuffix(filepath.Base(path), ".history")); err == nil {
			o.Timeline = max(o.Timeline, t)
		}
	}
	b, err := os.ReadFile(filepath.Join(w.s.opts.PGData, "pg_wal", pg.HistoryName(o.Timeline)))
	if err != nil {
		return o
	}
	if h, err := pg.ParseHistory(o.Timeline, b); err == nil && len(h.Entries) > 0 {
		last := h.Entries[len(h.Entries)-1]
		o.LSN, o.Reason = last.End, last.Reason
	}
	return o
}

// IsStopped reports whether an error only means that nobody waits any more.
func IsStopped(err error) bool { return errors.Is(err, context.Canceled) || errors.Is(err, ErrTimeout) }
