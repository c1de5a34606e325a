package service

import (
	"context"
	"slices"

	"go.uber.org/zap"
)

// Reload takes over other settings. Repositories whose Place is the same are
// kept as they are, with what runs in them; the Work and Watch of the new
// settings are then not used. It returns the repositories that are not used any
// more, for closing: of the old settings, or of the new ones. ctx is that of Serve.
func (s *Service) Reload(ctx context.Context, set Settings) (unused []Repo, err error) {
	if err := set.setDefaults(); err != nil {
		return set.Repos, err
	}
	old := s.repositories()
	var next []*repository
	var fresh []*repository
	for i, c := range set.Repos {
		j := slices.IndexFunc(old, func(r *repository) bool { return r.name == c.name() && r.conf().Place == c.Place })
		if j >= 0 {
			was := old[j].conf()
			if c.Watch != was.Watch {
				unused = append(unused, c)
			}
			c.Work, c.Watch = was.Work, was.Watch
			set.Repos[i] = c
			next = append(next, old[j])
			continue
		}
		r, err := s.newRepository(c)
		if err != nil {
			return set.Repos, err
		}
		next, fresh = append(next, r), append(fresh, r)
	}
	for i, r := range next {
		r.mu.Lock()
		r.config = set.Repos[i]
		r.mu.Unlock()
		if err := r.runner.SetJobs(set.Repos[i].Jobs); err != nil {
			return nil, err
		}
	}
	same := slices.Equal(old, next)
	s.mu.Lock()
	s.set, s.repos, s.refused = set, next, nil
	close(s.reloaded)
	s.reloaded = make(chan struct{})
	if !same {
		close(s.replaced)
		s.replaced = make(chan struct{})
	}
	s.mu.Unlock()
	for _, r := range fresh {
		s.serve(ctx, r)
	}
	for _, r := range old {
		if !slices.Contains(next, r) {
			s.retire(r)
			unused = append(unused, r.conf())
		}
	}
	s.log.Info("configuration reloaded", zap.Int("repositories", len(next)), zap.Int("replaced", len(fresh)))
	kick(s.probes)
	s.look()
	s.publish()
	return unused, nil
}

// retire ends a repository that is not configured any more: what runs there is
// cancelled.
func (s *Service) retire(r *repository) {
	r.stop()
	<-r.ended
	for _, run := range r.runner.History() {
		if run.Running() {
			r.runner.Cancel(run.ID)
		}
	}
	r.runner.Wait()
}

// Refuse shows that a changed configuration was not taken over, and why; nil
// that all is well again.
func (s *Service) Refuse(err error) {
	s.mu.Lock()
	s.refused = err
	s.mu.Unlock()
	s.publish()
}
