package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/scheduler"
)

// view is what a look at a repository found.
type view struct {
	at       time.Time // of the last look that succeeded
	err      error     // of the last look
	systemID pg.SystemID
	epoch    *repo.Epoch
	holdings repo.Holdings
	coverage archive.Coverage
	windows  []repo.Window
	drilled  drilled
	paused   *repo.Pause
	leader   string
	shown    api.Repository // without what changes between looks
	// gapLooks counts looks in a row that found the same first gap: files are
	// pushed in parallel, so one look finds gaps that are none.
	gapLooks int
	gap      string
	repaired time.Time     // when a repair of that was last asked for
	again    time.Duration // pause before it is asked for again
}

// heads are remembered heads of one repository's segments.
type heads struct {
	of    pg.SystemID
	cache *repo.HeadCache
}

// maxHeads bounds how many are remembered; each takes about 300 bytes.
const maxHeads = 20_000

func (s *Service) headsOf(e *repo.Epoch) *repo.HeadCache {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.heads[e.Repository()]
	if h == nil || h.of != e.SystemID() || h.cache.Len() > maxHeads {
		h = &heads{e.SystemID(), repo.NewHeadCache(e)}
		s.heads[e.Repository()] = h
	}
	return h.cache
}

// surveyOptions are for a survey of all repositories, with a cache or without.
func (s *Service) surveyOptions(cache *repo.RunCache) archive.SurveyOptions {
	o := archive.SurveyOptions{Cache: cache, Heads: s.headsOf}
	for _, r := range s.repositories() {
		o.Repos = append(o.Repos, r.conf().Watch)
	}
	state, _ := s.nodes()
	if n := state.Furthest(); n != nil {
		o.SystemID, o.Now = n.SystemID, archive.Position{Timeline: n.Timeline, LSN: n.LSN}
	}
	return o
}

// lookAgain looks at the repositories, again and again.
func (s *Service) lookAgain(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.probed:
	}
	every(ctx, s.looks, func() time.Duration { return s.settings().Interval }, func() {
		survey, err := archive.Look(ctx, s.surveyOptions(s.o.Cache))
		if err != nil {
			return // ctx has ended
		}
		for i := range survey.Repos {
			c := &survey.Repos[i]
			if r := s.repository(c.Repo.Name()); r != nil && r.conf().Watch == c.Repo {
				r.see(ctx, survey.SystemID, c)
			}
		}
		s.publish()
		pause(ctx, time.Second) // whoever asks often
	})
}

// see takes in what a look found.
func (r *repository) see(ctx context.Context, id pg.SystemID, c *archive.RepoCoverage) {
	r.mu.Lock()
	v := r.view
	r.mu.Unlock()
	v.err = errors.Join(c.Err, c.Holdings.Damaged)
	if c.Err == nil {
		if err := r.seeWhole(ctx, id, c, &v); err != nil {
			v.err = errors.Join(v.err, err)
		} else {
			v.at = r.s.o.Clock().UTC()
		}
	}
	if ctx.Err() != nil {
		return
	}
	if v.err != nil {
		r.s.log.Warn("repository is not well", zap.String("repo", r.name), zap.Error(v.err))
	}
	v.countGap()
	r.mu.Lock()
	r.view = v
	r.mu.Unlock()
	if v.err == nil {
		r.conf().Work.GiveBack(ctx)
		r.conf().Watch.GiveBack(ctx)
	}
	r.repairGap(ctx)
	r.expireLeft(ctx)
}

// seeWhole fills in a view of a repository that answers.
func (r *repository) seeWhole(ctx context.Context, id pg.SystemID, c *archive.RepoCoverage, v *view) (err error) {
	w := r.conf().Watch
	v.systemID, v.epoch, v.holdings, v.coverage, v.windows = id, c.Epoch, c.Holdings, c.Coverage, nil
	var pins []repo.Pin
	if c.Epoch != nil {
		if v.windows, err = c.Holdings.Windows(ctx, r.s.headsOf(c.Epoch)); err != nil {
			return err
		}
		if pins, err = c.Epoch.Pins(ctx); err != nil && !errors.Is(err, repo.ErrIntegrity) {
			return err
		}
	}
	if v.drilled.passed, v.drilled.last, err = w.NewestDrills(ctx, &r.drillCache); err != nil {
		return err
	}
	if v.paused, err = w.Paused(ctx); err != nil {
		return err
	}
	r.runner.SetPaused(v.paused != nil)
	switch l, err := w.LookLease(ctx, leaseName); {
	case errors.Is(err, repo.ErrNotFound), err == nil && l.Dead:
		v.leader = ""
	case err == nil:
		v.leader = l.Holder
	}
	if err := r.readHistory(ctx); err != nil {
		return err
	}
	v.show(r.name, pins)
	return r.showTimes(ctx, v)
}

