package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/restore"
	"github.com/walkeep/walkeep/restore/follow"
)

// waitFlags are those of restore --wait.
type waitFlags struct {
	wait    bool
	bindir  string
	conf    string
	log     string
	timeout time.Duration
}

func (w *waitFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.BoolVar(&w.wait, "wait", false, "start the server and follow its recovery until the target is reached, or until it cannot be")
	fl.StringVar(&w.bindir, "bindir", "", "directory of the server's programs (default: /usr/lib/postgresql/MAJOR/bin, then PATH)")
	fl.StringVar(&w.conf, "postgresql-conf", "", "with --wait: postgresql.conf, where it is not in the data directory (Debian)")
	fl.StringVar(&w.log, "server-log", "", "with --wait: where the server's standard error goes (default: server.log in PGDATA)")
	fl.DurationVar(&w.timeout, "wait-timeout", 0, "with --wait: give up after this time, such as 2h; the server goes on (default: never)")
}

func (w *waitFlags) check() error {
	if !w.wait && (w.conf != "" || w.log != "" || w.timeout != 0) {
		return usageErrorf("--postgresql-conf, --server-log and --wait-timeout go with --wait")
	}
	if w.timeout < 0 {
		return usageErrorf("--wait-timeout: expected a duration such as 2h")
	}
	if w.wait && w.bindir != "" {
		if _, err := os.Stat(filepath.Join(w.bindir, "postgres")); err != nil {
			return usageErrorf("--bindir: %w", err)
		}
	}
	return nil
}

// binDir is where the programs of a major version are: as asked for, where
// Debian has them, else "", which is PATH.
func binDir(given string, major int) string {
	if given != "" {
		return given
	}
	dir := fmt.Sprintf("/usr/lib/postgresql/%d/bin", major)
	if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
		return dir
	}
	return ""
}

// recovered is what restore --wait adds to --json.
type recovered struct {
	End      follow.End  `json:"end"`
	Timeline pg.Timeline `json:"timeline"`
	LSN      pg.LSN      `json:"lsn,omitzero"`
	Time     time.Time   `json:"last_transaction,omitzero"`
	Reason   string      `json:"reason,omitempty"`
	Seconds  float64     `json:"seconds"`
}

// startAndWait starts the restored server and follows it to the target.
func (r *root) startAndWait(ctx context.Context, p *restore.Plan, pgdata string, w waitFlags, cfg *config.Config) (*recovered, error) {
	o := follow.Options{PGData: pgdata, BinDir: binDir(w.bindir, p.Backup.PGVersion/10000), Log: w.log}
	if o.Log == "" {
		o.Log = filepath.Join(pgdata, "server.log")
	}
	if w.conf != "" {
		o.Settings = []string{"config_file=" + w.conf, "data_directory=" + pgdata, "external_pid_file="}
	}
	server, err := follow.Start(o)
	if err != nil {
		return nil, err
	}
	progress := newProgress(r.stderr, time.Now)
	defer progress.close()
	goal := goalOf(p, w.timeout)
	for _, n := range cfg.Postgres.Nodes {
		if goal.ConnInfo = n.ConnInfo; goal.ConnInfo != "" {
			break
		}
	}
	progress.Stage("recover")
	progress.Total(int64(goal.To - goal.From))
	last := goal.From
	goal.Progress = func(at follow.Replay) {
		if at.LSN > last && at.LSN <= goal.To {
			progress.Add(int64(at.LSN - last))
			last = at.LSN
		}
		if !at.Time.IsZero() {
			progress.note("at " + at.Time.In(r.location()).Format(restore.TimeFormat))
		}
	}
	out, err := server.Wait(ctx, goal)
	progress.close()
	switch {
	case errors.Is(err, follow.ErrTargetNotReached):
		return nil, withExit(exitUnreachable, err)
	case err != nil && !errors.Is(err, follow.ErrExited):
		return nil, fmt.Errorf("%w\nThe server goes on by itself, process %d; its log is %s. To stop it: pg_ctl -D %s stop",
			err, server.PID(), o.Log, shellQuote(pgdata))
	case err != nil:
		return nil, err
	}
	return &recovered{out.End, out.Timeline, out.LSN, out.Time.UTC(), out.Reason, out.Took.Seconds()}, nil
}

// goalOf is what a plan's server is to reach.
func goalOf(p *restore.Plan, timeout time.Duration) follow.Goal {
	g := follow.Goal{From: p.Backup.StartLSN, To: p.Stop.LSN, SegmentSize: p.SegmentSize, Timeout: timeout}
	switch {
	case p.Standby:
		g.End = follow.Standby
	case p.Target.Kind == restore.TargetEnd || p.Target.Action == restore.Promote:
		g.End = follow.Open
	case p.Target.Action == restore.Pause:
		g.End = follow.Pause
	default:
		g.End = follow.Shutdown
	}
	return g
}

// printRecovered tells people how recovery ended.
func (r *root) printRecovered(p *restore.Plan, got *recovered) {
	text := map[follow.End]string{
		follow.Open: "open for writing", follow.Pause: "paused there, open for reading: pg_wal_replay_resume() goes on and opens it",
		follow.Shutdown: "shut down there", follow.Standby: "a standby that follows what is archived",
	}[got.End]
	r.printf("The target was reached: the server is %s.\n", text)
	stopped := fmt.Sprintf("Recovery took %s", time.Duration(got.Seconds*float64(time.Second)).Round(10*time.Millisecond))
	if got.LSN != 0 {
		stopped += fmt.Sprintf(", to %s", got.LSN)
	}
	if got.Reason != "" {
		stopped += " (" + got.Reason + ")"
	}
	if !got.Time.IsZero() {
		stopped += ", last transaction " + got.Time.In(r.location()).Format(restore.TimeFormat)
	}
	r.printf("%s; timeline %d.\n", stopped, got.Timeline)
}
