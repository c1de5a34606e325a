package service

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/scheduler"
)

// adopt finds what became of a run that another process began: what follows it
// to its end, or nil if it is lost. Only backups go on without their service.
func (r *repository) adopt(ctx context.Context, run repo.JobRun) scheduler.Executor {
	if !scheduler.Kind(run.Kind).Backup() {
		return nil
	}
	if follow := r.adoptAgents(ctx, run); follow != nil {
		return follow
	}
	if follow := r.adoptHolder(ctx, run); follow != nil {
		return follow
	}
	if label, err := r.labelOf(ctx, run.ID); err == nil && label != "" {
		return func(context.Context, repo.JobRun) (scheduler.Outcome, error) {
			return scheduler.Outcome{Label: label}, nil
		}
	}
	return nil
}

// adoptAgents looks for the run at the agents.
func (r *repository) adoptAgents(ctx context.Context, run repo.JobRun) scheduler.Executor {
	_, agents := r.s.nodes()
	for node, a := range agents {
		if a.client == nil {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, agentTime)
		runs, err := a.client.Runs(ask)
		cancel()
		if err != nil {
			r.s.log.Warn("an agent cannot be asked for a run", zap.String("run", run.ID), zap.String("node", node), zap.Error(err))
			continue
		}
		for _, there := range runs {
			if there.Request.Annotations[RunAnnotation] != run.ID {
				continue
			}
			return func(ctx context.Context, run repo.JobRun) (scheduler.Outcome, error) {
				p, done := r.s.progressOf(run.ID)
				defer done()
				p.on(node)
				return r.follow(ctx, run.ID, there.ID, node, a.client, p)
			}
		}
	}
	return nil
}

// errGone: the process that took the backup is gone, and so is the backup.
var errGone = errors.New("the process that took the backup ended without it")

// adoptHolder waits for a backup of another process, which may be this run.
func (r *repository) adoptHolder(ctx context.Context, run repo.JobRun) scheduler.Executor {
	l, err := r.conf().Watch.LookLease(ctx, backupLease)
	if err != nil || l.Dead {
		return nil
	}
	r.s.log.Info("a backup is under way elsewhere", zap.String("run", run.ID), zap.String("holder", l.Holder))
	return func(ctx context.Context, run repo.JobRun) (scheduler.Outcome, error) {
		p, done := r.s.progressOf(run.ID)
		defer done()
		p.Stage("waiting for " + l.Holder)
		// Who gets the lease knows that its holder is done or dead.
		lease, err := r.conf().Watch.AcquireLease(ctx, backupLease, repo.LeaseOptions{
			Holder: r.s.o.Holder, What: "looking whether run " + run.ID + " has ended", Wait: forEver,
		})
		if err != nil {
			return scheduler.Outcome{}, r.stopped(ctx, err)
		}
		r.s.released(ctx, lease)
		// The holder stores the summary, releases, and then records the end.
		for range 10 {
			if now, err := r.conf().Watch.FindRun(ctx, run.ID); err == nil && !now.Running() {
				return recorded(now)
			}
			if label, err := r.labelOf(ctx, run.ID); err == nil && label != "" {
				return scheduler.Outcome{Label: label}, nil
			}
			pause(ctx, time.Second)
		}
		return r.finished(ctx, run.ID, "", errGone)
	}
}

// released gives a lease back that was asked for to look something up.
func (s *Service) released(ctx context.Context, lease *repo.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := lease.Release(ctx); err != nil {
		s.log.Warn("a lease is left to go stale", zap.Error(err))
	}
}

// recorded is the end that another process recorded.
func recorded(run repo.JobRun) (scheduler.Outcome, error) {
	out := scheduler.Outcome{Label: run.Label, Node: run.Node, Report: run.Report}
	switch {
	case run.Outcome == repo.RunDone:
		return out, nil
	case run.Damage:
		return out, damage(run.Error)
	}
	return out, errors.New(run.Error)
}
