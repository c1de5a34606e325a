package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/walkeep/walkeep/integration/patroni"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
)

// pgbackrestTool is pgBackRest with its repository in a directory that all
// nodes share.
type pgbackrestTool struct {
	env     *postgres.Env
	network *patroni.Network
	wrapper string
	shared  string
	program string
}

func newPgbackrestTool(env *postgres.Env, n *patroni.Network, w *world) (*pgbackrestTool, error) {
	program, err := exec.LookPath("pgbackrest")
	if err != nil {
		return nil, fmt.Errorf("%w: run scripts/install-packages.sh", err)
	}
	t := &pgbackrestTool{env: env, network: n, wrapper: w.wrapper, shared: w.shared, program: program}
	return t, t.write(n.Hub)
}

func (t *pgbackrestTool) config() string { return filepath.Join(t.network.Local, "pgbackrest.conf") }

func (t *pgbackrestTool) write(m *patroni.Machine) error {
	local := func(name string) string { return filepath.Join(t.network.Local, name) }
	text := fmt.Sprintf(`[global]
repo1-path=%s
lock-path=%s
spool-path=%s
log-path=%s
log-level-console=warn
log-level-file=off
process-max=2
start-fast=y
compress-type=lz4
archive-timeout=60

[hippo]
pg1-path=%s
pg1-socket-path=%s
pg1-user=postgres
`, t.shared, local("lock"), local("spool"), local("log"), local("pgdata"), t.network.Local)
	path := filepath.Join(m.Disk, "pgbackrest.conf")
	err := os.WriteFile(path, []byte(text), 0o600)
	for _, dir := range []string{"lock", "spool", "log"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(m.Disk, dir), 0o700), t.env.Own(filepath.Join(m.Disk, dir)))
	}
	return errors.Join(err, t.env.Own(path))
}

func (t *pgbackrestTool) prepare(n *patroni.Node) error { return t.write(n.Machine) }

func (t *pgbackrestTool) command() string {
	return fmt.Sprintf("%s --config=%s --stanza=hippo", t.program, t.config())
}

func (t *pgbackrestTool) archiveCommand() string {
	return t.wrapper + " " + t.command() + ` archive-push "%p"`
}

func (t *pgbackrestTool) restoreCommand() string { return t.command() + ` archive-get %f "%p"` }

func (t *pgbackrestTool) run(ctx context.Context, m *patroni.Machine, args ...string) (string, error) {
	return m.Run(ctx, t.program, append([]string{"--config=" + t.config(), "--stanza=hippo"}, args...)...)
}

func (t *pgbackrestTool) begin(ctx context.Context, leader *patroni.Node) error {
	_, err := t.run(ctx, leader.Machine, "stanza-create")
	return err
}

func (t *pgbackrestTool) repos() []string { return []string{"repo1"} }

func (t *pgbackrestTool) backup(ctx context.Context, leader *patroni.Node) (*backup, error) {
	if _, err := t.run(ctx, leader.Machine, "backup", "--type=full"); err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(t.shared, "backup", "hippo", "*F"))
	if err != nil || len(dirs) == 0 {
		return nil, fmt.Errorf("find the backup that was taken: %w", errors.Join(err, fs.ErrNotExist))
	}
	label := filepath.Base(dirs[len(dirs)-1]) // Glob sorts
	out, err := t.run(ctx, leader.Machine, "info", "--set="+label)
	if err != nil {
		return nil, err
	}
	// "wal start/stop: 00000001… / 00000001…"; the LSN is the one to parse.
	_, rest, ok := strings.Cut(out, "lsn start/stop: ")
	text, _, _ := strings.Cut(rest, " ")
	if !ok {
		return nil, fmt.Errorf("no LSN in the output of pgbackrest info: %s", out)
	}
	start, err := pg.ParseLSN(text)
	return &backup{labels: map[string]string{"repo1": label}, start: start}, err
}

func (t *pgbackrestTool) holdings(_ context.Context, size pg.SegmentSize) ([]holding, error) {
	h := holding{}
	err := filepath.WalkDir(filepath.Join(t.shared, "archive", "hippo"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || len(d.Name()) < 24 || strings.Contains(d.Name(), ".partial") {
			return err
		}
		name, err := pg.ParseSegmentName(d.Name()[:24])
		if err != nil {
			return nil //nolint:nilerr // a history or a temporary file
		}
		number, err := name.Number(size)
		if err == nil {
			h.add(name.Timeline(), number)
		}
		return err
	})
	return []holding{h}, err
}

func (t *pgbackrestTool) restore(ctx context.Context, b *backup, repo, dir string) error {
	_, err := t.run(ctx, t.network.Hub, "restore", "--pg1-path="+dir, "--set="+b.labels[repo], "--type=default", "--archive-mode=off")
	return err
}

func (t *pgbackrestTool) startAgent(*patroni.Node) error { return nil }

func (t *pgbackrestTool) killAgent(*patroni.Node) int { return 0 }

func (t *pgbackrestTool) notes() []string { return nil }
