package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func newPauseCommand(r *root) *cobra.Command {
	return r.newPausing("pause", "Keep scheduled runs of the service from starting", `Keep scheduled runs from starting, until "walkeep resume". Runs under way go on,
and so does the archiving of WAL. It lasts also when the service is started
again.`, true)
}

func newResumeCommand(r *root) *cobra.Command {
	return r.newPausing("resume", "Let scheduled runs of the service start again", `Let scheduled runs start again. One that was missed meanwhile is caught up once.`, false)
}

func (r *root) newPausing(use, short, long string, paused bool) *cobra.Command {
	var names []string
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.needService(c)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				names = []string{""} // all
			}
			var now []string
			for _, n := range names {
				if now, err = s.Pause(c.Context(), n, paused); err != nil {
					return err
				}
			}
			if len(now) == 0 {
				now = []string{"none"}
			}
			r.printf("paused: %s\n", strings.Join(now, ", "))
			return nil
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories (default: all)")
	return askable(c)
}
