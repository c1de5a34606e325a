package streaming

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/stream"
	"github.com/walkeep/walkeep/repo"
)

func (r *Receiver) streamOptions() stream.Options { return stream.Options{Log: r.opts.Log} }

// askTimeout bounds the questions before a stream.
const askTimeout = 15 * time.Second

// othersGrace is how long servers may take to answer after one has.
const othersGrace = 2 * time.Second

// choose asks all servers at once and keeps the connection to the best of those
// that answer.
func (r *Receiver) choose(ctx context.Context) (best *stream.Conn, sys stream.System, server Server, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	type answer struct {
		c      *stream.Conn
		sys    stream.System
		server Server
		err    error
	}
	answers := make(chan answer, len(r.opts.Servers))
	for _, s := range r.opts.Servers {
		go func() {
			a := answer{server: s}
			if a.c, a.err = stream.Connect(ctx, s.ConnInfo, r.streamOptions()); a.err == nil {
				if a.sys, a.err = a.c.Identify(ctx); a.err != nil {
					_ = a.c.Close() // its own error says more
				}
			}
			answers <- a
		}()
	}
	var errs []error
	for range r.opts.Servers {
		a := <-answers // each ends with ctx
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
			continue
		case best == nil:
			t := time.AfterFunc(othersGrace, cancel)
			defer t.Stop()
		case !better(a.sys, sys):
			_ = a.c.Close() // it was only asked
			continue
		default:
			_ = best.Close()
		}
		best, sys, server = a.c, a.sys, a.server
	}
	if best == nil {
		return nil, sys, server, errors.Join(errs...)
	}
	return best, sys, server, nil
}

func better(a, b stream.System) bool {
	if a.Timeline != b.Timeline {
		return a.Timeline > b.Timeline
	}
	return a.Flushed > b.Flushed
}

// watch ends the session when another server of the cluster is ahead: on a later
// timeline, or with WAL on ours that we lack one look later. The latter is a
// standby that is cut off from its primary.
func (r *Receiver) watch(ctx context.Context, cancel context.CancelCauseFunc, t pg.Timeline, server Server) {
	if len(r.opts.Servers) < 2 {
		return
	}
	tick := time.NewTicker(r.opts.Recheck)
	defer tick.Stop()
	var ahead pg.LSN // how far another was at the last look, 0 if none
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c, sys, best, err := r.choose(ctx)
		if err != nil {
			continue
		}
		_ = c.Close() // it was only asked
		r.mu.Lock()
		ours := sys.SystemID == r.id
		now, have := max(t, r.state.timeline), r.state.server
		r.mu.Unlock()
		if !ours || best == server {
			ahead = 0
			continue
		}
		if sys.Timeline > now || sys.Timeline == now && have < ahead {
			cancel(errBehind)
			return
		}
		ahead = 0
		if sys.Timeline == now {
			ahead = sys.Flushed
		}
	}
}

// begin decides where to start to stream from a server that is at sys.
func (r *Receiver) begin(ctx context.Context, c *stream.Conn, sys stream.System, sp *spool) (position, error) {
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	path, err := c.Ancestry(ask, sys.Timeline)
	if err != nil {
		return position{}, err
	}
	r.mu.Lock()
	last := r.lastSegment()
	r.mu.Unlock()
	if last != nil {
		return r.resume(ask, c, path, last, sp)
	}
	if err := r.addHistory(ask, c, sys.Timeline, sp); err != nil {
		return position{}, err
	}
	return r.fresh(ctx, c, sys, path, sp)
}

// lastSegment is the newest segment in the spool, nil if there is none. Caller
// holds mu.
func (r *Receiver) lastSegment() *file {
	for i := len(r.files) - 1; i >= 0; i-- {
		if r.files[i].end != 0 {
			return r.files[i]
		}
	}
	return nil
}

// resume goes on behind what was received before the connection was lost: with
// the growing segment from its start, to compare, or with the one behind the
// last.
func (r *Receiver) resume(ctx context.Context, c *stream.Conn, path pg.History, last *file, sp *spool) (position, error) {
	t := pg.SegmentName(last.name).Timeline()
	p, size, _ := last.now()
	reached := last.start + pg.LSN(size)
	n := r.size.SegmentOf(last.start)
	if p == whole {
		n, reached = n+1, last.end
	}
	if t == path.Timeline {
		if p == ended {
			return position{}, fmt.Errorf("%s is still on timeline %d, whose end was seen at %s", c.Node(), t, reached)
		}
		return r.at(t, n, sp), nil
	}
	for i, e := range path.Entries {
		if e.Timeline != t {
			continue
		}
		if reached <= e.End && p != ended {
			return r.at(t, n, sp), nil // the stream will come to its end by itself
		}
		// We have more of the timeline than the server that went on from it:
		// that stays, as the last partial segment of its timeline.
		if err := r.finishAll(ended); err != nil {
			return position{}, err
		}
		next := path.Timeline
		if i+1 < len(path.Entries) {
			next = path.Entries[i+1].Timeline
		}
		if reached > e.End {
			r.opts.Log.Warn("the new timeline leaves the old one before its end: what lies between is kept as a partial segment",
				zap.Uint32("timeline", uint32(next)), zap.Stringer("from", e.End), zap.Stringer("to", reached))
		}
		if err := r.addHistory(ctx, c, next, sp); err != nil {
			return position{}, err
		}
		return r.at(next, r.size.SegmentOf(e.End), sp), nil
	}
	if t > path.Timeline {
		return position{}, fmt.Errorf("%s is on timeline %d, an older one than %d, which was streamed already", c.Node(), path.Timeline, t)
	}
	r.opts.Log.Error("this server's history does not go through the timeline that was streamed", zap.Uint32("timeline", uint32(t)), zap.Uint32("server", uint32(path.Timeline)))
	if err := errors.Join(r.finishAll(ended), r.addHistory(ctx, c, path.Timeline, sp)); err != nil {
		return position{}, err
	}
	return r.at(path.Timeline, r.size.SegmentOf(beginOf(path)), sp), nil
}

