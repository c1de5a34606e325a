package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

const (
	// leaseName is the lease of everything that adds a backup to a repository.
	leaseName = "backup"
	// stopTimeout bounds pg_backup_stop and the release of leases when the
	// backup's own context is over.
	stopTimeout = 30 * time.Second
)

// Run takes a backup and stores it in every repository of o. It returns when
// the backup exists in all that did not fail, or in none.
//
// A repository that another backup is running into makes Run refuse at once
// (repo.ErrBusy, a *repo.BusyError). One that fails later is left behind; the
// error then joins the failures, and the Result says which repositories have
// the backup. Where nothing is there to
// build on, a full backup is taken, and the Result says why; see also
// ErrNothingNew and *DetectError. Errors of the server are those of package server. When ctx is cancelled, Run ends the
// backup on the server, deletes what it stored, and returns the cause.
func Run(ctx context.Context, o Options) (Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Result{}, err
	}
	b := &run{Options: o, began: o.Clock()}
	defer b.cleanUp(ctx)
	if err := b.prepare(ctx); err != nil {
		return b.failed(ctx, err)
	}
	if err := b.copy(ctx); err != nil {
		return b.failed(ctx, err)
	}
	b.finish(ctx)
	if err := context.Cause(ctx); err != nil && !b.committed() {
		return b.failed(ctx, err)
	}
	return b.result(), b.failures()
}

// run is one backup under way.
type run struct {
	Options
	began   time.Time
	ended   time.Time
	label   repo.Label
	targets []*target
	watches []func() bool // of leases

	info    server.Info
	control pg.Control
	start   server.StartResult
	stop    server.StopResult
	facts   server.Facts
	wal     *walFacts      // nil: not read yet
	line    repo.Line      // the server's own past, of all but a full backup
	stored  []repo.Summary // per target; set by finish

	// tablespaces are those that the walk found: the manifest's header has to
	// agree with its entries, and they can come and go during a backup.
	tablespaces []repo.Tablespace
}

// prepare takes the leases, looks at the server and its files, and opens the
// repositories. Nothing has changed on the server yet.
func (b *run) prepare(ctx context.Context) error {
	b.Progress.Stage("preparing")
	if err := b.acquire(ctx); err != nil {
		return err
	}
	var err error
	if b.info, err = b.Server.Info(ctx); err != nil {
		return err
	}
	if b.control, err = checkDataDir(ctx, b.Source, b.info); err != nil {
		return err
	}
	for _, t := range b.targets {
		if !t.out.Load() {
			if err := b.openEpoch(ctx, t); err != nil {
				t.fail(err)
			}
		}
	}
	b.chooseParents(ctx)
	if b.alive() > 0 {
		if err := b.chooseLabel(ctx); err != nil {
			return err
		}
		b.chooseRemains(ctx)
	}
	if b.alive() == 0 {
		return b.failures()
	}
	return nil
}

// acquire takes the leases of all repositories, or none.
func (b *run) acquire(ctx context.Context) error {
	for _, r := range b.Repos {
		b.targets = append(b.targets, newTarget(r, b.Workers))
	}
	b.stored = make([]repo.Summary, len(b.targets))
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	holder := fmt.Sprintf("%s, process %d", host, os.Getpid())
	if b.Node != "" {
		holder = b.Node + " on " + holder
	}
	for _, t := range b.targets {
		t.lease, err = t.repo.AcquireLease(ctx, leaseName, repo.LeaseOptions{Holder: holder, What: string(b.Type) + " backup"})
		switch {
		case errors.Is(err, repo.ErrBusy):
			return fmt.Errorf("back up into %s: %w", t.repo.Name(), err)
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			t.fail(fmt.Errorf("take the lease: %w", err))
			continue
		}
		lost := t.lease.Context()
		b.watches = append(b.watches, context.AfterFunc(lost, func() { t.fail(context.Cause(lost)) }))
	}
	return nil
}

func (b *run) openEpoch(ctx context.Context, t *target) error {
	if err := t.repo.Init(ctx); err != nil {
		return err
	}
	var err error
	t.epoch, err = t.repo.EnsureEpoch(ctx, repo.EpochInfo{
		SystemID: b.info.SystemID, PGMajor: b.info.Major, SegmentSize: b.info.SegmentSize,
	})
	return err
}

// chooseLabel names the backup after this second or, if it is taken by another
// backup or by what a killed one left, after the next one that is free in every
// repository. It waits for that second: labels that run ahead of the clock
// would take the seconds of the backups to come.
func (b *run) chooseLabel(ctx context.Context) error {
	const tries = 60
	at := b.began
	for range tries {
		free, err := b.reserve(ctx, at)
		if free || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
			at = at.Add(time.Second)
		}
	}
	return fmt.Errorf("no free label for a backup at %s: %d seconds in a row are taken", b.began.UTC().Format(time.RFC3339), tries)
}

// reserve begins the backup in every repository; false if one has the label.
func (b *run) reserve(ctx context.Context, at time.Time) (bool, error) {
	b.label = ""
	for _, t := range b.targets {
		if t.out.Load() {
			continue
		}
		var on repo.Label
		if t.parent != nil {
			on = t.parent.summary.Label
		}
		label, err := repo.NewLabel(t.kind, on, at)
		if err != nil {
			return false, err
		}
		w, err := t.epoch.CreateBackup(ctx, label)
		if errors.Is(err, repo.ErrExists) {
			for _, t := range b.targets {
				t.abort(ctx, b.Log)
			}
			return false, nil
		}
		if err != nil {
			t.fail(fmt.Errorf("begin backup %s: %w", label, err))
			continue
		}
		t.writer, t.label = w, label
		if on != "" {
			// From here on the parent does not expire.
			if _, err := w.UseParent(ctx, on); err != nil {
				t.fail(fmt.Errorf("build on backup %s: %w", on, err))
				continue
			}
		}
		if b.label == "" {
			b.label = label
		}
	}
	return true, nil
}

