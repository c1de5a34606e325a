package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo/object"
)

// A lease is one object that says who may do something, until when nobody
// needs to ask again. All that it rests on is the store's conditional put.
//
//   - Take: put if absent. Renew, and take over: put if the version is still
//     the one that was read. So of several writers one wins, always.
//   - Lost or dead? The holder's and our clocks are never compared to take a
//     lease away: they may differ by hours. A lease is dead if its holder was
//     a process of this very host that is gone, or if the object did not
//     change in the TTL that we ourselves watched it for. Clocks only
//     make us give up sooner, which harms nobody. Besides, a holder can be
//     deposed: see LeaseOptions.Depose.
//   - The holder counts its TTL from before it sent the last renewal that
//     succeeded, so it ends before anyone can have watched for a TTL; and it
//     stops at 7/8 of that, for the difference in the speed of clocks.
//   - Crashes: killed before the first put: nothing happened. Killed while
//     holding: the next one takes over, at once on the same host, else
//     after a TTL. Killed between the check and the delete of Release: the
//     lease stays and goes stale.
//   - A store that is away when a lease is released, or for so long that it is
//     lost: the object stays, and its holder lives. It is given back when the
//     store is there again: see GiveBack.
//
// A holder that was stopped for longer than the TTL (a suspended machine)
// may still have requests under way when another takes over. They harm
// nothing: every object is put if absent, and Check before a commit finds it.

// DefaultLeaseTTL is how long a lease outlives its last renewal.
const DefaultLeaseTTL = 60 * time.Second

// LeaseOptions of AcquireLease.
type LeaseOptions struct {
	Holder string        // who, for people; "": host name and process id
	What   string        // what it does: "full backup 20261122-010000F"
	TTL    time.Duration // 0: DefaultLeaseTTL
	// Watch is what was seen of the lease before; nil: nothing.
	Watch *LeaseWatch
	// Wait is how long to wait for a holder that is alive; 0: not at all. For
	// one that seems dead AcquireLease waits up to its TTL, to make sure.
	Wait time.Duration
	// Depose is asked when somebody else holds the lease, and not seen to be dead.
	// true: it is taken from him. For who knows from elsewhere that the other is
	// not to hold it any more, although nothing but a look at the store tells
	// him: his next renewal, or Check, finds the lease lost. nil: never.
	Depose func(context.Context) bool
}

// BusyError says who holds a lease.
type BusyError struct {
	Name    string // of the lease
	Holder  string
	What    string
	Since   time.Time // by the holder's clock
	Renewed time.Time // by the holder's clock
}

func (e *BusyError) Error() string {
	what := ""
	if e.What != "" {
		what = " for " + e.What
	}
	return fmt.Sprintf("busy: %q is held by %s since %s%s", e.Name, e.Holder, e.Since.UTC().Format(time.RFC3339), what)
}

// Is makes errors.Is(err, ErrBusy) true.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// leaseRecord is the object.
type leaseRecord struct {
	Format  int       `json:"format"`
	Name    string    `json:"name"`
	Token   string    `json:"token"` // of the one who holds it
	Holder  string    `json:"holder"`
	What    string    `json:"what,omitempty"`
	Since   time.Time `json:"since"`
	Renewed time.Time `json:"renewed"`
	Count   int64     `json:"count"` // of renewals, so that every version differs
	TTL     float64   `json:"ttl"`   // seconds
	// Released: nobody holds it any more, although its object is still there.
	Released bool `json:"released,omitempty"`
	process
}

// dead reports whether certainly nobody holds the lease.
func (l *leaseRecord) dead() bool { return l.Released || l.process.dead() }

func (l *leaseRecord) busy() *BusyError {
	return &BusyError{Name: l.Name, Holder: l.Holder, What: l.What, Since: l.Since, Renewed: l.Renewed}
}

func (l *leaseRecord) ttl() time.Duration { return time.Duration(l.TTL * float64(time.Second)) }

// fresh guesses from the holder's clock whether it is alive. Only good to give
// up early.
func (l *leaseRecord) fresh(now time.Time) bool {
	age := now.Sub(l.Renewed)
	return age < l.ttl() && age > -l.ttl()
}

// Lease is the right to do something alone, renewed in the background until
// it is released or lost.
type Lease struct {
	r      *Repository
	key    string
	ttl    time.Duration
	ctx    context.Context
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when the renewal has stopped

	mu       sync.Mutex // held while the object is written; guards what follows
	record   leaseRecord
	version  string
	deadline time.Time // when it may be another's; with monotonic clock
}

