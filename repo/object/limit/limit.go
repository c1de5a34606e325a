// Package limit keeps what is asked of an [object.Store] within bounds: requests
// in flight, and bytes per second in each direction.
//
// Small requests that must not wait behind bulk data (a lease that is about to
// expire) pass by both limits when [Options.Urgent] says so.
package limit

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/walkeep/walkeep/repo/object"
)

// Options are the bounds. The zero value bounds nothing.
type Options struct {
	// Requests is how many requests run at a time; 0 is no bound. A Get counts
	// until it is read to its end or closed, so it must exceed the number of
	// open readers that one goroutine holds while it asks for more. A List does
	// not count while its fn runs.
	Requests int
	// ReadRate and WriteRate are bytes per second of Get and of Put; 0 is no
	// bound.
	ReadRate, WriteRate int64
	// Urgent reports whether requests for a key are exempt. A List is asked
	// for with its prefix, a Delete is exempt if all its keys are. Default none.
	Urgent func(key string) bool
}

// Store is an object.Store within bounds. Make one with [New].
type Store struct {
	object.Store
	slots       chan struct{} // one element per running request; nil is no bound
	read, write *rate.Limiter // nil is no bound
	urgent      func(key string) bool
}

var _ object.Store = (*Store)(nil)

// New bounds what is asked of store. Closing the result closes store.
func New(store object.Store, opts Options) *Store {
	s := &Store{Store: store, read: limiter(opts.ReadRate), write: limiter(opts.WriteRate), urgent: opts.Urgent}
	if opts.Requests > 0 {
		s.slots = make(chan struct{}, opts.Requests)
	}
	if s.urgent == nil {
		s.urgent = func(string) bool { return false }
	}
	return s
}

// Bounds of the burst of a limiter, in bytes. It is what one Read may take, so
// it is a fraction of the rate, for an even flow, but not so small that every
// Read waits.
const (
	minBurst = 16 << 10
	maxBurst = 1 << 20
)

func limiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(max(bytesPerSecond/10, minBurst), maxBurst)))
}

// begin waits for a slot. Call done once the request is over; it may be called
// again without effect.
func (s *Store) begin(ctx context.Context, keys ...string) (done func(), err error) {
	if s.slots == nil || s.exempt(keys) {
		return func() {}, ctx.Err()
	}
	select {
	case s.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-s.slots }), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other requests to %s: %w", s.Store, ctx.Err())
	}
}

func (s *Store) exempt(keys []string) bool {
	for _, key := range keys {
		if !s.urgent(key) {
			return false
		}
	}
	return len(keys) > 0
}

// Get implements [object.Reader].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	done, err := s.begin(ctx, key)
	if err != nil {
		return nil, err
	}
	r, err := s.Store.Get(ctx, key, offset, length)
	if err != nil {
		done()
		return nil, err
	}
	return &getReader{body: s.slow(ctx, key, r, s.read), closer: r, done: done}, nil
}

// getReader gives its slot back when the transfer is over.
type getReader struct {
	body   io.Reader
	closer io.Closer
	done   func()
}

func (g *getReader) Read(p []byte) (int, error) {
	n, err := g.body.Read(p)
	if err != nil {
		g.done()
	}
	return n, err
}

func (g *getReader) Close() error {
	defer g.done()
	return g.closer.Close()
}

// Stat implements [object.Reader].
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	done, err := s.begin(ctx, key)
	if err != nil {
		return object.Info{}, err
	}
	defer done()
	return s.Store.Stat(ctx, key)
}

// List implements [object.Reader].
func (s *Store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	done, err := s.begin(ctx, prefix)
	if err != nil {
		return err
	}
	defer func() { done() }()
	return s.Store.List(ctx, prefix, opts, func(i object.Info) error {
		done() // fn may ask for something itself
		if err := fn(i); err != nil {
			return err
		}
		again, err := s.begin(ctx, prefix)
		if err == nil {
			done = again
		}
		return err
	})
}

// Put implements [object.Store].
func (s *Store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	done, err := s.begin(ctx, key)
	if err != nil {
		return object.Info{}, err
	}
	defer done()
	slow := s.slow(ctx, key, body, s.write)
	if seeker, ok := body.(io.Seeker); ok {
		slow = struct {
			io.Reader
			io.Seeker
		}{slow, seeker}
	}
	return s.Store.Put(ctx, key, slow, opts)
}

// Delete implements [object.Store].
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	done, err := s.begin(ctx, keys...)
	if err != nil {
		return err
	}
	defer done()
	return s.Store.Delete(ctx, keys...)
}

// AbortUploads implements [object.Aborter].
func (s *Store) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	done, err := s.begin(ctx, prefix)
	if err != nil {
		return 0, err
	}
	defer done()
	return object.AbortUploads(ctx, s.Store, prefix, before)
}

// slow bounds the rate of r.
func (s *Store) slow(ctx context.Context, key string, r io.Reader, bound *rate.Limiter) io.Reader {
	if bound == nil || s.urgent(key) {
		return r
	}
	return &slowReader{ctx: ctx, r: r, bound: bound}
}

type slowReader struct {
	ctx   context.Context
	r     io.Reader
	bound *rate.Limiter
}

// Read waits after it read, when it knows for how many bytes.
func (s *slowReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), s.bound.Burst())])
	if n > 0 {
		if waitErr := s.bound.WaitN(s.ctx, n); waitErr != nil && (err == nil || err == io.EOF) {
			err = fmt.Errorf("wait for the rate limit: %w", waitErr)
		}
	}
	return n, err
}
