package service

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/retention"
	"github.com/walkeep/walkeep/scheduler"
)

var _ api.Service = (*Service)(nil)

// find is the repository of a request.
func (s *Service) find(name string) (*repository, error) {
	if r := s.repository(name); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%w: no such repository: %q", api.ErrInvalid, name)
}

// Backup starts a backup now.
func (s *Service) Backup(ctx context.Context, q api.BackupRequest) (api.Run, error) {
	kind := scheduler.Kind(q.Type)
	if !kind.Backup() {
		return api.Run{}, fmt.Errorf("%w: type %q: expected full, differential or incremental", api.ErrInvalid, q.Type)
	}
	if _, taken := q.Annotations[RunAnnotation]; taken {
		return api.Run{}, fmt.Errorf("%w: the annotation %s is walkeep's own", api.ErrInvalid, RunAnnotation)
	}
	return s.trigger(ctx, q.Repo, scheduler.Request{Kind: kind, Key: q.Key, By: q.By, Annotations: q.Annotations})
}

// Verify starts a verification now.
func (s *Service) Verify(ctx context.Context, name string) (api.Run, error) {
	return s.trigger(ctx, name, scheduler.Request{Kind: scheduler.Verify})
}

// Repair starts the repair of gaps now.
func (s *Service) Repair(ctx context.Context, name string) (api.Run, error) {
	return s.trigger(ctx, name, scheduler.Request{Kind: scheduler.Repair})
}

func (s *Service) trigger(ctx context.Context, name string, q scheduler.Request) (api.Run, error) {
	r, err := s.find(name)
	if err != nil {
		return api.Run{}, err
	}
	run, err := r.runner.Trigger(ctx, q)
	switch {
	case err == nil:
		return s.showRun(run, s.o.Clock()), nil
	case errors.Is(err, scheduler.ErrBusy):
		return api.Run{}, fmt.Errorf("%w: %w", api.ErrBusy, err)
	case errors.Is(err, scheduler.ErrPaused):
		return api.Run{}, fmt.Errorf("%w: %w", api.ErrPaused, err)
	case errors.Is(err, scheduler.ErrIdle), errors.Is(err, repo.ErrLeaseLost):
		return api.Run{}, s.notLeader(r)
	}
	return api.Run{}, err
}

// notLeader says who leads, or why nobody does.
func (s *Service) notLeader(r *repository) error {
	snap := s.Snapshot()
	r.mu.Lock()
	trouble := r.trouble
	r.mu.Unlock()
	switch {
	case snap.Leader != "" && !snap.Leading:
		return fmt.Errorf("%w: %s", api.ErrNotLeader, snap.Leader)
	case trouble != nil:
		return fmt.Errorf("%w, or none leads %s: %w", api.ErrNotLeader, r.name, trouble)
	}
	return fmt.Errorf("%w, or none does yet", api.ErrNotLeader)
}

// Expire plans what a repository does not keep, and starts its removal unless it
// is a dry run.
func (s *Service) Expire(ctx context.Context, q api.ExpireRequest) (api.Expiry, error) {
	r, err := s.find(q.Repo)
	if err != nil {
		return api.Expiry{}, err
	}
	c := r.conf()
	res, err := retention.Run(ctx, c.Watch, retention.Options{
		Policy: c.Policy, Zone: s.settings().Zone, DryRun: true, Clock: s.o.Clock, Log: s.log,
	})
	if err != nil && !errors.Is(err, repo.ErrIntegrity) {
		return api.Expiry{}, err
	}
	out := showPlan(res.Plan)
	if err != nil {
		out.Damage = err.Error()
	}
	if q.DryRun {
		return out, nil
	}
	run, err := s.trigger(ctx, q.Repo, scheduler.Request{Kind: scheduler.Expire, By: q.By})
	if err != nil {
		return api.Expiry{}, err
	}
	out.Run = &run
	return out, nil
}

// Contents reads what a backup holds, from its manifest.
func (s *Service) Contents(ctx context.Context, name string, label repo.Label) (api.BackupContents, error) {
	r := s.repository(name)
	if r == nil {
		return api.BackupContents{}, fmt.Errorf("repository %q: %w", name, api.ErrNotFound)
	}
	w := r.conf().Watch
	epochs, err := w.Epochs(ctx)
	if err != nil {
		return api.BackupContents{}, err
	}
	for _, info := range epochs {
		e := w.Epoch(info.SystemID)
		sum, err := e.Summary(ctx, label)
		if errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity) {
			continue
		}
		if err != nil {
			return api.BackupContents{}, err
		}
		c, err := e.Contents(ctx, sum, nil)
		return api.BackupContents{Repo: name, Summary: sum, Contents: c}, err
	}
	return api.BackupContents{}, fmt.Errorf("backup %q of %s: %w", label, name, api.ErrNotFound)
}

// Run finds a run.
func (s *Service) Run(_ context.Context, id string) (api.Run, error) {
	if run, _, ok := s.findRun(id); ok {
		return s.showRun(run, s.o.Clock()), nil
	}
	return api.Run{}, fmt.Errorf("run %q: %w", id, api.ErrNotFound)
}

func (s *Service) findRun(id string) (repo.JobRun, *repository, bool) {
	for _, r := range s.repositories() {
		for _, run := range r.runs() {
			if run.ID == id {
				return run, r, true
			}
		}
	}
	return repo.JobRun{}, nil, false
}

// Cancel asks a running run to end.
func (s *Service) Cancel(_ context.Context, id string) (api.Run, error) {
	run, r, ok := s.findRun(id)
	switch {
	case !ok:
		return api.Run{}, fmt.Errorf("run %q: %w", id, api.ErrNotFound)
	case !run.Running():
		return api.Run{}, fmt.Errorf("run %q: %w", id, api.ErrNotRunning)
	case !r.runner.Cancel(id):
		return api.Run{}, s.notLeader(r)
	}
	s.log.Info("cancel requested", zap.String("run", id))
	return s.showRun(run, s.o.Clock()), nil
}

// Pause keeps scheduled runs of a repository ("" for all) from starting, or lets
// them start again. Any service may: the leader sees it at its next look. With
// several repositories, those that answer are paused although others do not.
func (s *Service) Pause(ctx context.Context, name string, paused bool) error {
	repos := s.repositories()
	if name != "" {
		r, err := s.find(name)
		if err != nil {
			return err
		}
		repos = []*repository{r}
	}
	errs := make([]error, len(repos))
	var all sync.WaitGroup
	for i, r := range repos {
		all.Go(func() { errs[i] = r.pause(ctx, paused) })
	}
	all.Wait()
	s.publish()
	s.look()
	return errors.Join(errs...)
}

func (r *repository) pause(ctx context.Context, on bool) error {
	w := r.conf().Watch
	now, err := w.Paused(ctx)
	if err != nil {
		return err
	}
	switch {
	case on && now == nil:
		if err = w.Init(ctx); err == nil {
			err = w.PutPause(ctx, repo.Pause{Since: r.s.o.Clock().UTC(), By: r.s.o.Holder})
		}
	case !on && now != nil:
		err = w.EndPause(ctx)
	}
	if err != nil {
		return err
	}
	if now, err = w.Paused(ctx); err != nil {
		return err
	}
	r.runner.SetPaused(now != nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.paused = now
	return nil
}
