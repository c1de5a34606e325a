package prefetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
)

// pollAsked is how often a prefetcher looks what recovery asked for. It is many
// segments ahead, so that this need not be fast.
const pollAsked = 10 * time.Millisecond

// pollOver is how often it looks whether the recovery still goes on.
const pollOver = 250 * time.Millisecond

// Prefetcher fills the spool of one recovery.
type Prefetcher struct {
	r    *Recovery
	a    *archive.Archive
	opts Options
	s    *spool

	asked   pg.SegmentName
	askedAt time.Time
	plan    []pg.SegmentName        // to be in the spool, in order
	stuck   bool                    // one in the plan could not be got: nothing behind it is tried until recovery asks on
	had     map[pg.SegmentName]bool // of the plan: were in the spool; one that is not any more was taken
	fetches map[pg.SegmentName]bool // going on
}

// NewPrefetcher makes one that takes segments from a.
func NewPrefetcher(r *Recovery, a *archive.Archive, o Options) *Prefetcher {
	return &Prefetcher{r: r, a: a.Of(r.System), opts: o.withDefaults(), fetches: map[pg.SegmentName]bool{}}
}

// fetched is the end of a fetch.
type fetched struct {
	name pg.SegmentName
	err  error
}

// Run prefetches until ctx ends or recovery does not ask any more, and removes
// the spool then. ErrRunning if another prefetcher does that already.
func (p *Prefetcher) Run(ctx context.Context) (err error) {
	if p.s, err = openSpool(p.r, true); err != nil {
		return err
	}
	lock, err := p.s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer p.s.remove()
	p.s.sweep(time.Now())
	if err := p.tidy(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan fetched)
	defer func() {
		cancel()
		for len(p.fetches) > 0 {
			delete(p.fetches, (<-done).name)
		}
	}()
	poll := time.NewTicker(pollAsked)
	defer poll.Stop()
	began, look := time.Now(), time.Now()
	for {
		if err := p.follow(); err != nil {
			return err
		}
		p.begin(ctx, done)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-done:
			p.end(f)
		case now := <-poll.C:
			since := began
			if p.askedAt.After(began) {
				since = p.askedAt
			}
			if now.Sub(since) > p.opts.Idle {
				return nil
			}
			if now.Sub(look) > pollOver {
				look = now
				if p.r.over() {
					return nil
				}
			}
		}
	}
}

// tidy removes what the fetches of a killed prefetcher left. Nobody else
// fetches: we hold the lock.
func (p *Prefetcher) tidy() error {
	_, remains, err := p.s.entries()
	if err != nil {
		return fmt.Errorf("read the spool: %w", err)
	}
	for _, name := range remains {
		if err := os.Remove(p.s.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("tidy the spool: %w", err)
		}
	}
	return nil
}

// follow makes a new plan when recovery has asked on, and removes what is not
// in it.
func (p *Prefetcher) follow() error {
	asked, at := p.s.asked()
	if asked == "" || asked == p.asked && at.Equal(p.askedAt) {
		return nil
	}
	back := p.asked != "" && backwards(p.asked, asked, p.r.Segment)
	p.asked, p.askedAt, p.stuck, p.plan = asked, at, false, nil
	if !back {
		p.plan = following(asked, p.r.Segment, archive.LocalHistories(p.r.WAL), p.r.depth(p.opts))
	}
	ready, _, err := p.s.entries()
	if err != nil {
		return fmt.Errorf("read the spool: %w", err)
	}
	p.had = map[pg.SegmentName]bool{}
	for name, file := range ready {
		if slices.Contains(p.plan, name) {
			p.had[name] = true
		} else {
			_ = os.Remove(p.s.path(file))
		}
	}
	return nil
}

// begin starts as many fetches as there are workers, and room for.
func (p *Prefetcher) begin(ctx context.Context, done chan<- fetched) {
	if p.stuck || len(p.fetches) >= p.opts.Workers || len(p.plan) == 0 {
		return
	}
	ready, _, err := p.s.entries()
	if err != nil {
		return
	}
	for _, name := range p.plan {
		if ready[name] != "" || p.had[name] || p.fetches[name] {
			continue
		}
		if len(p.fetches) >= p.opts.Workers || len(ready)+len(p.fetches) >= p.r.depth(p.opts) {
			return
		}
		if !p.s.room(int64(len(p.fetches)+1) * p.s.size) {
			p.opts.Log.Warn("no room to prefetch", zap.String("spool", p.s.dir))
			p.stuck = true
			return
		}
		p.fetches[name] = true
		go func() { done <- fetched{name, p.fetch(ctx, name)} }()
	}
}

// end takes note of a fetch that ended.
func (p *Prefetcher) end(f fetched) {
	delete(p.fetches, f.name)
	if f.err == nil {
		p.keep(f.name)
		return
	}
	p.stuck = true
	if !errors.Is(f.err, archive.ErrNotArchived) {
		p.opts.Log.Warn("not prefetched", zap.String("segment", string(f.name)), zap.Error(f.err))
	}
}

// keep takes note of a segment that is in the spool now, or removes it if
// recovery is past it.
func (p *Prefetcher) keep(name pg.SegmentName) {
	if slices.Contains(p.plan, name) {
		p.had[name] = true
		return
	}
	if ready, _, err := p.s.entries(); err == nil && ready[name] != "" {
		_ = os.Remove(p.s.path(ready[name]))
	}
}

// fetch brings one segment into the spool. See the package comment for the
// order of the steps.
func (p *Prefetcher) fetch(ctx context.Context, name pg.SegmentName) (err error) {
	arriving := &mark{path: p.s.path(string(name) + partEnd)}
	defer arriving.end() // after the file has its name
	temp := p.s.path(string(name) + newEnd)
	defer os.Remove(temp)
	if _, err := p.a.GetFor(ctx, p.r.WAL, string(name), temp, arriving.begin); err != nil {
		return err
	}
	f, err := os.Open(temp)
	if err != nil {
		return fmt.Errorf("read what was fetched: %w", err)
	}
	sum, n, err := digest(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", temp, err)
	}
	if n != p.s.size {
		return fmt.Errorf("%s has %d bytes, the segments of this cluster have %d", name, n, p.s.size)
	}
	if err := os.Rename(temp, p.s.path(fmt.Sprintf("%s.%s%s", name, sum, readyEnd))); err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	return nil
}

// mark is the locked file that says that a segment is arriving: from its first
// bytes on, because whoever waits for it waits in vain while a repository does
// not answer.
type mark struct {
	path string
	once sync.Once
	file *os.File
}

// begin makes it. Without it, getters get the segment themselves.
func (m *mark) begin() {
	m.once.Do(func() {
		f, err := os.OpenFile(m.path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			f.Close() // a getter that looked at a dead one's
			return
		}
		m.file = f
	})
}

// end removes it and lets go.
func (m *mark) end() {
	if m.file != nil {
		_ = os.Remove(m.path)
		m.file.Close()
	}
}