// copy puts the server into backup mode, copies the files, and takes it out of
// backup mode again, whatever happens in between.
func (b *run) copy(ctx context.Context) (err error) {
	b.Progress.Stage("starting the backup: the server makes a checkpoint")
	b.start, err = b.Server.StartBackup(ctx, "walkeep "+string(b.label), !b.SpreadCheckpoint)
	if err != nil {
		return err
	}
	b.Log.Info("copying", zap.String("label", string(b.label)), zap.String("pgdata", b.Source.pgdata()), zap.String("source", b.Source.name()), zap.Int("workers", b.Workers))
	p, control, copyErr := b.copyFiles(ctx)

	// Out of backup mode, also when ctx is cancelled.
	b.Progress.Stage("ending the backup")
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	stop, stopErr := b.Server.StopBackup(stopCtx)
	b.ended = b.Clock()
	if copyErr != nil {
		if stopErr != nil && !errors.Is(copyErr, server.ErrConnectionLost) {
			b.Log.Warn("ending the failed backup on the server", zap.Error(stopErr))
		}
		return copyErr
	}
	if stopErr != nil {
		return stopErr
	}
	b.stop = stop
	return b.storeLast(ctx, p, control)
}

// copyFiles copies everything but what comes from pg_backup_stop. pg_control
// is read after all others, and before the stop: on a standby its
// minRecoveryPoint tells recovery where the copied pages are consistent.
func (b *run) copyFiles(ctx context.Context) (*pipeline, lastFile, error) {
	plan, err := b.planner(ctx)
	if err != nil {
		return nil, lastFile{}, err
	}
	alive, stop := b.Server.KeepAlive(ctx)
	defer stop()
	b.keepJournals(ctx)
	p := &pipeline{
		planner: plan,
		from:    b.Source, targets: b.targets, workers: b.Workers, packSize: b.PackSize,
		progress: b.Progress, owners: newOwners(), log: b.Log,
		readLimit: b.ReadLimit, uploadLimit: b.UploadLimit,
	}
	if b.control.DataChecksums {
		p.pages = &pageChecker{
			start: b.start.LSN, segmentBlocks: uint32(b.control.RelSegBlocks),
			current: b.currentLSN, pause: pauseBetween,
		}
	}
	b.Progress.Stage("copying")
	estimate, stopEstimate := context.WithCancel(alive)
	var estimating sync.WaitGroup
	estimating.Go(func() { b.estimate(estimate) })
	err = p.run(alive, func(ctx context.Context, emit func(entry) error) error {
		w := b.walker(false, func(e entry) error {
			b.noteTablespace(e)
			return emit(e)
		})
		return w.walk(ctx)
	})
	stopEstimate()
	estimating.Wait()
	if err != nil {
		return nil, lastFile{}, err
	}
	e, content, c, err := readControl(alive, b.Source)
	if err == nil && c.SystemID != b.info.SystemID {
		err = fmt.Errorf("pg_control changed its system identifier from %s to %s during the backup", b.info.SystemID, c.SystemID)
	}
	return p, lastFile{entry: e, data: content}, err
}

func (b *run) noteTablespace(e entry) {
	name, ok := strings.CutPrefix(e.path, "pg_tblspc/")
	if !ok || strings.Contains(name, "/") {
		return
	}
	oid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return
	}
	t := repo.Tablespace{OID: uint32(oid), Path: e.link}
	for _, known := range b.start.Tablespaces {
		if known.OID == t.OID {
			t.Name = known.Name
		}
	}
	b.tablespaces = append(b.tablespaces, t)
}

func (b *run) walker(quiet bool, emit func(entry) error) *walker {
	return &walker{
		from:       b.Source,
		versionDir: "PG_" + strconv.Itoa(b.info.Major) + "_" + strconv.FormatUint(uint64(b.control.CatalogVersion), 10),
		summaries:  b.info.Major >= 17,
		log:        b.Log, quiet: quiet, emit: emit,
	}
}

// estimate walks once more, beside the copying, to know how much there is.
func (b *run) estimate(ctx context.Context) {
	if _, none := b.Progress.(noProgress); none {
		return
	}
	var total int64
	w := b.walker(true, func(e entry) error { total += e.size; return nil })
	if err := w.walk(ctx); err == nil {
		b.Progress.Total(total)
	}
}

// currentLSN is how far WAL has come. No pages can be newer. It does not end
// with ctx: a cancelled statement might cost the session.
func (b *run) currentLSN(ctx context.Context) (pg.LSN, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if b.start.FromStandby {
		return b.Server.ReplayLSN(ctx)
	}
	return b.Server.CurrentLSN(ctx)
}

// storeLast stores what is written after all files, pg_control as the very
// last: a directory restored in this order is not a cluster before its end.
func (b *run) storeLast(ctx context.Context, p *pipeline, control lastFile) error {
	root, err := b.Source.stat(ctx, ".")
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	made := func(name string, data []byte) lastFile {
		e := root.entry
		e.path, e.kind = name, kindFile
		e.mode, e.mtime, e.size = 0o600, b.ended, int64(len(data))
		if root.mode&0o050 != 0 { // initdb --allow-group-access
			e.mode = 0o640
		}
		return lastFile{entry: e, data: data}
	}
	files := []lastFile{made("backup_label", b.stop.LabelFile)}
	if len(b.stop.TablespaceMap) > 0 {
		files = append(files, made("tablespace_map", b.stop.TablespaceMap))
	}
	return p.storeLast(ctx, append(files, control))
}
