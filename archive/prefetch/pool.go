package prefetch

import (
	"context"
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
)

// Pool runs prefetchers in this process: the agent's. Use its Start in a
// Getter.
type Pool struct {
	a      *archive.Archive
	opts   Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards running
	running map[string]bool
}

// NewPool makes a pool whose prefetchers take segments from a. Close it.
func NewPool(a *archive.Archive, o Options) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{a: a, opts: o.withDefaults(), ctx: ctx, cancel: cancel, running: map[string]bool{}}
}

// Getter is one that has the pool prefetch.
func (p *Pool) Getter() *Getter {
	return &Getter{
		Archive: func(context.Context) (*archive.Archive, error) { return p.a, nil },
		Start:   p.Start, Options: p.opts,
	}
}

// Start starts a prefetcher for the recovery, if the pool has none for it.
func (p *Pool) Start(r *Recovery) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[r.dir] || p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	p.running[r.dir] = true
	p.wg.Go(func() {
		err := NewPrefetcher(r, p.a, p.opts).Run(p.ctx)
		if err != nil && !errors.Is(err, ErrRunning) && p.ctx.Err() == nil {
			p.opts.Log.Warn("prefetching ended", zap.String("pgdata", r.pgdata), zap.Error(err))
		}
		p.mu.Lock()
		delete(p.running, r.dir)
		p.mu.Unlock()
	})
	return nil
}

// Close ends all prefetchers, removes their spools, and waits for that.
func (p *Pool) Close() {
	p.cancel()
	p.wg.Wait()
}
