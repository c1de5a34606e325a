package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/repo"
)

func newWALRepairCommand(r *root) *cobra.Command {
	var (
		names   []string
		asJSON  bool
		dryRun  bool
		tempDir string
	)
	c := &cobra.Command{
		Use:   "repair",
		Short: "Fill gaps in the archived WAL",
		Long: `Find the WAL that is needed and missing in each repository, and fill it in: from
another repository, else from the pg_wal of a node, else by replication from a
node. What comes from there is examined before it is stored: it must be of this
cluster and timeline, complete and undamaged.

The exit status is 0 if nothing is missing any more, 1 if something is; then the
gaps are printed with the moments that can be restored on both sides. With
--server the service does it, and says what it repaired.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.service(c)
			if err != nil {
				return err
			}
			if s != nil {
				return r.remoteRepair(c, s, names, asJSON)
			}
			out, err := r.walRepair(c.Context(), names, tempDir, dryRun)
			if out == nil {
				return err
			}
			if asJSON {
				return errors.Join(r.printJSON(out), err)
			}
			return errors.Join(printWALRepair(&table{w: r.stdout, zone: r.location()}, out), err)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&names, "repo", nil, "repositories to repair (default: all)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	f.StringVar(&tempDir, "temp-dir", "", "where segments are kept while they are examined (default: the system's)")
	return askable(c)
}

// walRepair is what `wal repair --json` prints. Scripts rely on its shape.
type walRepair struct {
	Cluster string          `json:"cluster"`
	DryRun  bool            `json:"dry_run"`
	Repos   []walRepairRepo `json:"repos"`
}

// walRepairRepo is one repository of a walRepair.
type walRepairRepo struct {
	Name     string            `json:"name"`
	Repaired []walRepairedFile `json:"repaired"`
	Failed   []walFailedFile   `json:"failed"`
	// Gaps are what is missing now, with what can be restored on both sides.
	Gaps  []walGap `json:"gaps"`
	Error *string  `json:"error"`
}

type walRepairedFile struct {
	File   string `json:"file"`
	Source string `json:"source"`
	// Possible: in a dry run, it cannot be told beforehand whether the source
	// has it.
	Possible bool `json:"possible,omitempty"`
}

type walFailedFile struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

func (r *root) walRepair(ctx context.Context, names []string, tempDir string, dryRun bool) (*walRepair, error) {
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	if _, err := chooseRepos(cfg, names); err != nil {
		return nil, err
	}
	// All repositories, each is a source for the others; and the store's word,
	// not what is remembered.
	before, err := r.walStatus(ctx, nil, true)
	if err != nil {
		return nil, err
	}
	out := &walRepair{Cluster: cfg.Cluster, DryRun: dryRun, Repos: []walRepairRepo{}}
	nodes := append(r.localSources(ctx), r.remoteSources(ctx)...)
	var failures []error
	for i := range before.survey.Repos {
		c := &before.survey.Repos[i]
		if len(names) > 0 && !slices.Contains(names, c.Repo.Name()) {
			continue
		}
		one, err := r.repairOne(ctx, before.survey, i, nodes, tempDir, dryRun)
		if err != nil {
			text := err.Error()
			one.Error = &text
			failures = append(failures, &repositoryError{c.Repo.Name(), err})
		}
		out.Repos = append(out.Repos, one)
		if ctx.Err() != nil {
			return out, errors.Join(failures...)
		}
	}
	if dryRun {
		return out, errors.Join(failures...)
	}
	return out, errors.Join(append(failures, r.whatIsLeft(ctx, out, before.survey))...)
}

// repairOne fills in what one repository lacks.
func (r *root) repairOne(ctx context.Context, s *archive.Survey, i int, nodes []archive.Source, tempDir string, dryRun bool) (walRepairRepo, error) {
	c := &s.Repos[i]
	out := walRepairRepo{Name: c.Repo.Name(), Repaired: []walRepairedFile{}, Failed: []walFailedFile{}, Gaps: []walGap{}}
	if c.Err != nil || c.Epoch == nil {
		return out, c.Err
	}
	report, err := archive.Repair(ctx, archive.RepairOptions{
		Target: c.Epoch, Missing: c.Coverage.Missing, Histories: c.Coverage.Histories, Sources: append(s.Siblings(i), nodes...),
		DryRun: dryRun, TempDir: tempDir, Log: r.logger(),
	})
	for _, f := range report.Repaired {
		out.Repaired = append(out.Repaired, walRepairedFile{File: f.Name.File(), Source: f.Source, Possible: f.Possible})
	}
	for _, f := range report.Failed {
		out.Failed = append(out.Failed, walFailedFile{File: f.Name.File(), Error: f.Err.Error()})
	}
	return out, err
}

// whatIsLeft looks again and enters the gaps that remain. Its error says that
// there are some.
func (r *root) whatIsLeft(ctx context.Context, out *walRepair, before *archive.Survey) error {
	var repos []*repo.Repository
	for _, c := range before.Repos {
		repos = append(repos, c.Repo)
	}
	after, err := archive.Look(ctx, archive.SurveyOptions{Repos: repos, SystemID: before.SystemID, Now: before.Now})
	if err != nil {
		return err
	}
	after.Repos = selected(after.Repos, out)
	for i := range after.Repos {
		for j := range out.Repos {
			if out.Repos[j].Name == after.Repos[i].Repo.Name() {
				out.Repos[j].Gaps = walStatusOf(ctx, &after.Repos[i]).Gaps
			}
		}
	}
	return after.Whole(defaultBehind)
}

func selected(all []archive.RepoCoverage, out *walRepair) (some []archive.RepoCoverage) {
	for _, c := range all {
		for _, r := range out.Repos {
			if r.Name == c.Repo.Name() {
				some = append(some, c)
			}
		}
	}
	return some
}

func printWALRepair(p *table, out *walRepair) error {
	p.linef("cluster %s", out.Cluster)
	done := "repaired"
	if out.DryRun {
		done = "could be repaired"
	}
	for _, r := range out.Repos {
		p.linef("")
		if len(r.Repaired)+len(r.Failed)+len(r.Gaps) == 0 && r.Error == nil {
			p.linef("%s: nothing is missing", r.Name)
			continue
		}
		p.linef("%s: %d %s, %d could not be", r.Name, len(r.Repaired), done, len(r.Failed))
		if r.Error != nil {
			p.linef("  ERROR: %s", strings.ReplaceAll(*r.Error, "\n", "\n  "))
		}
		for _, f := range r.Repaired {
			perhaps := ""
			if f.Possible {
				perhaps = " (perhaps)"
			}
			p.linef("  %s from %s%s", f.File, f.Source, perhaps)
		}
		for _, f := range r.Failed {
			p.linef("  %s NOT: %s", f.File, strings.ReplaceAll(f.Error, "\n", "\n    "))
		}
		for _, g := range r.Gaps {
			p.linef("  GAP on timeline %d: %s to %s, %s, %s to %s", g.Timeline, g.From, g.To, segmentsText(g.Segments), g.First, g.Last)
			p.linef("      %s", p.sides(g))
		}
	}
	return p.err
}