// AcquireLease takes the lease of that name (letters, digits, '-', '_', '.'),
// or returns a *BusyError that names the holder. ctx bounds the acquisition
// and is the parent of the lease's context.
func (r *Repository) AcquireLease(ctx context.Context, name string, o LeaseOptions) (*Lease, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" || strings.HasSuffix(name, ".") {
		return nil, fmt.Errorf("acquire a lease: not a name: %q", name)
	}
	if o.TTL == 0 {
		o.TTL = DefaultLeaseTTL
	}
	self, err := currentProcess()
	if err != nil {
		return nil, fmt.Errorf("acquire lease %q: %w", name, err)
	}
	if o.Holder == "" {
		o.Holder = fmt.Sprintf("%s, process %d", self.Host, self.PID)
	}
	r.GiveBack(ctx)
	l := &Lease{r: r, key: leaseKey(name), ttl: o.TTL, ended: make(chan struct{})}
	l.record = leaseRecord{
		Format: Format, Name: name, Token: rand.Text(), Holder: o.Holder, What: o.What,
		Since: r.clock().UTC(), TTL: o.TTL.Seconds(), process: self,
	}
	if err := l.take(ctx, o); err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	go l.renew()
	return l, nil
}

// leasePoll is how often at least a lease that is waited for is looked at.
const leasePoll = 2 * time.Second

// take gets hold of the object, or finds who has it.
func (l *Lease) take(ctx context.Context, o LeaseOptions) error {
	wait, before := o.Wait, o.Watch
	giveUp := time.Now().Add(wait)
	var seen string     // version under watch
	var since time.Time // when it was first seen
	if before != nil {
		before.mu.Lock()
		seen, since = before.version, before.since
		before.mu.Unlock()
	}
	for {
		err := l.put(ctx, object.PutOptions{IfAbsent: true})
		if !errors.Is(err, ErrExists) {
			return err
		}
		now := time.Now()
		other, version, err := l.r.readLease(ctx, l.key)
		switch {
		case errors.Is(err, ErrNotFound):
			continue // released just now
		case errors.Is(err, ErrIntegrity):
			// Nobody can renew that: it is garbage once the TTL is over.
			other = leaseRecord{Name: l.record.Name, Holder: "unknown (the lease object is damaged)", TTL: l.ttl.Seconds()}
		case err != nil:
			return err
		case other.Token == l.record.Token: // the answer to our put got lost
			l.version = version
			return nil
		}
		renewed := seen != "" && version != seen // while we watched
		if version != seen {
			seen, since = version, now
		}
		stale := other.dead() || now.Sub(since) >= other.ttl()
		if stale || o.Depose != nil && o.Depose(ctx) {
			err := l.put(ctx, object.PutOptions{IfMatch: version})
			if err == nil {
				l.r.log.Warn("took over a lease", zap.String("lease", l.record.Name), zap.String("holder", other.Holder), zap.Bool("stale", stale))
			}
			if !errors.Is(err, object.ErrChanged) {
				return err
			}
			continue
		}
		// Whoever renews is alive, even if his clock is hours off ours. Whose
		// process lives and who does not renew has lost the lease, or could not
		// give it back: he is watched like one elsewhere.
		alive := renewed || other.fresh(l.r.clock())
		if wait == 0 && alive || wait > 0 && now.After(giveUp) {
			return other.busy()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for lease %q: %w", l.record.Name, context.Cause(ctx))
		case <-time.After(min(max(10*time.Millisecond, other.ttl()/8), leasePoll)):
		}
	}
}

// put writes our record under a condition, and on success notes until when
// it holds, counted from before the request.
func (l *Lease) put(ctx context.Context, opts object.PutOptions) error {
	start := time.Now()
	l.record.Renewed = l.r.clock().UTC()
	l.record.Count++
	b, err := seal(l.record)
	if err != nil {
		return err
	}
	opts.Size = int64(len(b))
	info, err := l.r.store.Put(ctx, l.key, bytes.NewReader(b), opts)
	if err != nil {
		return fmt.Errorf("write lease %q: %w", l.record.Name, err)
	}
	l.version = info.Version
	l.deadline = start.Add(l.ttl - l.ttl/8)
	return nil
}

// readLease reads a lease and the version that it was read at.
func (r *Repository) readLease(ctx context.Context, key string) (l leaseRecord, version string, err error) {
	for range 100 {
		before, err := r.store.Stat(ctx, key)
		if err != nil {
			return l, "", fmt.Errorf("read %s: %w", key, err)
		}
		l = leaseRecord{}
		readErr := r.getSealed(ctx, key, &l, false)
		after, err := r.store.Stat(ctx, key)
		if err != nil {
			return l, "", fmt.Errorf("read %s: %w", key, err)
		}
		if before.Version == after.Version {
			if readErr == nil {
				readErr = checkFormat(key, l.Format)
			}
			return l, before.Version, readErr
		}
	}
	return l, "", fmt.Errorf("read %s: it changes all the time", key)
}

// LeaseWatch is what was seen of a lease, so that who wants it later need not
// begin to watch its holder then. The zero value has seen nothing.
type LeaseWatch struct {
	mu      sync.Mutex // guards what follows
	version string
	since   time.Time
}

