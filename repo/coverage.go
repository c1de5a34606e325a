package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/object"
)

// Run is an unbroken run of archived segments of one timeline.
type Run struct {
	Timeline pg.Timeline `json:"timeline"`
	From     pg.LSN      `json:"from"` // start of the first segment
	To       pg.LSN      `json:"to"`   // end of the last one, exclusive
	Segments int         `json:"segments"`
}

// Gap is a run of segments that are not there between two that are.
type Gap struct {
	From pg.LSN `json:"from"`
	To   pg.LSN `json:"to"` // exclusive
}

// TimelineCoverage is what is archived of one timeline, as "list --json"
// shows it.
type TimelineCoverage struct {
	Timeline pg.Timeline `json:"timeline"`
	From     pg.LSN      `json:"from"`
	To       pg.LSN      `json:"to"`
	Segments int         `json:"segments"`
	Gaps     []Gap       `json:"gaps"`
}

// Partial is an archived incomplete segment.
type Partial struct {
	Segment pg.SegmentName
	ValidTo pg.LSN
	Size    int64 // stored bytes
}

// errStop ends a listing early.
var errStop = errors.New("enough")

// list is Store.List that fn can end with errStop.
func (e *Epoch) list(ctx context.Context, prefix, after string, fn func(object.Info) error) error {
	return e.listing(ctx, prefix, object.ListOptions{After: after}, fn)
}

func (e *Epoch) listing(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	err := e.r.store.List(ctx, prefix, opts, fn)
	if err == nil || errors.Is(err, errStop) {
		return nil
	}
	return fmt.Errorf("list %s in %s: %w", prefix, e.r.name, err)
}

// Segments calls fn for each archived segment of timeline t with a number in
// [from, to], in order; fn's first error ends it and is returned.
func (e *Epoch) Segments(ctx context.Context, t pg.Timeline, from, to pg.SegmentNo, fn func(n pg.SegmentNo) error) error {
	info, err := e.Info(ctx)
	if err != nil {
		return err
	}
	after := ""
	if from > 0 {
		after = e.segmentKey(info.SegmentSize.Name(t, from-1))
	}
	var failure error
	prefix := e.walPrefix(t)
	// There may be a million of them: only their names are asked for.
	err = e.listing(ctx, prefix, object.ListOptions{After: after, NamesOnly: true}, func(i object.Info) error {
		// <log>/<segment>; no key is made anew.
		log, base, _ := strings.Cut(i.Key[len(prefix):], "/")
		name, err := pg.ParseSegmentName(base)
		if err != nil || name.Timeline() != t || base[8:16] != log {
			return nil // not ours
		}
		n, err := name.Number(info.SegmentSize)
		switch {
		case err != nil || n < from:
			return nil
		case n > to:
			return errStop
		}
		if failure = fn(n); failure != nil {
			return errStop
		}
		return nil
	})
	if failure != nil {
		return failure
	}
	return err
}

// Timelines lists the timelines of which a complete segment or a history file
// is archived, in order.
func (e *Epoch) Timelines(ctx context.Context) ([]pg.Timeline, error) {
	var found []pg.Timeline
	prefix := e.walPrefix(0)
	for after, more := "", true; more; {
		more = false
		err := e.list(ctx, prefix, after, func(i object.Info) error {
			name, _, _ := strings.Cut(i.Key[len(prefix):], "/")
			after, more = prefix+name+"/~", true // '~' is after all that keys hold here
			if t, err := pg.ParseTimeline(name); err == nil {
				found = append(found, t)
			}
			return errStop
		})
		if err != nil {
			return nil, err
		}
	}
	histories, err := e.historyNames(ctx)
	if err != nil {
		return nil, err
	}
	found = append(found, histories...)
	slices.Sort(found)
	return slices.Compact(found), nil
}

func (e *Epoch) historyNames(ctx context.Context) (found []pg.Timeline, err error) {
	prefix := e.prefix("history")
	err = e.list(ctx, prefix, "", func(i object.Info) error {
		if name := i.Key[len(prefix):]; pg.KindOf(name) == pg.FileHistory {
			found = append(found, WALName{Name: name}.Timeline())
		}
		return nil
	})
	return found, err
}

