package main

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/internal/traces"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/service"
)

// agentAPI begins to listen, if the configuration wants it; nil if not. n is
// nil where there is no server.
func (r *root) agentAPI(ctx context.Context, cfg *config.Config, n *config.Node, status, stream func() any) (*api.Server, error) {
	if cfg.Agent.Listen == "" {
		return nil, nil
	}
	o := api.Options{
		Listen: cfg.Agent.Listen, CertFile: cfg.Agent.TLS.CertFile, KeyFile: cfg.Agent.TLS.KeyFile,
		ClientCAFile: cfg.Agent.TLS.ClientCAFile, TokenFile: cfg.Agent.TokenFile, Version: thisVersion().Version,
		Agent: status, Streaming: stream, Log: r.logger(),
	}
	if n != nil {
		o.PGData, o.Node = n.PGData, n.Name
		if n.ConnInfo != "" {
			take, err := r.agentBackup(ctx, cfg, *n)
			if err != nil {
				return nil, err
			}
			o.Backup = take
		}
	}
	return api.New(o)
}

// agentBackup takes backups of node n. The repositories are opened once, with
// more patience than archiving has.
func (r *root) agentBackup(ctx context.Context, cfg *config.Config, n config.Node) (api.Backup, error) {
	patience := r.patience
	r.patience = 0
	all, err := r.repositories(ctx)
	r.patience = patience
	if err != nil {
		return nil, err
	}
	return r.takeBackups(cfg, backupWish{node: n.Name, how: config.SourceFiles}, all), nil
}

// takeBackups takes backups of a node into repositories of all.
func (r *root) takeBackups(cfg *config.Config, wish backupWish, all []*repo.Repository) api.Backup {
	wish.sessions = cfg.Backup.Workers
	return func(ctx context.Context, req api.BackupRequest, p api.Progress) (_ any, err error) {
		log := r.logger()
		run := req.Annotations[service.RunAnnotation]
		if run != "" {
			log = log.With(zap.String("run", run))
		}
		tracer := r.traces.Tracer()
		ctx, span := tracer.Start(ctx, "backup", trace.WithAttributes(
			attribute.String("walkeep.run", run), attribute.StringSlice("walkeep.repository", req.Repos),
			attribute.String("walkeep.type", req.Type), attribute.String("walkeep.node", wish.node)))
		stages := traces.NewStages(ctx, tracer, p)
		defer func() { stages.End(); traces.End(span, err) }()
		kind, err := repo.ParseBackupType(req.Type)
		if err != nil {
			return nil, err
		}
		if _, err := chooseRepos(cfg, req.Repos); err != nil {
			return nil, err
		}
		var repos []*repo.Repository
		for _, name := range req.Repos {
			for _, one := range all {
				if one.Name() == name {
					repos = append(repos, one)
				}
			}
		}
		from, err := r.backupSource(ctx, cfg, wish)
		if err != nil {
			return nil, err
		}
		defer from.close()
		o := backup.Options{
			Repos: repos, Source: from.source, Server: from.conn, Node: from.Name, Type: kind, Annotations: req.Annotations,
			Workers: cfg.Backup.Workers, Version: thisVersion().Version, Progress: stages, Log: log,
			ReadLimit: backup.Limit(int64(cfg.Backup.ReadRate)), UploadLimit: backup.Limit(int64(cfg.Backup.RateLimit)),
		}
		if from.primary != nil {
			o.Primary = from.primary
		}
		if o.Push, err = r.pushFor(from, repos); err != nil {
			return nil, err
		}
		result, err := backup.Run(ctx, o)
		return resultOf(result, err), err
	}
}

// agentClient is a client of a node's agent.
func agentClient(cfg *config.Config, n config.Node) (*api.Client, error) {
	t := cfg.Agent.TLS
	return api.NewClient(api.ClientOptions{
		URL: n.Agent, CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile, TokenFile: cfg.Agent.TokenFile,
	})
}
