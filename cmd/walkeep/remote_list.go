package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
		Backups: []listedBackup{}, WAL: []repo.TimelineCoverage{}, Conflicts: []walConflict{}, Window: wholeWindow(one.Windows),
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
	case one.Error != "":
		l.Status, l.Error, l.failure = repoError, &one.Error, errors.New(one.Error)
	case len(l.Backups) == 0 && len(l.WAL) == 0:
		l.Status = repoEmpty
	}
	return l
}

// remoteShow is `show` from what the service knows: without the manifest.
func (r *root) remoteShow(ctx context.Context, s *client.Client, names []string, label repo.Label, asJSON bool) error {
	names, err := remoteRepos(ctx, s, names)
	if err != nil {
		return err
	}
	health, err := s.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		d, err := s.Backup(ctx, name, label)
		switch {
		case errors.Is(err, api.ErrNotFound):
			continue
		case err != nil:
			return err
		case asJSON:
			return r.printJSON(d)
		}
		p := &table{w: r.stdout, zone: zone(health.TimeZone)}
		p.linef("backup %s in %s", d.Label, d.Repo)
		p.rows(remoteRows(p, d))
		return p.err
	}
	return fmt.Errorf("no backup %s: %w", label, errNothingFound)
}

func remoteRows(p *table, d api.BackupDetails) [][]string {
	rows := [][]string{
		{"type", string(d.Type)},
		{"parent", string(d.Parent)},
		{"started", p.second(d.Start)},
		{"finished", p.second(d.Stop) + " (" + took(d.Start, d.Stop) + ")"},
		{"WAL", fmt.Sprintf("%s to %s, timeline %d", d.StartLSN, d.StopLSN, d.Timeline)},
		{"taken from", d.From},
		{"size", size(d.Bytes)},
		{"stored", size(d.StoredBytes)},
		{"needs", joinLabels(d.Needs)},
		{"needed by", joinLabels(d.NeededBy)},
		{"annotations", strings.Join(annotations(d.Annotations), ", ")},
	}
	if d.PageErrors > 0 {
		rows = append(rows, []string{"page checksums", fmt.Sprintf("%d BAD PAGES", d.PageErrors)})
	}
	if !d.PinnedUntil.IsZero() {
		rows = append(rows, []string{"pinned until", p.second(d.PinnedUntil)})
	}
	return slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" })
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

// coverageError is why the exit status is not 0.
func coverageError(c api.Coverage, r api.Repository, maxBehind int) error {
	var all []error
	if r.Error != "" {
		all = append(all, fmt.Errorf("%s cannot be looked at: %s", c.Repo, r.Error))
	}
	if n := len(c.Gaps); n > 0 {
		all = append(all, fmt.Errorf("%s: %d gaps", c.Repo, n))
	}
	if maxBehind >= 0 && c.Behind > maxBehind {
		all = append(all, fmt.Errorf("%s is %s behind", c.Repo, segmentsText(c.Behind)))
	}
	return errors.Join(all...)
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
	var conflicts []walConflict
	for _, file := range c.Conflicts {
		conflicts = append(conflicts, walConflict{File: file})
	}
	p.conflicts(conflicts)
}
