// Package retry tries again what an [object.Store] failed to do for a reason
// that may pass.
//
// Which reasons may pass the drivers say (see [object.Permanent] and
// [object.Throttled]); whatever they do not know is tried again. Waits grow
// exponentially, with jitter so that the nodes of a cluster do not come back in
// step, and are at least as long as the store asked for. There is one bound for
// all attempts of an operation, waits included; a Get or a List that makes
// progress starts it anew. An attempt that makes no progress for [Options.Stall] is
// given up and counts as failed, so a store that hangs is a store that fails.
//
// # Lost answers
//
// A Put whose answer got lost may have succeeded. Without conditions that does
// not matter: the next attempt writes the same bytes. With IfAbsent, or IfMatch,
// the next attempt fails with ErrExists, or ErrChanged, and the writer that
// caused it may have been we ourselves. Both stories can be told apart by what
// is stored, and by nothing else: not by the version, which was in the lost
// answer, and not by the size or the time, which may be equal by chance. So the
// object is read back and compared with the body, byte by byte. Equal means that
// what the caller wanted is the case, and is success; anything else is the error
// it seemed to be.
//
// Equal bytes may also come from another writer who put just those. Then two
// writers are told that they won. Nobody can find a difference in the store
// afterwards; a caller to whom it matters who won, as for a lease, has something
// of its own in the body (its name, and a nonce). This applies only after a
// failed attempt that read the body to its end, as every successful one must: an
// ErrExists of the first one is always returned.
//
// The comparison reads the body twice, so it must be an io.Seeker. A body that
// is not is sent again only if nothing was read from it, and then no earlier
// attempt can have stored anything.
//
// Drivers must not repeat a conditional request on their own without the same
// care: most SDKs do by default.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo/object"
)

// Options say how long to try. The zero value is the defaults.
type Options struct {
	// MaxElapsed bounds an operation from its first failure to the beginning of
	// its last attempt; so a transfer that took longer before it failed is tried
	// again too. Default 5 minutes.
	MaxElapsed time.Duration
	// InitialWait is about how long to wait after the first failure, and MaxWait
	// after many. Defaults 300 ms and 20 s.
	InitialWait, MaxWait time.Duration
	// Stall is how long the store may do nothing before an attempt is given up:
	// between bytes taken or given, keys listed, or until it answers. Default 5
	// minutes. The time that a body takes to be read does not count.
	Stall time.Duration
	// Log gets a warning per failed attempt that is followed by another. nil is
	// no log.
	Log *zap.Logger
}

// Store is an object.Store that tries again. Make one with [New].
type Store struct {
	object.Store
	opts Options
}

var _ object.Store = (*Store)(nil)

// New tries again what store fails to do. Closing the result closes store.
func New(store object.Store, opts Options) *Store {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&opts.MaxElapsed, 5*time.Minute)
	set(&opts.InitialWait, 300*time.Millisecond)
	set(&opts.MaxWait, 20*time.Second)
	set(&opts.Stall, 5*time.Minute)
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	return &Store{Store: store, opts: opts}
}

// tries is one operation: its failures so far.
type tries struct {
	store  *Store
	ctx    context.Context
	what   string // "put key", for the log
	waits  *backoff.ExponentialBackOff
	failed int
	since  time.Time // the first failure
}

func (s *Store) tries(ctx context.Context, verb, key string) *tries {
	t := &tries{store: s, ctx: ctx, what: verb + " " + key, waits: backoff.NewExponentialBackOff()}
	t.waits.InitialInterval = s.opts.InitialWait
	t.waits.MaxInterval = s.opts.MaxWait
	t.waits.Multiplier = 2
	return t
}

type onceKey struct{}

// Once is a context in which operations are tried once: whoever asks has no
// time, and asks again himself.
func Once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

// progress makes the next failure the first one again.
func (t *tries) progress() { t.failed = 0 }

// again decides about a failed attempt: nil, after a wait, means try again, an
// error that it is final.
func (t *tries) again(err error) error {
	if t.failed++; t.failed == 1 {
		t.since = time.Now()
		t.waits.Reset()
	}
	if cause := t.ctx.Err(); cause != nil {
		if !errors.Is(err, cause) {
			err = fmt.Errorf("%w, after: %w", cause, err)
		}
		return err
	}
	if object.IsPermanent(err) || t.ctx.Value(onceKey{}) != nil {
		return err
	}
	wait := t.wait(err)
	if time.Since(t.since)+wait > t.store.opts.MaxElapsed {
		return fmt.Errorf("gave up after %d attempts: %w", t.failed, err)
	}
	t.store.opts.Log.Warn("trying again", zap.String("store", t.store.Store.String()), zap.String("what", t.what),
		zap.Int("attempt", t.failed), zap.Duration("wait", wait), zap.Error(err))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.ctx.Done():
		return fmt.Errorf("%w, after: %w", t.ctx.Err(), err)
	}
}

// wait returns how long to wait after err: what the schedule says, or up to a
// quarter more than the store asked for if that is longer.
func (t *tries) wait(err error) time.Duration {
	wait := t.waits.NextBackOff()
	if asked, ok := object.RetryAfter(err); ok && asked > 0 {
		wait = max(wait, asked+rand.N(asked/4+1))
	}
	return wait
}

// do runs attempt until it succeeds or its failure is final. The attempt calls
// watch.alive whenever the store has done something.
func (t *tries) do(attempt func(ctx context.Context, w *watch) error) error {
	for {
		ctx, w := t.store.watch(t.ctx)
		err := w.explain(attempt(ctx, w))
		w.stop()
		if err == nil {
			return nil
		}
		if err := t.again(err); err != nil {
			return err
		}
	}
}

// Stat implements [object.Reader].
func (s *Store) Stat(ctx context.Context, key string) (info object.Info, err error) {
	err = s.tries(ctx, "stat", key).do(func(ctx context.Context, _ *watch) (err error) {
		info, err = s.Store.Stat(ctx, key)
		return err
	})
	return info, err
}

// deleteBatch is how many keys one attempt deletes: the most that the batch
// request of any cloud takes, so that it costs no more requests.
const deleteBatch = 1000

// Delete implements [object.Store]. A deletion that happened, and whose answer
// was lost, is done again without harm.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var failed []error
	for len(keys) > 0 && ctx.Err() == nil {
		n := min(len(keys), deleteBatch)
		batch := keys[:n]
		keys = keys[n:]
		failed = append(failed, s.tries(ctx, "delete", batch[0]).do(func(ctx context.Context, _ *watch) error {
			return s.Store.Delete(ctx, batch...)
		}))
	}
	return errors.Join(append(failed, ctx.Err())...)
}

// AbortUploads implements [object.Aborter]. What was aborted by an attempt
// that failed in the end counts too.
func (s *Store) AbortUploads(ctx context.Context, prefix string, before time.Time) (aborted int, err error) {
	err = s.tries(ctx, "abort the uploads of", prefix).do(func(ctx context.Context, _ *watch) error {
		n, err := object.AbortUploads(ctx, s.Store, prefix, before)
		aborted += n
		return err
	})
	return aborted, err
}

// List implements [object.Reader]. It goes on behind the last key that fn got.
func (s *Store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	t := s.tries(ctx, "list", prefix)
	var stop error // fn's
	err := t.do(func(ctx context.Context, w *watch) error {
		err := s.Store.List(ctx, prefix, opts, func(i object.Info) error {
			w.pause()
			stop = fn(i)
			w.alive()
			opts.After = i.Key
			t.progress()
			return stop
		})
		if stop != nil {
			return nil
		}
		return err
	})
	if stop != nil {
		return stop
	}
	return err
}
