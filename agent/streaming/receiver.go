package streaming

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/stream"
)

// Receiver streams and stores, see the package comment.
type Receiver struct {
	opts Options

	mu      sync.Mutex // guards what follows
	files   []*file    // in order of arrival; the last one may grow
	lanes   []*lane
	archive *archive.Archive // nil until the cluster is known
	id      pg.SystemID
	size    pg.SegmentSize
	limit   int           // finished files that may wait
	drained chan struct{} // closed and made anew when a file was removed
	state   state
	samples samples
}

// New checks the options; nothing is asked of anybody yet.
func New(o Options) (*Receiver, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Receiver{opts: o, id: o.SystemID, drained: make(chan struct{})}
	for i := range o.Repos {
		r.lanes = append(r.lanes, &lane{r: r, i: i, wake: make(chan struct{}, 1)})
	}
	return r, nil
}

var (
	// errFull ends the stream until the repositories caught up.
	errFull = errors.New("too much WAL waits for the repositories")
	// errHolding ends the stream of a server that wants to shut down and
	// waits for WAL that cannot be stored.
	errHolding = errors.New("the server waits for WAL that no repository takes")
	// errBehind: another server has more, or is on a later timeline.
	errBehind = errors.New("another server is ahead of this one")
)

// Run receives and stores until ctx ends; then it stores what it has, for at
// most half a minute. Servers and repositories that fail are tried again for
// ever; the error is of the spool, or that of ctx.
func (r *Receiver) Run(ctx context.Context) error {
	sp, err := openSpool(r.opts.Spool)
	if err != nil {
		return err
	}
	defer sp.close() //nolint:errcheck // only a lock
	lanes, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for _, l := range r.lanes {
		wg.Go(func() { l.run(lanes) })
	}
	err = r.receive(ctx, sp)
	r.flush(30 * time.Second)
	stop()
	wg.Wait()
	return err
}

// flush waits until the lanes have stored what there is.
func (r *Receiver) flush(longest time.Duration) {
	r.kick()
	deadline := time.Now().Add(longest)
	for time.Now().Before(deadline) && !r.stored() {
		time.Sleep(20 * time.Millisecond)
	}
}

// stored reports whether every lane that works has everything.
func (r *Receiver) stored() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		p, size, _ := f.now()
		for i, own := range f.own {
			if !own.done && !r.lanes[i].failing() && (p != growing || own.size < size) {
				return false
			}
		}
	}
	return true
}

// receive connects again and again.
func (r *Receiver) receive(ctx context.Context, sp *spool) error {
	const first = 200 * time.Millisecond
	pause := first
	for {
		began := time.Now()
		err := r.session(ctx, sp)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if local := (*localError)(nil); errors.As(err, &local) {
			return err
		}
		r.disconnected(err)
		if time.Since(began) > r.opts.Retry {
			pause = first
		}
		r.opts.Log.Warn("streaming stopped, trying again", zap.Error(err), zap.Duration("pause", pause))
		switch {
		case errors.Is(err, errFull):
			r.waitDrained(ctx)
		case errors.Is(err, errBehind):
		default:
			if errors.Is(err, errHolding) {
				pause = r.opts.Retry
			}
			sleep(ctx, pause)
			pause = min(2*pause, r.opts.Retry)
		}
	}
}

// localError is one of this machine, which connecting again does not cure.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// waitDrained waits until half of the spool is free.
func (r *Receiver) waitDrained(ctx context.Context) {
	for {
		r.mu.Lock()
		n, limit, drained := len(r.files), r.limit, r.drained
		r.mu.Unlock()
		if n <= limit/2 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-drained:
		}
	}
}

// session streams from one server for as long as that goes well.
func (r *Receiver) session(ctx context.Context, sp *spool) error {
	c, sys, server, err := r.choose(ctx)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // what matters was received
	if err := r.adopt(ctx, c, sys); err != nil {
		return err
	}
	begin, err := r.begin(ctx, c, sys, sp)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { r.watch(ctx, cancel, sys.Timeline, server) })
	for {
		end, err := r.timeline(ctx, c, server, begin)
		if err != nil {
			return err
		}
		r.opts.Log.Info("the timeline ended, going on with the next",
			zap.Uint32("timeline", uint32(end.Timeline)), zap.Stringer("at", end.At), zap.Uint32("next", uint32(end.Next)))
		if err := r.finishAll(ended); err != nil {
			return err
		}
		if err := r.addHistory(ctx, c, end.Next, sp); err != nil {
			return err
		}
		begin = r.at(end.Next, r.size.SegmentOf(end.At), sp)
	}
}

// position is where a stream begins: at the start of a segment.
type position struct {
	timeline pg.Timeline
	segment  pg.SegmentNo
	spool    *spool
}

func (r *Receiver) at(t pg.Timeline, n pg.SegmentNo, sp *spool) position { return position{t, n, sp} }

