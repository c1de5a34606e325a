package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/service"
)

func newServeCommand(r *root) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the schedules of a cluster, and show how it is, until stopped",
		Long: `Run what the configuration schedules: backups, expiry, verification; fill gaps
of the WAL; and show all that by REST, as a web page and as metrics, if
service.listen is set. Of several that serve a cluster one leads, the others
stand by.

Where a data directory of the configuration is on this machine, this is its
agent too, unless another one runs.

SIGTERM stops it in order. SIGHUP reads the configuration again; one that is not
valid is not taken over.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("log-level") {
				r.logLevel = "info"
				if err := r.startLog(); err != nil {
					return err
				}
			}
			return r.runServe(c.Context())
		},
	}
}

func (r *root) runServe(ctx context.Context) error {
	// A service idles for hours: its memory is what counts.
	debug.SetGCPercent(25)
	cfg, err := r.config()
	if err != nil {
		return err
	}
	if err := r.startTraces(ctx, cfg, "serve"); err != nil {
		return err
	}
	cache, done, err := r.serviceCache()
	if err != nil {
		return err
	}
	defer done()
	player := &player{}
	set, err := r.serviceSettings(ctx, cfg, player)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the host name: %w", err)
	}
	kube, err := r.kubernetes(cfg, host)
	if err != nil {
		return err
	}
	engine, err := service.New(service.Options{
		Settings: set, Election: kube.election, Cluster: cfg.Cluster, Version: thisVersion().Version,
		Holder: fmt.Sprintf("%s, process %d", host, os.Getpid()), Cache: cache, Tracer: r.traces.Tracer(), Log: r.logger(),
	})
	if err != nil {
		return err
	}
	front, err := r.serviceAPI(cfg, engine, kube.reviewer)
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return engine.Serve(ctx) })
	parts.Go(func() error { player.play(ctx, r, cfg); return nil })
	parts.Go(func() error { r.reloads(ctx, engine, player); return nil })
	parts.Go(func() error { r.tellSystemd(ctx, func() string { return serviceStatus(engine) }); return nil })
	parts.Go(func() error { r.releasePages(ctx); return nil })
	if front != nil {
		parts.Go(func() error { return front.Run(ctx) })
	}
	if err := parts.Wait(); ctx.Err() == nil || context.Cause(ctx) != err {
		return err
	}
	return nil // stopped in order
}

// serviceCache remembers which WAL is there: where this user has a place for
// that, else until the process ends.
func (r *root) serviceCache() (*repo.RunCache, func(), error) {
	if dir, err := os.UserCacheDir(); err == nil {
		if dir = filepath.Join(dir, "walkeep"); os.MkdirAll(dir, 0o700) == nil {
			return repo.NewRunCache(dir, nil, r.logger()), func() {}, nil
		}
	}
	dir, err := os.MkdirTemp("", "walkeep-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory for what is remembered: %w", err)
	}
	return repo.NewRunCache(dir, nil, r.logger()), func() { _ = os.RemoveAll(dir) }, nil
}

// reloads takes the configuration over again at each SIGHUP.
func (r *root) reloads(ctx context.Context, engine *service.Service, p *player) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		if err := r.reload(ctx, engine, p); err != nil {
			r.logger().Error("the configuration is not taken over, the old one stays in effect", zap.Error(err))
			engine.Refuse(err)
		}
	}
}

func (r *root) reload(ctx context.Context, engine *service.Service, p *player) error {
	cfg, err := config.Load(r.configFile())
	if err != nil {
		return err
	}
	old, err := r.config()
	if err != nil {
		return err
	}
	if cfg.Cluster != old.Cluster {
		return fmt.Errorf("the cluster's name has changed from %s to %s: that needs a restart", old.Cluster, cfg.Cluster)
	}
	set, err := r.serviceSettings(ctx, cfg, p)
	if err != nil {
		return err
	}
	unused, err := engine.Reload(ctx, set)
	for _, u := range unused {
		_ = u.Work.Store().Close()
		_ = u.Watch.Store().Close()
	}
	return err
}

// serviceStatus is the line that `systemctl status` shows.
func serviceStatus(engine *service.Service) string {
	s := engine.Snapshot()
	text := "following"
	if s.Leading {
		text = "leading"
	}
	if n := len(s.Problems); n > 0 {
		return fmt.Sprintf("%s; %s: %s (%d problems)", text, s.Level, s.Problems[0].Text, n)
	}
	return text + "; all is well"
}
