package retention

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/walkeep/walkeep/repo"
)

// gather reads what the repository holds. Nothing is written. An empty
// repository has no epochs.
func gather(ctx context.Context, r *repo.Repository) (s State, epochs []*repo.Epoch, err error) {
	if _, err := r.Marker(ctx); errors.Is(err, repo.ErrNotFound) {
		return s, nil, nil
	} else if err != nil {
		return s, nil, err
	}
	infos, err := r.Epochs(ctx)
	if err != nil {
		return s, nil, err
	}
	for _, info := range infos {
		e := r.Epoch(info.SystemID)
		one, err := gatherEpoch(ctx, e)
		if err != nil {
			return s, nil, err
		}
		s.Epochs = append(s.Epochs, one)
		epochs = append(epochs, e)
	}
	// Last, so that nobody whose mark is not seen uses what was listed.
	s.Uses, err = r.Uses(ctx)
	return s, epochs, err
}

func gatherEpoch(ctx context.Context, e *repo.Epoch) (s EpochState, err error) {
	labels, err := e.BackupLabels(ctx)
	if err != nil {
		return s, err
	}
	if s.Holdings, err = e.Holdings(ctx); err != nil {
		return s, err
	}
	for _, l := range labels {
		if slices.ContainsFunc(s.Holdings.Backups, func(b repo.Summary) bool { return b.Label == l }) {
			continue
		}
		b, err := e.Summary(ctx, l)
		switch {
		case err == nil:
			s.Holdings.Backups = append(s.Holdings.Backups, b)
		case errors.Is(err, repo.ErrIntegrity):
			s.Unreadable = append(s.Unreadable, l)
		case !errors.Is(err, repo.ErrNotFound):
			return s, err
		}
	}
	// A pin that cannot be read holds for ever: no failure.
	if s.Pins, err = e.Pins(ctx); err != nil && !errors.Is(err, repo.ErrIntegrity) {
		return s, err
	}
	if s.Partials, err = e.Partials(ctx); err != nil {
		return s, err
	}
	if s.HistoryFiles, err = e.BackupHistoryFiles(ctx); err != nil {
		return s, err
	}
	stored, err := e.StoredLabels(ctx)
	if err != nil {
		return s, err
	}
	if s.Journals, err = journals(ctx, e); err != nil {
		return s, err
	}
	for _, l := range stored {
		if !slices.Contains(labels, l) && !slices.ContainsFunc(s.Holdings.Backups, func(b repo.Summary) bool { return b.Label == l }) {
			s.Remains = append(s.Remains, l)
		}
	}
	return s, nil
}

func journals(ctx context.Context, e *repo.Epoch) (map[repo.Label]time.Time, error) {
	all, err := e.Remains(ctx)
	last := map[repo.Label]time.Time{}
	for _, r := range all {
		last[r.Label] = r.Last
	}
	return last, err
}
