package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// judgeTime decides about a target time. The server stops before the first
// transaction that ended later than the target (exclusive: at it or later), so
// one must be there, and it must come after the end of the backup
// (xlogrecovery.c, recoveryStopsBefore).
func (c *chooser) judgeTime(ctx context.Context, a *attempt, p *Plan) (verdict, string, error) {
	t := c.req.Target
	earliest := a.backup.EarliestTarget()
	if t.Time.Before(earliest) || t.Exclusive && t.Time.Equal(earliest) {
		return tooEarly, fmt.Sprintf("its oldest backup there, %s, ended at %s", a.backup.Label, showTime(earliest, time.UTC)), nil
	}
	past := func(at time.Time) bool { return at.After(t.Time) || t.Exclusive && at.Equal(t.Time) }
	// The backup's stop time is of the clock of who took it; the times in the
	// WAL are the primary's. What counts is the WAL.
	early, _, err := a.m.LastCommit(ctx, 0, a.stopAt())
	if err != nil {
		return 0, "", err
	}
	if !early.IsZero() && past(early) {
		return tooEarly, fmt.Sprintf("in backup %s's own WAL a transaction ended at %s already", a.backup.Label, showTime(early, time.UTC)), nil
	}
	pos, ok, err := a.m.FirstPast(ctx, a.stopAt(), a.m.Len(), past)
	if err != nil {
		return 0, "", err
	}
	if !ok {
		why, err := c.lastTransaction(ctx, a)
		return tooLate, why, err
	}
	a.stopIn(p, pos)
	_, p.Stop.LSN = a.m.Segment(pos)
	p.Stop.LSN = max(p.Stop.LSN, a.backup.StopLSN)
	return reached, "", nil
}

func (c *chooser) lastTransaction(ctx context.Context, a *attempt) (string, error) {
	last, _, err := a.m.LastCommit(ctx, a.stopAt(), a.m.Len())
	if err != nil {
		return "", err
	}
	s := c.endsAt(a, a.reach.End)
	if last.IsZero() {
		return fmt.Sprintf("no transaction is known after the end of backup %s (%s)", a.backup.Label, s), nil
	}
	return fmt.Sprintf("the last transaction known ended at %s, and recovery to a time needs one that ended later (%s)", showTime(last, time.UTC), s), nil
}

// judgeName decides about a restore point. The server stops at the first of
// that name that it meets, and fails if it meets it before the end of the
// backup.
func (c *chooser) judgeName(ctx context.Context, a *attempt, p *Plan) (verdict, string, error) {
	name := c.req.Target.Name
	var found repo.RestorePoint
	at := -1
	err := a.m.Each(ctx, 0, a.m.Len(), func(pos int, h repo.WALHead) bool {
		for _, r := range h.RestorePoints {
			if r.Name == name && r.LSN > a.backup.StartLSN {
				found, at = r, pos
				return false // the first one decides
			}
		}
		return true
	})
	switch {
	case err != nil:
		return 0, "", err
	case at < 0:
		// An older backup reaches no further, but may begin before the point.
		return tooEarly, fmt.Sprintf("no restore point of that name is known between the start of backup %s and %s", a.backup.Label, a.reach.End), nil
	case found.LSN < a.backup.StopLSN:
		return tooEarly, fmt.Sprintf("it lies inside of backup %s, at %s", a.backup.Label, found.LSN), nil
	}
	a.stopIn(p, at)
	p.Stop.LSN = found.LSN
	if !found.Time.IsZero() {
		p.Stop.Last = &Moment{Timeline: a.line.At(found.LSN), Time: found.Time, LSN: found.LSN}
	}
	return reached, "", nil
}

// judgeXID decides about a transaction. Heads only tell the range of
// transactions that ended in a segment, so the answer is "likely".
func (c *chooser) judgeXID(ctx context.Context, a *attempt, p *Plan) (verdict, string, error) {
	xid := c.req.Target.XID
	at, inside := -1, false
	var low, high uint32
	err := a.m.Each(ctx, 0, a.m.Len(), func(pos int, h repo.WALHead) bool {
		if h.MinXID == 0 && h.MaxXID == 0 {
			return true
		}
		if low == 0 {
			low = h.MinXID
		}
		high = h.MaxXID
		if !xidBetween(xid, h.MinXID, h.MaxXID) {
			return true
		}
		if pos < a.stopAt() {
			inside = true
		} else {
			at = pos
		}
		return true
	})
	switch {
	case err != nil:
		return 0, "", err
	case at < 0 && (inside || low != 0 && xidBefore(xid, low)):
		return tooEarly, fmt.Sprintf("it ended before the end of backup %s, as far as the WAL tells", a.backup.Label), nil
	case at < 0:
		return tooLate, fmt.Sprintf("the transactions known after the start of backup %s are %d to %d (%s)", a.backup.Label, low, high, c.endsAt(a, a.reach.End)), nil
	}
	a.stopIn(p, at)
	_, p.Stop.LSN = a.m.Segment(at)
	p.Stop.LSN = max(p.Stop.LSN, a.backup.StopLSN)
	p.Stop.Likely = true
	p.Warnings = append(p.Warnings, fmt.Sprintf(
		"transaction %d likely ended in or before segment %s, which cannot be proven before recovery: only the range of transactions of each segment is known", xid, p.Stop.Segment))
	return reached, "", nil
}

// xidBetween and xidBefore compare transaction ids on their circle, as the
// server's TransactionIdPrecedes does.
func xidBetween(x, lo, hi uint32) bool { return !xidBefore(x, lo) && !xidBefore(hi, x) }

