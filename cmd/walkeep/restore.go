package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/restore"
)

type restoreFlags struct {
	pgdata, repo, backup string
	time, lsn, xid, name string
	immediate, exclusive bool
	action, timeline     string
	kind                 string
	primary              string
	tablespaces          []string
	tablespacesBelow     string
	links                []string
	delta                bool
	keep                 []string
	archiveMode          string
	settings             []string
	workers              int
	dryRun, json         bool
	usePartial           bool
	discardWAL           bool
	allowDamaged         bool
	include, exclude     []string
	waitFlags
}

const restoreLong = `Restore a backup into an empty directory, or in place, and leave settings there
with which the server, when it is started, recovers from the archive to the target.

First it plans: it chooses the repository, the backup and the way through the
timelines, and proves that every WAL segment is there and that the target can be
reached. If not, nothing is touched, it says what can be reached, and the exit
status is 4. --dry-run ends after the plan.

Without a target, recovery goes to the end of WAL. A time without an offset is
meant in the configured time zone.

With --delta it restores in place: over the directory of a server that crashed, or
of an old primary that must follow the new one. What is right there stays, what
differs is fetched, what does not belong is removed, but for what --keep names. WAL in
pg_wal that no repository has is not removed unless --discard-wal is given.

If it is interrupted, run it again with the same --pgdata: it clears what it
left, and nothing else; with --delta it goes on. Tablespaces go to where they were,
unless they are mapped. archive_mode is set to off, so that the clone does not
archive into the repositories that it came from, unless --archive-mode keep is
given.`

func newRestoreCommand(r *root) *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:   "restore --pgdata DIR",
		Short: "Restore a cluster as it was at any moment",
		Long:  restoreLong,
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return r.runRestore(c, f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.pgdata, "pgdata", "", "the directory to restore into; empty, or not there yet, or with --delta")
	f.addTarget(c)
	fl.StringVar(&f.action, "target-action", "", "what the server does at the target: promote, pause or shutdown (default promote)")
	fl.StringVar(&f.kind, "type", "primary", "what the restored server will be: primary, or standby, which goes on following the archive")
	fl.StringVar(&f.primary, "primary-conninfo", "", "with --type standby: the server to stream from too; without a password (passfile=)")
	fl.StringArrayVar(&f.tablespaces, "tablespace-map", nil, "OID=DIR, NAME=DIR or OLDDIR=DIR: where a tablespace goes; may be given several times")
	fl.StringVar(&f.tablespacesBelow, "tablespace-map-all", "", "put all other tablespaces into directories below this one, named by OID")
	fl.StringArrayVar(&f.links, "link-map", nil, "NAME=DIR: put this directory of PGDATA, such as pg_wal, into DIR, with a link in its place; may be given several times")
	fl.BoolVar(&f.delta, "delta", false, "restore in place: keep what is right already, fetch what differs, remove what does not belong")
	fl.StringArrayVar(&f.keep, "keep", nil, "with --delta: a file or directory in PGDATA that stays as it is; may be given several times")
	fl.StringArrayVar(&f.include, "db-include", nil, "restore only this database, besides the server's own; may be given several times. The files of the others are zeroes")
	fl.StringArrayVar(&f.exclude, "db-exclude", nil, "do not restore this database; may be given several times")
	fl.BoolVar(&f.allowDamaged, "allow-damaged", false, "where the backup is damaged and no other repository has the same, write zeroes, list the pages, and end with exit status 6")
	fl.BoolVar(&f.discardWAL, "discard-wal", false, "with --delta: go on although pg_wal holds WAL that is in no repository, and remove it")
	fl.StringVar(&f.archiveMode, "archive-mode", "off", "off, or keep what the backup has")
	fl.StringArrayVar(&f.settings, "set", nil, "NAME=VALUE for postgresql.auto.conf; may be given several times")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the plan and do nothing")
	fl.BoolVar(&f.json, "json", false, "print the plan, and what was done, as JSON")
	f.waitFlags.add(c)
	c.AddCommand(newRestoreSettleCommand(r))
	return c
}

