package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/retention"
)

func newExpireCommand(r *root) *cobra.Command {
	var (
		names, remove  []string
		dryRun, asJSON bool
		wait           time.Duration
	)
	c := &cobra.Command{
		Use:   "expire",
		Short: "Remove backups and WAL that retention does not keep",
		Long: `Remove the backups and the WAL that the configured retention does not keep,
and what killed runs have left. For each backup and each run of WAL the plan
says why it stays or goes; --dry-run prints it and removes nothing.

--remove LABEL removes this backup and what builds on it instead, whatever the
retention says, unless it is pinned or in use.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.service(c)
			if err != nil {
				return err
			}
			if s != nil {
				return r.remoteExpire(c, s, names, dryRun, asJSON)
			}
			cfg, err := r.config()
			if err != nil {
				return err
			}
			var labels []repo.Label
			for _, text := range remove {
				l, err := repo.ParseLabel(text)
				if err != nil {
					return usageErrorf("--remove: %w", err)
				}
				labels = append(labels, l)
			}
			if len(labels) > 0 && len(names) != 1 {
				return usageErrorf("--remove needs one --repo: in which repository?")
			}
			repos, err := r.repositories(c.Context(), names...)
			if err != nil {
				return err
			}
			var failures []error
			results := []retention.Result{}
			for _, one := range repos {
				section, _ := cfg.Repo(one.Name())
				res, err := retention.Run(c.Context(), one, retention.Options{
					Policy: retentionPolicy(section.Retention), Zone: cfg.Location(), Remove: labels,
					DryRun: dryRun, Wait: wait, Log: r.logger(),
				})
				if errors.Is(err, retention.ErrNoBackup) {
					err = errors.Join(err, errNothingFound)
				}
				if err != nil {
					failures = append(failures, &repositoryError{one.Name(), err})
				}
				results = append(results, res)
				if !asJSON {
					if err := r.printExpiry(res); err != nil {
						return err
					}
				}
				if c.Context().Err() != nil {
					failures = append(failures, context.Cause(c.Context()))
					break
				}
			}
			if asJSON {
				failures = append(failures, r.printJSON(results))
			}
			return errors.Join(failures...)
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories (default: all)")
	c.Flags().StringSliceVar(&remove, "remove", nil, "remove this backup instead of what retention says")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan, remove nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for another run to end")
	return askable(c)
}

// retentionPolicy turns the configuration into what package retention knows.
func retentionPolicy(c config.Retention) retention.Policy {
	return retention.Policy{
		Full: c.Full, FullByTime: c.FullType == config.RetainTime, Differential: c.Differential,
		WAL: c.WAL, WALType: repo.BackupType(c.WALType),
		Keep: retention.Periods{Daily: c.Keep.Daily, Weekly: c.Keep.Weekly, Monthly: c.Keep.Monthly, Yearly: c.Keep.Yearly},
	}
}

func (r *root) printExpiry(res retention.Result) error {
	r.printf("%s\n", res.Repository)
	if err := res.Plan.Print(r.stdout, r.location()); err != nil {
		return err
	}
	for _, l := range res.Lines() {
		r.printf("%s\n", l)
	}
	return nil
}