func xidBefore(a, b uint32) bool { return int32(a-b) < 0 }

// newPlan is the plan of an attempt but for Stop and WAL.
func (c *chooser) newPlan(a *attempt) *Plan {
	p := &Plan{
		Repository:  c.src.Repository,
		SystemID:    c.src.Holdings.SystemID,
		Backup:      a.backup,
		Target:      c.req.Target,
		Standby:     c.req.Standby,
		Timeline:    a.line.Timeline(),
		SegmentSize: c.src.Holdings.SegmentSize,
		epoch:       c.src.epoch,
	}
	p.TimelineSetting = TimelineNumber(p.Timeline).String()
	return p
}

// finish fills in what is worth knowing of a plan that reaches its target.
func (c *chooser) finish(ctx context.Context, a *attempt, p *Plan) error {
	h := c.src.Holdings
	end := p.Stop.LSN
	if k := c.req.Target.Kind; k == TargetTime || k == TargetXID {
		end = p.walEnd() // somewhere in the last segment
	}
	p.Path = pathTo(a.line, a.backup.StartLSN, max(end, a.backup.StopLSN))
	if _, ok := h.Histories[p.Timeline]; !ok && p.Timeline != 1 {
		p.TimelineSetting = "current"
		p.Warnings = append(p.Warnings, fmt.Sprintf("%s is not in %s: recovery is told to stay on the backup's timeline",
			pg.HistoryName(p.Timeline), p.Repository))
	}
	if a.backup.PageErrors > 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("the backup lists %d damaged %s: see walkeep show %s",
			a.backup.PageErrors, plural(int(a.backup.PageErrors), "page"), a.backup.Label))
	}
	if c.req.Target.Kind == TargetEnd {
		if err := c.finishEnd(ctx, a, p); err != nil {
			return err
		}
	}
	p.Left = a.left(p)
	return c.warnBranches(ctx, a, p)
}

// left are the timelines on which recovery may end though it reads the segment
// of another. The end is known to be on the last one if it is past where they
// were left.
func (a *attempt) left(p *Plan) (all []Left) {
	number, err := p.Stop.Segment.Number(p.SegmentSize)
	if err != nil || p.Standby {
		return nil
	}
	exact := p.Target.Kind != TargetTime && p.Target.Kind != TargetXID
	for _, s := range a.line {
		if s.To == pg.MaxLSN || s.Timeline == p.Stop.Segment.Timeline() || p.SegmentSize.SegmentOf(s.To) != number ||
			s.To == p.SegmentSize.Start(number) || s.To <= a.backup.StopLSN || exact && s.To < p.Stop.LSN {
			continue
		}
		all = append(all, Left{p.SegmentSize.Name(s.Timeline, number), s.To})
	}
	return all
}

func (c *chooser) finishEnd(ctx context.Context, a *attempt, p *Plan) error {
	if at := p.WAL[len(p.WAL)-1].Timeline; at != p.Timeline {
		p.Warnings = append(p.Warnings, fmt.Sprintf("no WAL of timeline %d is there yet: recovery ends on timeline %d", p.Timeline, at))
	}
	last, pos, err := a.m.LastCommit(ctx, a.stopAt(), a.m.Len())
	if err != nil {
		return err
	}
	if !last.IsZero() {
		_, lsn := a.m.Segment(pos)
		p.Stop.Last = &Moment{Timeline: a.line.At(lsn + 1), Time: last}
	}
	return nil
}

// warnBranches tells of other timelines on which the same target exists too:
// after an earlier restore there are two histories of the same hours, and the
// user may mean the other one.
func (c *chooser) warnBranches(ctx context.Context, a *attempt, p *Plan) error {
	t := c.req.Target
	if t.Timeline != (TimelineChoice{}) {
		return nil // the user said which
	}
	windows, err := c.src.Holdings.Windows(ctx, c.heads)
	if err != nil {
		return err
	}
	for _, w := range windows {
		if w.Timeline == p.Timeline {
			continue
		}
		same := t.Kind == TargetTime && !t.Time.Before(w.Earliest) && !t.Time.After(w.Latest) ||
			t.Kind == TargetLSN && w.From <= t.LSN && t.LSN < w.To
		switch {
		case same && c.leftBefore(a.line, w.Timeline, p.walEnd()):
			p.Warnings = append(p.Warnings, fmt.Sprintf(
				"timeline %d has that moment too, with another history: --target-timeline %d", w.Timeline, w.Timeline))
		case t.Kind == TargetEnd && c.leftBefore(a.line, w.Timeline, w.To):
			p.Warnings = append(p.Warnings, fmt.Sprintf(
				"timeline %d has another history, to %s: --target-timeline %d", w.Timeline, w.To, w.Timeline))
		}
	}
	return nil
}

// leftBefore reports whether the line to timeline t parts from line before lsn.
func (c *chooser) leftBefore(line repo.Line, t pg.Timeline, lsn pg.LSN) bool {
	return c.src.Holdings.Line(t).At(lsn) != line.At(lsn)
}

// pathTo cuts a line to what lies between two positions.
func pathTo(line repo.Line, from, to pg.LSN) []pg.TimelineSpan {
	var path []pg.TimelineSpan
	for _, s := range line {
		s.From, s.To = max(s.From, from), min(s.To, to)
		if s.From < s.To {
			path = append(path, s)
		}
	}
	return path
}
