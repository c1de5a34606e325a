package scheduler

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// fakeClock runs a minute in each millisecond.
type fakeClock struct{ began time.Time }

func (c fakeClock) Now() time.Time { return begin.Add(time.Since(c.began) * 60000) }

func (c fakeClock) After(d time.Duration) <-chan time.Time {
	return time.After(max(d/60000, time.Microsecond))
}

func journal(t *testing.T) *repo.Repository {
	r, err := repo.Open(repo.Options{Name: "repo1", Store: memory.New(), Cluster: "hippo"})
	require.NoError(t, err)
	return r
}

func noFence(context.Context) error { return nil }

// A day of a runner; then another runner that finds a run without an end.
func TestRunner(t *testing.T) {
	j := journal(t)
	var mu sync.Mutex // guards count
	count := map[Kind]int{}
	var inside atomic.Int32
	o := Options{
		Repo: "repo1", Jobs: []Job{job(t, Full, "0 1 * * *"), job(t, Incremental, "0 * * * *"), {Repo: "repo1", Kind: Expire, AfterBackup: true}},
		Journal: j, Executors: map[Kind]Executor{}, Clock: fakeClock{time.Now()},
	}
	for _, k := range []Kind{Full, Incremental, Expire} {
		o.Executors[k] = func(ctx context.Context, run repo.JobRun) (Outcome, error) {
			if inside.Add(1) > 1 {
				return Outcome{}, errors.New("overlap")
			}
			defer inside.Add(-1)
			mu.Lock()
			defer mu.Unlock()
			count[Kind(run.Kind)]++
			if count[Kind(run.Kind)] == 1 {
				panic("the first one fails")
			}
			return Outcome{}, nil
		}
	}
	r, err := NewRunner(t.Context(), o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, noFence) }()
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return count[Full] >= 2 && count[Incremental] >= 5 && count[Expire] >= 5
	}
	require.Eventually(t, enough, time.Minute, 5*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	r.Wait()
	failed := 0
	for _, run := range r.History() {
		require.False(t, run.Running())
		require.NotEqual(t, "overlap", run.Error)
		if run.Outcome == repo.RunFailed {
			failed++
		}
	}
	require.Equal(t, 3, failed, "and each was tried again")

	open, err := j.BeginRun(t.Context(), repo.JobRun{Kind: "full", Due: o.Clock.Now(), Started: o.Clock.Now(), Attempt: 1})
	require.NoError(t, err)
	next, err := NewRunner(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, next.load(t.Context()))
	history := next.History()
	require.Len(t, history, len(r.History())+1)
	require.Equal(t, open.ID, history[len(history)-1].ID)
	require.Equal(t, repo.RunLost, history[len(history)-1].Outcome)
}

// What somebody asks for: one at a time, once for each key, under the fence;
// what a leader leaves behind is adopted, once.
func TestTrigger(t *testing.T) {
	j := journal(t)
	release := make(chan struct{})
	o := Options{Repo: "repo1", Journal: j, By: "first", Executors: map[Kind]Executor{
		Full: func(ctx context.Context, run repo.JobRun) (Outcome, error) {
			select {
			case <-ctx.Done():
				if errors.Is(context.Cause(ctx), ErrCancelled) {
					return Outcome{}, ErrCancelled
				}
				return Outcome{}, ErrHandedOver
			case <-release:
				return Outcome{Label: "20261122-010000F", Node: "pg-1"}, nil
			}
		},
	}}
	work, stopWork := context.WithCancel(t.Context())
	r, err := NewRunner(work, o)
	require.NoError(t, err)
	_, err = r.Trigger(t.Context(), Request{Kind: Full})
	require.ErrorIs(t, err, ErrIdle)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lost := errors.New("the lease is lost")
	var fenced atomic.Bool
	go func() {
		_ = r.Run(ctx, func(context.Context) error {
			if fenced.Load() {
				return lost
			}
			return nil
		})
	}()
	var one repo.JobRun
	require.Eventually(t, func() bool {
		one, err = r.Trigger(t.Context(), Request{Kind: Full, Key: "a", By: "ann", Annotations: map[string]string{"why": "x"}})
		return err == nil
	}, time.Minute, time.Millisecond)
	again, err := r.Trigger(t.Context(), Request{Kind: Full, Key: "a"})
	require.NoError(t, err)
	require.Equal(t, one.ID, again.ID)
	_, err = r.Trigger(t.Context(), Request{Kind: Full, Key: "b"})
	require.ErrorIs(t, err, ErrBusy)
	require.True(t, r.Cancel(one.ID))
	require.False(t, r.Cancel("nothing"))
	outcome := func(r *Runner, id string) repo.RunOutcome {
		for _, run := range r.History() {
			if run.ID == id {
				return run.Outcome
			}
		}
		return ""
	}
	require.Eventually(t, func() bool { return outcome(r, one.ID) == repo.RunCancelled }, time.Minute, time.Millisecond)

	r.SetPaused(true)
	_, err = r.Trigger(t.Context(), Request{Kind: Full})
	require.ErrorIs(t, err, ErrPaused)
	r.SetPaused(false)
	fenced.Store(true)
	_, err = r.Trigger(t.Context(), Request{Kind: Full})
	require.ErrorIs(t, err, lost)
	fenced.Store(false)
	two, err := r.Trigger(t.Context(), Request{Kind: Full, Key: "c"})
	require.NoError(t, err)
	cancel()
	stopWork()
	r.Wait()
	require.Empty(t, outcome(r, two.ID), "handed over: open")

	var asked []string
	o.By, o.Adopt = "second", func(_ context.Context, run repo.JobRun) Executor {
		asked = append(asked, run.ID)
		return o.Executors[Full]
	}
	next, err := NewRunner(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, next.load(t.Context()))
	require.NoError(t, next.load(t.Context()), "again, as when it leads again")
	require.Equal(t, []string{two.ID}, asked)
	close(release)
	next.Wait()
	require.Equal(t, repo.RunDone, outcome(next, two.ID))
	found, err := j.FindRun(t.Context(), two.ID)
	require.NoError(t, err)
	require.Equal(t, "pg-1", found.Node)
}

// The history stays small, and knows the last run of each kind.
func TestThin(t *testing.T) {
	j := journal(t)
	o := Options{Repo: "repo1", Journal: j, KeepHistory: time.Hour}
	now := time.Now()
	for i := range 5 {
		run, err := j.BeginRun(t.Context(), repo.JobRun{Kind: "full", Due: now, Started: now.Add(time.Duration(i-10) * time.Hour), Attempt: 1})
		require.NoError(t, err)
		run.Ended, run.Outcome = run.Started, repo.RunDone
		require.NoError(t, j.EndRun(t.Context(), run))
	}
	r, err := NewRunner(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, r.load(t.Context()))
	require.Len(t, r.History(), 1)
	left, err := j.Runs(t.Context(), now.Add(-100*time.Hour))
	require.NoError(t, err)
	require.Equal(t, r.History(), left)
}

func TestSeconds(t *testing.T) {
	s, err := ParseSchedule("*/20 * * * * *", time.UTC)
	require.NoError(t, err)
	require.Equal(t, begin.Add(20*time.Second), s.Next(begin))
	d := Decide([]Job{{Repo: "repo1", Kind: Full, Schedule: s}}, State{Now: begin.Add(45 * time.Second), Since: begin})
	require.Equal(t, begin.Add(40*time.Second), d.Start[0].Due)
}
