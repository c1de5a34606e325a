package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/repo"
)

// pinWait is how long to wait for an expiry that is under way.
const pinWait = 30 * time.Second

func newPinCommand(r *root) *cobra.Command {
	var (
		names         []string
		until, reason string
		forever       bool
	)
	c := &cobra.Command{
		Use:   "pin LABEL --until TIME|--forever",
		Short: "Keep a backup from expiring",
		Long: `Keep a backup, and what it builds on, whatever the retention says, until a
time (2027-01-01, or RFC 3339) or for ever. It is pinned in every repository
that has it. Several pins of one backup: the one that lasts longest counts.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			label, err := repo.ParseLabel(args[0])
			if err != nil {
				return usageErrorf("%w", err)
			}
			p := repo.Pin{Label: label, By: whoAmI(), Reason: reason}
			if forever == (until != "") {
				return usageErrorf("give --until or --forever")
			}
			if until != "" {
				at, err := parseUntil(until, r.location())
				if err != nil {
					return usageErrorf("--until: %w", err)
				}
				p.Until = &at
			}
			return r.eachCopy(c.Context(), names, label, func(b foundBackup) error {
				if err := b.epoch.PutPin(c.Context(), p, pinWait); err != nil {
					return err
				}
				r.printf("pinned %s in %s\n", label, b.repository.Name())
				return nil
			})
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories (default: all that have it)")
	c.Flags().StringVar(&until, "until", "", "when the pin ends")
	c.Flags().BoolVar(&forever, "forever", false, "until it is unpinned")
	c.Flags().StringVar(&reason, "reason", "", "why, for people")
	return c
}

func newUnpinCommand(r *root) *cobra.Command {
	var names []string
	c := &cobra.Command{
		Use:   "unpin LABEL",
		Short: "Let a pinned backup expire",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			label, err := repo.ParseLabel(args[0])
			if err != nil {
				return usageErrorf("%w", err)
			}
			return r.eachCopy(c.Context(), names, label, func(b foundBackup) error {
				all, err := b.epoch.Pins(c.Context())
				if len(all) == 0 && err != nil {
					return err
				}
				var mine []repo.Pin // also what cannot be read back
				for _, p := range all {
					if p.Label == label {
						mine = append(mine, p)
					}
				}
				if err := b.epoch.DeletePins(c.Context(), mine...); err != nil {
					return err
				}
				r.printf("removed %d pins of %s in %s\n", len(mine), label, b.repository.Name())
				return nil
			})
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories (default: all that have it)")
	return c
}

// eachCopy does something with a backup in every repository that has it.
func (r *root) eachCopy(ctx context.Context, names []string, label repo.Label, do func(foundBackup) error) error {
	repos, err := r.repositories(ctx, names...)
	if err != nil {
		return err
	}
	found := false
	for _, one := range repos {
		b, err := findBackup(ctx, []*repo.Repository{one}, label)
		if errors.Is(err, errNothingFound) {
			continue
		}
		if err == nil {
			found = true
			err = do(b)
		}
		if err != nil {
			return &repositoryError{one.Name(), err}
		}
	}
	if !found {
		return fmt.Errorf("no backup %s: %w", label, errNothingFound)
	}
	return nil
}

// parseUntil reads a date, which means its end, or a moment.
func parseUntil(s string, zone *time.Location) (time.Time, error) {
	if day, err := time.ParseInLocation(time.DateOnly, s, zone); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("found %q; expected a date such as 2027-01-31 or a time such as 2027-01-31T12:00:00Z", s)
	}
	return at, nil
}

func whoAmI() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	if u, err := user.Current(); err == nil {
		return u.Username + " on " + host
	}
	return host
}
