package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/verify"
)

func newVerifyCommand(r *root) *cobra.Command {
	var (
		names  []string
		level  string
		days   int
		sample float64
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "verify",
		Short: "Find out whether what is stored is whole",
		Long: `Find out whether what the repositories hold is whole.

  exists  every manifest and pack is there with its size, WAL has no gaps
  stored  besides, every pack and WAL object is read, and its digest checked
  full    besides, every chunk is decoded, every file's CRC-32C and every page's
          checksum checked, the records of every WAL segment walked

What was found whole is noted in the repository, and not read again for --due
days; --sample 0.05 reads one in twenty of these all the same. The exit status
is 6 if something is damaged or missing, each with the name of its object.

With --server the service verifies, at the level that it is configured for; the
exit status is the same.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.service(c)
			if err != nil {
				return err
			}
			if s != nil {
				return r.remoteVerify(c, s, names, asJSON)
			}
			switch verify.Level(level) {
			case verify.Exists, verify.Stored, verify.Full:
			default:
				return usageErrorf("--level %s: expected exists, stored or full", level)
			}
			if sample < 0 || sample > 1 || days < 1 {
				return usageErrorf("--sample is from 0 to 1, --due at least 1")
			}
			repos, err := r.repositories(c.Context(), names...)
			if err != nil {
				return err
			}
			var failures []error
			reports := []verify.Report{}
			for _, one := range repos {
				rep, err := verify.Run(c.Context(), one, verify.Options{
					Level: verify.Level(level), Due: time.Duration(days) * 24 * time.Hour, Sample: sample, Log: r.logger(),
				})
				if err != nil {
					failures = append(failures, &repositoryError{one.Name(), err})
				}
				reports = append(reports, rep)
				if !asJSON {
					r.printVerified(rep)
				}
			}
			if asJSON {
				failures = append(failures, r.printJSON(reports))
			}
			return errors.Join(failures...)
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories (default: all)")
	c.Flags().StringVar(&level, "level", "stored", "exists, stored or full")
	c.Flags().IntVar(&days, "due", 30, "days after which what was read is read again")
	c.Flags().Float64Var(&sample, "sample", 0, "part of what is not due that is read all the same, 0 to 1")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return askable(c)
}

func (r *root) printVerified(rep verify.Report) {
	lines := rep.Lines()
	r.printf("%s: %s\n", rep.Repository, lines[0])
	for _, l := range lines[1:] {
		r.printf("  %s\n", l)
	}
}