// WatchLease looks at a lease once. Look several times in its TTL.
func (r *Repository) WatchLease(ctx context.Context, name string, w *LeaseWatch) error {
	_, version, err := r.readLease(ctx, leaseKey(name))
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrIntegrity) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if version != w.version || w.since.IsZero() {
		w.version, w.since = version, time.Now()
	}
	return nil
}

// Since is when the lease was first seen as it is: not renewed since, or not
// there. Zero: it was not looked at.
func (w *LeaseWatch) Since() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.since
}

// LeaseState is a lease as its object shows it.
type LeaseState struct {
	Holder  string
	What    string
	Since   time.Time // by the holder's clock
	Renewed time.Time // by the holder's clock
	TTL     time.Duration
	// Dead: the holder was a process of this host that is gone.
	Dead bool
}

// LookLease reads who holds a lease. ErrNotFound: nobody. A holder that died
// elsewhere still stands there.
func (r *Repository) LookLease(ctx context.Context, name string) (LeaseState, error) {
	l, _, err := r.readLease(ctx, leaseKey(name))
	if err != nil {
		return LeaseState{}, err
	}
	return LeaseState{Holder: l.Holder, What: l.What, Since: l.Since, Renewed: l.Renewed, TTL: l.ttl(), Dead: l.dead()}, nil
}

// renew keeps the lease until its context ends.
func (l *Lease) renew() {
	defer close(l.ended)
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(l.ttl / 4):
		}
		l.mu.Lock()
		err := l.renewOnce()
		left := time.Until(l.deadline)
		l.mu.Unlock()
		switch {
		case l.ctx.Err() != nil:
			return
		case errors.Is(err, ErrLeaseLost) || err != nil && left <= l.ttl/8:
			l.cancel(fmt.Errorf("lease %q: %w", l.record.Name, errors.Join(ErrLeaseLost, err)))
			return
		case err != nil:
			l.r.log.Warn("lease was not renewed, trying again", zap.String("lease", l.record.Name), zap.Error(err))
		}
	}
}

// renewOnce writes the next version. l.mu is held.
func (l *Lease) renewOnce() error {
	ctx, cancel := context.WithDeadline(l.ctx, l.deadline)
	defer cancel()
	err := l.put(ctx, object.PutOptions{IfMatch: l.version})
	if !errors.Is(err, object.ErrChanged) && !errors.Is(err, ErrNotFound) {
		return err
	}
	// Another's, or our own put whose answer got lost.
	now, version, err := l.r.readLease(ctx, l.key)
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrLeaseLost
	case err != nil:
		return err
	case now.Token != l.record.Token:
		return fmt.Errorf("%w to %s", ErrLeaseLost, now.Holder)
	}
	l.version = version
	return l.put(ctx, object.PutOptions{IfMatch: version})
}

// Context is cancelled, with cause ErrLeaseLost, when the lease may have
// passed to another, and when it is released.
func (l *Lease) Context() context.Context { return l.ctx }

// Check asks the store whether the lease is still ours: ErrLeaseLost if not.
// Call it before a commit.
func (l *Lease) Check(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := context.Cause(l.ctx); err != nil {
		return err
	}
	now, _, err := l.r.readLease(ctx, l.key)
	switch {
	case errors.Is(err, ErrNotFound):
		err = ErrLeaseLost
	case err == nil && now.Token != l.record.Token:
		err = fmt.Errorf("%w to %s", ErrLeaseLost, now.Holder)
	case err == nil && !time.Now().Before(l.deadline):
		err = ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("lease %q: %w", l.record.Name, err)
	}
	return nil
}

// takenOver reports whether another has, or may have, the lease by now, also
// when the renewal has ended because its context is done.
func (l *Lease) takenOver(ctx context.Context) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(context.Cause(l.ctx), ErrLeaseLost) || !time.Now().Before(l.deadline) {
		return true
	}
	now, _, err := l.r.readLease(ctx, l.key)
	return errors.Is(err, ErrNotFound) || err == nil && now.Token != l.record.Token
}

// Release ends the renewal and deletes the lease if it is still ours. The
// delete has to be done before anybody can have taken over. One that could not be
// deleted is owed: see [Repository.GiveBack].
func (l *Lease) Release(ctx context.Context) error {
	lost := context.Cause(l.ctx)
	l.cancel(errReleased)
	<-l.ended
	switch {
	case errors.Is(lost, errReleased):
		return nil
	case errors.Is(lost, ErrLeaseLost): // to another, or because the store was away
		l.r.owe(l)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithDeadline(ctx, l.deadline)
	defer cancel()
	now, _, err := l.r.readLease(ctx, l.key)
	if errors.Is(err, ErrNotFound) || err == nil && now.Token != l.record.Token {
		return nil
	}
	if err == nil {
		err = l.r.store.Delete(ctx, l.key)
	}
	if err != nil {
		l.r.owe(l)
		return fmt.Errorf("release lease %q: %w", l.record.Name, err)
	}
	return nil
}

var errReleased = errors.New("the lease was released")
