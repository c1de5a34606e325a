package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Errors that Run returns, wrapped with details.
var (
	// ErrOtherCluster: the data directory is not of the cluster that the
	// repositories, or the options, expect.
	ErrOtherCluster = errors.New("this is the data directory of another cluster")
	// ErrRunning: another agent serves this data directory, or has the socket.
	ErrRunning = errors.New("another agent is running")
)

// Agent archives what one server writes. Make one with New, and Run it once.
type Agent struct {
	opts    Options
	wal     string // pg_wal
	archive *archive.Archive
	queues  []*queue
	kick    chan struct{} // wants a survey

	started time.Time

	mu       sync.Mutex // guards what follows, and the queues' state
	files    map[string]*entry
	changed  chan struct{} // closed and replaced whenever a file or a queue changes
	known    bool          // a survey has been made, so the next three are known
	cluster  repo.EpochInfo
	timeline pg.Timeline
	standby  bool

	surveyed time.Time
	trouble  string // the last survey's error
}

// New checks the options; nothing is asked of the repositories yet.
func New(o Options) (*Agent, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	a := &Agent{
		opts: o, wal: filepath.Join(o.PGData, "pg_wal"), kick: make(chan struct{}, 1), started: o.Clock(),
		files: map[string]*entry{}, changed: make(chan struct{}),
	}
	var err error
	if a.archive, err = archive.New(archive.Options{Repos: o.Repos, SystemID: o.SystemID, Log: o.Log}); err != nil {
		return nil, err
	}
	for i, r := range o.Repos {
		a.queues = append(a.queues, &queue{agent: a, index: i, repo: r, moved: a.started, log: o.Log.With(zap.String("repo", r.Name()))})
	}
	return a, nil
}

// Run archives until ctx ends, which is no error, or until it finds that it
// must not: ErrOtherCluster, ErrRunning.
func (a *Agent) Run(ctx context.Context) error {
	socket, err := a.listen()
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.watch(gctx) })
	for _, q := range a.queues {
		for range a.opts.share() {
			g.Go(func() error { return q.work(gctx) })
		}
	}
	g.Go(func() error { return a.checkRepositories(gctx) })
	if socket != nil {
		g.Go(func() error { return socket.serve(gctx) })
	}
	err = g.Wait()
	if socket != nil {
		socket.close()
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// checkRepositories makes sure that the repositories are of this cluster: one
// that has epochs, and not ours, would refuse every segment. A repository that
// does not answer is asked again; none is written to before it was checked
// (package archive sees to that too).
func (a *Agent) checkRepositories(ctx context.Context) error {
	id, err := a.waitForCluster(ctx)
	if err != nil {
		return err
	}
	for _, q := range a.queues {
		epochs, err := q.repo.Epochs(ctx)
		if err != nil || len(epochs) == 0 {
			continue // the queue will find out
		}
		ours := false
		names := ""
		for _, e := range epochs {
			ours = ours || e.SystemID == id
			names += " " + e.SystemID.String()
		}
		if !ours {
			return fmt.Errorf("%w: %s is of cluster %s, and %s holds%s; if the cluster was upgraded with pg_upgrade, take a full backup, which begins anew",
				ErrOtherCluster, a.opts.PGData, id, q.repo.Name(), names)
		}
	}
	return nil
}

// waitForCluster is the system identifier, once the first survey knows it.
func (a *Agent) waitForCluster(ctx context.Context) (pg.SystemID, error) {
	for {
		a.mu.Lock()
		id, known, changed := a.cluster.SystemID, a.known, a.changed
		a.mu.Unlock()
		if known {
			return id, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
