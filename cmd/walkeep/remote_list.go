package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/client"
	"github.com/walkeep/walkeep/repo"
)

// remoteList is `list` from what the service knows, in the same form.
func (r *root) remoteList(ctx context.Context, s *client.Client, names []string, asJSON bool) error {
	snap, err := s.Snapshot(ctx)
	if err != nil {
		return err
	}
	l := listing{Cluster: snap.Cluster, Repos: []listedRepo{}}
	for _, one := range snap.Repos {
		if len(names) == 0 || slices.Contains(names, one.Name) {
			l.Repos = append(l.Repos, listedOf(one))
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(snap.Repos, func(r api.Repository) bool { return r.Name == n }) {
			return usageErrorf("--repo %s: the service has no such repository", n)
		}
	}
	if asJSON {
		err = r.printJSON(l)
	} else {
		err = printList(r.stdout, l, zone(snap.TimeZone))
	}
	return errors.Join(err, l.err())
}

func listedOf(one api.Repository) listedRepo {
	l := listedRepo{
		Name: one.Name, Status: repoOK, location: one.Location, windows: one.Windows,
		Backups: []listedBackup{}, WAL: []repo.TimelineCoverage{}, Conflicts: []walConflict{}, Drills: []repo.Drill{}, Window: wholeWindow(one.Windows),
	}
	for _, b := range slices.Backward(one.Backups) { // the oldest first
		listed := listedBackup{
			Label: b.Label, Type: b.Type, Start: b.Start.UTC(), Stop: b.Stop.UTC(), StartLSN: b.StartLSN, StopLSN: b.StopLSN,
			Timeline: b.Timeline, Bytes: b.Bytes, StoredBytes: b.StoredBytes, PageErrors: b.PageErrors, Annotations: b.Annotations,
		}
		if b.Parent != "" {
			listed.Parent = &b.Parent
		}
		if listed.Annotations == nil {
			listed.Annotations = map[string]string{}
		}
		l.Backups = append(l.Backups, listed)
	}
	for _, t := range one.Timelines {
		if len(t.Runs) == 0 {
			continue
		}
		c := repo.TimelineCoverage{Timeline: t.Timeline, From: t.Runs[0].From, To: t.Runs[len(t.Runs)-1].To, Segments: t.Segments, Gaps: []repo.Gap{}}
		for i := range t.Runs[1:] {
			c.Gaps = append(c.Gaps, repo.Gap{From: t.Runs[i].To, To: t.Runs[i+1].From})
		}
		l.WAL = append(l.WAL, c)
	}
	for _, file := range one.Conflicts {
		l.Conflicts = append(l.Conflicts, walConflict{File: file})
	}
	switch {
	case one.Damaged:
		l.Status, l.Error, l.failure = repoDamaged, &one.Error, damage(one.Error)
	case one.Error != "":
		l.Status, l.Error, l.failure = repoError, &one.Error, errors.New(one.Error)
	case len(l.Backups) == 0 && len(l.WAL) == 0:
		l.Status = repoEmpty
	}
	return l
}

// shownBackup is what `show --server --json` prints: all of `show --json`, and
// what the service knows of the backups around it.
type shownBackup struct {
	api.BackupContents
	Needs       []repo.Label `json:"needs"`
	NeededBy    []repo.Label `json:"needed_by"`
	PinnedUntil time.Time    `json:"pinned_until,omitzero"`
}

// remoteShow is `show` from what the service knows and reads for us.
func (r *root) remoteShow(ctx context.Context, s *client.Client, names []string, label repo.Label, asJSON bool) error {
	names, err := remoteRepos(ctx, s, names)
	if err != nil {
		return err
	}
	var failures []error // of repositories before the one that has it
	for _, name := range names {
		c, err := s.Contents(ctx, name, label)
		if errors.Is(err, api.ErrNotFound) {
			continue
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		return r.printShown(ctx, s, c, asJSON)
	}
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("look for backup %s: %w", label, err)
	}
	return fmt.Errorf("no backup %s: %w", label, errNothingFound)
}

func (r *root) printShown(ctx context.Context, s *client.Client, c api.BackupContents, asJSON bool) error {
	out := shownBackup{BackupContents: c, Needs: []repo.Label{}, NeededBy: []repo.Label{}}
	around, err := s.Backup(ctx, c.Repo, c.Label)
	switch {
	case err == nil:
		out.Needs, out.NeededBy, out.PinnedUntil = around.Needs, around.NeededBy, around.PinnedUntil
	case !errors.Is(err, api.ErrNotFound): // so new that no look has found it
		return err
	}
	if asJSON {
		return r.printJSON(out)
	}
	health, err := s.Snapshot(ctx)
	if err != nil {
		return err
	}
	at := zone(health.TimeZone)
	if err := printDetails(r.stdout, backupDetails{BackupContents: c}, at); err != nil {
		return err
	}
	p := &table{w: r.stdout, zone: at}
	rows := [][]string{{"needs", joinLabels(out.Needs)}, {"needed by", joinLabels(out.NeededBy)}}
	if !out.PinnedUntil.IsZero() {
		rows = append(rows, []string{"pinned until", p.second(out.PinnedUntil)})
	}
	if rows = slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" }); len(rows) > 0 {
		p.section(rows)
	}
	return p.err
}

