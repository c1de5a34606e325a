package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// defaultBehind is how many segments a repository may be behind the cluster
// before `wal status` fails: 1 GiB of WAL with the default segment size.
const defaultBehind = 64

func newWALStatusCommand(r *root) *cobra.Command {
	var (
		names   []string
		asJSON  bool
		noCache bool
		behind  int
	)
	c := &cobra.Command{
		Use:   "status",
		Short: "Show which WAL is archived, and where it has gaps",
		Long: `Show, for each repository and timeline, which WAL is there, which is needed and
missing (gaps), what the cluster has written since (behind), branches of the
history, and conflicts. Needed is the WAL from the start of the oldest backup to
where the cluster is now, along the timelines that led there.

The exit status is 0 if all that is needed is there, 1 if there is a gap, if a
repository is more than --max-behind segments behind or cannot be looked at, or
if two servers chose the same timeline.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			remote, err := r.service(c)
			if err != nil {
				return err
			}
			if remote != nil {
				if err := onlyLocal(c, "no-cache"); err != nil {
					return err
				}
				return r.remoteWALStatus(c.Context(), remote, names, asJSON, behind)
			}
			s, err := r.walStatus(c.Context(), names, noCache)
			if err != nil {
				return err
			}
			if asJSON {
				err = r.printJSON(s)
			} else {
				err = printWALStatus(r.stdout, s, r.location())
			}
			return errors.Join(err, s.survey.Whole(behind))
		},
	}
	f := c.Flags()
	f.StringSliceVar(&names, "repo", nil, "repositories to look at (default: all)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&noCache, "no-cache", false, "list everything anew, instead of what is new since the last time")
	f.IntVar(&behind, "max-behind", defaultBehind, "segments that a repository may be behind; -1: any number")
	return askable(c)
}

// walStatus is what `wal status --json` prints. Scripts rely on its shape.
type walStatus struct {
	Cluster  string           `json:"cluster"`
	SystemID *pg.SystemID     `json:"system_identifier"` // null: nothing is archived
	Now      archive.Position `json:"now"`
	// NowFrom is the node that said where the cluster is; null if none did, and
	// Now is as far as is archived.
	NowFrom *string         `json:"now_from"`
	Repos   []walStatusRepo `json:"repos"`

	survey *archive.Survey
}

// walStatusRepo is one repository of a walStatus.
type walStatusRepo struct {
	Name      string              `json:"name"`
	Status    repoStatus          `json:"status"`
	Error     *string             `json:"error"`
	Timelines []walStatusTimeline `json:"timelines"`
	Gaps      []walGap            `json:"gaps"`
	Behind    []archive.Gap       `json:"behind"`
	// MissingHistories are history files that are needed and not there.
	MissingHistories []string         `json:"missing_histories"`
	Branches         []archive.Branch `json:"branches"`
	Conflicts        []walConflict    `json:"conflicts"`
	Windows          []repo.Window    `json:"recovery_windows"`

	location string
	coverage archive.Coverage
}

// walStatusTimeline is one timeline of a repository.
type walStatusTimeline struct {
	Timeline pg.Timeline  `json:"timeline"`
	Parent   *pg.Timeline `json:"parent"`
	Switch   *pg.LSN      `json:"switch"`
	From     *pg.LSN      `json:"from"` // first byte archived; null: none
	To       *pg.LSN      `json:"to"`
	Segments int          `json:"segments"`
	Needed   int          `json:"needed"`
	Missing  int          `json:"missing"` // in gaps
	Behind   int          `json:"behind"`
	Partials []walPartial `json:"partials"`
}

// walGap is a gap with the recovery windows on both sides of it.
type walGap struct {
	archive.Gap
	Before *time.Time `json:"restorable_until"` // latest moment before it
	After  *time.Time `json:"restorable_from"`  // earliest moment after it
}

type walPartial struct {
	Segment pg.SegmentName `json:"segment"`
	ValidTo pg.LSN         `json:"valid_to"`
}

type walConflict struct {
	File string `json:"file"`
	XXH3 string `json:"xxh3"`
}

// String is the file, with its digest if that is known.
func (c walConflict) String() string {
	if c.XXH3 == "" {
		return c.File
	}
	return c.File + " (xxh3 " + c.XXH3 + ")"
}

func walConflicts(all []repo.Conflict) []walConflict {
	conflicts := []walConflict{}
	for _, f := range all {
		conflicts = append(conflicts, walConflict{File: f.Name.File(), XXH3: f.Name.Conflict})
	}
	return conflicts
}

// walStatus looks at the repositories, and at the nodes for where the cluster
// is.
func (r *root) walStatus(ctx context.Context, names []string, noCache bool) (*walStatus, error) {
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	r.patience = forPeople
	repos, err := r.repositories(ctx, names...)
	if err != nil {
		return nil, err
	}
	now := r.whereabouts(ctx)
	o := archive.SurveyOptions{Repos: repos, SystemID: now.systemID, Now: now.position}
	if !noCache {
		o.Cache = r.runCache()
	}
	survey, err := archive.Look(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &walStatus{Cluster: cfg.Cluster, Now: survey.Now, survey: survey, Repos: []walStatusRepo{}}
	if survey.SystemID != 0 {
		s.SystemID = &survey.SystemID
	}
	if now.node != "" {
		s.NowFrom = &now.node
	}
	for i := range survey.Repos {
		s.Repos = append(s.Repos, walStatusOf(ctx, &survey.Repos[i]))
	}
	return s, nil
}

// runCache is where it is remembered which segments are there; nil if this
// user has no place for that.
func (r *root) runCache() *repo.RunCache {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	return repo.NewRunCache(filepath.Join(dir, "walkeep"), nil, r.logger())
}

func walStatusOf(ctx context.Context, c *archive.RepoCoverage) walStatusRepo {
	s := walStatusRepo{
		Name: c.Repo.Name(), location: c.Repo.Store().String(), Status: repoOK, coverage: c.Coverage,
		Timelines: []walStatusTimeline{}, Gaps: []walGap{}, Behind: c.Coverage.Behind(), MissingHistories: []string{},
		Branches: append([]archive.Branch{}, c.Coverage.Branches...), Conflicts: walConflicts(c.Coverage.Conflicts), Windows: []repo.Window{},
	}
	fail := func(status repoStatus, err error) walStatusRepo {
		text := err.Error()
		s.Status, s.Error = status, &text
		return s
	}
	switch {
	case c.Err != nil && errors.Is(c.Err, repo.ErrIntegrity):
		return fail(repoDamaged, c.Err)
	case c.Err != nil:
		return fail(repoError, c.Err)
	case c.Epoch == nil:
		s.Status = repoEmpty
		return s
	}
	for _, t := range c.Coverage.Timelines {
		s.Timelines = append(s.Timelines, newWALStatusTimeline(c.Coverage.SegmentSize, t))
	}
	for _, t := range c.Coverage.Histories {
		s.MissingHistories = append(s.MissingHistories, pg.HistoryName(t))
	}
	windows, err := c.Holdings.Windows(ctx, repo.NewHeadCache(c.Epoch))
	if err == nil {
		s.Windows = append(s.Windows, windows...)
	}
	for _, g := range c.Coverage.Gaps() {
		s.Gaps = append(s.Gaps, newWALGap(g, windows))
	}
	if err = errors.Join(err, c.Holdings.Damaged); err != nil {
		return fail(repoDamaged, err)
	}
	return s
}

// newWALGap finds the moments on both sides of a gap.
func newWALGap(g archive.Gap, windows []repo.Window) walGap {
	w := walGap{Gap: g}
	before, after := g.Sides(windows)
	if !before.IsZero() {
		w.Before = &before
	}
	if !after.IsZero() {
		w.After = &after
	}
	return w
}

func newWALStatusTimeline(size pg.SegmentSize, t archive.TimelineCoverage) walStatusTimeline {
	s := walStatusTimeline{
		Timeline: t.Timeline, Segments: count(t.Have), Needed: count(t.Needed), Missing: count(t.Gaps), Behind: count(t.Behind),
		Partials: []walPartial{},
	}
	if t.Parent != 0 {
		s.Parent, s.Switch = &t.Parent, &t.Switch
	}
	if n := len(t.Have); n > 0 {
		from, to := size.Start(t.Have[0].First), size.Start(t.Have[n-1].Last+1)
		s.From, s.To = &from, &to
	}
	for _, p := range t.Partials {
		s.Partials = append(s.Partials, walPartial{p.Segment, p.ValidTo})
	}
	return s
}

func count(all []repo.SegmentRange) (n int) {
	for _, r := range all {
		n += r.Count()
	}
	return n
}

// segmentsText is a number of segments for people.
func segmentsText(n int) string {
	if n == 1 {
		return "1 segment"
	}
	return fmt.Sprintf("%d segments", n)
}
