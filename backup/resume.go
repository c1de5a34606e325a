package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Resuming.
//
// A backup that is killed leaves packs, and a journal that says which pages of
// which files they hold (repo.BackupWriter.Journal). The next backup of the
// same type, on the same parent, is a backup of its own: with its own label, its
// own pg_backup_start, its own backup_label, and WAL from its own start on. It
// takes pages from the killed one in the same way as an incremental backup
// takes them from its parent, and for the same reason:
//
//	K start          K killed        N start                    N stop
//	---|---- K reads page P ----|---------|------ N reads the rest ---|--->
//	   \____ changes of P in the WAL? ____/ \____ replayed _________/
//
// That a page was read *before* N's start is the danger: replay begins at N's
// start, so nothing repairs what changed the page between K's reading and that.
// Therefore a page is used again only if no WAL record between K's *start* (not
// its reading) and N's start changes it. Then it was on disk at K's start as it
// is at N's start (K's checkpoint wrote all that was older), and K has read it
// so, or torn by a later write of it, in which case there is a record after K's
// start. What changes it after N's start is replayed. Which pages those are is
// found by the same ladder (rung.go) with the same conditions, from K's start:
// server's summaries, block changes of the WAL, or a scan of LSNs; all else
// (maps, init forks, what is no relation, databases made anew) is read again.
// Times of files alone prove nothing here but that a file need not be scanned,
// under the same condition as with a parent.
//
// What a parent has and a killed backup has not is an end, at which it was
// consistent and which the server's line of timelines must hold. In its place
// stands how far WAL had come when the journal was written: no page in it is
// newer. It must lie on the server's line (else K has seen WAL that a failover
// or pg_rewind threw away), and before the point where replay of N ends: that is
// so if it is before N's start, or if K read this very data directory, because a
// server writes no page before the WAL that it needs to be consistent with it:
// a primary has flushed it, a standby moved its minRecoveryPoint there.
//
// An entry of K's journal is a whole copy of a file as of K's start, also where
// it names chunks of K's parent or of an earlier killed backup that K itself
// resumed. So any number of kills in a row works, each with the journal of one
// backup: that which has most.

// remainsPatience is the default of Options.resumePatience.
const remainsPatience = 6 * time.Minute

// chooseRemains finds in each repository what a killed backup left that this
// one may use. None of it is needed: what does not work is passed over.
func (b *run) chooseRemains(ctx context.Context) {
	if b.Detect == DetectWhole {
		return
	}
	for _, t := range b.targets {
		if t.out.Load() || t.writer == nil {
			continue
		}
		why, err := b.chooseRemainsOf(ctx, t)
		if err != nil {
			why = err.Error()
		}
		if why != "" && ctx.Err() == nil {
			b.Log.Info("what a killed backup left cannot be used", zap.String("repository", t.repo.Name()), zap.String("because", why))
		}
	}
}

func (b *run) chooseRemainsOf(ctx context.Context, t *target) (why string, err error) {
	all, err := t.epoch.Remains(ctx)
	if err != nil || len(all) == 0 {
		return "", err
	}
	labels, err := t.epoch.BackupLabels(ctx)
	if err != nil {
		return "", err
	}
	var best repo.Remains
	for _, r := range all {
		if r.Label != t.label && r.Serves(t.label, labels) && b.Clock().Sub(r.Last) < repo.RemainsUsable && r.Size > best.Size {
			best = r
		}
	}
	if best.Label == "" {
		return "", nil
	}
	b.Progress.Stage(fmt.Sprintf("looking at what %s left in %s", best.Label, t.repo.Name()))
	if err := t.writer.UseRemains(ctx, best, b.resumePatience); err != nil {
		return "", err
	}
	j, err := t.epoch.OpenRemains(ctx, best)
	if err != nil {
		return "", err
	}
	if err := b.useRemainsBelow(ctx, t, j, all, labels); err != nil {
		return "", errors.Join(err, j.Close())
	}
	h := j.Header()
	switch {
	case t.parent != nil && h.Parent != t.parent.summary.Label:
		why = fmt.Sprintf("%s was to build on %s", best.Label, h.Parent)
	case h.PGVersion/10000 != b.info.Major:
		why = fmt.Sprintf("%s was of PostgreSQL %d", best.Label, h.PGVersion/10000)
	case h.DataChecksums != b.control.DataChecksums:
		why = "page checksums were switched on or off since"
	case h.BlockSize != pg.PageSize:
		why = fmt.Sprintf("its pages have %d bytes", h.BlockSize)
	}
	if why != "" {
		return why, j.Close()
	}
	t.journal = j
	t.remains = &parent{
		summary: repo.Summary{Label: best.Label}, header: h,
		cursor: cursor{read: j.Next}, databases: databasesOf(h.Databases),
	}
	return "", nil
}

