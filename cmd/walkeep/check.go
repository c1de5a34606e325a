package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/check"
)

func newCheckCommand(r *root) *cobra.Command {
	var (
		names    []string
		asJSON   bool
		noSwitch bool
		timeout  time.Duration
	)
	c := &cobra.Command{
		Use:   "check",
		Short: "Prove that nodes, repositories and archiving work, end to end",
		Long: `Check every node (connection, privileges, version, data directory, settings) and
every repository (reachable, the right cluster's, keys; put, get, list and
delete; conditional writes with several writers at once), and make the primary
end a WAL segment, which has to arrive in every repository. Whatever is not well
comes with advice. The exit status is 1 if anything failed, 6 if something
stored is damaged.

Run it as the user that the server runs as. It writes probe objects named
lease/check-… (about 20 MiB a repository) and deletes them again.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usageErrorf("--timeout must be more than 0")
			}
			cfg, err := r.config()
			if err != nil {
				return err
			}
			r.patience = forPeople
			repos, err := r.repositories(c.Context(), names...)
			if err != nil {
				return err
			}
			o := check.Options{
				Cluster: cfg.Cluster, Repos: repos, NoSwitch: noSwitch, ArchiveTimeout: timeout, Log: r.logger(),
				OverSQL: check.OverSQL(cfg.Postgres.BackupSource),
			}
			nodes, err := r.nodes(c.Context(), cfg)
			if err != nil {
				return err
			}
			for _, n := range nodes {
				o.Nodes = append(o.Nodes, check.Node{Name: n.Name, ConnInfo: n.ConnInfo, PGData: n.PGData, Agent: n.Agent})
			}
			report := check.Run(c.Context(), o)
			if asJSON {
				err = report.WriteJSON(r.stdout)
			} else {
				err = report.WriteText(r.stdout)
			}
			return errors.Join(err, report.Err())
		},
	}
	f := c.Flags()
	f.StringSliceVar(&names, "repo", nil, "repositories to check (default: all)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&noSwitch, "no-switch", false, "do not end a WAL segment, and do not wait for one to arrive")
	f.DurationVar(&timeout, "timeout", time.Minute, "how long the segment may take to arrive")
	return c
}