// remoteWALStatus is `wal status` from what the service knows.
func (r *root) remoteWALStatus(ctx context.Context, s *client.Client, names []string, asJSON bool, maxBehind int) error {
	snap, err := s.Snapshot(ctx)
	if err != nil {
		return err
	}
	all, err := s.Coverage(ctx, "")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		all = slices.DeleteFunc(all, func(c api.Coverage) bool { return !slices.Contains(names, c.Repo) })
	}
	p := &table{w: r.stdout, zone: zone(snap.TimeZone)}
	if !asJSON {
		p.linef("cluster %s", snap.Cluster)
	}
	var findings []error
	for _, c := range all {
		state := api.Repository{}
		if i := slices.IndexFunc(snap.Repos, func(r api.Repository) bool { return r.Name == c.Repo }); i >= 0 {
			state = snap.Repos[i]
		}
		if err := coverageError(c, state, maxBehind); err != nil {
			findings = append(findings, err)
		}
		if !asJSON {
			p.remoteCoverage(c, state)
		}
	}
	if asJSON {
		p.err = r.printJSON(api.CoverageList{Repos: all})
	}
	return errors.Join(append([]error{p.err}, findings...)...)
}

// coverageError is why the exit status is not 0: what archive.Survey.Whole says
// without a service.
func coverageError(c api.Coverage, r api.Repository, maxBehind int) error {
	twice := slices.IndexFunc(c.Conflicts, func(file string) bool { return strings.HasSuffix(file, ".history") })
	switch {
	case r.Error != "" && !r.Damaged:
		return fmt.Errorf("%s cannot be looked at: %s", c.Repo, r.Error)
	case len(c.Gaps) > 0:
		return fmt.Errorf("%s: %d gaps", c.Repo, len(c.Gaps))
	case len(c.MissingHistories) > 0:
		return fmt.Errorf("%s: %s is missing", c.Repo, c.MissingHistories[0])
	case maxBehind >= 0 && c.Behind > maxBehind:
		return fmt.Errorf("%s is %s behind", c.Repo, segmentsText(c.Behind))
	case twice >= 0:
		return fmt.Errorf("%s: two servers chose the same timeline: %s", c.Repo, c.Conflicts[twice])
	case r.Damaged:
		return damage(fmt.Sprintf("%s: %s", c.Repo, r.Error))
	}
	return nil
}

func (p *table) remoteCoverage(c api.Coverage, r api.Repository) {
	p.linef("")
	verdict := "whole"
	switch {
	case r.Error != "":
		verdict = "ERROR"
	case len(c.Gaps) > 0:
		verdict = fmt.Sprintf("%d GAPS", len(c.Gaps))
	}
	if c.Behind > 0 {
		verdict += ", " + segmentsText(c.Behind) + " behind"
	}
	p.linef("%s (%s): %s", c.Repo, r.Location, verdict)
	if r.Error != "" {
		p.linef("  %s", strings.ReplaceAll(r.Error, "\n", "\n  "))
	}
	if len(c.Timelines) > 0 {
		rows := [][]string{{"timeline", "from", "to", "segments", "began"}}
		for _, t := range c.Timelines {
			began := ""
			if t.Parent != 0 {
				began = fmt.Sprintf("left timeline %d at %s", t.Parent, t.Switch)
			}
			for i, span := range t.Runs {
				row := []string{"", span.From.String(), span.To.String(), "", ""}
				if i == 0 {
					row[0], row[3], row[4] = fmt.Sprint(t.Timeline), fmt.Sprint(t.Segments), began
				}
				rows = append(rows, row)
			}
		}
		p.rows(rows)
	}
	for _, g := range c.Gaps {
		p.linef("  GAP on timeline %d: %s to %s, %s", g.Timeline, g.Start, g.End, segmentsText(g.Segments))
		w := walGap{}
		if !g.Before.IsZero() {
			w.Before = &g.Before
		}
		if !g.After.IsZero() {
			w.After = &g.After
		}
		p.linef("      %s", p.sides(w))
	}
	for _, file := range c.MissingHistories {
		p.linef("  MISSING: %s", file)
	}
	var conflicts []walConflict
	for _, file := range c.Conflicts {
		conflicts = append(conflicts, walConflict{File: file})
	}
	p.conflicts(conflicts)
}
