// Package drill rehearses restores: it restores a moment of a repository to
// scratch space, recovers, checks the cluster that comes out, and records in the
// repository what came of it and how long it took. A backup that was never
// restored is a hope.
//
// A drill goes the whole way that a restore goes: the plan, the fetching, the
// server's own recovery through restore_command. It fails when any of that
// fails, when pg_amcheck finds something, or when one of the user's own checks
// does.
package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/restore"
	"github.com/walkeep/walkeep/restore/scratch"
)

// Check is a statement that must run without an error. If it yields a row whose
// first column is false, it fails too.
type Check struct {
	Name     string // "": the statement
	Database string
	SQL      string
}

// Options of Run.
type Options struct {
	Repo *repo.Repository
	// Random restores a random moment of the recovery window, not the newest.
	Random bool
	Rand   *rand.Rand // for Random; nil: seeded anew
	// Scratch says where and how; Plan is ours. BinDir finds the programs of a
	// major version.
	Scratch scratch.Options
	BinDir  func(major int) string
	// AmCheck runs pg_amcheck over all databases.
	AmCheck bool
	Checks  []Check
	// Stage is told what the drill does; nil: nobody.
	Stage func(string)
	Clock func() time.Time // nil: time.Now
	Log   *zap.Logger      // nil: none
}

// ErrFailed: the cluster could not be restored, or is not what it should be. The
// drill has found something: its result is recorded.
var ErrFailed = errors.New("the drill failed")

// Run drills once and records the result. The error is ErrFailed with the
// reason; or that of ctx or restore.ErrNoBackup, and then nothing is recorded; or
// that the result could not be recorded.
func Run(ctx context.Context, o Options) (repo.Drill, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Stage == nil {
		o.Stage = func(string) {}
	}
	host, _ := os.Hostname()
	d := repo.Drill{Started: o.Clock().UTC(), By: host}
	err := drill(ctx, &o, &d)
	if ctx.Err() != nil {
		return d, ctx.Err()
	}
	if errors.Is(err, restore.ErrNoBackup) {
		return d, err // there is nothing to rehearse with
	}
	d.Ended = o.Clock().UTC()
	if err != nil {
		d.Error = err.Error()
		err = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	if putErr := o.Repo.PutDrill(ctx, d); putErr != nil {
		err = errors.Join(err, fmt.Errorf("record the result of the drill: %w", putErr))
	}
	return d, err
}

func drill(ctx context.Context, o *Options, d *repo.Drill) (err error) {
	plan, err := choose(ctx, o, d)
	if err != nil {
		return err
	}
	d.SystemID, d.Backup = plan.SystemID, plan.Backup.Label
	s := o.Scratch
	s.Plan, s.Log = plan, o.Log
	if o.BinDir != nil {
		s.BinDir = o.BinDir(plan.Backup.PGVersion / 10000)
	}
	tools := []string{"postgres"}
	if o.AmCheck {
		tools = append(tools, "pg_amcheck")
	}
	if err := scratch.CheckTools(s.BinDir, tools...); err != nil {
		return err
	}
	c, err := scratch.Open(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	d.Bytes, d.RestoreSeconds, d.RecoverySeconds = c.Restored.Bytes, c.Restored.Took.Seconds(), c.Outcome.Took.Seconds()
	d.Timeline, d.LSN = c.Outcome.Timeline, c.Outcome.LSN
	began := o.Clock()
	defer func() { d.CheckSeconds = o.Clock().Sub(began).Seconds() }()
	return check(ctx, c, o, d)
}

// choose plans the newest moment, or a random one.
func choose(ctx context.Context, o *Options, d *repo.Drill) (*restore.Plan, error) {
	req := restore.Request{}
	if o.Random {
		at, err := randomMoment(ctx, o)
		if err != nil {
			return nil, err
		}
		if !at.IsZero() {
			d.Target = at.UTC()
			req.Target.Kind, req.Target.Time = restore.TargetTime, at
		}
	}
	return restore.NewPlan(ctx, []*repo.Repository{o.Repo}, req, o.Log)
}

// randomMoment is a moment in one of the windows of the newest cluster, zero if
// there is no time in them to choose from. The longer a window, the more often
// it is chosen.
func randomMoment(ctx context.Context, o *Options) (time.Time, error) {
	epochs, err := o.Repo.Epochs(ctx)
	if err != nil || len(epochs) == 0 {
		return time.Time{}, err
	}
	e := o.Repo.Epoch(epochs[len(epochs)-1].SystemID)
	h, err := e.Holdings(ctx)
	if err != nil {
		return time.Time{}, err
	}
	windows, err := h.Windows(ctx, repo.NewHeadCache(e))
	if err != nil {
		return time.Time{}, err
	}
	rng := o.Rand
	if rng == nil {
		rng = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return pick(rng, windows), nil
}

func pick(rng *rand.Rand, windows []repo.Window) time.Time {
	var total time.Duration
	for _, w := range windows {
		total += w.Latest.Sub(w.Earliest)
	}
	if total <= 0 {
		return time.Time{}
	}
	at := time.Duration(rng.Int64N(int64(total)))
	for _, w := range windows {
		if span := w.Latest.Sub(w.Earliest); at < span {
			return w.Earliest.Add(at)
		} else {
			at -= span
		}
	}
	return time.Time{}
}

// check makes all checks, so that the record tells of each, and fails with the
// first that failed.
func check(ctx context.Context, c *scratch.Cluster, o *Options, d *repo.Drill) error {
	var failed []error
	note := func(name string, err error) {
		one := repo.DrillCheck{Name: name}
		if err != nil {
			one.Error = err.Error()
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
		d.Checks = append(d.Checks, one)
	}
	if o.AmCheck {
		o.Stage("pg_amcheck")
		note("pg_amcheck", amcheck(ctx, c))
	}
	for _, one := range o.Checks {
		name := one.Name
		if name == "" {
			name = one.SQL
		}
		o.Stage("check " + name)
		note(name, ask(ctx, c, one))
	}
	return errors.Join(failed...)
}

// amcheckOutput bounds what is kept of what pg_amcheck says, bytes.
const amcheckOutput = 4 << 10

func amcheck(ctx context.Context, c *scratch.Cluster) error {
	name := "pg_amcheck"
	if c.BinDir != "" {
		name = filepath.Join(c.BinDir, name)
	}
	cmd := exec.CommandContext(ctx, name, "--all", "--install-missing", "--no-password", "--heapallindexed", "--jobs=2",
		"--host="+c.Host, "--port="+scratch.Port, "--username="+c.User)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if len(text) > amcheckOutput {
			text = text[:amcheckOutput] + "…"
		}
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// errFalse: a check's answer is no.
var errFalse = errors.New("it yields false")

func ask(ctx context.Context, c *scratch.Cluster, one Check) error {
	conn, err := c.Connect(ctx, one.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, one.SQL)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		if len(values) > 0 {
			if ok, is := values[0].(bool); is && !ok {
				return errFalse
			}
		}
	}
	return rows.Err()
}
