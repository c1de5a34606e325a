package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Source is what one repository holds of one cluster.
type Source struct {
	Repository string
	Holdings   repo.Holdings
	Heads      repo.HeadSource

	epoch *repo.Epoch
}

// Choose plans over plain data: the first source, in order, that can reach the
// target; in it the timeline; on it the newest backup that can reach it. It
// reads heads of segments and nothing else.
//
// Errors: ErrBadRequest, ErrNoBackup, *UnreachableError, and those of the
// sources' Heads.
func Choose(ctx context.Context, sources []Source, req Request) (*Plan, error) {
	if err := req.Target.normalize(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if req.Standby && req.Target.Kind != TargetEnd {
		return nil, fmt.Errorf("%w: a standby goes without a target", ErrBadRequest)
	}
	unreachable := &UnreachableError{Target: req.Target}
	// failed are sources that could not be judged: broken off, or damaged. What
	// they hold may be what is asked for, so nobody is told that it is nowhere.
	var failed []error
	backups := 0
	for _, src := range sources {
		if src.Holdings.Damaged != nil {
			failed = append(failed, fmt.Errorf("read %s: %w", src.Repository, src.Holdings.Damaged))
		}
		c := &chooser{src: src, req: req, heads: repo.NewHeadCache(src.Heads)}
		backups += len(c.candidates())
		if len(c.candidates()) == 0 {
			continue
		}
		plan, refusal, err := c.planOrRefuse(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			failed = append(failed, fmt.Errorf("plan from %s: %w", src.Repository, err))
		case plan != nil:
			plan.passedOver(failed)
			return plan, nil
		default:
			unreachable.Refusals = append(unreachable.Refusals, refusal)
		}
	}
	if len(failed) > 0 && len(unreachable.Refusals) == 0 {
		return nil, errors.Join(failed...)
	}
	if backups == 0 {
		if req.Backup != "" {
			return nil, fmt.Errorf("%w: %s is in none of the repositories", ErrNoBackup, req.Backup)
		}
		return nil, fmt.Errorf("%w in any of the repositories", ErrNoBackup)
	}
	unreachable.nearest()
	return nil, errors.Join(append([]error{unreachable}, failed...)...)
}

// chooser plans over one source.
type chooser struct {
	src   Source
	req   Request
	heads *repo.HeadCache
}

// planOrRefuse plans, or refuses with the reason and what can be restored instead.
func (c *chooser) planOrRefuse(ctx context.Context) (*Plan, Refusal, error) {
	plan, why, err := c.choose(ctx)
	if plan != nil || err != nil {
		return plan, Refusal{}, err
	}
	refusal := Refusal{Repository: c.src.Repository, SystemID: c.src.Holdings.SystemID, Why: why}
	refusal.Windows, err = c.src.Holdings.Windows(ctx, c.heads)
	return nil, refusal, err
}

// candidates are the backups that may be used, newest first.
func (c *chooser) candidates() []repo.Summary {
	var bs []repo.Summary
	for _, b := range c.src.Holdings.Backups {
		if c.req.Backup == "" || b.Label == c.req.Backup {
			bs = append(bs, b)
		}
	}
	slices.SortFunc(bs, func(a, b repo.Summary) int {
		return cmp.Or(b.Stop.Compare(a.Stop), cmp.Compare(b.StopLSN, a.StopLSN), cmp.Compare(b.Label, a.Label))
	})
	return bs
}

// attempt is one backup on one line.
type attempt struct {
	backup repo.Summary
	line   repo.Line
	reach  repo.Reach
	m      *repo.Moments
}

// verdict is what became of an attempt.
type verdict int

const (
	reached  verdict = iota
	tooEarly         // the target lies before the end of the backup: try an older one
	tooLate          // the target lies behind what can be reached
	unusable         // the backup itself
)

// choose plans, or says why the source cannot reach the target. The reason
// given is that of the backup that came nearest: one whose WAL ends before the
// target rather than one that was taken after it.
func (c *chooser) choose(ctx context.Context) (*Plan, string, error) {
	lines, why := c.lines()
	if why != "" {
		return nil, why, nil
	}
	reason, best := "", verdict(0)
	for i, b := range c.candidates() {
		line := lines[i]
		if line == nil {
			continue
		}
		a := c.attempt(b, line)
		plan := c.newPlan(a)
		v, why, err := c.judge(ctx, a, plan)
		if err != nil {
			return nil, "", err
		}
		if v == reached {
			return plan, "", c.finish(ctx, a, plan)
		}
		if reason == "" || best != tooLate && v != unusable {
			reason, best = why, v
		}
	}
	return nil, reason, nil
}

// lines gives every candidate the line on which it is to be used, nil for one
// that does not lie on it.
func (c *chooser) lines() (lines []repo.Line, why string) {
	h, bs := c.src.Holdings, c.candidates()
	lines = make([]repo.Line, len(bs))
	use := func(t pg.Timeline) bool {
		any := false
		line := h.Line(t)
		for i, b := range bs {
			if line.Holds(b.Timeline, b.StopLSN) {
				lines[i], any = line, true
			}
		}
		return any
	}
	choice, known := c.req.Target.Timeline, h.Timelines()
	switch {
	case choice.current:
		for i, b := range bs {
			if line := h.Line(b.Timeline); line.Holds(b.Timeline, b.StopLSN) {
				lines[i] = line
			}
		}
		return lines, ""
	case choice.number != 0:
		if !slices.Contains(known, choice.number) {
			return nil, fmt.Sprintf("it knows nothing of timeline %d, only of %s", choice.number, timelineList(known))
		}
		if !use(choice.number) {
			who := "none of its backups lies"
			if c.req.Backup != "" {
				who = fmt.Sprintf("backup %s does not lie", c.req.Backup)
			}
			return nil, fmt.Sprintf("%s on the way to timeline %d%s", who, choice.number, c.noHistory(choice.number))
		}
		return lines, ""
	}
	for _, t := range slices.Backward(known) {
		if use(t) {
			return lines, ""
		}
	}
	return nil, "none of its backups lies on a known timeline"
}

func (c *chooser) noHistory(t pg.Timeline) string {
	if _, ok := c.src.Holdings.Histories[t]; ok || t == 1 {
		return ""
	}
	return fmt.Sprintf(" (%s is not there)", pg.HistoryName(t))
}

func (c *chooser) attempt(b repo.Summary, line repo.Line) *attempt {
	h := c.src.Holdings
	r := h.Reach(line, b.StartLSN)
	return &attempt{backup: b, line: line, reach: r, m: repo.NewMoments(h.SegmentSize, r.Ranges, c.heads)}
}

// stopAt is the position of the segment with the last byte of the backup's own
// WAL.
func (a *attempt) stopAt() int { return a.m.Position(a.backup.StopLSN - 1) }

// judge decides whether an attempt reaches the target, and fills in the plan's
// Stop and WAL if it does.
func (c *chooser) judge(ctx context.Context, a *attempt, p *Plan) (verdict, string, error) {
	size := c.src.Holdings.SegmentSize
	if a.reach.End < a.backup.StopLSN {
		return unusable, fmt.Sprintf("backup %s needs segment %s, which is not there", a.backup.Label, size.Name(a.reach.Timeline, a.reach.Missing)), nil
	}
	switch t := c.req.Target; t.Kind {
	case TargetTime:
		return c.judgeTime(ctx, a, p)
	case TargetLSN:
		if t.LSN < a.backup.StopLSN {
			return tooEarly, fmt.Sprintf("its oldest backup there, %s, ends at %s", a.backup.Label, a.backup.StopLSN), nil
		}
		return c.judgeLSN(ctx, a, p, t.LSN)
	case TargetImmediate:
		// The server stops before the first record behind the end of the
		// backup, so there has to be one.
		v, why, err := c.judgeLSN(ctx, a, p, a.backup.StopLSN)
		if v == tooLate {
			why = fmt.Sprintf("the WAL that is there ends with backup %s itself: restore to the end of WAL instead, it is the same", a.backup.Label)
		}
		return v, why, err
	case TargetName:
		return c.judgeName(ctx, a, p)
	case TargetXID:
		return c.judgeXID(ctx, a, p)
	default:
		return c.judgeEnd(ctx, a, p)
	}
}

// stopIn cuts the plan's WAL at a position.
func (a *attempt) stopIn(p *Plan, pos int) {
	p.Stop.Segment, _ = a.m.Segment(pos)
	p.WAL = nil
	for left := pos + 1; left > 0; {
		r := a.reach.Ranges[len(p.WAL)]
		if n := r.Count(); n > left {
			r.Last = r.First + pg.SegmentNo(left) - 1
		}
		left -= r.Count()
		p.WAL = append(p.WAL, r)
	}
}

func (c *chooser) judgeEnd(ctx context.Context, a *attempt, p *Plan) (verdict, string, error) {
	end := a.m.Len() - 1
	head, err := a.m.Head(ctx, end)
	if err != nil {
		return 0, "", err
	}
	a.stopIn(p, end)
	p.Stop.LSN = min(a.reach.End, validTo(head, a.reach.End))
	if partial, ok := c.src.Holdings.PartialAt(a.line, a.reach); ok && c.req.UsePartial {
		p.Partial, p.Stop.LSN, p.Stop.Segment = &partial, partial.ValidTo, partial.Segment
	} else if ok {
		p.Warnings = append(p.Warnings, fmt.Sprintf("partial segment %s holds WAL up to %s, which recovery does not read by itself: --use-partial", partial.Segment, partial.ValidTo))
	} else if c.req.UsePartial {
		p.Warnings = append(p.Warnings, "there is no partial segment behind the last whole one")
	}
	if a.reach.Gap() {
		size := c.src.Holdings.SegmentSize
		p.Warnings = append(p.Warnings, fmt.Sprintf("segment %s is missing: WAL from %s on is there but cannot be reached",
			size.Name(a.reach.Timeline, a.reach.Missing), a.reach.Beyond))
	}
	return reached, "", nil
}

// validTo is the end of the records of a segment; end if its head does not say.
func validTo(h repo.WALHead, end pg.LSN) pg.LSN {
	if h.ValidTo == 0 {
		return end
	}
	return h.ValidTo
}

// judgeLSN decides about a position at or behind the backup's end. The server
// stops at the first record that begins at or behind it: so the last segment's
// records must not end before.
func (c *chooser) judgeLSN(ctx context.Context, a *attempt, p *Plan, lsn pg.LSN) (verdict, string, error) {
	pos := a.m.Position(lsn)
	end := a.reach.End
	if pos == a.m.Len()-1 {
		head, err := a.m.Head(ctx, pos)
		if err != nil {
			return 0, "", err
		}
		end = min(end, validTo(head, end))
	}
	partial, ok := c.src.Holdings.PartialAt(a.line, a.reach)
	if ok && c.req.UsePartial && end == a.reach.End && end <= lsn && lsn < partial.ValidTo {
		a.stopIn(p, a.m.Len()-1)
		p.Partial, p.Stop.LSN, p.Stop.Segment = &partial, lsn, partial.Segment
		return reached, "", nil
	}
	if pos >= a.m.Len() || lsn >= end {
		return tooLate, c.endsAt(a, end), nil
	}
	a.stopIn(p, pos)
	p.Stop.LSN = lsn
	return reached, "", nil
}

// endsAt says where the WAL behind a backup ends, and why.
func (c *chooser) endsAt(a *attempt, end pg.LSN) string {
	s := fmt.Sprintf("the WAL on timeline %d ends at %s", a.line.Timeline(), end)
	if a.reach.Gap() {
		s += fmt.Sprintf(": segment %s is missing, it goes on at %s",
			c.src.Holdings.SegmentSize.Name(a.reach.Timeline, a.reach.Missing), a.reach.Beyond)
	}
	return s
}

func timelineList(ts []pg.Timeline) string {
	s := ""
	for i, t := range ts {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprint(uint32(t))
	}
	return s
}
