package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/agent"
	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/archive/prefetch"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

func newAgentCommand(r *root) *cobra.Command {
	var node, pgdata string
	var streamOnly bool
	c := &cobra.Command{
		Use:   "agent",
		Short: "Archive the WAL of one server, primary or standby, until stopped",
		Long: `Run beside a PostgreSQL server, as the same user. The agent archives every
complete segment and every history file that it finds in pg_wal, whatever
archive_mode says, and answers walkeep-wal on agent.socket. SIGTERM stops it; it
may as well be killed. The server need not be there yet, nor run.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if node != "" && pgdata != "" {
				return usageErrorf("--node and --pgdata exclude one another")
			}
			if streamOnly && (node != "" || pgdata != "") {
				return usageErrorf("--stream-only streams from all nodes: neither --node nor --pgdata")
			}
			if !c.Flags().Changed("log-level") {
				r.logLevel = "info"
				if err := r.startLog(); err != nil {
					return err
				}
			}
			return r.runAgent(c, node, pgdata, streamOnly)
		},
	}
	c.Flags().StringVar(&node, "node", "", "the node of the configuration to serve (default: the one whose data directory is here)")
	c.Flags().StringVar(&pgdata, "pgdata", "", "data directory of the server, instead of --node")
	c.Flags().BoolVar(&streamOnly, "stream-only", false, "serve no data directory here, only stream from the nodes (archive.stream)")
	return c
}

func (r *root) runAgent(c *cobra.Command, node, pgdata string, streamOnly bool) error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	if err := r.startTraces(c.Context(), cfg, "agent"); err != nil {
		return err
	}
	if streamOnly {
		if !cfg.Archive.Stream {
			return usageErrorf("--stream-only needs archive.stream: true")
		}
		return r.runAgents(c.Context(), cfg, nil, 0, nil)
	}
	n, err := r.agentNode(c.Context(), cfg, node, pgdata)
	if err != nil {
		return err
	}
	id, err := r.sameCluster(c.Context(), n)
	if err != nil {
		return err
	}
	return r.runAgents(c.Context(), cfg, &n, id, nil)
}

// runAgents runs what an agent consists of, until ctx ends or a part of it
// fails. n is nil where there is no server. tell, if there is one, is given what
// tells the archiver's status.
func (r *root) runAgents(ctx context.Context, cfg *config.Config, n *config.Node, id pg.SystemID, tell func(status func() any)) error {
	// What is made of a segment is its garbage: half as much of it beside what is
	// in use keeps memory low, and costs 2 % of the processor time. With less, a
	// collection runs several times for each segment and costs more than the digest.
	debug.SetGCPercent(50)
	// The agent has its own queue and backoff for each repository.
	r.patience = forPeople
	repos, err := r.repositories(ctx)
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	var archiver *agent.Agent
	var status, stream func() any
	if n != nil {
		a, err := r.agentOf(ctx, cfg, *n, id, repos)
		if err != nil {
			return err
		}
		status = func() any { return a.Status() }
		archiver = a
		if tell != nil {
			tell(status)
		}
	}
	receiver, err := r.agentStream(ctx, cfg, n, id, repos)
	if err != nil {
		return err
	}
	if receiver != nil {
		stream = func() any { return receiver.Status() }
	}
	listener, err := r.agentAPI(ctx, cfg, n, status, stream)
	if err != nil {
		return err
	}
	if archiver != nil {
		r.logger().Info("agent", zap.String("node", n.Name), zap.String("pgdata", n.PGData), zap.String("socket", cfg.Agent.Socket))
		parts.Go(func() error { return archiver.Run(ctx) })
	}
	if receiver != nil {
		parts.Go(func() error {
			if err := receiver.Run(ctx); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	if listener != nil {
		parts.Go(func() error { return listener.Run(ctx) })
	}
	parts.Go(func() error { r.giveBackLeases(ctx); return nil })
	if tell == nil { // not as a part of the service, which tells of itself
		parts.Go(func() error { r.tellSystemd(ctx, func() string { return agentStatus(archiver) }); return nil })
	}
	return parts.Wait()
}

// agentOf is the agent beside the server of node n.
func (r *root) agentOf(ctx context.Context, cfg *config.Config, n config.Node, id pg.SystemID, repos []*repo.Repository) (*agent.Agent, error) {
	get, err := r.agentGetter(ctx, cfg, repos)
	if err != nil {
		return nil, err
	}
	return agent.New(agent.Options{
		PGData: n.PGData, Node: n.Name, Repos: repos, Require: cfg.Required(), Workers: cfg.Archive.Workers,
		Socket: cfg.Agent.Socket, StandbyDelay: time.Duration(cfg.Agent.StandbyDelay), Rescan: time.Duration(cfg.Agent.Rescan),
		QueueLimit: int64(cfg.Archive.QueueLimit), SystemID: id, Getter: get, Log: r.logger(),
	})
}

// agentNode finds the server to serve. Its ConnInfo may be empty.
func (r *root) agentNode(ctx context.Context, cfg *config.Config, name, pgdata string) (config.Node, error) {
	if pgdata != "" {
		dir, err := filepath.Abs(pgdata)
		if err != nil {
			return config.Node{}, fmt.Errorf("--pgdata %s: %w", pgdata, err)
		}
		return config.Node{PGData: dir}, nil
	}
	var local []config.Node
	var reasons []string
	nodes, err := r.nodes(ctx, cfg)
	if err != nil {
		return config.Node{}, err
	}
	for _, candidate := range nodes {
		n := candidate.Node
		if name != "" && n.Name != name {
			continue
		}
		if candidate.elsewhere {
			reasons = append(reasons, n.Name+": Patroni says that it is on another machine")
			continue
		}
		if n.PGData == "" {
			dir, err := r.askDataDirectory(ctx, n)
			if err != nil {
				reasons = append(reasons, fmt.Sprintf("%s: %v", n.Name, err))
				continue
			}
			n.PGData = dir
		}
		if name == "" {
			if _, err := os.Stat(filepath.Join(n.PGData, "PG_VERSION")); err != nil {
				reasons = append(reasons, fmt.Sprintf("%s: its data directory is not here: %v", n.Name, err))
				continue
			}
		}
		local = append(local, n)
	}
	switch {
	case len(local) == 1:
		return local[0], nil
	case len(local) > 1:
		return config.Node{}, usageErrorf("several nodes have their data directory here: choose one with --node or --pgdata")
	case name != "" && len(reasons) == 0:
		return config.Node{}, usageErrorf("--node %s: the configuration has no node of that name", name)
	}
	return config.Node{}, usageErrorf("no server to serve: use --pgdata, or postgres.nodes with pgdata and --node\n  %s", strings.Join(reasons, "\n  "))
}

// agentPatience is how long a server is waited for at start.
const agentPatience = 5 * time.Second

func (r *root) askDataDirectory(ctx context.Context, n config.Node) (string, error) {
	info, err := r.askServer(ctx, n)
	if err == nil && info.DataDirectory == "" {
		err = fmt.Errorf("where its data directory is must be configured (pgdata), because its role may not ask the server")
	}
	return info.DataDirectory, err
}

func (r *root) askServer(ctx context.Context, n config.Node) (server.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	conn, err := server.Connect(ctx, n.ConnInfo, r.logger())
	if err != nil {
		return server.Info{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return conn.Info(ctx)
}

// sameCluster compares the data directory with the server that conninfo leads
// to, and returns the system identifier, or 0 if neither is there yet.
func (r *root) sameCluster(ctx context.Context, n config.Node) (pg.SystemID, error) {
	control, err := pg.ReadControl(n.PGData)
	if err != nil {
		r.logger().Warn("the data directory cannot be read yet; waiting for it", zap.Error(err))
		return 0, nil
	}
	if n.ConnInfo == "" {
		return control.SystemID, nil
	}
	info, err := r.askServer(ctx, n)
	if err != nil {
		r.logger().Warn("the server does not answer, which the agent does not need", zap.String("node", n.Name), zap.Error(err))
		return control.SystemID, nil
	}
	if info.SystemID != control.SystemID {
		return 0, fmt.Errorf("%w: %s is of cluster %s, and the server of node %s of %s",
			agent.ErrOtherCluster, n.PGData, control.SystemID, n.Name, info.SystemID)
	}
	return control.SystemID, nil
}

// getter answers get from the spool, which this process fills.
type getter struct{ g prefetch.Getter }

func (r *root) agentGetter(ctx context.Context, cfg *config.Config, repos []*repo.Repository) (agent.Getter, error) {
	a, err := archive.New(archive.Options{Repos: repos, Require: cfg.Required(), Log: r.logger()})
	if err != nil {
		return nil, err
	}
	o := spoolOptions(cfg, r.logger())
	return getter{prefetch.Getter{
		Archive: func(context.Context) (*archive.Archive, error) { return a, nil },
		Start: func(recovery *prefetch.Recovery) error {
			go func() {
				err := prefetch.NewPrefetcher(recovery, a, o).Run(ctx)
				if err != nil && !errors.Is(err, prefetch.ErrRunning) && ctx.Err() == nil {
					r.logger().Warn("segments are not fetched ahead of recovery", zap.Error(err))
				}
			}()
			return nil
		},
		Options: o,
	}}, nil
}

// Get brings a file to dest.
func (g getter) Get(ctx context.Context, name, dest string) error {
	_, err := g.g.Get(ctx, name, dest)
	return err
}