// show makes what the API shows of a repository.
func (v *view) show(name string, pins []repo.Pin) {
	out := api.Repository{
		Name: name, Backups: []api.Backup{}, Timelines: []api.Timeline{}, Gaps: []api.Gap{}, Conflicts: []string{},
		Windows: append([]repo.Window{}, v.windows...),
	}
	for _, b := range slices.Backward(v.holdings.Backups) {
		shown := api.Backup{
			Label: b.Label, Type: b.Type, Parent: b.Parent, Start: b.Start, Stop: b.Stop, StartLSN: b.StartLSN, StopLSN: b.StopLSN,
			Timeline: b.Timeline, Bytes: b.Bytes, StoredBytes: b.StoredBytes, PageErrors: b.PageErrors, From: b.Node, Annotations: b.Annotations,
		}
		for _, p := range pins {
			if p.Label == b.Label {
				shown.PinnedUntil = later(shown.PinnedUntil, p.Until)
			}
		}
		out.StoredBytes += b.StoredBytes
		out.Backups = append(out.Backups, shown)
	}
	for _, g := range v.coverage.Gaps() {
		one := api.Gap{Timeline: g.Timeline, Start: g.From, End: g.To, Segments: g.Segments}
		one.Before, one.After = g.Sides(v.windows)
		out.Gaps = append(out.Gaps, one)
	}
	for _, c := range v.coverage.Conflicts {
		out.Conflicts = append(out.Conflicts, c.Name.File())
	}
	for _, t := range v.coverage.Histories {
		out.MissingHistories = append(out.MissingHistories, pg.HistoryName(t))
	}
	for _, b := range v.coverage.Behind() {
		out.Behind += b.Segments
	}
	v.shown = out
}

// forGood is until when a pin without an end holds.
var forGood = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

func later(a time.Time, b *time.Time) time.Time {
	if b == nil {
		return forGood
	}
	if b.After(a) {
		return *b
	}
	return a
}

// showTimes adds the timelines, with the times of their first and last commits.
func (r *repository) showTimes(ctx context.Context, v *view) error {
	for _, t := range v.coverage.Timelines {
		out := api.Timeline{Timeline: t.Timeline, Parent: t.Parent, Switch: t.Switch, Runs: []api.Span{}}
		size := v.coverage.SegmentSize
		for _, h := range t.Have {
			out.Runs = append(out.Runs, api.Span{From: size.Start(h.First), To: size.Start(h.Last + 1)})
			out.Segments += h.Count()
		}
		if n := len(t.Have); n > 0 {
			heads := r.s.headsOf(v.epoch)
			m := repo.NewMoments(size, t.Have[n-1:], heads)
			last, _, err := m.LastCommit(ctx, max(0, m.Len()-commitHeads), m.Len())
			if err != nil {
				return passExpired(err)
			}
			first := time.Time{}
			m = repo.NewMoments(size, t.Have[:1], heads)
			err = m.Each(ctx, 0, min(m.Len(), commitHeads), func(_ int, h repo.WALHead) bool {
				if h.FirstCommit != nil {
					first = *h.FirstCommit
				}
				return h.FirstCommit == nil
			})
			if err != nil {
				return passExpired(err)
			}
			out.FirstCommit, out.LastCommit = first, last
		}
		v.shown.Timelines = append(v.shown.Timelines, out)
	}
	slices.SortFunc(v.shown.Timelines, func(a, b api.Timeline) int { return cmp.Compare(a.Timeline, b.Timeline) })
	return nil
}

// commitHeads is how many heads are read in search of a commit.
const commitHeads = 32

// passExpired passes over WAL that was expired during the look, or whose heads
// cannot be read here.
func passExpired(err error) error {
	if errors.Is(err, repo.ErrNotFound) || errors.Is(err, repo.ErrNoIdentity) {
		return nil
	}
	return err
}

// missing names what is missing, "" if nothing is. What is on its way is not.
func (v *view) missing() string {
	var all []string
	for _, g := range v.coverage.Gaps() {
		all = append(all, string(g.First))
	}
	for _, t := range v.coverage.Histories {
		all = append(all, pg.HistoryName(t))
	}
	return strings.Join(all, " ")
}

func (v *view) countGap() {
	gap := v.missing()
	switch {
	case gap == "" || v.err != nil:
		v.gap, v.gapLooks, v.repaired, v.again = gap, 0, time.Time{}, 0
	case gap == v.gap:
		v.gapLooks++
	default:
		v.gap, v.gapLooks, v.again = gap, 1, 0
	}
}

// gapSure is how many looks must find a gap before it counts.
const gapSure = 2

// repairGap asks for a repair if there is a gap, less and less often.
func (r *repository) repairGap(ctx context.Context) {
	g := r.leads()
	r.mu.Lock()
	v := r.view
	now := r.s.o.Clock()
	if g == nil || v.paused != nil || v.gapLooks < gapSure || now.Sub(v.repaired) < v.again {
		r.mu.Unlock()
		return
	}
	r.view.repaired, r.view.again = now, min(max(2*v.again, time.Minute), time.Hour)
	r.mu.Unlock()
	_, err := r.runner.Trigger(ctx, scheduler.Request{Kind: scheduler.Repair, By: r.s.o.Holder + ": a gap was found"})
	if errors.Is(err, scheduler.ErrBusy) {
		r.mu.Lock()
		r.view.repaired, r.view.again = v.repaired, v.again // at the next look
		r.mu.Unlock()
	} else if err != nil {
		r.s.log.Warn("a gap is not repaired", zap.String("repo", r.name), zap.Error(err))
	}
}
