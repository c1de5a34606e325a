package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/repo"
)

func newShowCommand(r *root) *cobra.Command {
	var (
		names  []string
		asJSON bool
		files  bool
	)
	c := &cobra.Command{
		Use:   "show LABEL",
		Short: "Show one backup in detail",
		Long: `Show all that is known of one backup: its summary, and from its manifest the
tablespaces, the databases by size, the largest files, how changes were
detected, and the damaged pages.
The first repository that has the backup is used. With --server the service
reads it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			label, err := repo.ParseLabel(args[0])
			if err != nil {
				return usageErrorf("%w", err)
			}
			s, err := r.service(c)
			if err != nil {
				return err
			}
			if s != nil {
				if err := onlyLocal(c, "files"); err != nil {
					return err
				}
				return r.remoteShow(c.Context(), s, names, label, asJSON)
			}
			r.patience = forPeople
			repos, err := r.repositories(c.Context(), names...)
			if err != nil {
				return err
			}
			found, err := findBackup(c.Context(), repos, label)
			if err != nil {
				return err
			}
			d, err := describe(c.Context(), found, files)
			if err != nil {
				return &repositoryError{found.repository.Name(), err}
			}
			if asJSON {
				return r.printJSON(d)
			}
			return printDetails(r.stdout, d, r.location())
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories to look in (default: all)")
	c.Flags().BoolVar(&files, "files", false, "name every file, and how its changes were detected")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return askable(c)
}

// foundBackup is a backup and where it was found.
type foundBackup struct {
	repository *repo.Repository
	epoch      *repo.Epoch
	summary    repo.Summary
}

// findBackup looks for a label in one repository after the other. That it is
// nowhere is certain only if every repository answered; else the error is
// what kept one from answering.
func findBackup(ctx context.Context, repos []*repo.Repository, label repo.Label) (foundBackup, error) {
	var failures []error
	for _, r := range repos {
		epochs, err := readEpochs(ctx, r)
		if err != nil && !errors.Is(err, errEmptyRepository) {
			failures = append(failures, &repositoryError{r.Name(), err})
		}
		for _, e := range epochs {
			s, err := e.Summary(ctx, label)
			if err == nil {
				return foundBackup{r, e, s}, nil
			}
			if !errors.Is(err, repo.ErrNotFound) || errors.Is(err, repo.ErrIntegrity) {
				failures = append(failures, &repositoryError{r.Name(), err})
			}
		}
	}
	if err := errors.Join(failures...); err != nil {
		return foundBackup{}, fmt.Errorf("look for backup %s: %w", label, err)
	}
	return foundBackup{}, fmt.Errorf("no backup %s: %w", label, errNothingFound)
}
