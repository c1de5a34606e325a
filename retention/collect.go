package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo"
)

// labelsAtOnce is how many labels are emptied at a time; each has several
// requests under way.
const labelsAtOnce = 4

// collect deletes the packs that are garbage now. See the package comment for
// why the three lists are read in this order.
func (x *expiry) collect(ctx context.Context) error {
	for i, e := range x.epochs {
		stored, err := e.StoredLabels(ctx)
		if err != nil {
			return err
		}
		uses, err := x.r.Uses(ctx)
		if err != nil {
			return err
		}
		garbage, why, err := x.garbage(ctx, i, stored, uses)
		if err != nil {
			return err
		}
		if why != "" {
			x.postpone("packs: %s", why)
			continue
		}
		if err := x.empty(ctx, e, garbage); err != nil {
			return err
		}
		if err := x.removeJournals(ctx, e, stored, uses); err != nil {
			return err
		}
	}
	return nil
}

// garbage finds the labels below which everything can go; or says why nothing
// can now.
func (x *expiry) garbage(ctx context.Context, epoch int, stored []repo.Label, uses []repo.Use) (garbage []repo.Label, why string, err error) {
	listed, err := x.summaries(ctx, epoch)
	if err != nil {
		return nil, "", err
	}
	if listed == nil {
		return nil, "a summary is damaged, so what it needs is not known", nil
	}
	journals, err := journals(ctx, x.epochs[epoch])
	if err != nil {
		return nil, "", err
	}
	needed := map[repo.Label]bool{}
	var existing []repo.Label
	for l, s := range listed {
		needed[l] = true
		for _, r := range s.References {
			needed[r] = true
		}
		existing = append(existing, l)
	}
	for _, u := range uses {
		if _, ok := listed[u.Label]; !ok && !u.Writing && slices.Contains(stored, u.Label) {
			return nil, fmt.Sprintf("%s, which was removed, is still used by %s: %s", u.Label, u.Holder, u.What), nil
		}
		needed[u.Label] = true
	}
	for _, l := range stored {
		switch {
		case needed[l]:
		case x.goes(epoch, l) || slices.Contains(x.Remove, l):
			garbage = append(garbage, l)
		case !awaited(l, journals[l], x.result.Plan.At, existing):
			garbage = append(garbage, l)
		}
	}
	return garbage, "", nil
}

// removeJournals deletes the journals of backups that exist, and those of which
// no pack is left: their writer was killed before he could, or the store refused.
func (x *expiry) removeJournals(ctx context.Context, e *repo.Epoch, stored []repo.Label, uses []repo.Use) error {
	all, err := e.Remains(ctx)
	if err != nil {
		return err
	}
	labels, err := e.BackupLabels(ctx)
	if err != nil {
		return err
	}
	for _, r := range all {
		used := slices.ContainsFunc(uses, func(u repo.Use) bool { return u.Label == r.Label })
		if used || !slices.Contains(labels, r.Label) && slices.Contains(stored, r.Label) {
			continue
		}
		if !slices.Contains(labels, r.Label) && x.result.Plan.At.Sub(r.Last) < repo.RemainsKept {
			continue // its first packs may be younger than the list of them
		}
		if err := x.allowed(ctx); err != nil {
			return err
		}
		if err := e.DeleteJournal(ctx, r); err != nil {
			x.fail(err)
		}
	}
	return nil
}

// summaries are the summaries that are listed now, nil if one cannot be read.
// What is known already is not read again: summaries never change.
func (x *expiry) summaries(ctx context.Context, epoch int) (map[repo.Label]repo.Summary, error) {
	e := x.epochs[epoch]
	labels, err := e.BackupLabels(ctx)
	if err != nil {
		return nil, err
	}
	known := map[repo.Label]repo.Summary{}
	for _, s := range x.state.Epochs[epoch].Holdings.Backups {
		known[s.Label] = s
	}
	listed := make(map[repo.Label]repo.Summary, len(labels))
	for _, l := range labels {
		s, ok := known[l]
		if !ok {
			s, err = e.Summary(ctx, l)
			switch {
			case errors.Is(err, repo.ErrNotFound):
				continue
			case errors.Is(err, repo.ErrIntegrity):
				return nil, nil
			case err != nil:
				return nil, err
			}
		}
		listed[l] = s
	}
	return listed, nil
}

