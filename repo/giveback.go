package repo

import (
	"bytes"
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/retry"
)

// owe remembers a lease whose object may still be there although its holder is
// done with it.
func (r *Repository) owe(l *Lease) {
	r.owedMu.Lock()
	defer r.owedMu.Unlock()
	r.owed = append(r.owed, l)
}

// GiveBack gives back the leases that could not be deleted when they were
// released, because the store was away. Nobody waits for a TTL then, as expiry
// would for the mark of a backup that failed with its store. AcquireLease calls
// it; a process that lives long calls it from time to time, or [Repository.GiveBackEvery].
// What cannot be given back now stays owed until the process ends.
//
// By now another may hold the lease, and a delete has no condition in every store.
// So the object is replaced, if it is still ours, by one that says that nobody
// holds it; whoever comes next removes it. Killed before, or in between: it goes
// stale like any other.
func (r *Repository) GiveBack(ctx context.Context) {
	r.owedMu.Lock()
	owed := r.owed
	r.owed = nil
	r.owedMu.Unlock()
	ctx = retry.Once(ctx) // there will be another time
	for i, l := range owed {
		err := l.disown(ctx)
		if err == nil {
			continue
		}
		r.log.Debug("a lease cannot be given back yet", zap.String("lease", l.record.Name), zap.Error(err))
		r.owedMu.Lock()
		r.owed = append(r.owed, owed[i:]...) // the store is still away
		r.owedMu.Unlock()
		return
	}
}

// GiveBackEvery calls GiveBack until ctx ends.
func (r *Repository) GiveBackEvery(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.GiveBack(ctx)
		}
	}
}

// disown marks the object of a released lease as nobody's, if it is still there
// and ours.
func (l *Lease) disown(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, version, err := l.r.readLease(ctx, l.key)
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrIntegrity):
		return nil
	case err != nil:
		return err
	case now.Token != l.record.Token || now.Released:
		return nil
	}
	l.record.Released = true
	l.record.Count++
	b, err := seal(l.record)
	if err != nil {
		return err
	}
	_, err = l.r.store.Put(ctx, l.key, bytes.NewReader(b), object.PutOptions{IfMatch: version, Size: int64(len(b))})
	if errors.Is(err, object.ErrChanged) || errors.Is(err, ErrNotFound) {
		return nil // another's, or our own put whose answer got lost: then it is done
	}
	return err
}
