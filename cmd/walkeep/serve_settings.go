package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/dial"
	"github.com/walkeep/walkeep/repo/dial/cloud"
	"github.com/walkeep/walkeep/restore/drill"
	"github.com/walkeep/walkeep/scheduler"
	"github.com/walkeep/walkeep/service"
	"github.com/walkeep/walkeep/verify"
)

// forLooking is the patience with a repository that is looked at again soon.
const forLooking = 10 * time.Second

// serviceSettings turns the configuration into what package service knows.
func (r *root) serviceSettings(ctx context.Context, cfg *config.Config, p *player) (service.Settings, error) {
	of := *r // with this configuration, whatever is loaded later
	of.loaded, of.closers = cfg, nil
	set := service.Settings{
		Members: of.members(cfg), From: cluster.From(cfg.Postgres.BackupFrom), Zone: cfg.Location(),
		Agent:       func(url string) (*api.Client, error) { return agentClient(cfg, config.Node{Agent: url}) },
		LocalStatus: p.status,
		Sources: func(ctx context.Context) []archive.Source {
			return append(of.localSources(ctx), of.remoteSources(ctx)...)
		},
		VerifyLevel: verify.Level(cfg.Service.VerifyLevel), Interval: time.Duration(cfg.Service.Interval),
		Probe: time.Duration(cfg.Service.Probe), Lease: time.Duration(cfg.Service.Lease),
	}
	for _, c := range cfg.Repos {
		one, err := of.serviceRepo(ctx, cfg, c)
		if err != nil {
			return set, &repositoryError{c.Name, err}
		}
		set.Repos = append(set.Repos, one)
	}
	set.Drill = func(ctx context.Context, work *repo.Repository, stage func(string)) error {
		o, err := drillOptions(cfg, of.configFile(), cfg.Drills)
		if err != nil {
			return err
		}
		o.Repo, o.Stage, o.Log = work, stage, of.logger()
		o.Scratch.Restore.Log = of.logger()
		_, err = drill.Run(ctx, o)
		return err
	}
	set.Local = func(ctx context.Context, n cluster.NodeState, work *repo.Repository) api.Backup {
		if !of.isLocal(ctx, n) {
			return nil
		}
		return of.takeBackups(cfg, backupWish{node: n.Name, how: config.SourceFiles}, []*repo.Repository{work})
	}
	if how := cfg.Postgres.BackupSource; how != config.SourceFiles {
		set.OnlySQL = how == config.SourceSQL
		set.OverSQL = func(n cluster.NodeState, work *repo.Repository) api.Backup {
			return of.takeBackups(cfg, backupWish{node: n.Name, how: config.SourceSQL}, []*repo.Repository{work})
		}
	}
	return set, nil
}

func (r *root) serviceRepo(ctx context.Context, cfg *config.Config, c config.Repo) (service.Repo, error) {
	open := func(patience time.Duration) (*repo.Repository, error) {
		return dial.Open(ctx, c, dial.Options{Cluster: cfg.Cluster, Log: r.logger(), Patience: patience, Cloud: cloud.Open})
	}
	out := service.Repo{Policy: retentionPolicy(c.Retention), Schedules: map[string]string{}}
	var err error
	if out.Work, err = open(0); err != nil {
		return out, err
	}
	if out.Watch, err = open(forLooking); err != nil {
		return out, err
	}
	out.Location = out.Watch.Store().String()
	if out.Jobs, err = serviceJobs(cfg, c, out.Schedules); err != nil {
		return out, err
	}
	c.Schedules, c.Retention = config.Schedules{}, config.Retention{}
	place, err := json.Marshal(c)
	out.Place = string(place)
	return out, err
}

// serviceJobs are the jobs of a repository; their schedules are entered by kind.
func serviceJobs(cfg *config.Config, c config.Repo, schedules map[string]string) ([]scheduler.Job, error) {
	var jobs []scheduler.Job
	for _, s := range []struct {
		kind scheduler.Kind
		when config.Cron
	}{
		{scheduler.Full, c.Schedules.Full},
		{scheduler.Differential, c.Schedules.Differential},
		{scheduler.Incremental, c.Schedules.Incremental},
		{scheduler.Expire, c.Schedules.Expire},
		{scheduler.Verify, c.Schedules.Verify},
		{scheduler.Repair, c.Schedules.Repair},
		{scheduler.Drill, c.Schedules.Drill},
	} {
		j := scheduler.Job{
			Repo: c.Name, Kind: s.kind, AfterBackup: s.kind == scheduler.Expire, Jitter: time.Duration(cfg.Service.Jitter),
			Attempts: cfg.Service.Attempts, Backoff: time.Duration(cfg.Service.Backoff),
		}
		if !s.when.IsZero() {
			var err error
			if j.Schedule, err = scheduler.ParseSchedule(s.when.String(), cfg.Location()); err != nil {
				return nil, fmt.Errorf("schedules.%s: %w", s.kind, err)
			}
			schedules[string(s.kind)] = s.when.String()
		}
		if j.Schedule != nil || j.AfterBackup {
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// isLocal reports whether the data directory of a node is on this machine: not
// only one of that name, but the one that the server runs in.
func (r *root) isLocal(ctx context.Context, n cluster.NodeState) bool {
	dir := n.PGData
	if dir == "" {
		dir = n.DataDirectory
	}
	if n.Elsewhere || dir == "" {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	conn, err := server.Connect(ctx, n.ConnInfo, r.logger())
	if err != nil {
		return false
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only asked
	info, err := conn.Info(ctx)
	return err == nil && backup.CheckDataDir(ctx, dir, info) == nil
}

// player plays the agent beside a local data directory.
type player struct {
	mu   sync.Mutex // guards what follows
	node string     // "": none is played
	says func() any
}

// agentAgain is how long after a failure a local data directory is looked for
// again.
const agentAgain = 30 * time.Second

// play runs an agent where there is exactly one data directory on this machine,
// until ctx ends. It is not there yet, or has an agent of its own? Then it is
// looked for again.
func (p *player) play(ctx context.Context, r *root, cfg *config.Config) {
	said := ""
	for {
		err := p.once(ctx, *r, cfg)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != said {
			said = text
			r.logger().Info("no agent is played here", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(agentAgain):
		}
	}
}

// once works on a copy of root, which is used by one goroutine.
func (p *player) once(ctx context.Context, r root, cfg *config.Config) error {
	r.loaded, r.closers = cfg, nil
	defer func() {
		for _, done := range r.closers {
			done()
		}
	}()
	n, err := r.agentNode(ctx, cfg, "", "")
	if err != nil {
		return err
	}
	id, err := r.sameCluster(ctx, n)
	if err != nil {
		return err
	}
	defer p.set("", nil)
	return r.runAgents(ctx, cfg, &n, id, func(status func() any) { p.set(n.Name, status) })
}

func (p *player) set(node string, says func() any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node, p.says = node, says
}

// status is for service.Settings.
func (p *player) status() (string, any) {
	p.mu.Lock()
	node, says := p.node, p.says
	p.mu.Unlock()
	if says == nil {
		return "", nil
	}
	return node, says()
}
