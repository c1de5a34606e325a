package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/scheduler"
)

// repository is one repository at work: its runner, and what is known of it.
type repository struct {
	s      *Service
	name   string
	runner *scheduler.Runner
	stop   context.CancelFunc // of serve
	ended  chan struct{}      // closed when serve has ended
	// drillCache is for looks alone.
	drillCache repo.DrillCache
	marks      repo.UseWatch // stale marks that expiries saw

	mu      sync.Mutex // guards what follows
	config  Repo
	grant   *repo.Lease   // the right to start runs; nil: none
	granted chan struct{} // closed when there is one
	trouble error         // why the lease cannot be had
	view    view
	history map[string]repo.JobRun // of a follower: runs that others began
	// expireAgain is when an expiry may do what marks kept the last one from; zero:
	// nothing was kept.
	expireAgain time.Time
}

func (s *Service) newRepository(c Repo) (*repository, error) {
	r := &repository{s: s, name: c.name(), config: c, granted: make(chan struct{}), ended: make(chan struct{}), history: map[string]repo.JobRun{}}
	do := map[scheduler.Kind]scheduler.Executor{
		scheduler.Full: r.backup, scheduler.Differential: r.backup, scheduler.Incremental: r.backup,
		scheduler.Expire: r.expire, scheduler.Verify: r.verify, scheduler.Repair: r.repair, scheduler.Drill: r.drill,
	}
	var err error
	r.runner, err = scheduler.NewRunner(s.work, scheduler.Options{
		Repo: r.name, Jobs: c.Jobs, Executors: do, Journal: c.Watch, Adopt: r.adopt, Changed: r.changed,
		By: s.o.Holder, Tracer: s.o.Tracer, Clock: clock{s.o.Clock}, Log: s.log,
	})
	return r, err
}

// clock lets the runner see the service's time.
type clock struct{ now func() time.Time }

func (c clock) Now() time.Time                         { return c.now() }
func (c clock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (r *repository) conf() Repo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.config
}

func (r *repository) setGrant(g *repo.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.grant == nil {
		close(r.granted)
	}
	r.grant, r.trouble = g, nil
}

func (r *repository) setTrouble(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = err
}

// leads is the grant that is valid now, nil if there is none.
func (r *repository) leads() *repo.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.grant == nil || r.grant.Context().Err() != nil {
		return nil
	}
	return r.grant
}

// nextGrant waits for a grant that is valid.
func (r *repository) nextGrant(ctx context.Context) *repo.Lease {
	for {
		r.mu.Lock()
		if r.grant != nil && r.grant.Context().Err() != nil {
			r.grant, r.granted = nil, make(chan struct{})
		}
		g, granted := r.grant, r.granted
		r.mu.Unlock()
		if g != nil {
			return g
		}
		select {
		case <-ctx.Done():
			return nil
		case <-granted:
		}
	}
}

// serve runs what is due whenever we lead, until ctx ends.
func (r *repository) serve(ctx context.Context) {
	defer close(r.ended)
	select { // what is adopted, and chosen, depends on the nodes
	case <-ctx.Done():
	case <-r.s.probed:
	}
	for ctx.Err() == nil {
		g := r.nextGrant(ctx)
		if g == nil {
			return
		}
		term, cancel := context.WithCancelCause(ctx)
		unwatch := context.AfterFunc(g.Context(), func() { cancel(context.Cause(g.Context())) })
		err := r.readPause(term)
		if err == nil {
			err = r.runner.Run(term, func(ctx context.Context) error { return fence(ctx, g) })
		}
		if term.Err() == nil {
			r.s.log.Warn("nothing is started", zap.String("repo", r.name), zap.Error(err))
			r.setTrouble(err)
			pause(term, 5*time.Second)
		}
		unwatch()
		cancel(nil)
		r.changed()
	}
}

// fence asks for the right to start something, right before it.
func fence(ctx context.Context, g *repo.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := g.Check(ctx); err != nil {
		return fmt.Errorf("nothing may be started: %w", err)
	}
	return nil
}

// readPause looks whether the repository is paused.
func (r *repository) readPause(ctx context.Context) error {
	p, err := r.conf().Watch.Paused(ctx)
	if err != nil {
		return err
	}
	r.runner.SetPaused(p != nil)
	return nil
}

// changed is told of every begin and end of a run.
func (r *repository) changed() {
	r.s.publish()
	r.s.look()
}

// readHistory brings what is known of others' runs up to date.
func (r *repository) readHistory(ctx context.Context) error {
	r.mu.Lock()
	known := map[string]bool{}
	for id, run := range r.history {
		known[id] = !run.Running()
	}
	r.mu.Unlock()
	for _, run := range r.runner.History() {
		known[run.ID] = known[run.ID] || !run.Running()
	}
	runs, err := r.conf().Watch.NewRuns(ctx, r.s.o.Clock().Add(-shownHistory), func(id string) bool { return known[id] })
	if err != nil && !errors.Is(err, repo.ErrIntegrity) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, run := range runs {
		r.history[run.ID] = run
	}
	for id, run := range r.history {
		if run.Started.Before(r.s.o.Clock().Add(-shownHistory)) {
			delete(r.history, id)
		}
	}
	return nil
}

// shownHistory is how old runs are that a service shows.
const shownHistory = 32 * 24 * time.Hour

// runs are all runs that are known, in no order.
func (r *repository) runs() []repo.JobRun {
	all := map[string]repo.JobRun{}
	r.mu.Lock()
	for id, run := range r.history {
		all[id] = run
	}
	r.mu.Unlock()
	for _, run := range r.runner.History() {
		if old, ok := all[run.ID]; !ok || old.Running() {
			all[run.ID] = run
		}
	}
	list := make([]repo.JobRun, 0, len(all))
	for _, run := range all {
		list = append(list, run)
	}
	return list
}
