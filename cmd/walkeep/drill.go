package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/restore/drill"
	"github.com/walkeep/walkeep/restore/follow"
	"github.com/walkeep/walkeep/restore/scratch"
)

const drillLong = `Rehearse a restore: restore the newest moment, or a random one, of a repository to
scratch space, recover it with a server that nobody else can reach, run pg_amcheck
and the checks of the configuration (drills.checks), remove it all, and record in
the repository what came of it and how long it took. walkeep list shows the last
ones. The exit status is 1 if the drill failed.`

func newDrillCommand(r *root) *cobra.Command {
	var (
		names   []string
		random  bool
		scratch string
		bindir  string
		amcheck bool
		asJSON  bool
	)
	c := &cobra.Command{
		Use:   "drill",
		Short: "Rehearse a restore and record the result",
		Long:  drillLong,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := r.config()
			if err != nil {
				return err
			}
			set := cfg.Drills
			fl := c.Flags()
			if fl.Changed("random") {
				set.Moment = config.NewestMoment
				if random {
					set.Moment = config.RandomMoment
				}
			}
			if fl.Changed("scratch") {
				set.Scratch = scratch
			}
			if fl.Changed("bindir") {
				set.BinDir = bindir
			}
			if fl.Changed("amcheck") {
				set.AmCheck = &amcheck
			}
			repos, err := r.repositories(c.Context(), names...)
			if err != nil {
				return err
			}
			return r.drillAll(c.Context(), repos, set, asJSON)
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories to drill (default: all, one after the other)")
	c.Flags().BoolVar(&random, "random", false, "restore a random moment of the recovery window (default: drills.moment of the configuration)")
	c.Flags().StringVar(&scratch, "scratch", "", "directory below which the scratch directory is made (default: drills.scratch, then the system's)")
	c.Flags().StringVar(&bindir, "bindir", "", "directory of the server's programs (default: drills.bindir, /usr/lib/postgresql/MAJOR/bin, PATH)")
	c.Flags().BoolVar(&amcheck, "amcheck", true, "run pg_amcheck (default: drills.amcheck)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (r *root) drillAll(ctx context.Context, repos []*repo.Repository, set config.Drills, asJSON bool) error {
	var errs []error
	results := map[string]repo.Drill{}
	for _, one := range repos {
		d, err := r.drill(ctx, one, set)
		if ctx.Err() != nil {
			return errors.Join(append(errs, err)...)
		}
		results[one.Name()] = d
		if err != nil {
			errs = append(errs, &repositoryError{one.Name(), r.restoreError(err, false)})
		}
		if !asJSON && !d.Ended.IsZero() {
			r.printf("%s: %s\n", one.Name(), drillText(d, r.location()))
		}
	}
	if asJSON {
		errs = append(errs, r.printJSON(map[string]any{"repos": results}))
	}
	return errors.Join(errs...)
}

// drill drills one repository.
func (r *root) drill(ctx context.Context, one *repo.Repository, set config.Drills) (repo.Drill, error) {
	cfg, err := r.config()
	if err != nil {
		return repo.Drill{}, err
	}
	progress := newProgress(r.stderr, time.Now)
	defer progress.close()
	o, err := drillOptions(cfg, r.configFile(), set)
	if err != nil {
		return repo.Drill{}, err
	}
	o.Repo, o.Log, o.Stage = one, r.logger(), progress.Stage
	o.Scratch.Restore.Progress, o.Scratch.Restore.Log = progress, r.logger()
	o.Scratch.Recovering = func(at follow.Replay) { progress.note("recovering, " + at.LSN.String()) }
	return drill.Run(ctx, o)
}

// drillOptions are what the configuration says of drills.
func drillOptions(cfg *config.Config, file string, set config.Drills) (drill.Options, error) {
	o := drill.Options{
		Random: set.Moment == config.RandomMoment, AmCheck: set.AmCheck == nil || *set.AmCheck,
		BinDir:  func(major int) string { return binDir(set.BinDir, major) },
		Scratch: scratch.Options{Parent: set.Scratch, Users: usersOf(set.Username, cfg)},
	}
	if o.Scratch.Parent == "" {
		o.Scratch.Parent = os.TempDir()
	}
	for _, c := range set.Checks {
		o.Checks = append(o.Checks, drill.Check{Name: c.Name, Database: c.Database, SQL: c.SQL})
	}
	o.Scratch.Restore.Workers = cfg.Restore.Workers
	var err error
	o.Scratch.Restore.RestoreCommand, err = restoreCommand(file)
	return o, err
}

// drillText tells people of a result on one line.
func drillText(d repo.Drill, loc *time.Location) string {
	what := "the newest moment"
	if !d.Target.IsZero() {
		what = d.Target.In(loc).Format(time.DateTime)
	}
	if !d.OK() {
		return fmt.Sprintf("drill of %s FAILED: %s", what, d.Error)
	}
	text := fmt.Sprintf("drill of %s passed: backup %s", what, d.Backup)
	if d.LSN != 0 {
		text += fmt.Sprintf(", recovered to %s", d.LSN)
	}
	seconds := func(s float64) time.Duration {
		return time.Duration(s * float64(time.Second)).Round(10 * time.Millisecond)
	}
	return fmt.Sprintf("%s; %s restored in %s, recovered in %s, %d checks in %s", text, size(d.Bytes),
		seconds(d.RestoreSeconds), seconds(d.RecoverySeconds), len(d.Checks), seconds(d.CheckSeconds))
}
