package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/dial"
)

// pushDirectly archives path here, without becoming walkeep, if all
// repositories are on file systems: starting a program with the cloud SDKs in
// it takes longer than the rest of the work. done is false if it is a case for
// walkeep: other repositories.
func pushDirectly(c *config.Config, path string) (done bool, err error) {
	if !onFileSystems(c) {
		return false, nil
	}
	// It lives for some milliseconds: no garbage collection, but for segments so
	// long that they are not held in memory anyway.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 << 20)
	// As walkeep does: the server's SIGTERM ends the push in order.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a, err := openArchive(ctx, c, serverLog())
	if err != nil {
		return true, err
	}
	_, err = a.Push(ctx, path)
	return true, err
}

func onFileSystems(c *config.Config) bool {
	for _, r := range c.Repos {
		if r.Filesystem == nil {
			return false
		}
	}
	return true
}

// serverLog goes into the server's log, next to its own lines.
func serverLog() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(os.Stderr), zap.WarnLevel))
}

// openArchive opens the repositories, which the end of the process closes;
// errNotHere if not all are on file systems.
func openArchive(ctx context.Context, c *config.Config, log *zap.Logger) (*archive.Archive, error) {
	if !onFileSystems(c) {
		return nil, errNotHere
	}
	var repos []*repo.Repository
	for _, r := range c.Repos {
		one, err := dial.Open(ctx, r, dial.Options{Cluster: c.Cluster, Log: log})
		if err != nil {
			return nil, err
		}
		repos = append(repos, one)
	}
	return archive.New(archive.Options{Repos: repos, Require: c.Required(), Log: log})
}
