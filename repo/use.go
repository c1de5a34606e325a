package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo/object"
)

// Who uses a backup says so, so that expiry leaves it alone. Both kinds of
// mark are leases: a process that dies leaves one that goes stale.
//
//   - lease/use.<label>.<token>: somebody reads the backup (restore, verify,
//     copy), or takes one that builds on it. Any number at a time.
//   - lease/label.<label>: somebody writes objects below backup/<label>/, or
//     deletes them. One at a time. [Epoch.CreateBackup] takes it.
//
// The order of steps makes them safe beside expiry. A user puts the mark
// first, and then looks whether the summary is (still) there. Expiry deletes
// summaries first, and then looks for marks, before it deletes what the
// summaries name. So either the user finds no summary, or expiry finds the mark.

const (
	useLease   = "use."
	labelLease = "label."
	// useTTL of both. Longer than that of other leases: a reader may be a
	// process on a machine that is short of everything.
	useTTL = 5 * time.Minute
)

// Use is a mark: who uses or writes a backup.
type Use struct {
	Label   Label     `json:"label"`
	Writing bool      `json:"writing,omitempty"` // the backup is being written, or removed
	Holder  string    `json:"holder"`
	What    string    `json:"what,omitempty"`
	Since   time.Time `json:"since"` // by the holder's clock
	// Stale: the holder seems to be gone, by its clock or its process.
	// [Repository.BreakStale] makes sure of it.
	Stale bool `json:"stale,omitempty"`

	lease string // its name
	dead  bool   // certainly
	ttl   time.Duration
}

// UseWatch is what one process saw of stale marks, so that it need not wait for
// them to be certainly stale. The zero value has seen nothing.
type UseWatch struct {
	mu    sync.Mutex // guards marks
	marks map[string]*LeaseWatch
}

func (w *UseWatch) mark(name string) *LeaseWatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.marks == nil {
		w.marks = map[string]*LeaseWatch{}
	}
	if w.marks[name] == nil {
		w.marks[name] = &LeaseWatch{}
	}
	return w.marks[name]
}

func (w *UseWatch) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.marks, name)
}

// UseTTL is for how long a mark is watched until it is certainly stale.
const UseTTL = useTTL

// MarkUse marks a label as in use, whether there is such a backup or not.
// Release the lease at the end. The mark protects what lies below the label,
// and what a backup of that label references.
func (r *Repository) MarkUse(ctx context.Context, label Label, o LeaseOptions) (*Lease, error) {
	if _, err := ParseLabel(string(label)); err != nil {
		return nil, err
	}
	if o.TTL == 0 {
		o.TTL = useTTL
	}
	return r.AcquireLease(ctx, useLease+string(label)+"."+rand.Text(), o)
}

// UseBackup marks a backup as in use, and then reads its summary: from here
// on until the lease is released or lost nothing that it needs is deleted.
// ErrNotFound: there is no such backup, or it has just expired.
func (e *Epoch) UseBackup(ctx context.Context, label Label, o LeaseOptions) (*Lease, Summary, error) {
	lease, err := e.r.MarkUse(ctx, label, o)
	if err != nil {
		return nil, Summary{}, fmt.Errorf("mark backup %s in %s as in use: %w", label, e.r.name, err)
	}
	s, err := e.Summary(ctx, label)
	if err != nil {
		return nil, Summary{}, errors.Join(err, lease.Release(context.WithoutCancel(ctx)))
	}
	return lease, s, nil
}

// LockLabel is the right to write or delete below backup/<label>/ alone.
// ErrBusy: another has it.
func (r *Repository) LockLabel(ctx context.Context, label Label, o LeaseOptions) (*Lease, error) {
	if _, err := ParseLabel(string(label)); err != nil {
		return nil, err
	}
	if o.TTL == 0 {
		o.TTL = useTTL
	}
	return r.AcquireLease(ctx, labelLease+string(label), o)
}

// Uses lists the marks, in no particular order.
func (r *Repository) Uses(ctx context.Context) ([]Use, error) {
	var uses []Use
	for _, kind := range []string{useLease, labelLease} {
		err := r.store.List(ctx, leaseKey(kind), object.ListOptions{}, func(i object.Info) error {
			name := strings.TrimPrefix(i.Key, leasePrefix)
			text, _, _ := strings.Cut(strings.TrimPrefix(name, kind), ".")
			if label, err := ParseLabel(text); err == nil {
				uses = append(uses, Use{Label: label, Writing: kind == labelLease, lease: name})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list who uses backups of %s: %w", r.name, err)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listWorkers)
	for i := range uses {
		group.Go(func() error { return r.describeUse(ctx, &uses[i]) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return uses, nil
}

// describeUse fills in what the lease says. One that was released meanwhile
// stays in the list: it was there when the list was read.
func (r *Repository) describeUse(ctx context.Context, u *Use) error {
	l, _, err := r.readLease(ctx, leaseKey(u.lease))
	switch {
	case errors.Is(err, ErrNotFound):
		u.Holder = "unknown (it has just ended)"
	case errors.Is(err, ErrIntegrity):
		u.Holder, u.Stale, u.ttl = "unknown (the lease object is damaged)", true, useTTL
	case err != nil:
		return err
	default:
		u.Holder, u.What, u.Since = l.Holder, l.What, l.Since
		u.dead, u.ttl = l.dead(), l.ttl()
		u.Stale = u.dead || !l.fresh(r.clock())
	}
	return nil
}

// BreakStale removes a mark whose holder is gone. If that cannot be told at
// once, it watches the mark for as long as its TTL. false: the holder lives.
func (r *Repository) BreakStale(ctx context.Context, u Use) (bool, error) {
	return r.breakStale(ctx, u, nil)
}

// BreakWatched is BreakStale without the waiting: a mark is removed if w has seen
// it unchanged for its TTL; if not, false, and w goes on from now.
func (r *Repository) BreakWatched(ctx context.Context, u Use, w *UseWatch) (bool, error) {
	if err := r.WatchUse(ctx, u, w); err != nil {
		return false, err
	}
	seen := w.mark(u.lease)
	seen.mu.Lock()
	since := seen.since
	seen.mu.Unlock()
	if !u.dead && time.Since(since) < u.ttl {
		return false, nil
	}
	broken, err := r.breakStale(ctx, u, seen)
	if broken {
		w.forget(u.lease)
	}
	return broken, err
}

// WatchUse looks at a mark, for a later BreakWatched.
func (r *Repository) WatchUse(ctx context.Context, u Use, w *UseWatch) error {
	if err := r.WatchLease(ctx, u.lease, w.mark(u.lease)); err != nil {
		return fmt.Errorf("watch the mark %s: %w", u.lease, err)
	}
	return nil
}

func (r *Repository) breakStale(ctx context.Context, u Use, seen *LeaseWatch) (bool, error) {
	lease, err := r.AcquireLease(ctx, u.lease, LeaseOptions{What: "removing a stale mark", TTL: useTTL, Watch: seen})
	if errors.Is(err, ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove the stale mark %s: %w", u.lease, err)
	}
	return true, lease.Release(ctx)
}
