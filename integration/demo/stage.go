package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
)

// stage is everything the demo made.
type stage struct {
	env              *postgres.Env
	s3               *stores.S3
	site             *walkeep.Site
	primary, standby *postgres.Server
	repos            string // that part of the configuration

	moment time.Time // before the drop
	lsn    pg.LSN
	before map[string]string // row counts and sums then
	clone  string
}

func newStage(ctx context.Context) (_ *stage, err error) {
	d := &stage{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.env, err = postgres.NewEnv(); err != nil {
		return nil, err
	}
	if d.s3, err = stores.StartS3(ctx, stores.Options{}); err != nil {
		return nil, err
	}
	if d.repos, err = d.makeRepos(ctx); err != nil {
		return nil, err
	}
	d.site, err = walkeep.NewSite(d.env, "cluster: demo\n"+d.repos)
	return d, err
}

// makeRepos makes three repositories and returns their configuration.
func (d *stage) makeRepos(ctx context.Context) (string, error) {
	bucket, err := d.s3.Bucket(ctx)
	if err != nil {
		return "", err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	plain, err1 := d.env.Mkdir("repo1")
	secret, err2 := d.env.Mkdir("repo3")
	keys, err3 := d.env.Mkdir("keys")
	if err := errors.Join(err1, err2, err3); err != nil {
		return "", err
	}
	access, err1 := d.give(keys, "access", d.s3.AccessKeyFile)
	password, err2 := d.give(keys, "secret", d.s3.SecretKeyFile)
	file := filepath.Join(keys, "identity")
	err3 = os.WriteFile(file, []byte(identity.String()+"\n"), 0o600)
	if err := errors.Join(err1, err2, err3, d.env.Own(keys)); err != nil {
		return "", err
	}
	return fmt.Sprintf(`repos:
  - name: repo1
    filesystem: {path: %s}
  - name: repo2
    s3: {bucket: %s, endpoint: %q, region: %s, path-style: true, access-key-id-file: %s, secret-access-key-file: %s}
  - name: repo3
    filesystem: {path: %s}
    compression: {codec: lz4}
    encryption: {identity-file: %s}
`, plain, bucket, d.s3.URL, d.s3.Region, access, password, secret, file), nil
}

// give copies a secret to where the servers' user can read it.
func (d *stage) give(dir, name, from string) (string, error) {
	text, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, text, 0o600)
}

func (d *stage) close() {
	if d.env != nil {
		d.env.Close()
	}
	if d.s3 != nil {
		d.s3.Stop()
	}
}

// configure writes the configuration with both nodes in it.
func (d *stage) configure() error {
	return d.site.Configure(fmt.Sprintf(`cluster: demo
postgres:
  nodes:
    - {name: pg-0, conninfo: %q, pgdata: %s}
    - {name: pg-1, conninfo: %q, pgdata: %s}
  backup-from: prefer-standby
%s`, d.primary.ConnInfo(), d.primary.DataDir, d.standby.ConnInfo(), d.standby.DataDir, d.repos))
}

// show prints a command as it would be typed, runs it, and prints what it says.
func (d *stage) show(ctx context.Context, args ...string) error {
	fmt.Printf("$ walkeep %s\n", strings.Join(quoted(args), " "))
	cmd := d.site.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("walkeep %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

func quoted(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; strings.ContainsAny(a, " '\"") {
			out[i] = "'" + a + "'"
		}
	}
	return out
}

// load runs pgbench for a few seconds.
func (d *stage) load(ctx context.Context, s *postgres.Server, seconds int) error {
	out, err := d.env.Run(ctx, s.Install.Path("pgbench"), "-n", "-c", "4", "-T", fmt.Sprint(seconds), "-d", s.ConnInfo())
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "number of transactions") || strings.HasPrefix(line, "tps") {
			fmt.Printf("pgbench on %s: %s", s.Name, line)
		}
	}
	return err
}

// counts are what the proof compares.
func (d *stage) counts(ctx context.Context, s *postgres.Server) (map[string]string, error) {
	m := map[string]string{}
	for name, sql := range map[string]string{
		"rows in pgbench_accounts":            "select count(*) from pgbench_accounts",
		"sum(abalance) over pgbench_accounts": "select sum(abalance) from pgbench_accounts",
		"rows in pgbench_history":             "select count(*) from pgbench_history",
	} {
		v, err := s.Text(ctx, sql)
		if err != nil {
			return nil, err
		}
		m[name] = v
	}
	return m, nil
}
