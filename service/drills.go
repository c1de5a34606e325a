package service

import (
	"context"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/scheduler"
)

// drilled are the newest rehearsal of a restore and the newest that passed,
// whoever made them; nil: there was none.
type drilled struct{ passed, last *repo.Drill }

// Drill starts a rehearsal of a restore now.
func (s *Service) Drill(ctx context.Context, name string) (api.Run, error) {
	return s.trigger(ctx, name, scheduler.Request{Kind: scheduler.Drill})
}

// drill rehearses a restore. It is recorded in the repository besides.
func (r *repository) drill(ctx context.Context, run repo.JobRun) (scheduler.Outcome, error) {
	p, done := r.s.progressOf(run.ID)
	defer done()
	p.Stage("rehearsing a restore")
	return scheduler.Outcome{}, r.s.settings().Drill(ctx, r.conf().Work, p.Stage)
}

func showDrill(d *repo.Drill) *api.Drill {
	if d == nil {
		return nil
	}
	return &api.Drill{
		Started: d.Started, Ended: d.Ended, Passed: d.OK(), Error: d.Error, By: d.By, Backup: d.Backup, Target: d.Target,
		Timeline: d.Timeline, LSN: d.LSN, Bytes: d.Bytes, RestoreSeconds: d.RestoreSeconds, RecoverySeconds: d.RecoverySeconds,
		CheckSeconds: d.CheckSeconds, Checks: len(d.Checks),
	}
}

// drills finds rehearsals that failed, or did not come. What is recorded counts,
// also that of `walkeep drill`; a run only if no result of it was found by a look
// after its end.
func (f *finder) drills(name string, v view, conf Repo, runs []repo.JobRun) {
	d := v.drilled
	var began, from time.Time
	if d.last != nil {
		began = d.last.Started
	}
	run, failed := lastRun(runs, scheduler.Drill)
	switch {
	case failed && run.Started.After(began) && run.Ended.Before(v.at):
		f.add(api.Warning, api.DrillFailed, name, "", "a restore from %s could not be rehearsed: %s", name, firstText(run.Error))
	case d.last != nil && !d.last.OK():
		f.add(api.Critical, api.DrillFailed, name, "", "the last rehearsal of a restore from %s failed: %s", name, firstText(d.last.Error))
	}
	if d.passed != nil {
		from = d.passed.Started
	}
	for _, j := range conf.Jobs {
		if j.Kind == scheduler.Drill {
			f.overdue(name, j, from, running(runs, scheduler.Drill))
		}
	}
}

// lastRun is the newest run of a kind that ended, and whether it failed.
func lastRun(runs []repo.JobRun, kind scheduler.Kind) (last repo.JobRun, failed bool) {
	for _, run := range runs {
		if scheduler.Kind(run.Kind) == kind && !run.Running() && run.Outcome != repo.RunCancelled && run.Started.After(last.Started) {
			last = run
		}
	}
	return last, !last.Running() && last.Outcome != repo.RunDone
}
