package repo

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo/object"
)

// JobRun is one run of a scheduled job, as the history of the repository keeps it:
// one object when it begins, a second one when it ends. A run without the
// second one is under way, or its process died.
type JobRun struct {
	Format int    `json:"format"` // filled in
	ID     string `json:"id"`     // filled in by BeginRun: YYYYMMDD-HHMMSS-<token>
	Repo   string `json:"-"`      // name of the repository; filled in
	Kind   string `json:"kind"`   // full, differential, incremental, repair, expire, verify
	// Due is the time of the schedule that the run is for.
	Due     time.Time `json:"due"`
	Attempt int       `json:"attempt"` // from 1
	Started time.Time `json:"started"`
	By      string    `json:"by,omitempty"` // who, for people
	// Manual: somebody asked for it. Key is the idempotency key of the request.
	Manual      bool              `json:"manual,omitempty"`
	Key         string            `json:"key,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"` // that were asked for

	// In the second object only:

	Ended   time.Time  `json:"ended,omitzero"`
	Outcome RunOutcome `json:"outcome,omitempty"`
	Error   string     `json:"error,omitempty"`
	Damage  bool       `json:"damage,omitempty"` // the error is that something stored is damaged (ErrIntegrity)
	Label   Label      `json:"label,omitempty"`  // of the backup that was taken
	Node    string     `json:"node,omitempty"`   // where it was taken
	// Report is what the run did and found, for people, a line each.
	Report []string `json:"report,omitempty"`
}

// RunOutcome is how a run ended.
type RunOutcome string

// The outcomes. RunLost: its process died.
const (
	RunDone      RunOutcome = "done"
	RunFailed    RunOutcome = "failed"
	RunCancelled RunOutcome = "cancelled"
	RunLost      RunOutcome = "lost"
)

// Running reports whether the end of the run was not recorded.
func (r JobRun) Running() bool { return r.Ended.IsZero() }

const runPrefix = "run/"

func runKey(id, part string) string { return runPrefix + id + "/" + part }

// BeginRun records that a run begins, and names it.
func (r *Repository) BeginRun(ctx context.Context, run JobRun) (JobRun, error) {
	run.Format, run.Repo = Format, r.name
	run.Ended, run.Outcome, run.Error, run.Damage, run.Label, run.Node, run.Report = time.Time{}, "", "", false, "", "", nil
	run.ID = run.Started.UTC().Format(labelTime) + "-" + rand.Text()
	_, err := r.putSealed(ctx, runKey(run.ID, "begin"), run, r.Encrypted())
	return run, err
}

// EndRun records how a run ended. The first record counts: ErrExists for a
// later one.
func (r *Repository) EndRun(ctx context.Context, run JobRun) error {
	if run.Running() || run.Outcome == "" {
		return fmt.Errorf("end run %s: no end or no outcome", run.ID)
	}
	run.Format = Format
	_, err := r.putSealed(ctx, runKey(run.ID, "end"), run, r.Encrypted())
	return err
}

// Runs reads the history from a moment on, oldest first. What cannot be read
// is left out, and in the error, a *DamageError (joined).
func (r *Repository) Runs(ctx context.Context, since time.Time) ([]JobRun, error) {
	return r.NewRuns(ctx, since, nil)
}

// NewRuns is Runs without those whose end is known: of these nothing is read.
func (r *Repository) NewRuns(ctx context.Context, since time.Time, known func(id string) bool) ([]JobRun, error) {
	keys := map[string]string{} // by id: the object that says the most
	err := r.store.List(ctx, runPrefix, object.ListOptions{After: runPrefix + since.UTC().Format(labelTime)}, func(i object.Info) error {
		id, part, _ := strings.Cut(strings.TrimPrefix(i.Key, runPrefix), "/")
		if (part == "begin" || part == "end") && (known == nil || !known(id)) {
			keys[id] = i.Key // in this order
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the runs of %s: %w", r.name, err)
	}
	var mu sync.Mutex // guards runs and damage
	var runs []JobRun
	var damage []error
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(listWorkers)
	for id, key := range keys {
		group.Go(func() error {
			run, err := r.readRun(gctx, id, key)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, ErrIntegrity):
				damage = append(damage, err)
			case err != nil && !errors.Is(err, ErrNotFound):
				return err
			case err == nil:
				runs = append(runs, run)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(runs, func(a, b JobRun) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	return runs, errors.Join(damage...)
}

// FindRun reads one run as far as it is recorded. ErrNotFound: there is none.
func (r *Repository) FindRun(ctx context.Context, id string) (JobRun, error) {
	run, err := r.readRun(ctx, id, runKey(id, "end"))
	if errors.Is(err, ErrNotFound) {
		return r.readRun(ctx, id, runKey(id, "begin"))
	}
	return run, err
}

func (r *Repository) readRun(ctx context.Context, id, key string) (run JobRun, err error) {
	if err := r.getSealed(ctx, key, &run, r.Encrypted()); err != nil {
		return JobRun{}, err
	}
	if run.ID != id {
		return JobRun{}, damaged(key, "it is of run %s", run.ID)
	}
	run.Repo = r.name
	return run, nil
}

// RemoveRuns removes runs from the history.
func (r *Repository) RemoveRuns(ctx context.Context, ids ...string) error {
	var keys []string
	for _, id := range ids {
		keys = append(keys, runKey(id, "begin"), runKey(id, "end"))
	}
	for batch := range slices.Chunk(keys, removeBatch) {
		if err := r.store.Delete(ctx, batch...); err != nil {
			return fmt.Errorf("remove old runs from %s: %w", r.name, err)
		}
	}
	return nil
}

// DeleteRuns removes the history before a moment.
func (r *Repository) DeleteRuns(ctx context.Context, before time.Time) (int, error) {
	limit := runPrefix + before.UTC().Format(labelTime)
	var keys []string
	err := r.store.List(ctx, runPrefix, object.ListOptions{}, func(i object.Info) error {
		if i.Key >= limit {
			return errStop
		}
		keys = append(keys, i.Key)
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return 0, fmt.Errorf("list the runs of %s: %w", r.name, err)
	}
	for batch := range slices.Chunk(keys, removeBatch) {
		if err := r.store.Delete(ctx, batch...); err != nil {
			return 0, fmt.Errorf("remove old runs from %s: %w", r.name, err)
		}
	}
	return len(keys), nil
}