// maxHistory bounds a history file: each timeline switch takes a line.
const maxHistory = 1 << 20

// Histories reads all archived history files. Those that are damaged are
// reported in the error (joined), the others are returned all the same.
func (e *Epoch) Histories(ctx context.Context) (map[pg.Timeline]pg.History, error) {
	return e.histories(ctx, nil)
}

func (e *Epoch) histories(ctx context.Context, c *RunCache) (map[pg.Timeline]pg.History, error) {
	names, err := e.historyNames(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[pg.Timeline]pg.History, len(names))
	var failures []error
	for _, t := range names {
		h, err := c.history(ctx, e, t)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		all[t] = h
	}
	return all, errors.Join(failures...)
}

func (e *Epoch) history(ctx context.Context, t pg.Timeline) (pg.History, error) {
	var b limitedBuffer
	if _, err := e.GetWAL(ctx, HistoryFile(t), &b); err != nil {
		return pg.History{}, err
	}
	h, err := pg.ParseHistory(t, b.Bytes())
	if err != nil {
		key, _ := e.walKey(HistoryFile(t)) // GetWAL had it too
		return pg.History{}, &DamageError{Key: key, Why: err.Error(), Err: err}
	}
	return h, nil
}

// limitedBuffer refuses more than maxHistory bytes.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxHistory {
		return 0, fmt.Errorf("a history file of more than %d bytes", maxHistory)
	}
	return b.Buffer.Write(p)
}

// Partials lists the archived incomplete segments, by name and validity.
func (e *Epoch) Partials(ctx context.Context) (found []Partial, err error) {
	prefix := e.prefix("partial")
	err = e.list(ctx, prefix, "", func(i object.Info) error {
		if p, ok := parsePartialKey(i.Key[len(prefix):]); ok {
			p.Size = i.Size
			found = append(found, p)
		}
		return nil
	})
	return found, err
}

// Runs lists the unbroken runs of timeline t, in order.
func (e *Epoch) Runs(ctx context.Context, t pg.Timeline) ([]Run, error) {
	info, err := e.Info(ctx)
	if err != nil {
		return nil, err
	}
	var runs []Run
	err = e.Segments(ctx, t, 0, math.MaxUint64, func(n pg.SegmentNo) error {
		start := info.SegmentSize.Start(n)
		if len(runs) == 0 || runs[len(runs)-1].To != start {
			runs = append(runs, Run{Timeline: t, From: start})
		}
		last := &runs[len(runs)-1]
		last.To = start + pg.LSN(info.SegmentSize)
		last.Segments++
		return nil
	})
	return runs, err
}

// MissingSegments lists the segments of timeline t with a number in
// [from, to] that are not archived.
func (e *Epoch) MissingSegments(ctx context.Context, t pg.Timeline, from, to pg.SegmentNo) ([]pg.SegmentNo, error) {
	var missing []pg.SegmentNo
	next := from
	upTo := func(n pg.SegmentNo) {
		for ; next < n; next++ {
			missing = append(missing, next)
		}
	}
	err := e.Segments(ctx, t, from, to, func(n pg.SegmentNo) error {
		upTo(n)
		next = n + 1
		return nil
	})
	if err != nil {
		return nil, err
	}
	upTo(to + 1)
	return missing, nil
}

// Coverage describes all timelines that have complete segments, in order.
func (e *Epoch) Coverage(ctx context.Context) ([]TimelineCoverage, error) {
	timelines, err := e.Timelines(ctx)
	if err != nil {
		return nil, err
	}
	var all []TimelineCoverage
	for _, t := range timelines {
		runs, err := e.Runs(ctx, t)
		if err != nil {
			return nil, err
		}
		if len(runs) > 0 {
			all = append(all, coverageOf(runs))
		}
	}
	return all, nil
}

func coverageOf(runs []Run) TimelineCoverage {
	c := TimelineCoverage{Timeline: runs[0].Timeline, From: runs[0].From, To: runs[len(runs)-1].To, Gaps: []Gap{}}
	for i, r := range runs {
		c.Segments += r.Segments
		if i > 0 {
			c.Gaps = append(c.Gaps, Gap{From: runs[i-1].To, To: r.From})
		}
	}
	return c
}
