package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/restore"
	"github.com/walkeep/walkeep/restore/follow"
	"github.com/walkeep/walkeep/restore/scratch"
)

const extractLong = `Take one database, or tables of it, out of the repository as it was at a moment,
without touching the cluster: what is needed is restored into a scratch directory,
recovered there by a server that nobody else can reach, and dumped. The scratch
directory is removed in the end; after a kill, by the next run.

--output writes a dump that pg_restore reads. --into loads it into a database of
another server, which must not have what is loaded: one transaction, all or nothing.

The target flags are those of walkeep restore.`

type extractFlags struct {
	restoreFlags
	database     string
	tables       []string
	output, into string
	scratch      string
	username     string
}

func newExtractCommand(r *root) *cobra.Command {
	f := extractFlags{}
	f.kind, f.archiveMode = "primary", "off"
	c := &cobra.Command{
		Use:   "extract --database NAME (--output FILE | --into CONNINFO)",
		Short: "Take one database or table back, as it was at any moment",
		Long:  extractLong,
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return r.runExtract(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.database, "database", "", "the database")
	fl.StringArrayVar(&f.tables, "table", nil, "only this table, as pg_dump's --table takes it; may be given several times")
	fl.StringVar(&f.output, "output", "", "the file to write, in pg_dump's custom format")
	fl.StringVar(&f.into, "into", "", "connection string of the database to load into; without a password (passfile=)")
	fl.StringVar(&f.scratch, "scratch", os.TempDir(), "directory below which the scratch directory is made")
	fl.StringVar(&f.username, "username", "", "a superuser of the cluster (default: the user of the configured nodes, postgres)")
	fl.StringVar(&f.bindir, "bindir", "", "directory of the server's programs (default: /usr/lib/postgresql/MAJOR/bin, then PATH)")
	f.addTarget(c)
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the plan and do nothing")
	fl.BoolVar(&f.json, "json", false, "print the plan, and what was done, as JSON")
	return c
}

func (f *extractFlags) check() error {
	switch {
	case f.database == "":
		return usageErrorf("--database is needed")
	case (f.output == "") == (f.into == "") && !f.dryRun:
		return usageErrorf("give --output or --into")
	case f.action != "":
		return usageErrorf("--target-action is not for extract: what is restored is opened, and thrown away")
	}
	if f.into != "" {
		cfg, err := pgx.ParseConfig(f.into)
		if err != nil {
			return usageErrorf("--into: it is not a connection string") // the driver's text may quote a password
		}
		if cfg.Database == "" {
			return usageErrorf("--into: it names no database (dbname=)")
		}
	}
	if f.output != "" {
		if st, err := os.Stat(filepath.Dir(f.output)); err != nil || !st.IsDir() {
			return usageErrorf("--output %s: its directory does not exist", f.output)
		}
	}
	return nil
}

// extracted is what `walkeep extract --json` prints.
type extracted struct {
	Plan     *restore.Plan `json:"plan"`
	Database string        `json:"database"`
	Tables   []string      `json:"tables,omitempty"`
	Output   string        `json:"output,omitempty"`
	Bytes    int64         `json:"bytes"` // restored
	Seconds  float64       `json:"seconds"`
}

func (r *root) runExtract(ctx context.Context, f extractFlags) error {
	began := time.Now()
	cfg, err := r.config()
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	f.pgdata = f.scratch // what request wants to hear
	plan, err := r.plan(ctx, f.restoreFlags)
	if err != nil {
		return r.restoreError(err, f.json)
	}
	if f.dryRun {
		return r.printPlan(plan, f.json)
	}
	dir := binDir(f.bindir, plan.Backup.PGVersion/10000)
	tools := []string{"postgres", "pg_dump"}
	if f.into != "" {
		tools = append(tools, "pg_restore")
	}
	if err := scratch.CheckTools(dir, tools...); err != nil {
		return r.restoreError(err, f.json)
	}
	o := scratch.Options{BinDir: dir, Users: usersOf(f.username, cfg)}
	o.Restore.Include = []string{f.database}
	c, err := r.openScratch(ctx, plan, o, f.restoreFlags, f.scratch)
	if err != nil {
		return err
	}
	what := f.output
	if f.output != "" {
		err = c.Dump(ctx, f.database, f.tables, f.output)
	} else {
		what = "the other server"
		err = c.Load(ctx, f.database, f.tables, f.into)
	}
	bytes := c.Restored.Bytes
	if err = errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("extract database %s: %w", f.database, err)
	}
	took := time.Since(began)
	if f.json {
		return r.printJSON(extracted{plan, f.database, f.tables, f.output, bytes, took.Seconds()})
	}
	r.printf("Extracted database %s into %s, %s.\n", f.database, what, took.Round(10*time.Millisecond))
	return nil
}

// plan plans what the flags ask for.
func (r *root) plan(ctx context.Context, f restoreFlags) (*restore.Plan, error) {
	req, err := f.request(r.location())
	if err != nil {
		return nil, err
	}
	var names []string
	if f.repo != "" {
		names = []string{f.repo}
	}
	repos, err := r.repositories(ctx, names...)
	if err != nil {
		return nil, err
	}
	return restore.NewPlan(ctx, repos, req, r.logger())
}

// openScratch opens a scratch cluster, and shows people how it goes.
func (r *root) openScratch(ctx context.Context, plan *restore.Plan, o scratch.Options, f restoreFlags, parent string) (*scratch.Cluster, error) {
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	o.Parent, o.Plan, o.Log = parent, plan, r.logger()
	if o.Restore.RestoreCommand, err = restoreCommand(r.configFile()); err != nil {
		return nil, err
	}
	if o.Restore.Workers = f.workers; o.Restore.Workers == 0 {
		o.Restore.Workers = cfg.Restore.Workers
	}
	progress := newProgress(r.stderr, time.Now)
	defer progress.close()
	o.Restore.Progress, o.Restore.Log = progress, r.logger()
	recovering := false
	o.Recovering = func(at follow.Replay) {
		if !recovering {
			progress.Stage("recover")
			recovering = true
		}
		progress.note(at.LSN.String())
	}
	c, err := scratch.Open(ctx, o)
	switch {
	case errors.Is(err, follow.ErrTargetNotReached):
		return nil, withExit(exitUnreachable, err)
	case err != nil:
		return nil, r.restoreError(err, f.json)
	}
	return c, nil
}

// usersOf are roles that may be superusers.
func usersOf(given string, cfg *config.Config) []string {
	if given != "" {
		return []string{given}
	}
	var users []string
	for _, n := range cfg.Postgres.Nodes {
		if c, err := pgx.ParseConfig(n.ConnInfo); err == nil && c.User != "" {
			users = append(users, c.User)
		}
	}
	return users
}