// beginOf is where the last timeline of a path begins.
func beginOf(path pg.History) pg.LSN {
	if n := len(path.Entries); n > 0 {
		return path.Entries[n-1].End
	}
	return 0
}

// fresh begins behind what the repositories have of the server's timeline. If
// they have nothing of it, at its first segment, or on timeline 1 at the one
// that is being written. What the server has removed is passed over.
func (r *Receiver) fresh(ctx context.Context, c *stream.Conn, sys stream.System, path pg.History, sp *spool) (position, error) {
	now := r.size.SegmentOf(sys.Flushed)
	first := now
	if sys.Timeline > 1 {
		first = r.size.SegmentOf(beginOf(path))
	}
	answered := false
	var failures []error
	begin := pg.SegmentNo(math.MaxUint64)
	for _, repository := range r.opts.Repos {
		ask, cancel := context.WithTimeout(ctx, 2*askTimeout)
		next, found, err := r.missing(ask, repository.Epoch(sys.SystemID), sys.Timeline, now)
		cancel()
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", repository.Name(), err))
			continue
		}
		answered = true
		if !found {
			next = first
		}
		begin = min(begin, next)
	}
	if !answered {
		return position{}, fmt.Errorf("find out what is archived: %w", errors.Join(failures...))
	}
	begin = min(begin, now)
	if begin == now {
		return r.at(sys.Timeline, now, sp), nil
	}
	return r.oldest(ctx, c, sys, begin, now, sp)
}

// oldest is begin, or the first segment behind it that the server still has. It
// is tried on a connection of its own: a refusal ends one.
func (r *Receiver) oldest(ctx context.Context, c *stream.Conn, sys stream.System, begin, now pg.SegmentNo, sp *spool) (position, error) {
	removed, err := r.isRemoved(ctx, c, sys, begin)
	if err != nil || removed == nil {
		return r.at(sys.Timeline, begin, sp), err
	}
	from := now
	if removed.Oldest != "" && removed.Oldest.Timeline() == sys.Timeline {
		if n, err := removed.Oldest.Number(r.size); err == nil && n > begin && n < now {
			// The oldest one may go while we come.
			if again, err := r.isRemoved(ctx, c, sys, n); err == nil && again == nil {
				from = n
			}
		}
	}
	r.opts.Log.Error("WAL that is not archived everywhere cannot be streamed any more; \"walkeep wal repair\" looks for it elsewhere",
		zap.String("from", string(r.size.Name(sys.Timeline, begin))), zap.String("to", string(r.size.Name(sys.Timeline, from))), zap.Error(removed))
	return r.at(sys.Timeline, from, sp), nil
}

// isRemoved tries to stream a segment.
func (r *Receiver) isRemoved(ctx context.Context, c *stream.Conn, sys stream.System, n pg.SegmentNo) (*stream.RemovedError, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	probe, err := c.Again(ctx)
	if err != nil {
		return nil, err
	}
	defer probe.Close() //nolint:errcheck // it was only asked
	s, err := probe.Start(ctx, stream.Start{Timeline: sys.Timeline, LSN: r.size.Start(n)})
	for err == nil {
		var m stream.Message
		if m, err = s.Next(ctx); len(m.Data) > 0 {
			return nil, nil
		}
	}
	if removed := (*stream.RemovedError)(nil); errors.As(err, &removed) {
		return removed, nil
	}
	return nil, err
}

// missing is the first segment of timeline t that a repository lacks behind
// those that it has, whole or partial.
func (r *Receiver) missing(ctx context.Context, e *repo.Epoch, t pg.Timeline, now pg.SegmentNo) (next pg.SegmentNo, found bool, err error) {
	last, found, err := lastArchived(ctx, e, t, now)
	if found || err != nil {
		return last + 1, found, err
	}
	partials, err := e.Partials(ctx)
	for _, p := range partials {
		if n, err := p.Segment.Number(r.size); err == nil && p.Segment.Timeline() == t && (!found || n < next) {
			next, found = n, true
		}
	}
	return next, found, err
}

// lastArchived is the last complete segment of timeline t that a repository
// has, looked for in growing stretches back from now.
func lastArchived(ctx context.Context, e *repo.Epoch, t pg.Timeline, now pg.SegmentNo) (last pg.SegmentNo, found bool, err error) {
	to := pg.SegmentNo(math.MaxUint64)
	for stretch := pg.SegmentNo(256); ; stretch *= 64 {
		from := now - min(now, stretch)
		err = e.Segments(ctx, t, from, to, func(n pg.SegmentNo) error {
			last, found = n, true
			return nil
		})
		if errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity) {
			return 0, false, nil // the epoch does not exist yet
		}
		if err != nil || found || from == 0 {
			return last, found, err
		}
		to = from
	}
}
