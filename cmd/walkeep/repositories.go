package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/dial"
	"github.com/walkeep/walkeep/repo/dial/cloud"
)

// repositories opens the named repositories, or all of them if none is named,
// in the order of the configuration. Nothing is asked of the stores yet. They
// are closed when the program ends. One that cannot be opened (its directory is
// not mounted, its key file is missing) is among them, and answers every request
// with the reason.
func (r *root) repositories(ctx context.Context, names ...string) ([]*repo.Repository, error) {
	c, err := r.config()
	if err != nil {
		return nil, err
	}
	chosen, err := chooseRepos(c, names)
	if err != nil {
		return nil, err
	}
	var open []*repo.Repository
	for _, cr := range chosen {
		one, err := dial.Open(ctx, cr, dial.Options{Cluster: c.Cluster, Log: r.logger(), Patience: r.patience, Cloud: cloud.Open})
		if err != nil {
			return nil, &repositoryError{cr.Name, err}
		}
		r.closers = append(r.closers, func() { _ = one.Store().Close() })
		r.opened = append(r.opened, one)
		open = append(open, one)
	}
	return open, nil
}

// giveBackInterval is how long a lease stays in a repository that is back.
const giveBackInterval = 5 * time.Second

// giveBackLeases gives back, until ctx ends, what jobs of this process could not
// while a repository was away.
func (r *root) giveBackLeases(ctx context.Context) {
	var all sync.WaitGroup
	for _, one := range r.opened {
		all.Go(func() { one.GiveBackEvery(ctx, giveBackInterval) })
	}
	all.Wait()
}

// chooseRepos picks the repositories of --repo.
func chooseRepos(c *config.Config, names []string) ([]config.Repo, error) {
	if len(names) == 0 {
		return c.Repos, nil
	}
	wanted := map[string]bool{}
	for _, n := range names {
		if _, ok := c.Repo(n); !ok {
			return nil, usageErrorf("--repo %s: no such repository; the configuration has %s", n, strings.Join(repoNames(c), ", "))
		}
		wanted[n] = true
	}
	var chosen []config.Repo
	for _, cr := range c.Repos {
		if wanted[cr.Name] {
			chosen = append(chosen, cr)
		}
	}
	return chosen, nil
}

func repoNames(c *config.Config) []string {
	var names []string
	for _, r := range c.Repos {
		names = append(names, r.Name)
	}
	return names
}

// repositoryError is an error of one of several repositories.
type repositoryError struct {
	name string
	err  error
}

func (e *repositoryError) Error() string { return fmt.Sprintf("%s: %v", e.name, e.err) }
func (e *repositoryError) Unwrap() error { return e.err }
