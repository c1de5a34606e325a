package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

type options struct {
	scale, textRows, rounds, segments, files int
	segmentsToReplay, readySegments          int
	segmentsToOpen                           int
	major                                    int
	alone                                    bool
	only                                     string
}

// bench is the cluster, both tools, and what was measured so far.
type bench struct {
	options
	env    *postgres.Env
	server *postgres.Server
	site   *walkeep.Site
	backs  string // pgBackRest's configuration
	ours   string // walkeep's repository
	theirs string // pgBackRest's
	socket string // of walkeep's agent
	size   int64
	rows   []row
}

// codec is a setting that both tools understand.
type codec struct {
	name, back string
	level      int
	goal       string
}

func (c codec) String() string {
	if c.name == "lz4" {
		return "lz4"
	}
	return fmt.Sprintf("%s %d", c.name, c.level)
}

// newBench makes the cluster and a first archive, so that backups can run.
func newBench(ctx context.Context, o options) (_ *bench, err error) {
	env, err := postgres.NewEnv()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			env.Close()
		}
	}()
	b := &bench{options: o, env: env}
	if b.ours, err = env.Mkdir("repo-walkeep"); err != nil {
		return nil, err
	}
	if b.theirs, err = env.Mkdir("repo-pgbackrest"); err != nil {
		return nil, err
	}
	settings := map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "2GB", "synchronous_commit": "off", "archive_mode": "on", "archive_command": "true",
	}
	if o.major >= 17 {
		settings["summarize_wal"] = "on"
	}
	if b.server, err = env.InitDB(ctx, postgres.Options{Major: o.major, Checksums: true, NoFsync: true, Settings: settings}); err != nil {
		return nil, err
	}
	if b.site, err = walkeep.NewSite(env, "cluster: bench\nrepos:\n"+
		"  - {name: repo1, filesystem: {path: "+b.ours+"}}\n"); err != nil {
		return nil, err
	}
	if err := b.server.Start(ctx); err != nil {
		return nil, err
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	if b.size, err = dirSize(b.server.DataDir); err != nil {
		return nil, err
	}
	return b, b.setCodec(ctx, codec{name: "zstd", back: "zst", level: 3})
}

// load fills the cluster: pgbench tables, which compress well, and text of
// random digits and letters, which does not.
func (b *bench) load(ctx context.Context) error {
	begin := time.Now()
	fmt.Fprintf(os.Stderr, "loading: pgbench scale %d, %d rows of text…\n", b.scale, b.textRows)
	debian, err := postgres.Debian()
	if err != nil {
		return err
	}
	if _, err := b.env.Run(ctx, debian.Path("pgbench"), "-i", "-q", "-s", fmt.Sprint(b.scale), "-d", b.server.ConnInfo()); err != nil {
		return err
	}
	for _, sql := range []string{
		fmt.Sprintf(`create table words as
			select i, md5(i::text) || md5((i * 7)::text) || encode(sha256(i::text::bytea), 'base64') as t, now() as at from generate_series(1, %d) i;
			alter table words add primary key (i)`, b.textRows),
		"vacuum freeze words",
		"checkpoint",
	} {
		if err := b.server.Exec(ctx, sql); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "loaded in %s\n", time.Since(begin).Round(time.Second))
	return nil
}

// setCodec gives both tools an empty repository with this codec.
func (b *bench) setCodec(ctx context.Context, c codec) error {
	for _, dir := range []string{b.ours, b.theirs} {
		if err := empty(dir); err != nil {
			return err
		}
	}
	b.socket = filepath.Join(filepath.Dir(b.site.Config), "agent.sock")
	if err := b.site.Configure(fmt.Sprintf(`cluster: bench
agent: {socket: %s}
postgres:
  nodes: [{name: pg, conninfo: "%s", pgdata: %s}]
backup: {workers: 2}
restore: {workers: 2}
repos:
  - name: repo1
    filesystem: {path: %s}
    compression: {codec: %s, level: %d}
`, b.socket, b.server.ConnInfo(), b.server.DataDir, b.ours, c.name, c.level)); err != nil {
		return err
	}
	dir := filepath.Dir(b.site.Config)
	b.backs = filepath.Join(dir, "pgbackrest.conf")
	text := fmt.Sprintf(`[global]
repo1-path=%s
repo1-retention-full=1
compress-type=%s
compress-level=%d
process-max=2
start-fast=y
archive-check=n
archive-async=n
log-level-file=off
log-level-console=warn
lock-path=%s
[bench]
pg1-path=%s
pg1-port=%d
pg1-user=postgres
pg1-socket-path=%s
`, b.theirs, c.back, c.level, dir, b.server.DataDir, b.server.Port, b.socketDir(ctx))
	if err := os.WriteFile(b.backs, []byte(text), 0o644); err != nil {
		return err
	}
	if err := b.server.Configure(map[string]string{"archive_command": b.site.ArchiveSettings()["archive_command"]}); err != nil {
		return err
	}
	if err := b.server.Reload(ctx); err != nil {
		return err
	}
	if b.alone {
		return nil
	}
	_, err := b.pgbackrest(ctx, "stanza-create")
	return err
}

// pgbackrest runs a command of it for our stanza.
func (b *bench) pgbackrest(ctx context.Context, args ...string) (sample, error) {
	return timed(b.env.Command(ctx, "pgbackrest", append([]string{"--config=" + b.backs, "--stanza=bench"}, args...)...))
}

// walkeep runs a command of ours.
func (b *bench) walkeep(ctx context.Context, args ...string) (sample, error) {
	return timed(b.site.Command(ctx, args...))
}

// socketDir is where the server's unix socket is; pgBackRest prefers it.
func (b *bench) socketDir(ctx context.Context) string {
	conn, err := b.server.Connect(ctx)
	if err != nil {
		return ""
	}
	defer conn.Close(ctx)
	var dir string
	_ = conn.QueryRow(ctx, "select split_part(current_setting('unix_socket_directories'), ',', 1)").Scan(&dir)
	return dir
}

// empty removes what is in a directory, but not the directory.
func empty(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := os.RemoveAll(filepath.Join(dir, n.Name()))
		for tries := 0; err != nil && tries < 20; tries++ { // the server is archiving into it
			time.Sleep(100 * time.Millisecond)
			err = os.RemoveAll(filepath.Join(dir, n.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
