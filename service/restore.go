package service

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/retention"
)

// CanRestore answers from what the last look at the repositories found: which
// backups a moment can be restored from, those first that need the least WAL.
func (s *Service) CanRestore(ctx context.Context, q api.RestoreQuestion) (api.RestoreAnswer, error) {
	out := api.RestoreAnswer{At: q.At, Ways: []api.RestoreWay{}}
	if q.Repo != "" {
		if _, err := s.find(q.Repo); err != nil {
			return out, err
		}
	}
	if q.At.IsZero() {
		return out, fmt.Errorf("%w: no moment was given", api.ErrInvalid)
	}
	var away []string
	for _, r := range s.repositories() {
		if q.Repo != "" && q.Repo != r.name {
			continue
		}
		r.mu.Lock()
		v := r.view
		r.mu.Unlock()
		if v.err != nil || v.at.IsZero() {
			away = append(away, r.name)
		}
		for _, w := range v.windows {
			ways, err := s.ways(ctx, r.name, v, w, q.At)
			if err != nil {
				return out, err
			}
			out.Ways = append(out.Ways, ways...)
			if !w.Latest.After(q.At) && w.Latest.After(out.Before) {
				out.Before = w.Latest
			}
			if !w.Earliest.Before(q.At) && (out.After.IsZero() || w.Earliest.Before(out.After)) {
				out.After = w.Earliest
			}
		}
	}
	slices.SortStableFunc(out.Ways, func(a, b api.RestoreWay) int {
		return cmp.Or(cmp.Compare(b.Timeline, a.Timeline), cmp.Compare(a.WALBytes, b.WALBytes))
	})
	if out.Possible = len(out.Ways) > 0; out.Possible {
		out.Before, out.After = q.At, q.At
		return out, nil
	}
	out.Reason = reason(out, away)
	return out, nil
}

// reason says why a moment cannot be restored.
func reason(out api.RestoreAnswer, away []string) string {
	why := "nothing can be restored yet: there is no usable backup"
	switch {
	case !out.Before.IsZero() && !out.After.IsZero():
		why = "it lies in a gap between recovery windows"
	case !out.Before.IsZero():
		why = "it is after the last transaction that is archived"
	case !out.After.IsZero():
		why = "it is before the end of the oldest backup"
	}
	if len(away) > 0 {
		why += " (" + strings.Join(away, ", ") + " cannot be looked at)"
	}
	return why
}

// ways are the backups of a window from which a moment can be restored.
func (s *Service) ways(ctx context.Context, name string, v view, w repo.Window, at time.Time) (all []api.RestoreWay, err error) {
	if at.Before(w.Earliest) || at.After(w.Latest) {
		return nil, nil
	}
	end, err := s.reached(ctx, v, w, at)
	if err != nil {
		return nil, err
	}
	for _, b := range v.holdings.Backups {
		if !slices.Contains(w.Backups, b.Label) || b.EarliestTarget().After(at) {
			continue
		}
		all = append(all, api.RestoreWay{
			Repo: name, Backup: b.Label, Timeline: w.Timeline, WALBytes: max(0, int64(end)-int64(b.StartLSN)),
			Command: fmt.Sprintf("walkeep restore --repo %s --backup %s --target-time '%s' --target-timeline %d --pgdata DIRECTORY",
				name, b.Label, at.UTC().Format("2006-01-02 15:04:05.999999+00"), w.Timeline),
		})
	}
	return all, nil
}

// reached is about where in the WAL a moment lies: the end of the segment in
// which it was passed.
func (s *Service) reached(ctx context.Context, v view, w repo.Window, at time.Time) (end uint64, err error) {
	first := w.Backups[0]
	i := slices.IndexFunc(v.holdings.Backups, func(b repo.Summary) bool { return b.Label == first })
	if i < 0 || v.epoch == nil {
		return uint64(w.To), nil
	}
	reach := v.holdings.Reach(v.holdings.Line(w.Timeline), v.holdings.Backups[i].StartLSN)
	m := repo.NewMoments(v.holdings.SegmentSize, reach.Ranges, s.headsOf(v.epoch))
	pos, ok, err := m.FirstPast(ctx, 0, m.Len(), func(t time.Time) bool { return t.After(at) })
	if err != nil {
		return 0, passExpired(err)
	}
	if !ok {
		return uint64(w.To), nil
	}
	_, start := m.Segment(pos)
	return uint64(start) + uint64(v.holdings.SegmentSize), nil
}

// showPlan is a plan of retention as the API shows it.
func showPlan(p retention.Plan) api.Expiry {
	out := api.Expiry{Backups: []api.ExpiryEntry{}, WAL: []string{}}
	for _, b := range p.Backups {
		out.Backups = append(out.Backups, api.ExpiryEntry{Label: b.Label, Remove: !b.Keep, Reason: strings.Join(b.Reasons, "; ")})
	}
	for _, r := range p.Remains {
		if !r.Keep {
			out.Backups = append(out.Backups, api.ExpiryEntry{Label: r.Label, Remove: true, Reason: r.Reason})
		}
	}
	for _, e := range p.Epochs {
		for _, d := range e.WAL {
			verb := "keep"
			if !d.Keep {
				verb = "remove"
			}
			out.WAL = append(out.WAL, fmt.Sprintf("%s %s to %s, %d segments: %s", verb, d.First, d.Last, d.Segments, d.Reason))
		}
	}
	out.WAL = append(out.WAL, p.Warnings...)
	return out
}
