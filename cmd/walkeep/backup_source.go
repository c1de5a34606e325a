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

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// backupSource is the server that a backup is taken of, and how it is read.
type backupSource struct {
	candidate
	source  backup.Source
	primary *server.Conn  // nil if conn is the primary, or no primary was found
	files   *server.Files // nil unless it is read over SQL

	all []*server.Conn // to be closed
}

// candidate is a node that answers.
type candidate struct {
	node
	conn    *server.Conn
	standby bool
	pgdata  string // its data directory, if that is on this machine
}

func (s *backupSource) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.files != nil {
		_ = s.files.Close(ctx)
	}
	for _, c := range s.all {
		_ = c.Close(ctx)
	}
}

// pushFor is how a backup stores WAL of its server in repositories; nil where the
// server's files are not on this machine.
func (r *root) pushFor(s *backupSource, repos []*repo.Repository) (func(context.Context, int, string) error, error) {
	if s.pgdata == "" {
		return nil, nil
	}
	a, err := archive.New(archive.Options{Repos: repos, Log: r.logger()})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, i int, path string) error {
		f, err := a.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = a.PushTo(ctx, i, f)
		return err
	}, nil
}

// backupWish is which server a backup is to be taken of, and how.
type backupWish struct {
	node     string // "": any, by postgres.backup-from
	how      config.BackupSource
	sessions int // of reading over SQL; 0: by the number of processors
}

// backupSource chooses one of the configured nodes, by name or by
// postgres.backup-from: of those whose data directory is on this machine, or, if
// there is none, of those that can be read over SQL.
func (r *root) backupSource(ctx context.Context, cfg *config.Config, wish backupWish) (*backupSource, error) {
	nodes, err := r.nodes(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, usageErrorf("the configuration names no servers to back up: add postgres.nodes or postgres.patroni")
	}
	s := &backupSource{}
	if err := r.chooseSource(ctx, cfg, wish, nodes, s); err != nil {
		s.close()
		return nil, err
	}
	if !s.standby {
		s.primary = nil
	}
	return s, nil
}

func (r *root) chooseSource(ctx context.Context, cfg *config.Config, wish backupWish, nodes []node, s *backupSource) error {
	var up, local []candidate
	var reasons []string // why a node is not the source
	known := false
	for _, n := range nodes {
		known = known || n.Name == wish.node
		c, err := r.probeNode(ctx, n, s)
		if err == nil {
			up = append(up, c)
			if wish.how != config.SourceSQL {
				c.pgdata, err = r.localData(ctx, c)
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", n.Name, err))
		} else if c.pgdata != "" {
			local = append(local, c)
		}
	}
	if wish.node != "" && !known {
		return usageErrorf("--node %s: the configuration has no node of that name", wish.node)
	}
	if c, ok := best(local, cfg.Postgres.BackupFrom, wish.node, &reasons); ok {
		s.candidate, s.source = c, backup.Local(c.pgdata)
		return nil
	}
	here := fmt.Errorf("no server to back up on this machine:\n  %s", strings.Join(reasons, "\n  "))
	if wish.how == config.SourceFiles {
		return here
	}
	if wish.how == config.SourceSQL {
		here = fmt.Errorf("no server to read over SQL:\n  %s", strings.Join(reasons, "\n  "))
	}
	c, ok := best(up, cfg.Postgres.BackupFrom, wish.node, nil)
	if !ok {
		return here
	}
	if wish.how != config.SourceSQL {
		r.logger().Info("no data directory is on this machine: it is read over SQL", zap.String("node", c.Name), zap.Strings("reasons", reasons))
	}
	sessions := wish.sessions
	if sessions == 0 {
		sessions = backup.DefaultWorkers()
	}
	files, err := server.OpenFiles(ctx, c.ConnInfo, c.conn, sessions, r.logger())
	switch {
	case err != nil && wish.how == config.SourceSQL:
		return fmt.Errorf("read %s over SQL: %w", c.Name, err)
	case err != nil:
		return fmt.Errorf("%w\nand %s cannot be read over SQL: %w", here, c.Name, err)
	}
	s.candidate, s.files, s.source = c, files, backup.OverSQL(files)
	return nil
}

// best is the candidate to take. Reasons get why others are not wanted.
func best(all []candidate, from config.BackupFrom, name string, reasons *[]string) (chosen candidate, ok bool) {
	for _, c := range all {
		if rank(c, from, name) > rank(chosen, from, name) {
			chosen = c
		} else if name == "" && reasons != nil {
			*reasons = append(*reasons, fmt.Sprintf("%s: not wanted (backup-from: %s)", c.Name, from))
		}
	}
	return chosen, chosen.conn != nil
}

// rank orders the nodes that could be read from; 0 is never.
func rank(c candidate, from config.BackupFrom, name string) int {
	switch {
	case c.conn == nil, name != "" && c.Name != name:
		return 0
	case name != "":
		return 1
	case from == config.FromStandby && !c.standby, from == config.FromPrimary && c.standby:
		return 0
	case c.standby == (from != config.FromPrimary):
		return 2
	}
	return 1
}

// probeNode connects to a node. A primary is remembered in s, wherever it is.
func (r *root) probeNode(ctx context.Context, n node, s *backupSource) (candidate, error) {
	conn, err := server.Connect(ctx, n.ConnInfo, r.logger())
	if err != nil {
		return candidate{}, err
	}
	s.all = append(s.all, conn)
	info, err := conn.Info(ctx)
	if err != nil {
		return candidate{}, err
	}
	if !info.InRecovery && s.primary == nil {
		s.primary = conn
	}
	return candidate{node: n, conn: conn, standby: info.InRecovery}, nil
}

// localData is the data directory of a node, if it is on this machine.
func (r *root) localData(ctx context.Context, c candidate) (string, error) {
	if c.elsewhere {
		return "", errors.New("it is on another machine, as Patroni says")
	}
	info, err := c.conn.Info(ctx)
	if err != nil {
		return "", err
	}
	pgdata := c.PGData
	if pgdata == "" {
		pgdata = info.DataDirectory
	}
	if pgdata == "" {
		return "", errors.New("where its data directory is must be configured (pgdata), because its role may not ask the server")
	}
	if _, err := os.Stat(filepath.Join(pgdata, "PG_VERSION")); err != nil {
		return "", fmt.Errorf("its data directory is not on this machine: %w", err)
	}
	if err := backup.CheckDataDir(ctx, pgdata, info); err != nil {
		return "", err
	}
	r.logger().Debug("node is local", zap.String("node", c.Name), zap.String("pgdata", pgdata), zap.Bool("standby", info.InRecovery))
	return pgdata, nil
}