// adopt fixes which cluster this is.
func (r *Receiver) adopt(ctx context.Context, c *stream.Conn, sys stream.System) error {
	size, err := c.SegmentSize(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.id != 0 && r.id != sys.SystemID {
		return fmt.Errorf("%s is of cluster %s, not %s", c.Node(), sys.SystemID, r.id)
	}
	r.id, r.size = sys.SystemID, size
	r.limit = int(max(2, r.opts.SpoolBytes/int64(size)))
	if r.archive == nil {
		r.archive, err = r.opts.archive(r.id)
	}
	return err
}

// timeline streams one timeline to its end.
func (r *Receiver) timeline(ctx context.Context, c *stream.Conn, server Server, from position) (*stream.TimelineEnd, error) {
	at := stream.Start{Timeline: from.timeline, LSN: r.size.Start(from.segment), Slot: r.opts.Slot}
	s, err := c.Start(ctx, at)
	if errors.Is(err, stream.ErrSlot) {
		r.opts.Log.Error("streaming without the slot: the server may remove WAL before it is archived", zap.Error(err))
		at.Slot = ""
		s, err = c.Start(ctx, at)
	}
	if end := (*stream.TimelineEnd)(nil); errors.As(err, &end) {
		return end, nil
	}
	if err != nil {
		return nil, err
	}
	r.connected(server, from.timeline, at.Slot)
	err = r.follow(ctx, s, from, at.Slot != "")
	if end := (*stream.TimelineEnd)(nil); errors.As(err, &end) {
		return end, nil
	}
	return nil, err
}

// follow takes what the stream yields.
func (r *Receiver) follow(ctx context.Context, s *stream.Stream, from position, slot bool) error {
	tick := min(r.opts.Interval, time.Second)
	for {
		wait, cancel := context.WithTimeout(ctx, tick)
		m, err := s.Next(wait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && wait.Err() == nil, err != nil && !errors.Is(err, context.DeadlineExceeded):
			return err
		case err == nil:
			r.heard(m)
			if err := r.write(from, m); err != nil {
				return err
			}
		}
		if slot {
			s.Confirm(r.confirmed(from.timeline))
			if m.Asked {
				r.kick() // it may be shutting down, and waits for us
				if r.holding() {
					return errHolding
				}
				if err := s.Reply(); err != nil {
					return err
				}
			}
		}
	}
}

// write puts WAL into the segments that it belongs to.
func (r *Receiver) write(from position, m stream.Message) error {
	for at, b := m.Start, m.Data; len(b) > 0; {
		f, err := r.growing(from, at)
		if err != nil {
			return err
		}
		n := min(int64(len(b)), int64(f.end-at))
		differs, err := f.write(int64(at-f.start), b[:n])
		if err != nil {
			return &localError{err}
		}
		if differs {
			r.opts.Log.Error("this server's WAL differs from what was streamed before: two servers wrote the same timeline",
				zap.String("segment", f.name), zap.Stringer("at", at))
		}
		at, b = at+pg.LSN(n), b[n:]
		if at < f.end {
			continue
		}
		if err := f.finish(whole); err != nil {
			return &localError{err}
		}
		r.kick()
		if r.makeRoom() {
			return errFull
		}
	}
	return nil
}

// growing is the file that the byte at lsn belongs to.
func (r *Receiver) growing(from position, lsn pg.LSN) (*file, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.current(); f != nil {
		p, size, _ := f.now()
		if p == growing && pg.SegmentName(f.name).Timeline() == from.timeline && lsn >= f.start && lsn <= f.start+pg.LSN(size) && lsn < f.end {
			return f, nil
		}
		if p == growing {
			return nil, fmt.Errorf("WAL of %s on timeline %d does not continue %s", lsn, from.timeline, f.name)
		}
	}
	f, err := from.spool.newSegment(from.timeline, r.size.SegmentOf(lsn), r.size, len(r.lanes))
	if err != nil {
		return nil, &localError{err}
	}
	r.files = append(r.files, f)
	return f, nil
}

// current is the last file, or nil. Caller holds mu.
func (r *Receiver) current() *file {
	if len(r.files) == 0 {
		return nil
	}
	return r.files[len(r.files)-1]
}

// finishAll ends the segment that grows, if one does.
func (r *Receiver) finishAll(p phase) error {
	r.mu.Lock()
	f := r.current()
	r.mu.Unlock()
	if f == nil {
		return nil
	}
	if was, _, _ := f.now(); was != growing {
		return nil
	}
	if err := f.finish(p); err != nil {
		return &localError{err}
	}
	r.kick()
	return nil
}

// addHistory fetches the history file of a timeline and lets the lanes have it.
func (r *Receiver) addHistory(ctx context.Context, c *stream.Conn, t pg.Timeline, sp *spool) error {
	if t == 1 {
		return nil
	}
	b, err := c.History(ctx, t)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		if f.name == pg.HistoryName(t) {
			return nil // of an earlier session, and still waiting
		}
	}
	f, err := sp.newHistory(t, b, len(r.lanes))
	if err != nil {
		return &localError{err}
	}
	r.files = append(r.files, f)
	r.wakeAll()
	return nil
}

// kick makes the lanes store what there is, now.
func (r *Receiver) kick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		l.urgent = true
	}
	r.wakeAll()
}

// wakeAll tells the lanes to look. Caller holds mu.
func (r *Receiver) wakeAll() {
	for _, l := range r.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// makeRoom gives up the oldest files that enough repositories have, while there
// are too many. full: that was not enough.
func (r *Receiver) makeRoom() (full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep()
	for len(r.files) > r.limit {
		f := r.files[0]
		have := 0
		for _, own := range f.own {
			if own.done {
				have++
			}
		}
		if have < r.opts.Require {
			return true
		}
		for i := range f.own {
			if !f.own[i].done {
				f.own[i].done = true
				r.lanes[i].skipped++
				r.opts.Log.Error("given up for this repository, which does not keep up; \"walkeep wal repair\" fills it in from another",
					zap.String("file", f.name), zap.String("repo", r.opts.Repos[i].Name()))
			}
		}
		r.sweep()
	}
	return false
}

// sweep removes files that all lanes are done with. Caller holds mu.
func (r *Receiver) sweep() {
	for len(r.files) > 0 {
		f := r.files[0]
		for _, own := range f.own {
			if !own.done {
				return
			}
		}
		if err := f.remove(); err != nil {
			r.opts.Log.Warn("cannot remove a file of the spool", zap.Error(err))
		}
		r.files = r.files[1:]
		close(r.drained)
		r.drained = make(chan struct{})
	}
}
