package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
)

// NewPlan reads what the repositories hold and plans; see [Choose]. It writes
// nothing, anywhere. A repository that cannot be read is passed over if
// another one reaches the target, and told of in the plan's warnings.
//
// Errors: those of Choose; ErrBadRequest if there is no repository of the name
// asked for; those of the repositories. ErrNoBackup only if every repository
// answered.
func NewPlan(ctx context.Context, repos []*repo.Repository, req Request, log *zap.Logger) (*Plan, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if req.Repository != "" {
		repos = slices.DeleteFunc(slices.Clone(repos), func(r *repo.Repository) bool { return r.Name() != req.Repository })
		if len(repos) == 0 {
			return nil, fmt.Errorf("%w: there is no repository %q", ErrBadRequest, req.Repository)
		}
	}
	var sources []Source
	var failed []error
	for _, r := range repos {
		s, err := sourcesOf(ctx, r)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			log.Warn("repository cannot be read", zap.String("repo", r.Name()), zap.Error(err))
			failed = append(failed, fmt.Errorf("read %s: %w", r.Name(), err))
			continue
		}
		sources = append(sources, s...)
	}
	p, err := Choose(ctx, sources, req)
	switch {
	case len(failed) > 0 && errors.Is(err, ErrNoBackup):
		// It may be in those that could not be read.
		return nil, errors.Join(failed...)
	case err != nil:
		return nil, errors.Join(append([]error{err}, failed...)...)
	}
	p.passedOver(failed)
	return p, nil
}

// sourcesOf reads the epochs of a repository, the newest first: before a
// pg_upgrade the cluster had another system identifier.
func sourcesOf(ctx context.Context, r *repo.Repository) ([]Source, error) {
	if _, err := r.Marker(ctx); errors.Is(err, repo.ErrNotFound) {
		return nil, nil // nothing was ever stored here
	} else if err != nil {
		return nil, err
	}
	epochs, err := r.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	var sources []Source
	for _, info := range slices.Backward(epochs) {
		e := r.Epoch(info.SystemID)
		h, err := e.Holdings(ctx)
		if err != nil {
			return nil, err
		}
		sources = append(sources, Source{Repository: r.Name(), Holdings: h, Heads: e, epoch: e})
	}
	return sources, nil
}
