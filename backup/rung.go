package backup

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// restartSlack is room for the clocks of two machines.
const restartSlack = time.Minute

// chooseRung finds the best way to detect changes that can be relied on, or
// tries the one that was asked for.
func (b *run) chooseRung(ctx context.Context, p *planner) error {
	rungs := []struct {
		detect Detect
		try    func(context.Context, *planner) (why string, err error)
	}{
		{DetectSummaries, b.trySummaries},
		{DetectChanges, b.tryChanges},
		{DetectScan, b.tryScan},
		{DetectWhole, func(context.Context, *planner) (string, error) { return "", nil }},
	}
	for _, r := range rungs {
		if b.Detect != DetectBest && b.Detect != r.detect {
			continue
		}
		why, err := r.try(ctx, p)
		if err != nil {
			return err
		}
		if why == "" {
			p.rung = r.detect
			b.Log.Info("changes are detected", zap.String("by", string(r.detect)))
			return nil
		}
		if b.Detect != DetectBest {
			return &DetectError{r.detect, why}
		}
		b.Log.Info("changes cannot be detected", zap.String("by", string(r.detect)), zap.String("because", why))
	}
	return &DetectError{b.Detect, "this version cannot do that"}
}

// tryScan: the LSNs of pages tell what has changed if everything that changes
// pages was logged. That is so as long as wal_level was not minimal, which
// takes a restart to change.
//
// Hint bits are not logged, and do not matter. But one flag of heap pages that
// does matter changes without moving the page's LSN, unless there are checksums
// or wal_log_hints (visibilitymap_set): a page that lost its "all visible" while
// the visibility map, which is always stored whole, kept it, would be left out
// of the map's clearing when it is changed later, and index-only scans would
// return what is not there. So without either, only files that were not written
// at all are taken as they were. Whether there are checksums is the cluster's,
// and the parent's are compared; wal_log_hints is each server's own setting.
func (b *run) tryScan(ctx context.Context, p *planner) (why string, err error) {
	p.changes = nil
	restarted := b.neverMinimal(p)
	p.filesOnly = !b.control.DataChecksums && (!b.facts.LogHints || restarted != "")
	if p.filesOnly {
		b.Log.Info("files that were written are stored whole", zap.String("because",
			"without checksums, and wal_log_hints on since before the parent, the LSN of a page does not tell whether its flags have changed"))
	}
	if restarted == "" {
		return "", nil
	}
	f, err := b.walFacts(ctx)
	switch {
	case err != nil:
		return "", err
	case f.minimal:
		return "wal_level was minimal", nil
	case f.unseen:
		return restarted + "; " + f.why, nil
	}
	return "", nil
}

// neverMinimal says why wal_level may have been minimal since a parent began,
// or "": the server has not been restarted since.
func (b *run) neverMinimal(p *planner) string {
	for _, t := range p.targets {
		if t.parent == nil || t.out.Load() {
			continue
		}
		slack := restartSlack
		if there := t.parent.header.Place; p.place != nil && there != nil && there.Host == p.place.Host {
			slack = 0
		}
		if began := t.parent.header.Start; !b.facts.Started.Add(slack).Before(began) {
			return fmt.Sprintf("the server was started at %s, and %s began at %s: wal_level may have been minimal in between",
				b.facts.Started.Format(time.RFC3339), t.parent.summary.Label, began.Format(time.RFC3339))
		}
	}
	return ""
}