// empty deletes manifests and packs. What the store refuses is a failure, and
// the others go all the same.
func (x *expiry) empty(ctx context.Context, e *repo.Epoch, labels []repo.Label) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(labelsAtOnce)
	for _, l := range labels {
		group.Go(func() error {
			done, err := e.DeleteBackupData(ctx, l, x.allowed)
			x.mu.Lock()
			x.result.Done.Packs += done.Objects
			x.result.Done.Bytes += done.Bytes
			x.result.Done.Left += done.Left
			x.mu.Unlock()
			switch {
			case err == nil:
			case errors.Is(err, repo.ErrLeaseLost) || ctx.Err() != nil:
				return err
			case errors.Is(err, repo.ErrBusy) || errors.Is(err, repo.ErrExists):
				x.postpone("packs of %s: somebody writes there", l)
			default:
				x.fail(err)
			}
			return nil
		})
	}
	return group.Wait()
}

// errBackupRuns ends the removal of WAL.
var errBackupRuns = errors.New("a backup is being written")

// removeWAL deletes the WAL that no backup that is still listed needs, and
// pins that have ended.
func (x *expiry) removeWAL(ctx context.Context, stay []map[repo.Label]bool) error {
	plan := x.result.Plan
	state, again := x.state, false
	state.Epochs = slices.Clone(state.Epochs)
	for i, labels := range stay {
		for l := range labels {
			again = true
			e := &state.Epochs[i]
			e.Pins = append(slices.Clone(e.Pins), repo.Pin{Label: l, Reason: "it could not be removed"})
		}
	}
	if again {
		req := x.request()
		req.At, req.Remove = plan.At, nil
		var err error
		if plan, err = MakePlan(state, req); err != nil {
			return err
		}
	}
	for i, ep := range plan.Epochs {
		err := x.removeEpochWAL(ctx, x.epochs[i], ep)
		if errors.Is(err, errBackupRuns) {
			x.postpone("WAL: %s", err)
			break
		}
		if err != nil {
			return err
		}
	}
	return x.removePins(ctx)
}

// noBackupRuns is asked before each batch of WAL, besides allowed.
func (x *expiry) noBackupRuns(ctx context.Context) error {
	if err := x.allowed(ctx); err != nil {
		return err
	}
	uses, err := x.r.Uses(ctx)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if u.Writing {
			return fmt.Errorf("%w by %s: %s", errBackupRuns, u.Holder, u.What)
		}
	}
	return nil
}

func (x *expiry) removeEpochWAL(ctx context.Context, e *repo.Epoch, ep EpochPlan) error {
	account := func(done repo.Removed, err error) error {
		x.result.Done.WAL += done.Objects
		x.result.Done.Bytes += done.Bytes
		x.result.Done.Left += done.Left
		if err == nil || errors.Is(err, errBackupRuns) || errors.Is(err, repo.ErrLeaseLost) || ctx.Err() != nil {
			return err
		}
		x.fail(err)
		return nil
	}
	for _, w := range ep.WAL {
		if w.Keep {
			continue
		}
		if err := account(e.DeleteSegments(ctx, w.Timeline, w.from, w.to, x.noBackupRuns)); err != nil {
			return err
		}
	}
	var partials []repo.Partial
	for _, p := range ep.Partials {
		partials = append(partials, p.partial)
	}
	if err := account(e.DeletePartials(ctx, partials, x.noBackupRuns)); err != nil {
		return err
	}
	return account(e.DeleteBackupHistoryFiles(ctx, ep.HistoryFiles, x.noBackupRuns))
}

// removePins deletes pins that have ended, and those of backups that are gone.
func (x *expiry) removePins(ctx context.Context) error {
	for i, e := range x.epochs {
		var ended []repo.Pin
		for _, p := range x.state.Epochs[i].Pins {
			gone := x.goes(i, p.Label) || !x.listed(p.Label) && !slices.Contains(x.state.Epochs[i].Unreadable, p.Label)
			if gone || !p.Holds(x.result.Plan.At) {
				ended = append(ended, p)
			}
		}
		if len(ended) == 0 {
			continue
		}
		if err := x.allowed(ctx); err != nil {
			return err
		}
		if err := e.DeletePins(ctx, ended...); err != nil {
			x.fail(err)
			continue
		}
		x.result.Done.Pins += len(ended)
	}
	return nil
}
