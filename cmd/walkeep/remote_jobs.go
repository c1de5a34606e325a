package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/client"
)

// remoteBackup lets the service take the backup, one run for each repository.
func (r *root) remoteBackup(c *cobra.Command, s *client.Client, f backupFlags) error {
	if err := onlyLocal(c, "detect", "workers", "node", "spread-checkpoint", "archive-timeout"); err != nil {
		return err
	}
	annotations, err := parseAnnotations(f.annotations)
	if err != nil {
		return err
	}
	ctx := c.Context()
	names, err := remoteRepos(ctx, s, f.repos)
	if err != nil {
		return err
	}
	if len(f.repos) == 0 && len(names) > 1 {
		return usageErrorf("--repo is needed: the service has %d repositories", len(names))
	}
	var failures []error
	var runs []api.Run
	for _, name := range names {
		run, err := s.StartBackup(ctx, api.BackupRequest{Repo: name, Type: f.kind, Annotations: annotations})
		if err != nil {
			failures = append(failures, err)
			continue
		}
		fmt.Fprintf(r.stderr, "%s backup into %s: run %s\n", run.Kind, run.Repo, run.ID)
		runs = append(runs, run)
	}
	if !f.noWait {
		for i := range runs {
			if runs[i], err = r.follow(ctx, s, runs[i]); err != nil {
				failures = append(failures, err)
			}
			if ctx.Err() != nil {
				break
			}
		}
	}
	return errors.Join(append(failures, r.printRemoteBackup(runs, f))...)
}

// printRemoteBackup prints labels, as `backup` itself does, or runs that are not
// waited for.
func (r *root) printRemoteBackup(runs []api.Run, f backupFlags) error {
	if f.json {
		return r.printJSON(runs)
	}
	for _, run := range runs {
		switch {
		case f.noWait:
			r.printf("%s\n", run.ID)
		case run.State == api.Done:
			r.printf("%s\n", run.Label)
		}
	}
	return nil
}

// remoteRuns begins a run for each repository and follows them, one after the
// other. It prints how they ended and what they found, or returns them if quiet.
func (r *root) remoteRuns(ctx context.Context, s *client.Client, names []string, quiet bool, begin func(repo string) (*api.Run, error)) ([]api.Run, error) {
	names, err := remoteRepos(ctx, s, names)
	if err != nil {
		return nil, err
	}
	runs := []api.Run{}
	var failures []error
	for _, name := range names {
		run, err := begin(name)
		if err == nil && run != nil {
			fmt.Fprintf(r.stderr, "%s of %s: run %s\n", run.Kind, run.Repo, run.ID)
			*run, err = r.follow(ctx, s, *run)
		}
		if err != nil {
			failures = append(failures, err)
		}
		if run != nil && run.ID != "" {
			runs = append(runs, *run)
			if run.Final() && !quiet {
				r.printRun(*run)
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return runs, errors.Join(failures...)
}

// printRun says how a run ended, and what it did and found.
func (r *root) printRun(run api.Run) {
	r.printf("%s: %s\n", run.Repo, run.State)
	for _, line := range run.Report {
		r.printf("  %s\n", printable(line))
	}
}

func (r *root) remoteVerify(c *cobra.Command, s *client.Client, names []string, asJSON bool) error {
	if err := onlyLocal(c, "level", "due", "sample"); err != nil {
		return err
	}
	return r.remoteJob(c.Context(), s, names, asJSON, s.Verify)
}

func (r *root) remoteRepair(c *cobra.Command, s *client.Client, names []string, asJSON bool) error {
	if err := onlyLocal(c, "dry-run", "temp-dir"); err != nil {
		return err
	}
	return r.remoteJob(c.Context(), s, names, asJSON, s.Repair)
}

// remoteJob has the service do something in each repository, and waits for it.
func (r *root) remoteJob(ctx context.Context, s *client.Client, names []string, asJSON bool, begin func(context.Context, string) (api.Run, error)) error {
	runs, err := r.remoteRuns(ctx, s, names, asJSON, func(repo string) (*api.Run, error) {
		run, err := begin(ctx, repo)
		return &run, err
	})
	if asJSON {
		err = errors.Join(err, r.printJSON(runs))
	}
	return err
}

func (r *root) remoteExpire(c *cobra.Command, s *client.Client, names []string, dryRun, asJSON bool) error {
	if err := onlyLocal(c, "remove", "wait"); err != nil {
		return err
	}
	plans := map[string]api.Expiry{}
	runs, err := r.remoteRuns(c.Context(), s, names, asJSON, func(repo string) (*api.Run, error) {
		e, err := s.Expire(c.Context(), repo, dryRun)
		if err != nil {
			return nil, err
		}
		plans[repo] = e
		if !asJSON {
			err = r.printRemoteExpiry(repo, e)
		}
		if e.Run == nil && e.Damage != "" { // a run will say so itself
			err = errors.Join(err, damage(repo+": "+e.Damage))
		}
		return e.Run, err
	})
	for _, run := range runs { // as they ended
		e := plans[run.Repo]
		e.Run = &run
		plans[run.Repo] = e
	}
	if asJSON {
		err = errors.Join(err, r.printJSON(plans))
	}
	return err
}

func (r *root) printRemoteExpiry(repo string, e api.Expiry) error {
	p := &table{w: r.stdout}
	p.linef("%s", repo)
	rows := [][]string{{"backup", "", "why"}}
	for _, b := range e.Backups {
		does := "keep"
		if b.Remove {
			does = "REMOVE"
		}
		rows = append(rows, []string{string(b.Label), does, printable(b.Reason)})
	}
	if len(e.Backups) > 0 {
		p.rows(rows)
	}
	for _, w := range e.WAL {
		p.linef("  WAL: %s", printable(w))
	}
	if e.Run == nil {
		p.linef("nothing was removed (--dry-run)")
	}
	return p.err
}
