package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walkeep/walkeep/integration/patroni"
	"github.com/walkeep/walkeep/pg"
)

// roundResult is a line of the report.
type roundResult struct {
	Round    int           `json:"round"`
	Main     string        `json:"fault"`
	Side     string        `json:"beside"`
	Rewind   bool          `json:"use_pg_rewind"`
	Timeline pg.Timeline   `json:"timeline"` // at its end
	Segments int           `json:"segments"` // needed to recover from the round's backup
	Missing  int           `json:"missing"`  // of these, in the repository that lacks most
	Acked    int           `json:"acknowledged"`
	NoOne    int           `json:"not_replicated"` // of these, since the start: died with a primary before anybody had them
	Rows     int           `json:"rows"`           // that the leader has
	Lost     int           `json:"lost"`           // of these, not in the restored clone
	Settled  time.Duration `json:"settled"`        // from healed to the end of archiving
	Took     time.Duration `json:"took"`
	Notes    []string      `json:"notes,omitempty"`
}

// result is a whole run.
type result struct {
	Name   string        `json:"name"`
	Seed   uint64        `json:"seed"`
	Rounds []roundResult `json:"rounds"`
	// Final is the restore of the very first backup, across all timelines.
	Final []roundResult `json:"final"`
	// Need and Have are for the picture: what recovery reads from the first backup
	// to the end, and what the first repository has.
	Need    []run `json:"need"`
	Have    []run `json:"have"`
	Missing []run `json:"missing_runs"`
}

func (r result) total() (missing, lost int) {
	for _, x := range r.Rounds {
		missing, lost = missing+x.Missing, lost+x.Lost
	}
	return missing, lost
}

// roundTimeout bounds everything in a round but its judgement.
const roundTimeout = 6 * time.Minute

// round makes a failover happen and judges the archive afterwards.
func (w *world) round(ctx context.Context, number int, p roundPlan) (res roundResult, err error) {
	begin := time.Now()
	res = roundResult{Round: number, Main: string(p.main), Side: p.sideText(), Rewind: p.rewind}
	faulty, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	if err := w.cluster.Patch(faulty, map[string]any{"postgresql": map[string]any{"use_pg_rewind": p.rewind}}); err != nil {
		return res, err
	}
	leader, err := w.healthy(faulty)
	if err != nil {
		return res, err
	}
	b, err := w.tool.backup(faulty, leader)
	if err != nil {
		return res, fmt.Errorf("backup on %s: %w", leader.Name, err)
	}
	for _, s := range p.side {
		if err := w.applySide(s, leader, p); err != nil {
			return res, fmt.Errorf("%s: %w", s, err)
		}
	}
	sleep(faulty, p.before)
	w.logf("round %d: %s, %s; the leader is %s", number, p.main, p.sideText(), leader.Name)
	next, err := w.applyMain(faulty, leader, p)
	if err != nil {
		return res, fmt.Errorf("%s: %w", p.main, err)
	}
	w.logf("round %d: %s leads", number, next.Name)
	sleep(faulty, p.after)
	leader, err = w.heal(faulty)
	if err != nil {
		return res, fmt.Errorf("heal: %w", err)
	}
	w.logf("round %d: healed, %s leads", number, leader.Name)

	t, err := w.quiesce(ctx)
	if err != nil {
		return res, err
	}
	defer t.resume()
	names := w.tool.repos()
	judged, err := w.judge(ctx, t, b, names[number%len(names)])
	judged.Round, judged.Main, judged.Side, judged.Rewind, judged.Took = res.Round, res.Main, res.Side, res.Rewind, time.Since(begin)
	return judged, err
}

// truth is what the surviving leader has at a moment when nobody writes.
type truth struct {
	leader  *patroni.Node
	history pg.History
	end     pg.LSN // all of it lies before
	last    pg.SegmentName
	rows    map[int64]struct{}
	resume  func()
}