// useRemainsBelow takes over the killed backups that a killed one itself used.
func (b *run) useRemainsBelow(ctx context.Context, t *target, j *repo.RemainsReader, all []repo.Remains, existing []repo.Label) error {
	for _, l := range j.Labels() {
		if slices.Contains(existing, l) || t.parent != nil && slices.Contains(t.parent.summary.References, l) {
			continue // the parent, or in use with it
		}
		r := repo.Remains{Label: l}
		if i := slices.IndexFunc(all, func(r repo.Remains) bool { return r.Label == l }); i >= 0 {
			r = all[i]
		}
		if err := t.writer.UseRemains(ctx, r, b.resumePatience); err != nil {
			return err
		}
	}
	return j.CheckPacks() // once more: now nobody deletes them
}

// resumePlanner decides, when the backup has begun, how it is found out what of
// killed backups is still good; nil: nothing is.
func (b *run) resumePlanner(ctx context.Context) (*planner, error) {
	targets := make([]*target, len(b.targets))
	any := false
	for i, t := range b.targets {
		targets[i] = newTarget(t.repo, 0)
		targets[i].epoch = t.epoch
		targets[i].out.Store(t.out.Load())
		if t.remains == nil || t.out.Load() {
			continue
		}
		if why, err := b.refusesRemains(ctx, t.remains.header); err != nil {
			return nil, err
		} else if why != "" {
			b.Log.Info("what a killed backup left cannot be used", zap.String("repository", t.repo.Name()), zap.String("because", why))
			continue
		}
		targets[i].parent, any = t.remains, true
	}
	if !any {
		return nil, nil
	}
	// The ladder, with other parents.
	other := &run{
		Options: b.Options, began: b.began, info: b.info, control: b.control, start: b.start, facts: b.facts,
		line: b.line, targets: targets,
	}
	p := b.newPlanner(targets)
	err := other.chooseRung(ctx, p)
	var no *DetectError
	if errors.As(err, &no) || err == nil && p.rung == DetectWhole {
		b.Log.Info("what a killed backup left cannot be used", zap.String("because", "it cannot be found out what has changed since"))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i, t := range b.targets {
		if r := targets[i].parent; r != nil {
			text := fmt.Sprintf("packs of %s, which was killed, are used again", r.summary.Label)
			t.notes = append(t.notes, text)
			b.Log.Info("resuming", zap.String("repository", t.repo.Name()), zap.String("label", string(r.summary.Label)), zap.String("changes by", string(p.rung)))
		}
	}
	return p, nil
}

// refusesRemains says why pages of a killed backup cannot be used, or "". See
// the argument above.
func (b *run) refusesRemains(ctx context.Context, h repo.Header) (string, error) {
	if b.line == nil {
		l, err := b.lineage(ctx)
		if err != nil {
			return "", err
		}
		b.line = l.line
	}
	place := b.Source.place()
	here := place != nil && h.Place != nil && *place == *h.Place && h.PGData == b.Source.pgdata()
	switch {
	case !b.line.Holds(h.Timeline, h.StopLSN):
		return fmt.Sprintf("it had come to %s on timeline %d, which is not in the past of timeline %d that the server is on", h.StopLSN, h.Timeline, b.line.Timeline()), nil
	case h.StartLSN > b.start.LSN:
		return fmt.Sprintf("it began at %s, and this one begins at %s already", h.StartLSN, b.start.LSN), nil
	case h.StopLSN > b.start.LSN && !here:
		return fmt.Sprintf("it had come to %s on another node, and this one begins at %s", h.StopLSN, b.start.LSN), nil
	}
	return "", nil
}

// keepJournals begins to note what a later backup can use.
func (b *run) keepJournals(ctx context.Context) {
	for _, t := range b.targets {
		if t.out.Load() {
			continue
		}
		h := b.header()
		h.Timeline, h.StopLSN = b.start.Timeline, 0
		if t.parent != nil {
			h.Parent = t.parent.summary.Label
		}
		t.writer.Journal(ctx, h, b.JournalEvery, b.currentLSN)
	}
}
