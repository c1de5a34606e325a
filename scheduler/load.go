package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
)

// farPast is before any run.
const farPast = 100 * 365 * 24 * time.Hour

// load reads what is new in the history: at the start, and when we lead again.
// Open runs of others are adopted, or closed as lost.
func (r *Runner) load(ctx context.Context) error {
	now := r.o.Clock.Now()
	known := map[string]repo.JobRun{}
	for _, run := range r.History() {
		if !run.Running() || r.ours(run.ID) {
			known[run.ID] = run
		}
	}
	runs, err := r.o.Journal.NewRuns(ctx, now.Add(-farPast), func(id string) bool { _, ok := known[id]; return ok })
	if err != nil && !errors.Is(err, repo.ErrIntegrity) {
		return fmt.Errorf("read the history of %s: %w", r.o.Repo, err)
	}
	var open []repo.JobRun
	for _, run := range runs {
		known[run.ID] = run
		if run.Running() {
			open = append(open, run)
		}
	}
	r.mu.Lock()
	for _, run := range r.history { // what ended meanwhile
		if !run.Running() {
			known[run.ID] = run
		}
	}
	r.history = r.history[:0]
	for _, run := range known {
		r.history = append(r.history, run)
	}
	slices.SortStableFunc(r.history, func(a, b repo.JobRun) int { return a.Started.Compare(b.Started) })
	r.mu.Unlock()
	for _, run := range open {
		if err := r.takeOver(ctx, run); err != nil {
			return err
		}
	}
	r.thin(ctx, now)
	return nil
}

// ours reports whether a run is executed here.
func (r *Runner) ours(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.cancels[id]
	return ok
}

// takeOver goes on with an open run, or records that it is lost.
func (r *Runner) takeOver(ctx context.Context, run repo.JobRun) error {
	if r.o.Adopt != nil {
		if follow := r.o.Adopt(ctx, run); follow != nil {
			r.o.Log.Info("run is taken over", zap.String("run", run.ID), zap.String("kind", run.Kind))
			r.execute(run, follow)
			return nil
		}
	}
	run.Ended, run.Outcome, run.Error = r.o.Clock.Now().UTC(), repo.RunLost, "its process ended"
	err := r.o.Journal.EndRun(ctx, run)
	if errors.Is(err, repo.ErrExists) { // it ended after all, this moment
		run, err = r.o.Journal.FindRun(ctx, run.ID)
	}
	if err != nil {
		return fmt.Errorf("record the end of run %s: %w", run.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.history {
		if r.history[i].ID == run.ID {
			r.history[i] = run
		}
	}
	return nil
}

// thin forgets old runs, but for the last one of each kind. That it fails is
// no reason not to run.
func (r *Runner) thin(ctx context.Context, now time.Time) {
	r.mu.Lock()
	last := map[string]string{}
	for _, run := range r.history {
		if !fromFuture(run, now) {
			last[run.Kind] = run.ID
		}
	}
	var ids []string
	r.history = slices.DeleteFunc(r.history, func(run repo.JobRun) bool {
		old := !run.Running() && last[run.Kind] != run.ID && run.Started.Before(now.Add(-r.o.KeepHistory))
		if old {
			ids = append(ids, run.ID)
		}
		return old
	})
	r.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	if err := r.o.Journal.RemoveRuns(ctx, ids...); err != nil {
		r.o.Log.Warn("old runs are not removed", zap.Error(err))
	}
}
