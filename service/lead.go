package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/retention"
)

// leaseName is the lease of whoever runs the jobs of a repository.
const leaseName = "service"

// lead campaigns until ctx ends, and gives repositories their leases.
func (s *Service) lead(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.leadByLeases(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot lead", zap.Error(err))
			pause(ctx, s.settings().Lease/4)
		}
	}
}

// leases are those of the repositories, by their place in the configuration.
type leases struct {
	s       *Service
	repos   []*repository
	watched []repo.LeaseWatch // what was seen of each lease while another led

	mu    sync.Mutex // guards what follows
	held  map[int]*repo.Lease
	quiet []quiet // what was seen lately, see turn
}

// leadByLeases gets hold of one lease, then of the others, and holds them until
// all are lost, or one of an earlier repository turns out to be another's.
func (s *Service) leadByLeases(ctx context.Context) error {
	l := &leases{s: s, repos: s.repositories(), held: map[int]*repo.Lease{}}
	l.watched, l.quiet = make([]repo.LeaseWatch, len(l.repos)), make([]quiet, len(l.repos))
	stopWatching := l.watch(ctx)
	first, err := 0, l.turn(ctx)
	if err == nil {
		first, err = l.first(ctx)
	}
	stopWatching()
	if err != nil {
		return err
	}
	s.log.Info("leading", zap.String("through", l.repos[first].name))
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for i := range l.repos {
		all.Go(func() { l.keep(ctx, i, stop) })
	}
	all.Wait()
	l.release()
	s.log.Warn("no longer leading", zap.Error(context.Cause(ctx)))
	return nil
}

// watch watches all leases, so that a dead leader's are taken all at once.
func (l *leases) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for i, r := range l.repos {
		all.Go(func() {
			for ctx.Err() == nil {
				err := r.conf().Watch.WatchLease(ctx, leaseName, &l.watched[i])
				if err != nil && ctx.Err() == nil {
					r.setTrouble(err)
				}
				l.noteQuiet(i, err)
				pause(ctx, l.s.settings().Lease/4)
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// forEver is how long another leader that lives is waited for.
const forEver time.Duration = 10 * 365 * 24 * time.Hour

// first waits for the lease of the first repository that answers. While that is
// not the first one, it comes back to that again and again. With an election it
// returns ErrBusy when another leads and goes on doing so.
func (l *leases) first(ctx context.Context) (int, error) {
	for {
		wait := l.patience()
		var all []error
		for i := range l.repos {
			err := l.acquire(ctx, i, wait)
			if err == nil {
				return i, nil
			}
			all = append(all, fmt.Errorf("%s: %w", l.repos[i].name, err))
			if errors.Is(err, repo.ErrBusy) {
				if l.s.o.Election != nil {
					return 0, err // whose turn it is may have changed
				}
				all = nil // another leads: from the beginning
				break
			}
			l.repos[i].setTrouble(err)
			wait = min(wait, l.s.settings().Lease*3/2)
		}
		if all != nil || ctx.Err() != nil {
			return 0, errors.Join(all...)
		}
	}
}

// acquire takes a lease, and gives the repository its grant.
func (l *leases) acquire(ctx context.Context, i int, wait time.Duration) error {
	r := l.repos[i]
	err := r.conf().Watch.Init(ctx)
	var lease *repo.Lease
	if err == nil {
		lease, err = r.conf().Watch.AcquireLease(ctx, leaseName, repo.LeaseOptions{
			Holder: l.s.o.Holder, What: "running the schedules", TTL: l.s.settings().Lease, Wait: wait, Watch: &l.watched[i],
			Depose: l.depose(),
		})
	}
	if errors.Is(err, syscall.ENOSPC) {
		// Nothing can be written, not even that we lead. What is to be removed
		// can be, by the argument of package retention.
		r.makeRoom(ctx)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.held[i] = lease
	l.mu.Unlock()
	r.setGrant(lease)
	return nil
}

// errFollow: another service leads, through an earlier repository.
var errFollow = errors.New("another service leads")

// keep holds the lease of a repository, or tries to get it, until ctx ends.
func (l *leases) keep(ctx context.Context, i int, stop context.CancelCauseFunc) {
	ttl := l.s.settings().Lease
	for ctx.Err() == nil {
		if lease := l.holds(i); lease != nil {
			select {
			case <-ctx.Done():
				return
			case <-lease.Context().Done():
			}
			if ctx.Err() != nil {
				return
			}
			l.s.log.Warn("lease lost", zap.String("repo", l.repos[i].name), zap.Error(context.Cause(lease.Context())))
			if left := l.drop(i); left == 0 {
				stop(errors.New("no lease is left"))
				return
			}
		}
		// Longer than a dead holder's lease lasts, so that busy means alive.
		err := l.acquire(ctx, i, ttl+ttl/2)
		switch {
		case err == nil:
			continue
		case errors.Is(err, repo.ErrBusy) && l.later(i):
			stop(fmt.Errorf("%w: %w", errFollow, err))
			return
		}
		l.repos[i].setTrouble(err)
		pause(ctx, ttl/4)
	}
}

func (l *leases) holds(i int) *repo.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[i]
}

// drop forgets a lost lease, and returns how many are left.
func (l *leases) drop(i int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, i)
	return len(l.held)
}

// later reports whether all leases that we hold are of repositories behind i.
func (l *leases) later(i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for j := range l.held {
		if j < i {
			return false
		}
	}
	return true
}

func (l *leases) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, lease := range l.held {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := lease.Release(ctx); err != nil {
			l.s.log.Warn("a lease is left to go stale", zap.String("repo", l.repos[i].name), zap.Error(err))
		}
		cancel()
	}
}

// makeRoom expires what has to go from a repository that is full.
func (r *repository) makeRoom(ctx context.Context) {
	c := r.conf()
	r.s.log.Warn("the repository is full: expiring", zap.String("repo", r.name))
	_, err := retention.Run(ctx, c.Work, retention.Options{Policy: c.Policy, Zone: r.s.settings().Zone, Clock: r.s.o.Clock, Log: r.s.log})
	if err != nil {
		r.s.log.Warn("a full repository is not expired", zap.String("repo", r.name), zap.Error(err))
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
