package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// walRange is a run of segments of one timeline, both ends included.
type walRange struct {
	timeline pg.Timeline
	from, to pg.SegmentNo
}

// neededWAL lists the segments that recovery reads from start to stop. Where
// the timeline changes in between (a standby that followed a new primary), the
// segment of the switch is read from the new timeline, which begins with a
// copy of the old one's part.
func neededWAL(path []pg.TimelineSpan, first, last pg.Timeline, start, stop pg.LSN, size pg.SegmentSize) ([]walRange, error) {
	end := size.SegmentOf(stop - 1) // stop is the byte after the last one needed
	if first == last {
		return []walRange{{first, size.SegmentOf(start), end}}, nil
	}
	var need []walRange
	from, reached := size.SegmentOf(start), false
	for _, span := range path {
		if reached = reached || span.Timeline == first; !reached {
			continue
		}
		if span.Timeline == last {
			return append(need, walRange{last, from, end}), nil
		}
		if ends := size.SegmentOf(span.To); ends > from {
			need = append(need, walRange{span.Timeline, from, ends - 1})
			from = ends
		}
	}
	return nil, fmt.Errorf("the history of timeline %d does not lead from timeline %d to it", last, first)
}

// walWait waits until one repository has the WAL of a backup, and helps: the
// archiver, which may be far behind, comes from the oldest segment, and so the
// backup begins with the newest. Whoever is second finds the segment there, or
// loses the race for it; both know what to do then.
type walWait struct {
	need     []walRange
	size     pg.SegmentSize
	timeout  time.Duration // without any segment coming in
	progress Progress
	hint     string // what to look at when it never comes
	// push stores a segment; nil: the server's files are not here.
	push func(context.Context, pg.SegmentName) error
	log  *zap.Logger
}

const (
	firstPoll = 20 * time.Millisecond
	slowPoll  = 2 * time.Second
	sayAfter  = 3 * time.Second // shorter waits are not worth a word
	sayEvery  = 15 * time.Second
	// pushFor is how long the backup pushes before it looks again at what is
	// missing.
	pushFor = time.Second
)

// wait polls one repository. It gives up when nothing arrived for the timeout.
// pushed: this stored a part of it.
func (w walWait) wait(ctx context.Context, t *target) (pushed bool, err error) {
	tried := map[pg.SegmentName]bool{}
	began := time.Now()
	arrived, said, before := began, began.Add(sayAfter-sayEvery), -1
	// The interval grows slowly: mostly the last segment comes in a tenth of a second.
	for poll := firstPoll; ; poll = min(poll*11/10, slowPoll) {
		missing, err := w.missing(ctx, t.epoch)
		if err != nil {
			return pushed, fmt.Errorf("look for the backup's WAL: %w", err)
		}
		if len(missing) == 0 {
			return pushed, w.undisputed(ctx, t.epoch)
		}
		stored := w.pushNewest(ctx, missing, tried)
		pushed = pushed || stored
		now := time.Now()
		if stored || len(missing) < before {
			arrived = now
		}
		before = len(missing)
		if now.Sub(arrived) > w.timeout {
			return pushed, fmt.Errorf("WAL that the backup needs was not archived within %s: %s missing; %s", w.timeout, segmentList(missing), w.hint)
		}
		if now.Sub(said) >= sayEvery {
			said = now
			w.progress.Stage(fmt.Sprintf("waiting for WAL in %s: %s missing, for %s", t.repo.Name(), segmentList(missing), now.Sub(began).Round(time.Second)))
		}
		if stored {
			continue
		}
		if err := sleep(ctx, poll); err != nil {
			return pushed, context.Cause(ctx)
		}
	}
}

// pushNewest stores segments from the newest on, each once: one that cannot be
// stored, or that the server has put to another use, is left to the archiver. It
// reports whether it stored any.
func (w walWait) pushNewest(ctx context.Context, missing []pg.SegmentName, tried map[pg.SegmentName]bool) (any bool) {
	began := time.Now()
	for i := len(missing) - 1; i >= 0 && w.push != nil && ctx.Err() == nil && time.Since(began) < pushFor; i-- {
		if tried[missing[i]] {
			continue
		}
		tried[missing[i]] = true
		if err := w.push(ctx, missing[i]); err != nil {
			w.log.Info("left to the archiver", zap.String("segment", string(missing[i])), zap.Error(err))
			continue
		}
		any = true
	}
	return any
}

func (w walWait) missing(ctx context.Context, e *repo.Epoch) ([]pg.SegmentName, error) {
	var names []pg.SegmentName
	for _, r := range w.need {
		m, err := e.MissingSegments(ctx, r.timeline, r.from, r.to)
		if err != nil {
			return nil, err
		}
		for _, n := range m {
			names = append(names, w.size.Name(r.timeline, n))
		}
	}
	return names, nil
}

// undisputed refuses WAL of which there are two versions: which of them the
// backup needs is not to be told from names.
func (w walWait) undisputed(ctx context.Context, e *repo.Epoch) error {
	for _, r := range w.need {
		conflicts, err := e.Conflicts(ctx, r.timeline)
		if err != nil {
			return err
		}
		for _, c := range conflicts {
			if c.Name.Kind != pg.FileSegment {
				continue
			}
			n, err := pg.SegmentName(c.Name.Name).Number(w.size)
			if err == nil && r.from <= n && n <= r.to {
				return fmt.Errorf("two servers have written timeline %d: there is a second segment %s under conflict/, and nobody can tell which of the two "+
					"this backup needs: stop one of the servers, and take a backup of the other", r.timeline, c.Name.Name)
			}
		}
	}
	return nil
}

// segmentList is a short text for people.
func segmentList(s []pg.SegmentName) string {
	const most = 3
	var b strings.Builder
	for i, n := range s[:min(len(s), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	if len(s) > most {
		fmt.Fprintf(&b, " and %d more up to %s", len(s)-most, s[len(s)-1])
	}
	return b.String()
}

// putHistory makes sure that the history file of the backup's timeline is in
// the repository, without which recovery cannot follow it.
func putHistory(ctx context.Context, t *target, from Source, tl pg.Timeline, major int) error {
	if tl <= 1 {
		return nil
	}
	name := repo.HistoryFile(tl)
	stored, err := t.epoch.WALHead(ctx, name)
	missing := errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity)
	if err != nil && !missing {
		return err
	}
	b, err := from.readFile(ctx, "pg_wal/"+name.Name)
	if errors.Is(err, os.ErrNotExist) && !missing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("history file of timeline %d: archive it from the data directory: %w", tl, err)
	}
	if _, err := pg.ParseHistory(tl, b); err != nil {
		return fmt.Errorf("%s: %w", name.Name, err)
	}
	digest := wal.DigestOf(b).String()
	if !missing {
		if stored.XXH3 != digest {
			return fmt.Errorf("another server has archived another timeline %d: %s in %s is not the one of this server, so its WAL is not in wal/", tl, name.Name, t.repo.Name())
		}
		return nil
	}
	err = t.epoch.PutWAL(ctx, repo.WALHead{
		Kind: repo.WALKind(pg.FileHistory), Name: name.Name, SystemID: t.epoch.SystemID(), Timeline: tl,
		PGMajor: major, XXH3: digest, Length: int64(len(b)),
	}, bytes.NewReader(b))
	if err != nil && !errors.Is(err, repo.ErrExists) {
		return fmt.Errorf("archive %s: %w", name.Name, err)
	}
	return nil
}
