package service

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// quiet is since when a lease was seen, without a break, to be held by nobody
// or not renewed.
type quiet struct {
	version time.Time // LeaseWatch.Since of the version that was seen
	since   time.Time // zero: the repository does not answer
}

// noteQuiet is told of each look at the lease of a repository.
func (l *leases) noteQuiet(i int, err error) {
	version := l.watched[i].Since()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch q := &l.quiet[i]; {
	case err != nil:
		*q = quiet{}
	case q.since.IsZero() || !q.version.Equal(version):
		*q = quiet{version, time.Now()}
	}
}

// turn waits until it is this service's turn to lead: when it is elected, or
// when no other leads although it could. Without an election it always is.
func (l *leases) turn(ctx context.Context) error {
	election := l.s.o.Election
	if election == nil {
		return nil
	}
	for {
		changed := election.Changed()
		if election.Elected() {
			return nil
		}
		if l.abandoned() {
			l.s.log.Warn("not elected, but nobody leads", zap.Duration("for", l.hope()))
			return nil
		}
		look := time.NewTimer(l.s.settings().Lease / 8)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-look.C:
		}
		look.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// hope is how long whoever is elected is given to lead.
func (l *leases) hope() time.Duration { return 3 * l.s.settings().Lease }

// abandoned reports whether the first repository that answers was watched
// without a sign of any leader for longer than an election and the end of a
// dead leader's lease take.
func (l *leases) abandoned() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.quiet {
		if !q.since.IsZero() {
			return time.Since(q.since) >= l.hope()
		}
	}
	return false
}

// patience is how long a living leader is waited for: for ever where leases
// alone decide; else until his lease would be stale, then turn decides again.
// Who is not elected does not wait.
func (l *leases) patience() time.Duration {
	switch election := l.s.o.Election; {
	case election == nil:
		return forEver
	case election.Elected():
		return l.s.settings().Lease * 3 / 2
	}
	return 0
}

// depose is for repo.LeaseOptions: who is elected takes the lease from whoever
// holds it. He asks before, so that one who was elected once and has slept since
// deposes nobody.
func (l *leases) depose() func(context.Context) bool {
	election := l.s.o.Election
	if election == nil {
		return nil
	}
	return func(ctx context.Context) bool {
		if !election.Elected() {
			return false
		}
		err := election.Confirm(ctx)
		if err != nil {
			l.s.log.Warn("whoever leads is left to lead", zap.Error(err))
		}
		return err == nil
	}
}
