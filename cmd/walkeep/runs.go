package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/client"
)

func newRunsCommand(r *root) *cobra.Command {
	var (
		q      client.RunQuery
		state  string
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "runs",
		Short: "List what the service does, and did",
		Long:  "List the runs of the service: those under way and the last ones that ended, the newest first.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.needService(c)
			if err != nil {
				return err
			}
			q.State = api.RunState(state)
			runs, err := s.Runs(c.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return r.printJSON(runs)
			}
			return r.printRuns(runs)
		},
	}
	c.Flags().StringVar(&q.Repo, "repo", "", "only of this repository")
	c.Flags().StringVar(&q.Kind, "kind", "", "only full, differential, incremental, expire, verify or repair")
	c.Flags().StringVar(&state, "state", "", "only queued, running, done, failed, cancelled or lost")
	c.Flags().IntVar(&q.Limit, "limit", 20, "how many at most")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return askable(c)
}

func (r *root) printRuns(runs []api.Run) error {
	if len(runs) == 0 {
		r.printf("no runs\n")
		return nil
	}
	p := &table{w: r.stdout, zone: r.location()}
	rows := [][]string{{"run", "repo", "kind", "state", "started", "took", ""}}
	for _, one := range runs {
		rows = append(rows, []string{one.ID, one.Repo, one.Kind, string(one.State), p.secondOr(one.Started, "-"), lasted(one), runNote(one)})
	}
	p.rows(rows)
	return p.err
}

func (p *table) secondOr(t time.Time, none string) string {
	if t.IsZero() {
		return none
	}
	return p.second(t)
}

func lasted(r api.Run) string {
	if r.Started.IsZero() || r.Ended.IsZero() {
		return "-"
	}
	return took(r.Started, r.Ended)
}

// runNote is what else a person wants to know of a run.
func runNote(r api.Run) string {
	switch {
	case r.Error != "":
		return printable(r.Error)
	case !r.Final() && r.TotalBytes > 0:
		return fmt.Sprintf("%s: %s of %s", stageOf(r), size(r.CopiedBytes), size(r.TotalBytes))
	case !r.Final():
		return stageOf(r)
	}
	return string(r.Label)
}

func newRunCommand(r *root) *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Look at one run of the service, follow it, end it",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return usageErrorf("no subcommand given")
		},
	}
	c.AddCommand(
		r.newRunSubcommand("show ID", "Show one run as JSON", func(ctx context.Context, s *client.Client, id string) error {
			run, err := s.Run(ctx, id)
			if err != nil {
				return err
			}
			return r.printJSON(run)
		}),
		r.newRunSubcommand("follow ID", "Show how a run goes until it has ended; the exit status is 0 if it is done", func(ctx context.Context, s *client.Client, id string) error {
			run, err := r.follow(ctx, s, api.Run{ID: id})
			if err == nil && run.Label != "" {
				r.printf("%s\n", run.Label)
			}
			return err
		}),
		r.newRunSubcommand("cancel ID", "End a run, and wait until it has ended", func(ctx context.Context, s *client.Client, id string) error {
			if _, err := s.Cancel(ctx, id); err != nil {
				return err
			}
			run, err := s.Follow(ctx, id, nil)
			if err == nil {
				r.printf("%s: %s\n", id, run.State)
			}
			return err
		}),
	)
	return c
}

func (r *root) newRunSubcommand(use, short string, do func(ctx context.Context, s *client.Client, id string) error) *cobra.Command {
	return askable(&cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := r.needService(c)
			if err != nil {
				return err
			}
			return do(c.Context(), s, args[0])
		},
	})
}