// addTarget adds the flags that say what to restore, but for the action.
func (f *restoreFlags) addTarget(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.repo, "repo", "", "the repository to restore from (default: the first that can reach the target)")
	fl.StringVar(&f.backup, "backup", "", "label of the backup to start from (default: the newest that can reach the target)")
	fl.StringVar(&f.time, "target-time", "", "recover to this time, such as '2026-11-22 14:30:00+00'")
	fl.StringVar(&f.lsn, "target-lsn", "", "recover to this position in the WAL, such as 16/B374D848")
	fl.StringVar(&f.xid, "target-xid", "", "recover to the end of this transaction")
	fl.StringVar(&f.name, "target-name", "", "recover to this restore point (pg_create_restore_point)")
	fl.BoolVar(&f.immediate, "target-immediate", false, "recover to the end of the backup, no further")
	fl.BoolVar(&f.exclusive, "exclusive", false, "stop right before the target time, LSN or transaction instead of right after it")
	fl.StringVar(&f.timeline, "target-timeline", "latest", "the timeline to recover along: a number, latest or current (the backup's)")
	fl.IntVar(&f.workers, "workers", 0, "how many pieces are fetched and written at a time (default: restore.workers of the configuration, else three per processor)")
	fl.BoolVar(&f.usePartial, "use-partial", false, "let recovery to the end of WAL, or to an LSN, also read the partial segment behind the last whole one: the last bytes of a dead timeline")
}

func (r *root) runRestore(c *cobra.Command, f restoreFlags) error {
	ctx := c.Context()
	cfg, err := r.config()
	if err != nil {
		return err
	}
	req, err := f.request(r.location())
	if err != nil {
		return err
	}
	o, err := f.options(r.configFile())
	if err != nil {
		return err
	}
	if err := f.waitFlags.check(); err != nil {
		return err
	}
	if o.Workers == 0 {
		o.Workers = cfg.Restore.Workers
	}
	var names []string
	if f.repo != "" {
		names = []string{f.repo}
	}
	repos, err := r.repositories(ctx, names...)
	if err != nil {
		return err
	}
	plan, err := restore.NewPlan(ctx, repos, req, r.logger())
	if err != nil {
		return r.restoreError(err, f.json)
	}
	if f.dryRun {
		return r.printPlan(plan, f.json)
	}
	if !f.json {
		if err := plan.WriteText(r.stderr, r.location()); err != nil {
			return err
		}
	}
	if o.Archives = repos; f.repo != "" { // what one lacks another may have
		if o.Archives, err = r.repositories(ctx); err != nil {
			return err
		}
	}
	progress := newProgress(r.stderr, time.Now)
	defer progress.close()
	o.Progress, o.Log = progress, r.logger()
	result, err := restore.Run(ctx, plan, o)
	progress.close()
	if err != nil {
		return r.restoreError(err, f.json)
	}
	if len(result.Damaged) > 0 {
		return errors.Join(r.printRestored(plan, result, f, nil), damagedError(result.Damaged))
	}
	if !f.wait {
		return r.printRestored(plan, result, f, nil)
	}
	r.restoredLine(result, f)
	got, err := r.startAndWait(ctx, plan, result.PGData, f.waitFlags, cfg)
	if err != nil {
		return err
	}
	return r.printRestored(plan, result, f, got)
}

// damagedError lists what could not be brought back.
func damagedError(lost []restore.Damaged) error {
	text := "restored, but for what is damaged in the repository. These pages are zeroes:"
	for _, d := range lost {
		text += "\n  " + d.String()
	}
	return withExit(exitIntegrity, errors.New(text))
}

// restoredLine tells people that the files are there.
func (r *root) restoredLine(res *restore.Result, f restoreFlags) {
	if f.json {
		return
	}
	r.printf("Restored backup %s to %s: %s in %d files, %s.\n", res.Label, res.PGData, size(res.Bytes), res.Files, res.Took.Round(10*time.Millisecond))
	if res.Owner != "" && res.Owner != "0" {
		r.printf("The files belong to %s.\n", res.Owner)
	}
	if len(res.LeftOut) > 0 {
		r.printf("Left out: %s. Nobody can connect to them; when the server is open, remove them with DROP DATABASE.\n", strings.Join(res.LeftOut, ", "))
	}
}

