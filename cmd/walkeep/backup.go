package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
)

type backupFlags struct {
	repos          []string
	kind           string
	detect         string
	annotations    []string
	workers        int
	node           string
	source         config.BackupSource
	spread         bool
	archiveTimeout time.Duration
	rateLimit      config.ByteRate
	readRate       config.ByteRate
	json           bool
	noWait         bool
}

func newBackupCommand(r *root) *cobra.Command {
	var f backupFlags
	c := &cobra.Command{
		Use:   "backup --repo REPO[,REPO…] --type full|differential|incremental",
		Short: "Take a backup of a server",
		Long: `Take a backup of a server into one or more repositories.

The data directory is read from the local disk, beside the server, as a user who
can read its files. Of several servers on this machine, postgres.backup-from in
the configuration says which one is taken. Where there is none, a server is read
over SQL, which is slower, and needs privileges (docs/configuration.md).

A differential or incremental backup stores only the pages that have changed
since an earlier one, and refers to that one's packs for all others. It can be
restored like any other, without going through a chain. Where no earlier backup
can be built on, it becomes a full one, and standard error says why.

The last line of standard output is the label of the backup. Progress goes to
standard error. The backup exists when the command ends with status 0; it then
needs nothing but what is in each of the repositories.

With --server the service takes the backup, from the node that it chooses. This
command then only looks: when it is interrupted the backup goes on, and
"walkeep run cancel" ends it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return r.runBackup(c, f) },
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.repos, "repo", nil, "repositories to back up into; needed if there is more than one")
	fl.StringVar(&f.kind, "type", string(repo.Full), "full, differential (builds on the newest full one) or incremental (on the newest of any type)")
	fl.StringVar(&f.detect, "detect", "", "force how changes are found: summaries, changes, scan or whole (default: the best that can be relied on)")
	fl.StringArrayVar(&f.annotations, "annotate", nil, "KEY=VALUE to keep with the backup; may be given several times")
	fl.IntVar(&f.workers, "workers", 0, "how many files are read and compressed at a time (default: backup.workers of the configuration, else the number of processors, at most 8)")
	fl.StringVar(&f.node, "node", "", "the node to read from, by its name in the configuration")
	fl.TextVar(&f.source, "source", config.BackupSource(""), "how to read the data directory: files, on this machine; sql, through the server; auto, over SQL where it is not on this machine (default: postgres.backup-source of the configuration)")
	fl.BoolVar(&f.spread, "spread-checkpoint", false, "let the server take its time for the checkpoint at the beginning")
	fl.DurationVar(&f.archiveTimeout, "archive-timeout", backup.DefaultArchiveTimeout, "how long to wait for the next WAL segment that the backup needs")
	fl.TextVar(&f.rateLimit, "rate-limit", config.ByteRate(0), "bytes a second to send to all repositories together, such as 50MB (default: backup.rate-limit of the configuration, else no limit)")
	fl.TextVar(&f.readRate, "read-rate", config.ByteRate(0), "bytes a second to read from the data directory (default: backup.read-rate of the configuration, else no limit)")
	fl.BoolVar(&f.noWait, "no-wait", false, "with --server: print the run and end, instead of following it")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	return askable(c)
}

func (r *root) runBackup(c *cobra.Command, f backupFlags) error {
	ctx := c.Context()
	kind, err := repo.ParseBackupType(f.kind)
	if err != nil {
		return usageErrorf("--type: %w", err)
	}
	s, err := r.service(c)
	if err != nil {
		return err
	}
	if s != nil {
		return r.remoteBackup(c, s, f)
	}
	if f.noWait {
		return usageErrorf("--no-wait goes with --server")
	}
	var detect backup.Detect
	if f.detect != "" {
		if detect, err = backup.ParseDetect(f.detect); err != nil {
			return usageErrorf("--detect: %w", err)
		}
		if kind == repo.Full {
			return usageErrorf("--detect: a full backup is always whole")
		}
	}
	if f.workers < 0 || f.workers > backup.MaxWorkers {
		return usageErrorf("--workers %d: expected 1 to %d", f.workers, backup.MaxWorkers)
	}
	if f.archiveTimeout <= 0 {
		return usageErrorf("--archive-timeout %s: expected a positive duration", f.archiveTimeout)
	}
	annotations, err := parseAnnotations(f.annotations)
	if err != nil {
		return err
	}
	cfg, err := r.config()
	if err != nil {
		return err
	}
	if len(f.repos) == 0 {
		if len(cfg.Repos) > 1 {
			return usageErrorf("--repo is needed: the configuration has %d repositories", len(cfg.Repos))
		}
		f.repos = []string{cfg.Repos[0].Name}
	}
	if f.workers == 0 {
		f.workers = cfg.Backup.Workers
	}
	if f.rateLimit == 0 {
		f.rateLimit = cfg.Backup.RateLimit
	}
	if f.readRate == 0 {
		f.readRate = cfg.Backup.ReadRate
	}
	repos, err := r.repositories(ctx, f.repos...)
	if err != nil {
		return err
	}
	if f.source == "" {
		f.source = cfg.Postgres.BackupSource
	}
	source, err := r.backupSource(ctx, cfg, backupWish{f.node, f.source, f.workers})
	if err != nil {
		return err
	}
	defer source.close()

	progress := newProgress(r.stderr, time.Now)
	defer progress.close()
	o := backup.Options{
		Repos: repos, Source: source.source, Server: source.conn, Node: source.Name,
		Type: kind, Detect: detect, Annotations: annotations, Workers: f.workers, SpreadCheckpoint: f.spread,
		ArchiveTimeout: f.archiveTimeout, Version: thisVersion().Version,
		ReadLimit: backup.Limit(int64(f.readRate)), UploadLimit: backup.Limit(int64(f.rateLimit)),
		Progress: progress, Log: r.logger(),
	}
	if source.primary != nil {
		o.Primary = source.primary
	}
	if o.Push, err = r.pushFor(source, repos); err != nil {
		return err
	}
	result, err := backup.Run(ctx, o)
	progress.close()
	return r.printBackup(result, f.json, err)
}

// resultOf is what became of a backup that ended with err.
func resultOf(result backup.Result, err error) api.BackupResult {
	out := api.BackupResult{
		Label: result.Label, Repos: []api.BackupRepoResult{},
		NothingNew: errors.Is(err, backup.ErrNothingNew), Busy: errors.Is(err, repo.ErrBusy), Damaged: errors.Is(err, repo.ErrIntegrity),
	}
	for _, p := range result.Repos {
		line := api.BackupRepoResult{Name: p.Name, Status: "ok"}
		if p.Err != nil {
			line.Status, line.Error = "failed", p.Err.Error()
		} else {
			line.Summary = &p.Summary
		}
		out.Repos = append(out.Repos, line)
	}
	return out
}

// printBackup prints what became of the backup, and passes on its error. The
// label is printed only if the backup exists somewhere.
func (r *root) printBackup(result backup.Result, asJSON bool, err error) error {
	out := resultOf(result, err)
	exists := false
	for _, p := range result.Repos {
		if p.Err == nil {
			exists = true
			r.describeBackup(p)
		}
	}
	if asJSON {
		return errors.Join(err, r.printJSON(out))
	}
	if exists {
		r.printf("%s\n", result.Label)
	}
	return err
}

// describeBackup tells a person on standard error what was stored.
func (r *root) describeBackup(p backup.RepoResult) {
	s := p.Summary
	on := ""
	if s.Parent != "" {
		on = " on " + string(s.Parent)
	}
	fmt.Fprintf(r.stderr, "%s: %s backup %s%s: %s in %d files, %s stored, %s to %s\n", p.Name, s.Type, s.Label, on,
		size(s.Bytes), s.Files, size(s.StoredBytes), s.StartLSN, s.StopLSN)
	if s.PageErrors > 0 {
		fmt.Fprintf(r.stderr, "%s: WARNING: %d pages have a wrong checksum, in the server itself; they were stored as they are (walkeep show %s lists them)\n",
			p.Name, s.PageErrors, s.Label)
	}
}

// parseAnnotations reads KEY=VALUE arguments.
func parseAnnotations(args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, usageErrorf("--annotate %q: expected KEY=VALUE", a)
		}
		if _, twice := m[k]; twice {
			return nil, usageErrorf("--annotate %q: %s is given twice", a, k)
		}
		m[k] = v
	}
	return m, nil
}