// quiesce stops the writers and reads the truth. Call resume.
func (w *world) quiesce(ctx context.Context) (t truth, err error) {
	w.writers.gate.Lock()
	t.resume = w.writers.gate.Unlock
	defer func() {
		if err != nil {
			t.resume()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if t.leader, err = w.cluster.WaitLeader(ctx); err != nil {
		return t, err
	}
	conn, err := t.leader.Connect(ctx)
	if err != nil {
		return t, err
	}
	defer closeConn(conn)
	if t.rows, err = readLedger(ctx, conn); err != nil {
		return t, err
	}
	return t, t.position(ctx, conn)
}

// position ends the segment and reads where the history went.
func (t *truth) position(ctx context.Context, conn *pgx.Conn) error {
	var end, last string
	var timeline uint32
	// A switch does nothing at the very start of a segment: so something first.
	err := conn.QueryRow(ctx, `select pg_create_restore_point('end of round')`).Scan(&end)
	if err == nil {
		err = conn.QueryRow(ctx, `with s as materialized (select pg_switch_wal() as lsn)
			select lsn::text, pg_walfile_name(lsn), ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int from s`).Scan(&end, &last, &timeline)
	}
	if err != nil {
		return fmt.Errorf("switch WAL: %w", err)
	}
	if t.end, err = pg.ParseLSN(end); err != nil {
		return err
	}
	t.last = pg.SegmentName(last)
	t.history = pg.History{Timeline: pg.Timeline(timeline)}
	if timeline == 1 {
		return nil
	}
	var text string
	err = conn.QueryRow(ctx, `select pg_read_file('pg_wal/' || $1)`, pg.HistoryName(pg.Timeline(timeline))).Scan(&text)
	if err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	t.history, err = pg.ParseHistory(pg.Timeline(timeline), []byte(text))
	return err
}

// judge waits for the archive, looks for what is missing in it, restores from
// one repository, and compares.
func (w *world) judge(ctx context.Context, t truth, b *backup, repo string) (res roundResult, err error) {
	begin := time.Now()
	res = roundResult{Timeline: t.history.Timeline, Rows: len(t.rows)}
	res.Acked, res.NoOne = w.ledger.count(t.rows)
	need := needed(t.history, segmentSize, b.start, t.end)
	res.Segments = segments(need)
	missing, err := w.settle(ctx, t, need, &res)
	if err != nil {
		return res, err
	}
	res.Settled = time.Since(begin)
	for i, m := range missing {
		if n := segments(m); n > 0 {
			res.Missing = max(res.Missing, n)
			res.Notes = append(res.Notes, fmt.Sprintf("%s lacks %v", w.tool.repos()[i], m))
		}
	}
	clone, err := w.replay(ctx, b, repo)
	if err != nil {
		return res, err
	}
	for id := range t.rows {
		if _, ok := clone[id]; !ok {
			res.Lost++
		}
	}
	res.Notes = append(append(res.Notes, w.stuck...), w.tool.notes()...)
	w.stuck = nil
	res.Took = time.Since(begin)
	w.logf("judged: timeline %d, %d segments, %d missing, %d rows, %d lost, %d acknowledged ones died unreplicated; archived after %s; restored from %s",
		res.Timeline, res.Segments, res.Missing, res.Rows, res.Lost, res.NoOne, res.Settled.Round(100*time.Millisecond), repo)
	return res, nil
}

// settleTimeout is how long the archive may take to be complete once all is
// healed and nobody writes.
const settleTimeout = 90 * time.Second

// settle waits until nothing that is needed is missing, or until the leader's
// archiver has nothing left to do and still something is.
func (w *world) settle(ctx context.Context, t truth, need []run, res *roundResult) (missing [][]run, err error) {
	deadline := time.Now().Add(settleTimeout)
	idle := 0
	for {
		have, err := w.tool.holdings(ctx, segmentSize)
		if err != nil {
			return nil, err
		}
		missing = missing[:0]
		all := 0
		for _, h := range have {
			m := h.missing(need)
			all += segments(m)
			missing = append(missing, m)
		}
		if all == 0 {
			return missing, nil
		}
		archived, err := t.leader.Text(ctx, fmt.Sprintf("select last_archived_wal >= '%s' and left(last_archived_wal, 8) = left('%[1]s', 8) from pg_stat_archiver", t.last))
		if err != nil {
			return nil, err
		}
		if archived == "t" {
			idle++
		}
		// What has an agent goes on after the archiver; what has none does not.
		if idle > 5 && w.o.tool == "pgbackrest" || time.Now().After(deadline) {
			if archived != "t" {
				res.Notes = append(res.Notes, "the archiver of "+t.leader.Name+" did not get to the end")
			}
			return missing, nil
		}
		sleep(ctx, time.Second)
	}
}

// clonePort is the clone's on the hub.
const clonePort = 6543

// replay restores a backup on the hub, lets the server replay to the end of the
// archive, and returns the ledger that it has then.
func (w *world) replay(ctx context.Context, b *backup, repo string) (rows map[int64]struct{}, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	name := "clone"
	local := filepath.Join(w.network.Local, name)
	disk := filepath.Join(w.network.Hub.Disk, name)
	if err := errors.Join(os.RemoveAll(disk), os.Mkdir(disk, 0o700), w.env.Own(disk)); err != nil {
		return nil, err
	}
	if err := w.tool.restore(ctx, b, repo, local); err != nil {
		return nil, fmt.Errorf("restore from %s: %w", repo, err)
	}
	clone, err := w.cluster.StartClone(ctx, local, clonePort)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, clone.Stop()) }()
	conn, err := clone.WaitPromoted(ctx)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	return readLedger(ctx, conn)
}

// runWorld makes all rounds, and the restore of the first backup at the end. It
// stops at the first round that cannot be made; results so far are returned.
func runWorld(ctx context.Context, o options) (res result, err error) {
	res = result{Name: o.name(), Seed: o.seed}
	w, err := newWorld(ctx, o)
	defer func() {
		if err != nil && w.cluster != nil {
			w.logf("failed: %v\n%s", err, w.cluster.Logs(60))
		}
		err = errors.Join(err, w.close())
	}()
	if err != nil {
		return res, err
	}
	plans := o.plans
	if plans == nil {
		plans = planRounds(o.seed, o.rounds, o.agent)
	}
	for i, p := range plans {
		if o.isEnough() {
			break
		}
		r, err := w.round(ctx, i+1, p)
		if err != nil {
			return res, fmt.Errorf("%s, seed %d, round %d (%s; %s): %w", o.name(), o.seed, i+1, p.main, p.sideText(), err)
		}
		res.Rounds = append(res.Rounds, r)
	}
	t, err := w.quiesce(ctx)
	if err != nil {
		return res, err
	}
	defer t.resume()
	res.Need = needed(t.history, segmentSize, w.first.start, t.end)
	for _, repo := range w.tool.repos() {
		r, err := w.judge(ctx, t, w.first, repo)
		if err != nil {
			return res, fmt.Errorf("%s, seed %d, at the end: %w", o.name(), o.seed, err)
		}
		r.Main = "all, from the first backup in " + repo
		res.Final = append(res.Final, r)
	}
	have, err := w.tool.holdings(ctx, segmentSize)
	if err != nil {
		return res, err
	}
	res.Have, res.Missing = have[0].runs(), have[0].missing(res.Need)
	return res, nil
}

// commaList joins what is not empty.
func commaList(items ...string) string {
	var out []string
	for _, s := range items {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}