// request reads the flags that say what to restore.
func (f *restoreFlags) request(loc *time.Location) (req restore.Request, err error) {
	req.Repository, req.UsePartial = f.repo, f.usePartial
	if f.pgdata == "" {
		return req, usageErrorf("--pgdata is needed")
	}
	switch f.kind {
	case "primary":
		if f.primary != "" {
			return req, usageErrorf("--primary-conninfo goes with --type standby")
		}
	case "standby":
		req.Standby = true
	default:
		return req, usageErrorf("--type %s: expected primary or standby", f.kind)
	}
	if f.archiveMode != "off" && f.archiveMode != "keep" {
		return req, usageErrorf("--archive-mode %s: expected off or keep", f.archiveMode)
	}
	if f.backup != "" {
		if req.Backup, err = repo.ParseLabel(f.backup); err != nil {
			return req, usageErrorf("--backup: %w", err)
		}
	}
	t := &req.Target
	if t.Timeline, err = restore.ParseTimelineChoice(f.timeline); err != nil {
		return req, usageErrorf("--target-timeline: %w", err)
	}
	if f.action != "" {
		if t.Action, err = restore.ParseAction(f.action); err != nil {
			return req, usageErrorf("--target-action: %w", err)
		}
	}
	t.Exclusive = f.exclusive
	if err := f.target(t, loc); err != nil {
		return req, err
	}
	if req.Standby && t.Kind != "" {
		return req, usageErrorf("--type standby goes without a target: it follows the archive until it is promoted")
	}
	return req, nil
}

// target reads the flags of which only one may be given.
func (f *restoreFlags) target(t *restore.Target, loc *time.Location) (err error) {
	given := 0
	set := func(flag, value string, kind restore.TargetKind, parse func() error) {
		if value == "" || err != nil {
			return
		}
		given++
		t.Kind = kind
		if e := parse(); e != nil {
			err = usageErrorf("--%s: %w", flag, e)
		}
	}
	set("target-time", f.time, restore.TargetTime, func() (e error) { t.Time, e = restore.ParseTime(f.time, loc); return e })
	set("target-lsn", f.lsn, restore.TargetLSN, func() (e error) { t.LSN, e = pg.ParseLSN(f.lsn); return e })
	set("target-name", f.name, restore.TargetName, func() error { t.Name = f.name; return nil })
	set("target-xid", f.xid, restore.TargetXID, func() error {
		// With an epoch in the upper half, as pg_current_xact_id prints it, the
		// server takes the lower half.
		v, e := strconv.ParseUint(f.xid, 10, 64)
		if e != nil || uint32(v) < 3 {
			return fmt.Errorf("not a transaction id: %q", f.xid)
		}
		t.XID = uint32(v)
		return nil
	})
	if f.immediate {
		given++
		t.Kind = restore.TargetImmediate
	}
	if err == nil && given > 1 {
		err = usageErrorf("give one target only")
	}
	if err == nil && f.exclusive && t.Kind != restore.TargetTime && t.Kind != restore.TargetLSN && t.Kind != restore.TargetXID {
		err = usageErrorf("--exclusive goes with --target-time, --target-lsn or --target-xid")
	}
	if err == nil && f.action != "" && given == 0 {
		err = usageErrorf("--target-action goes with a target: at the end of WAL the server always promotes")
	}
	return err
}

// options reads the flags that say where and how.
func (f *restoreFlags) options(configFile string) (o restore.Options, err error) {
	o = restore.Options{
		PGData: f.pgdata, Workers: f.workers, KeepArchiveMode: f.archiveMode == "keep",
		Tablespaces: map[string]string{}, TablespacesBelow: f.tablespacesBelow,
	}
	if f.tablespacesBelow != "" {
		if o.TablespacesBelow, err = filepath.Abs(f.tablespacesBelow); err != nil {
			return o, fmt.Errorf("find %s: %w", f.tablespacesBelow, err)
		}
	}
	for _, m := range f.tablespaces {
		from, to, ok := cutMap(m)
		if !ok {
			return o, usageErrorf("--tablespace-map %q: expected OID=DIR, NAME=DIR or OLDDIR=DIR", m)
		}
		if _, twice := o.Tablespaces[from]; twice {
			return o, usageErrorf("--tablespace-map: %s is mapped twice", from)
		}
		if o.Tablespaces[from], err = filepath.Abs(to); err != nil {
			return o, fmt.Errorf("find %s: %w", to, err)
		}
	}
	o.AllowDamaged = f.allowDamaged
	o.Include, o.Exclude = f.include, f.exclude
	o.PrimaryConnInfo, o.Delta, o.Keep, o.DiscardWAL = f.primary, f.delta, f.keep, f.discardWAL
	for _, m := range f.links {
		name, to, ok := cutMap(m)
		if !ok {
			return o, usageErrorf("--link-map %q: expected NAME=DIR", m)
		}
		if o.Links == nil {
			o.Links = map[string]string{}
		}
		if _, twice := o.Links[name]; twice {
			return o, usageErrorf("--link-map: %s is mapped twice", name)
		}
		if o.Links[name], err = filepath.Abs(to); err != nil {
			return o, fmt.Errorf("find %s: %w", to, err)
		}
	}
	for _, s := range f.settings {
		set, err := restore.ParseSetting(s)
		if err != nil {
			return o, usageErrorf("--set: %w", err)
		}
		o.Settings = append(o.Settings, set)
	}
	if o.RestoreCommand, err = restoreCommand(configFile); err != nil {
		return o, err
	}
	o.RecoveryEndCommand, err = recoveryEndCommand()
	return o, err
}

