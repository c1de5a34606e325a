package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg/server"
)

// backupSource is the server that a backup is read from.
type backupSource struct {
	name    string
	pgdata  string
	conn    *server.Conn
	standby bool
	primary *server.Conn // nil if conn is the primary, or no primary was found

	all []*server.Conn // to be closed
}

func (s *backupSource) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, c := range s.all {
		_ = c.Close(ctx)
	}
}

// backupSource finds the configured nodes whose data directory is on this
// machine, and chooses one by name or by postgres.backup-from.
func (r *root) backupSource(ctx context.Context, cfg *config.Config, name string) (*backupSource, error) {
	nodes, err := r.nodes(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, usageErrorf("the configuration names no servers to back up: add postgres.nodes or postgres.patroni")
	}
	chosen := &backupSource{}
	var local []backupSource
	var reasons []string // why a node is not the source
	known := false
	for _, n := range nodes {
		known = known || n.Name == name
		s, err := r.probeNode(ctx, n, chosen)
		if err != nil {
			if ctx.Err() != nil {
				chosen.close()
				return nil, context.Cause(ctx)
			}
			reasons = append(reasons, fmt.Sprintf("%s: %v", n.Name, err))
			continue
		}
		local = append(local, s)
	}
	if name != "" && !known {
		chosen.close()
		return nil, usageErrorf("--node %s: the configuration has no node of that name", name)
	}
	for _, s := range local {
		if rank(s, cfg.Postgres.BackupFrom, name) > rank(*chosen, cfg.Postgres.BackupFrom, name) {
			chosen.name, chosen.pgdata, chosen.conn, chosen.standby = s.name, s.pgdata, s.conn, s.standby
		} else if name == "" {
			reasons = append(reasons, fmt.Sprintf("%s: not wanted (backup-from: %s)", s.name, cfg.Postgres.BackupFrom))
		}
	}
	if chosen.conn == nil {
		chosen.close()
		return nil, fmt.Errorf("no server to back up on this machine:\n  %s", strings.Join(reasons, "\n  "))
	}
	if !chosen.standby {
		chosen.primary = nil
	}
	return chosen, nil
}

// rank orders the nodes that could be read from; 0 is never.
func rank(s backupSource, from config.BackupFrom, name string) int {
	switch {
	case s.conn == nil, name != "" && s.name != name:
		return 0
	case name != "":
		return 1
	case from == config.FromStandby && !s.standby, from == config.FromPrimary && s.standby:
		return 0
	case s.standby == (from != config.FromPrimary):
		return 2
	}
	return 1
}

// probeNode connects to a node and returns it as a source if its data
// directory is here. A primary is remembered in chosen, wherever it is.
func (r *root) probeNode(ctx context.Context, n node, chosen *backupSource) (backupSource, error) {
	conn, err := server.Connect(ctx, n.ConnInfo, r.logger())
	if err != nil {
		return backupSource{}, err
	}
	chosen.all = append(chosen.all, conn)
	info, err := conn.Info(ctx)
	if err != nil {
		return backupSource{}, err
	}
	if !info.InRecovery && chosen.primary == nil {
		chosen.primary = conn
	}
	if n.elsewhere {
		return backupSource{}, errors.New("it is on another machine, as Patroni says")
	}
	pgdata := n.PGData
	if pgdata == "" {
		pgdata = info.DataDirectory
	}
	if pgdata == "" {
		return backupSource{}, errors.New("where its data directory is must be configured (pgdata), because its role may not ask the server")
	}
	if _, err := os.Stat(filepath.Join(pgdata, "PG_VERSION")); err != nil {
		return backupSource{}, fmt.Errorf("its data directory is not on this machine: %w", err)
	}
	if err := backup.CheckDataDir(ctx, pgdata, info); err != nil {
		return backupSource{}, err
	}
	r.logger().Debug("node is local", zap.String("node", n.Name), zap.String("pgdata", pgdata), zap.Bool("standby", info.InRecovery))
	return backupSource{name: n.Name, pgdata: pgdata, conn: conn, standby: info.InRecovery}, nil
}
