package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// summaryPatience is how long to wait for the server to summarize the WAL
// before the start of the backup, as long as it goes forward.
const summaryPatience = 30 * time.Second

// span is WAL of one timeline, [from, to).
type span struct {
	timeline pg.Timeline
	from, to pg.LSN
}

// wanted is the WAL whose changes are to be known: from the oldest start of a
// parent to the start of this backup.
func (b *run) wanted() []span {
	from := pg.MaxLSN
	for _, t := range b.targets {
		if t.parent != nil && !t.out.Load() {
			from = min(from, t.parent.header.StartLSN)
		}
	}
	return cutLine(b.line, from, b.start.LSN)
}

// cutLine is the part of a line between two positions.
func cutLine(line repo.Line, from, to pg.LSN) []span {
	var all []span
	for _, s := range line {
		if a, z := max(s.From, from), min(s.To, to); a < z {
			all = append(all, span{s.Timeline, a, z})
		}
	}
	return all
}

// trySummaries: the server's own summaries of WAL, if they cover all of it
// without a hole, each part by summaries of its own timeline. That the server
// believes to have summarized up to somewhere proves nothing: a standby's
// summaries can be of WAL that it then did not replay.
func (b *run) trySummaries(ctx context.Context, p *planner) (why string, err error) {
	switch {
	case b.info.Major < 17:
		return "the server has no WAL summaries before version 17", nil
	case b.info.Settings["summarize_wal"] != "on":
		return "summarize_wal is off", nil
	}
	want := b.wanted()
	cover, why, err := b.waitForSummaries(ctx, want)
	if why != "" || err != nil {
		return why, err
	}
	p.changes = newChangeSet(uint32(b.control.RelSegBlocks))
	for _, s := range cover {
		err := b.Server.SummaryBlocks(ctx, s, func(x server.SummaryBlock) {
			if x.Fork != 0 {
				return
			}
			r := relation{x.Tablespace, x.Database, x.Relation}
			if x.Limit || x.Relation == 0 {
				p.changes.limit(r, x.Block)
			} else {
				p.changes.block(r, x.Block)
			}
		})
		switch {
		case errors.Is(err, server.ErrConnectionLost) || ctx.Err() != nil:
			return "", err
		case err != nil: // removed meanwhile, damaged, not allowed
			p.changes = nil
			return err.Error(), nil
		}
	}
	return "", nil
}

// waitForSummaries waits until there are summaries of all the WAL.
func (b *run) waitForSummaries(ctx context.Context, want []span) (cover []server.Summary, why string, err error) {
	deadline, reached := time.Now().Add(summaryPatience), 0
	for {
		have, err := b.Server.Summaries(ctx)
		switch {
		case errors.Is(err, server.ErrConnectionLost) || ctx.Err() != nil:
			return nil, "", err
		case err != nil:
			return nil, err.Error(), nil
		}
		missing := pg.LSN(0)
		if cover, missing, why = coverWith(have, want); why == "" {
			return cover, "", nil
		}
		if len(cover) > reached {
			reached, deadline = len(cover), time.Now().Add(summaryPatience)
		}
		// What is missing before the newest summary will not come any more.
		for _, s := range have {
			if s.Timeline == want[len(want)-1].timeline && s.Start > missing {
				return nil, why, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, why, nil
		}
		if err := sleep(ctx, firstPoll); err != nil {
			return nil, "", err
		}
	}
}

// coverWith chooses summaries that cover all of the WAL, or says what is
// missing.
func coverWith(have []server.Summary, want []span) (cover []server.Summary, missing pg.LSN, why string) {
	for _, w := range want {
		for at := w.from; at < w.to; {
			best := server.Summary{}
			for _, s := range have {
				if s.Timeline == w.timeline && s.Start <= at && s.End > max(at, best.End) {
					best = s
				}
			}
			if best.End == 0 {
				return cover, at, fmt.Sprintf("the server has no WAL summary of %s on timeline %d", at, w.timeline)
			}
			cover = append(cover, best)
			at = best.End
		}
	}
	return cover, 0, ""
}
