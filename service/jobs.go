package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/retention"
	"github.com/walkeep/walkeep/scheduler"
	"github.com/walkeep/walkeep/verify"
)

// expireWait is how long an expiry waits for another one.
const expireWait = 5 * time.Minute

// errNoLead: the lead was lost between the decision and the work.
var errNoLead = errors.New("this service does not lead any more")

// logOf is a log whose lines name the run.
func (r *repository) logOf(run repo.JobRun) *zap.Logger {
	return r.s.log.With(zap.String("run", run.ID))
}

// expire removes what retention does not keep.
func (r *repository) expire(ctx context.Context, run repo.JobRun) (scheduler.Outcome, error) {
	p, done := r.s.progressOf(run.ID)
	defer done()
	p.Stage("expiring")
	// Once more: what is removed cannot be brought back.
	g := r.leads()
	if g == nil {
		return scheduler.Outcome{}, errNoLead
	}
	if err := fence(ctx, g); err != nil {
		return scheduler.Outcome{}, err
	}
	c := r.conf()
	res, err := retention.Run(ctx, c.Work, retention.Options{
		Policy: c.Policy, Zone: r.s.settings().Zone, Wait: expireWait, Watch: &r.marks, Clock: r.s.o.Clock, Log: r.logOf(run),
	})
	r.mu.Lock()
	r.expireAgain = time.Time{}
	if res.Watched > 0 {
		r.expireAgain = r.s.o.Clock().Add(repo.UseTTL)
	}
	r.mu.Unlock()
	return scheduler.Outcome{Report: res.Lines()}, err
}

// expireLeft asks for another expiry when marks of dead processes kept the last one
// from removing all: it did not wait for them, so that no backup had to.
func (r *repository) expireLeft(ctx context.Context) {
	g := r.leads()
	r.mu.Lock()
	due := !r.expireAgain.IsZero() && r.s.o.Clock().After(r.expireAgain)
	paused := r.view.paused != nil
	r.mu.Unlock()
	if g == nil || !due || paused {
		return
	}
	_, err := r.runner.Trigger(ctx, scheduler.Request{Kind: scheduler.Expire, By: r.s.o.Holder + ": marks of dead processes were left"})
	if err != nil && !errors.Is(err, scheduler.ErrBusy) { // then at the next look
		r.s.log.Warn("what marks kept is not expired", zap.String("repo", r.name), zap.Error(err))
	}
}

// verify finds out whether what is stored is whole.
func (r *repository) verify(ctx context.Context, run repo.JobRun) (scheduler.Outcome, error) {
	p, done := r.s.progressOf(run.ID)
	defer done()
	level := r.s.settings().VerifyLevel
	p.Stage("verifying, level " + string(level))
	report, err := verify.Run(ctx, r.conf().Work, verify.Options{Level: level, Clock: r.s.o.Clock, Log: r.logOf(run)})
	return scheduler.Outcome{Report: report.Lines()}, err
}

// repair fills in the WAL that is missing.
func (r *repository) repair(ctx context.Context, run repo.JobRun) (scheduler.Outcome, error) {
	p, done := r.s.progressOf(run.ID)
	defer done()
	p.Stage("looking for gaps")
	// The store's word, not what is remembered.
	survey, err := archive.Look(ctx, r.s.surveyOptions(nil))
	if err != nil {
		return scheduler.Outcome{}, err
	}
	for i := range survey.Repos {
		c := &survey.Repos[i]
		if c.Repo.Name() != r.name {
			continue
		}
		if c.Err != nil || c.Epoch == nil {
			return scheduler.Outcome{}, c.Err
		}
		if len(c.Coverage.Missing)+len(c.Coverage.Histories) == 0 {
			return scheduler.Outcome{Report: []string{"nothing is missing"}}, nil
		}
		p.Stage("filling gaps")
		set := r.s.settings()
		report, err := archive.Repair(ctx, archive.RepairOptions{
			Target: r.conf().Work.Epoch(survey.SystemID), Missing: c.Coverage.Missing, Histories: c.Coverage.Histories,
			Sources: append(survey.Siblings(i), set.Sources(ctx)...), TempDir: set.TempDir, Log: r.logOf(run),
		})
		return scheduler.Outcome{Report: report.Lines()}, errors.Join(err, unrepaired(c, report))
	}
	return scheduler.Outcome{}, nil
}

// unrepaired is an error if a gap stays. What is merely behind is on its way.
func unrepaired(c *archive.RepoCoverage, report archive.RepairReport) error {
	late := map[string]bool{}
	for _, t := range c.Coverage.Timelines {
		for _, b := range t.Behind {
			for n := b.First; n <= b.Last; n++ {
				late[string(c.Coverage.SegmentSize.Name(b.Timeline, n))] = true
			}
		}
	}
	var first *archive.Unrepaired
	n := 0
	for i, f := range report.Failed {
		if late[f.Name.Name] {
			continue
		}
		if n++; first == nil {
			first = &report.Failed[i]
		}
	}
	if first == nil {
		return nil
	}
	return fmt.Errorf("%d files are missing and nobody has them, the first is %s: %w", n, first.Name.File(), first.Err)
}
