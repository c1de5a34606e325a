package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/client"
	"github.com/walkeep/walkeep/repo"
)

// remoteFlags say which service a subcommand asks instead of doing the work
// itself.
type remoteFlags struct {
	url, tokenFile, caFile, certFile, keyFile string
}

// The environment variables behind the flags.
const (
	serverEnv    = "WALKEEP_SERVER"
	tokenFileEnv = "WALKEEP_TOKEN_FILE"
	caFileEnv    = "WALKEEP_CA_FILE"
)

func (f *remoteFlags) register(c *cobra.Command) {
	fl := c.PersistentFlags()
	fl.StringVar(&f.url, "server", "", "URL of the service that does it, instead of this command (default $"+serverEnv+"); \"\" for none")
	fl.StringVar(&f.tokenFile, "token-file", "", "file with the bearer token for the service (default $"+tokenFileEnv+")")
	fl.StringVar(&f.caFile, "ca-file", "", "PEM file with the authorities of the service's certificate (default $"+caFileEnv+", then the system's)")
	fl.StringVar(&f.certFile, "cert-file", "", "PEM file with a certificate to show to the service")
	fl.StringVar(&f.keyFile, "key-file", "", "its key")
}

// remoteKey marks, among cobra's annotations, the subcommands that can ask a
// service.
const remoteKey = "walkeep:server"

// askable marks a subcommand.
func askable(c *cobra.Command) *cobra.Command {
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[remoteKey] = "yes"
	return c
}

// checkRemote refuses --server where it would be ignored. The environment
// variable is no wish of this call, and is.
func (r *root) checkRemote(c *cobra.Command) error {
	given := c.Flags().Lookup("server")
	if given == nil || !given.Changed || r.remote.url == "" {
		return nil
	}
	if c.Annotations[remoteKey] == "" {
		return usageErrorf("--server: %s is not done by a service", c.CommandPath())
	}
	return nil
}

// service is the service to ask; nil if none is configured.
func (r *root) service(c *cobra.Command) (*client.Client, error) {
	if !c.Flags().Changed("server") {
		r.remote.url = os.Getenv(serverEnv)
	}
	if r.remote.url == "" {
		return nil, nil
	}
	if (r.remote.certFile == "") != (r.remote.keyFile == "") {
		return nil, usageErrorf("--cert-file and --key-file go together")
	}
	s, err := client.New(client.Options{
		URL: r.remote.url, TokenFile: cmp.Or(r.remote.tokenFile, os.Getenv(tokenFileEnv)), CAFile: cmp.Or(r.remote.caFile, os.Getenv(caFileEnv)),
		CertFile: r.remote.certFile, KeyFile: r.remote.keyFile,
	})
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	return s, nil
}

// needService is for subcommands that only a service can do.
func (r *root) needService(c *cobra.Command) (*client.Client, error) {
	s, err := r.service(c)
	if err == nil && s == nil {
		err = usageErrorf("--server (or $%s) is needed: the service does this", serverEnv)
	}
	return s, err
}

// onlyLocal refuses flags that a service does not know.
func onlyLocal(c *cobra.Command, names ...string) error {
	for _, n := range names {
		if c.Flags().Changed(n) {
			return usageErrorf("--%s goes without --server", n)
		}
	}
	return nil
}

// remoteRepos are the repositories of --repo, or all of the service.
func remoteRepos(ctx context.Context, s *client.Client, names []string) ([]string, error) {
	if len(names) > 0 {
		return names, nil
	}
	repos, err := s.Repositories(ctx)
	for _, r := range repos {
		names = append(names, r.Name)
	}
	return names, err
}

// follow shows how a run goes until it has ended, and returns it. A run that
// did not end well is an error. Whoever stops looking ends nothing: a backup of
// hours is easier cancelled than taken again.
func (r *root) follow(ctx context.Context, s *client.Client, run api.Run) (api.Run, error) {
	p := newProgress(r.stderr, time.Now)
	defer p.close()
	shown := api.Run{}
	ended, err := s.Follow(ctx, run.ID, func(now api.Run) {
		if stage := stageOf(now); stage != stageOf(shown) {
			p.Stage(stage)
		}
		if now.TotalBytes != shown.TotalBytes {
			p.Total(now.TotalBytes)
		}
		if d := now.CopiedBytes - shown.CopiedBytes; d > 0 {
			p.Add(d)
		}
		shown = now
	})
	p.close()
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(r.stderr, "The service goes on with it.\n  to look again: walkeep run follow %s\n  to end it:     walkeep run cancel %s\n", run.ID, run.ID)
		}
		return shown, err
	}
	return ended, runError(ended)
}

// stageOf is what a run does, for people.
func stageOf(r api.Run) string {
	switch {
	case r.ID == "":
		return ""
	case r.State == api.Queued:
		return "waiting to begin"
	case r.Final():
		return string(r.State)
	}
	s := cmp.Or(r.Stage, string(r.State))
	if r.Attempt > 1 {
		s = fmt.Sprintf("%s (attempt %d)", s, r.Attempt)
	}
	if r.Node != "" {
		s += " on " + r.Node
	}
	return s
}

// runError is what became of a run, if it is not done.
func runError(r api.Run) error {
	if r.State == api.Done {
		return nil
	}
	text := fmt.Sprintf("%s of %s (run %s): %s", r.Kind, r.Repo, r.ID, r.State)
	if r.Error != "" {
		text += ": " + strings.TrimRight(r.Error, "\n")
	}
	if r.Damage {
		return damage(text)
	}
	return errors.New(text)
}

// damage is an error of the service that is a repo.ErrIntegrity there.
type damage string

func (d damage) Error() string        { return string(d) }
func (d damage) Is(target error) bool { return target == repo.ErrIntegrity }

// zone is where the service's people are.
func zone(name string) *time.Location {
	if l, err := time.LoadLocation(name); err == nil && name != "" {
		return l
	}
	return time.Local
}
