package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/restore"
)

func newTimelineCommand(r *root) *cobra.Command {
	var (
		names  []string
		search int
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "timeline",
		Short: "Draw the timelines with their backups and restore points",
		Long: `Draw the timelines of the cluster as a tree: where each of them leaves another one,
the backups and named restore points on it, its gaps, and its last transaction. What
is on it can be given to walkeep restore: --target-timeline, --target-name,
--target-lsn, --target-time.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if search < 0 {
				return usageErrorf("--search: expected a number of segments")
			}
			repos, err := r.repositories(c.Context(), names...)
			if err != nil {
				return err
			}
			var all []timelines
			var errs []error
			for _, one := range repos {
				t, err := timelinesOf(c.Context(), one, search)
				if err != nil {
					text := err.Error()
					t.Error = &text
					errs = append(errs, &repositoryError{one.Name(), err})
				}
				all = append(all, t)
			}
			if asJSON {
				err = r.printJSON(map[string]any{"repos": all})
			} else {
				err = drawTimelines(r.stdout, all, r.location())
			}
			return errors.Join(append(errs, err)...)
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories to show (default: all)")
	c.Flags().IntVar(&search, "search", 10000, "how many of the newest segments of each timeline are searched for restore points")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// timelines is what `timeline --json` prints of a repository.
type timelines struct {
	Name      string        `json:"name"`
	Error     *string       `json:"error"`
	SystemID  pg.SystemID   `json:"system_identifier,omitempty"`
	Timelines []repo.Branch `json:"timelines"`
}

func timelinesOf(ctx context.Context, r *repo.Repository, search int) (timelines, error) {
	t := timelines{Name: r.Name(), Timelines: []repo.Branch{}}
	if _, err := r.Marker(ctx); errors.Is(err, repo.ErrNotFound) {
		return t, nil // nothing was ever stored here
	} else if err != nil {
		return t, err
	}
	epochs, err := r.Epochs(ctx)
	if err != nil || len(epochs) == 0 {
		return t, err
	}
	e := r.Epoch(epochs[len(epochs)-1].SystemID)
	h, err := e.Holdings(ctx)
	if err != nil {
		return t, err
	}
	t.SystemID = h.SystemID
	t.Timelines, err = h.Branches(ctx, repo.NewHeadCache(e), search)
	return t, errors.Join(err, h.Damaged)
}

// event is something at a position of a timeline.
type event struct {
	at    pg.LSN
	text  string
	child *repo.Branch
}

func drawTimelines(w io.Writer, all []timelines, loc *time.Location) error {
	var b strings.Builder
	for i, t := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s", t.Name)
		switch {
		case t.Error != nil && len(t.Timelines) == 0:
			fmt.Fprintf(&b, ": %s\n", *t.Error)
			continue
		case len(t.Timelines) == 0:
			b.WriteString(": empty\n")
			continue
		}
		fmt.Fprintf(&b, ", system identifier %s\n", t.SystemID)
		d := drawing{b: &b, all: t.Timelines, loc: loc}
		for i := range t.Timelines {
			if !slices.ContainsFunc(t.Timelines, func(o repo.Branch) bool { return o.Timeline == t.Timelines[i].Parent }) {
				d.branch(&t.Timelines[i], "", "")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// drawing draws a tree of timelines: each a line downwards, with its branches
// to the right of it.
type drawing struct {
	b   *strings.Builder
	all []repo.Branch
	loc *time.Location
}

func (d *drawing) branch(t *repo.Branch, left, corner string) {
	fmt.Fprintf(d.b, "%s%stimeline %d", left, corner, t.Timeline)
	if t.Fork != 0 {
		fmt.Fprintf(d.b, ", left timeline %d at %s", t.Parent, t.Fork)
	}
	if t.Reason != "" {
		fmt.Fprintf(d.b, " (%s)", t.Reason)
	}
	d.b.WriteString("\n")
	if corner != "" {
		left += "│  "
	}
	for _, e := range d.events(t) {
		if e.child != nil {
			d.branch(e.child, left, "├─ ")
			continue
		}
		fmt.Fprintf(d.b, "%s│ %-12s %s\n", left, e.at, e.text)
	}
	fmt.Fprintf(d.b, "%s╵ %s\n", left, d.end(t))
}

// events are in the order of their positions; a branch comes after what happened
// right before it.
func (d *drawing) events(t *repo.Branch) []event {
	var es []event
	for _, b := range t.Backups {
		es = append(es, event{at: b.StopLSN, text: fmt.Sprintf("%s  backup %s", d.time(b.Stop), b.Label)})
	}
	for _, p := range t.RestorePoints {
		es = append(es, event{at: p.LSN, text: fmt.Sprintf("%s  restore point %q", d.time(p.Time), p.Name)})
	}
	for i := 1; i < len(t.Runs); i++ {
		es = append(es, event{at: t.Runs[i-1].To, text: fmt.Sprintf("gap to %s", t.Runs[i].From)})
	}
	for i := range d.all {
		if c := &d.all[i]; c.Parent == t.Timeline && c != t {
			es = append(es, event{at: c.Fork, child: c})
		}
	}
	slices.SortStableFunc(es, func(a, b event) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	return es
}

func (d *drawing) end(t *repo.Branch) string {
	if len(t.Runs) == 0 {
		return "no whole segment"
	}
	s := fmt.Sprintf("%-12s ", t.Runs[len(t.Runs)-1].To)
	if t.LastCommit.IsZero() {
		s += "end of WAL"
	} else {
		s += d.time(t.LastCommit) + "  last transaction"
	}
	if t.Unsearched > 0 {
		s += fmt.Sprintf("; %d older segments were not searched for restore points (--search)", t.Unsearched)
	}
	return s
}

func (d *drawing) time(t time.Time) string { return t.In(d.loc).Format(restore.TimeFormat) }