// cutMap splits at the last '=' in front of an absolute or relative directory:
// names of tablespaces and directories may hold one.
func cutMap(s string) (from, to string, ok bool) {
	i := strings.LastIndex(s, "=")
	if i <= 0 || i == len(s)-1 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// restoreCommand is what the restored server fetches WAL with: the helper
// beside this program, with the configuration that is in use.
func restoreCommand(configFile string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	config, err := filepath.Abs(configFile)
	if err != nil {
		return "", fmt.Errorf("find the configuration file: %w", err)
	}
	return restore.RestoreCommand(filepath.Join(filepath.Dir(self), "walkeep-wal"), "--config", config), nil
}

// restoreError gives an error its exit status, and tells a program in JSON what
// can be reached instead.
func (r *root) restoreError(err error, asJSON bool) error {
	switch {
	case errors.Is(err, repo.ErrIntegrity):
		return err // what is damaged may be what would have reached the target
	case errors.Is(err, restore.ErrUnreachable):
		var u *restore.UnreachableError
		if errors.As(err, &u) && asJSON {
			err = errors.Join(err, r.printJSON(map[string]any{"error": "unreachable", "unreachable": u}))
		}
		return withExit(exitUnreachable, err)
	case errors.Is(err, restore.ErrNoBackup):
		return withExit(exitNotFound, err)
	case errors.Is(err, restore.ErrBadRequest), errors.Is(err, restore.ErrNotEmpty), errors.Is(err, restore.ErrWALNotArchived):
		return withExit(exitUsage, err)
	}
	return err
}

func (r *root) printPlan(p *restore.Plan, asJSON bool) error {
	if asJSON {
		return r.printJSON(p)
	}
	return p.WriteText(r.stdout, r.location())
}

// restored is what `walkeep restore --json` prints.
type restored struct {
	Plan        *restore.Plan     `json:"plan"`
	PGData      string            `json:"pgdata"`
	Files       int64             `json:"files"`
	Bytes       int64             `json:"bytes"`
	Seconds     float64           `json:"seconds"`
	Tablespaces map[uint32]string `json:"tablespaces"`
	Recovery    *recovered        `json:"recovery,omitempty"` // with --wait
	Damaged     []restore.Damaged `json:"damaged,omitempty"`  // pages that are zeroes
}

func (r *root) printRestored(p *restore.Plan, res *restore.Result, f restoreFlags, got *recovered) error {
	switch {
	case f.json:
		return r.printJSON(restored{p, res.PGData, res.Files, res.Bytes, res.Took.Seconds(), res.Tablespaces, got, res.Damaged})
	case got != nil:
		r.printRecovered(p, got)
		r.printArchiveMode(f)
		return nil
	}
	r.restoredLine(res, f)
	r.printf("\nTo verify it before it is started:\n    pg_verifybackup --no-parse-wal %s\n", shellQuote(res.PGData))
	r.printf("To start it:\n    %s\n", startCommand(res.PGData))
	r.printf("\n%s\n", p.Outlook(r.location()))
	r.printArchiveMode(f)
	return nil
}

func (r *root) printArchiveMode(f restoreFlags) {
	if f.archiveMode != "keep" {
		r.printf("archive_mode is off: this server does not archive. To let it, remove that line from\npostgresql.auto.conf, and see that no other server archives into the same repositories.\n")
	}
}

// startCommand starts the restored server. Where postgresql.conf is outside the
// data directory, as on Debian, it names the parameters that keep the server
// off the data directory and pid file of the one that the file belongs to.
func startCommand(pgdata string) string {
	dir := shellQuote(pgdata)
	if _, err := os.Stat(filepath.Join(pgdata, "postgresql.conf")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("pg_ctl -D %s start", dir)
	}
	return fmt.Sprintf(`pg_ctl -D %s -o "-c config_file=FILE -c data_directory=%s -c external_pid_file=" start
where FILE is a postgresql.conf: there was none in the data directory that was backed up
(Debian: /etc/postgresql/MAJOR/CLUSTER/postgresql.conf). Add -p PORT if its port is taken.`, dir, dir)
}

// shellQuote quotes a path for a shell, where it needs that.
func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
