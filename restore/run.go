package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo"
)

// Run restores what the plan says. The directory can then be given to a
// server. If Run fails or is killed, it can be called again with the same
// directory; what is there then is cleared first.
//
// Errors: ErrBadRequest, ErrNotEmpty, ErrServerRunning, ErrNoSpace, *UnarchivedError,
// repo.ErrIntegrity, and those of the repository and the file system.
func Run(ctx context.Context, p *Plan, o Options) (*Result, error) {
	if err := o.normalize(); err != nil {
		return nil, err
	}
	if p.epoch == nil {
		return nil, fmt.Errorf("%w: the plan was not made from a repository", ErrBadRequest)
	}
	began := time.Now()
	r := &run{plan: p, opts: &o, packs: newPackCache(p.epoch), places: map[string]*place{}}
	r.spares = &spares{repos: o.Archives, plan: p, log: o.Log}
	defer r.close()
	done, err := r.markUse(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	if err := r.write(ctx); err != nil {
		return nil, err
	}
	if err := r.commit(ctx); err != nil {
		return nil, err
	}
	res := &Result{
		PGData: o.PGData, Label: p.Backup.Label, Files: r.survey.files, Bytes: r.survey.bytes,
		Tablespaces: map[uint32]string{}, Took: time.Since(began),
	}
	for link := range r.survey.links {
		res.Tablespaces[oidOf(link)] = r.dest[link]
	}
	res.Damaged = r.lost
	res.LeftOut = r.databases.list()
	if r.owners.root {
		res.Owner = r.owner()
	}
	return res, nil
}

// run is one restore.
type run struct {
	plan *Plan
	opts *Options

	manifest    *repo.ManifestReader
	manifestKey string
	packs       *packCache
	packRefs    map[int]repo.PackRef
	under       under
	laters      laters

	databases *databases
	survey    *survey
	dest      map[string]string // where tablespaces go, by link
	places    map[string]*place // by link; "" is PGDATA
	syncers   []*syncer
	owners    *owners
	tree      *tree
	late      lateFiles
	// kept are the names in PGDATA that the user keeps and that are there.
	kept map[string]bool

	spares *spares
	lostMu sync.Mutex // guards lost
	lost   []Damaged

	// control is global/pg_control, which is written after all others are
	// durable.
	control *item
	// self is PGDATA itself: its mode and owner.
	self repo.FileEntry
}

// markUse keeps the backup from expiring until done is called. Somebody who may
// only read the repository restores without it.
func (r *run) markUse(ctx context.Context) (done func(), err error) {
	lease, _, err := r.plan.epoch.UseBackup(ctx, r.plan.Backup.Label, repo.LeaseOptions{What: "restore into " + r.opts.PGData})
	switch {
	case err == nil:
		return func() {
			if err := lease.Release(context.WithoutCancel(ctx)); err != nil {
				r.opts.Log.Warn("the mark on the backup stays until it is stale", zap.Error(err))
			}
		}, nil
	case errors.Is(err, repo.ErrNotFound) || errors.Is(err, repo.ErrIntegrity) || ctx.Err() != nil:
		return nil, err
	}
	r.opts.Log.Warn("the backup could not be marked as in use: if it expires during the restore, the restore fails", zap.Error(err))
	return func() {}, nil
}

// step is a moment between two steps of the restore, where tests stop it.
func (r *run) step(name string) error {
	if r.opts.fault != nil {
		return r.opts.fault(name)
	}
	return nil
}

// prepare reads the manifest through, and takes the target directories. If
// something speaks against the restore, they are left as they were.
func (r *run) prepare(ctx context.Context) (err error) {
	r.opts.Progress.Stage("read the manifest")
	b := r.plan.Backup
	r.manifestKey = fmt.Sprintf("%s/backup/%s/manifest", r.plan.SystemID, b.Label)
	if r.manifest, err = r.plan.epoch.OpenManifest(ctx, b); err != nil {
		return err
	}
	if r.databases, err = r.chooseDatabases(); err != nil {
		return err
	}
	if r.survey, err = surveyManifest(r.manifest, r.opts.Links, r.databases); err != nil {
		return err
	}
	if r.dest, err = linkedPlaces(r.survey, r.manifest.Header(), r.opts); err != nil {
		return err
	}
	r.opts.Progress.Total(r.survey.bytes)
	if err := r.takePlaces(ctx); err != nil {
		r.leave()
		return err
	}
	r.owners = newOwners(r.places[""])
	if err := r.step("marked"); err != nil {
		return err
	}
	if r.opts.Delta {
		return r.clearOld()
	}
	return nil
}

func (r *run) takePlaces(ctx context.Context) error {
	how := &taking{what: fmt.Sprintf("%s from %s", r.plan.Backup.Label, r.plan.Repository), delta: r.opts.Delta}
	if r.opts.Delta {
		if err := r.checkOld(); err != nil {
			return err
		}
	}
	take := func(link, dir string) error {
		how.link = link
		p, err := openPlace(dir, how, r.places[""])
		if err == nil {
			r.places[link] = p
		}
		return err
	}
	if err := take("", r.opts.PGData); err != nil {
		return err
	}
	for link, dir := range r.dest {
		if err := take(link, dir); err != nil {
			return fmt.Errorf("%s: %w", placeName(link), err)
		}
	}
	if r.opts.Delta {
		if err := r.checkWAL(ctx); err != nil {
			return err
		}
	}
	for _, p := range r.places {
		if p.again && !r.opts.Delta {
			r.opts.Progress.Stage("remove the remains of an interrupted restore")
			if err := p.clear(); err != nil {
				return err
			}
		}
		s, err := newSyncer(p)
		if err != nil {
			return err
		}
		r.syncers = append(r.syncers, s)
	}
	return checkSpace(r.survey, r.places)
}

func (r *run) chooseDatabases() (*databases, error) {
	d, err := chooseDatabases(r.manifest.Header(), r.opts.Include, r.opts.Exclude)
	if err == nil && r.plan.Standby && len(d.leftOut) > 0 {
		err = fmt.Errorf("%w: a standby without some of the databases would be promoted without them one day", ErrBadRequest)
	}
	return d, err
}

// placeName is what a link stands for, for messages.
func placeName(link string) string {
	if dir, oid := path.Split(link); dir != "" {
		return "tablespace " + oid
	}
	return link
}

// leave gives back places in which nothing was written.
func (r *run) leave() {
	for link, p := range r.places {
		p.leave()
		delete(r.places, link)
	}
}

func (r *run) close() {
	for _, s := range r.syncers {
		s.close()
	}
	if r.tree != nil {
		r.tree.leave()
		r.tree.opened.close()
	}
	for _, p := range r.places {
		p.close()
	}
	if r.manifest != nil {
		_ = r.manifest.Close()
	}
}

// write writes everything but global/pg_control.
func (r *run) write(ctx context.Context) error {
	r.opts.Progress.Stage(fmt.Sprintf("restore %s", r.plan.Backup.Label))
	r.tree = &tree{places: r.places, survey: r.survey, dest: r.dest, owners: r.owners, delta: r.opts.Delta}
	r.packRefs = r.manifest.Packs()
	r.under = newUnder(r.packRefs, r.plan.Backup.Label.Full())
	r.laters.max = latersPerWorker * r.opts.Workers
	list, err := r.listFiles()
	if err != nil {
		return err
	}
	q := newReady()
	g, ctx := errgroup.WithContext(ctx)
	for i := range r.opts.Workers {
		g.Go(func() error { return newWorker(r).run(ctx, q, tasteOf(i, r.opts.Workers)) })
	}
	g.Go(func() error {
		defer q.end()
		in := &intake{b: newBatcher(r.packRefs, func(b *batch) error { return q.put(ctx, b) })}
		if err := r.walkAndCompare(ctx, list.backupManifest, in); err != nil {
			return err
		}
		return in.b.flushAll()
	})
	if err := g.Wait(); err != nil {
		return errors.Join(r.tell(err), list.file.Close())
	}
	r.late.list(list.backupManifest)
	err = r.listKept(list.backupManifest)
	if err == nil {
		err = list.finish(r.plan)
	}
	if err != nil {
		return errors.Join(r.tell(noSpace(err)), list.file.Close())
	}
	if err := r.seal(list.file, "backup_manifest"); err != nil {
		return r.tell(err)
	}
	return r.step("written")
}

// fileList is the backup_manifest that is being written.
type fileList struct {
	*backupManifest
	file *os.File
}

func (r *run) listFiles() (fileList, error) {
	f, err := r.create("backup_manifest")
	if err != nil {
		return fileList{}, err
	}
	return fileList{newBackupManifest(f, r.plan.Backup.PGVersion, r.plan.SystemID), f}, nil
}

// walkAndCompare walks, and compares files that are there, side by side.
func (r *run) walkAndCompare(ctx context.Context, list *backupManifest, in *intake) error {
	if !r.opts.Delta {
		return r.walk(list, in, func(_ *output, items []item) error { return in.add(items...) })
	}
	files := make(chan compared, r.opts.Workers)
	g, ctx := errgroup.WithContext(ctx)
	for range r.opts.Workers {
		g.Go(func() error { return r.compare(ctx, files, in) })
	}
	g.Go(func() error {
		defer close(files)
		return r.walk(list, in, func(o *output, items []item) error {
			if !o.inPlace {
				return in.add(items...)
			}
			select {
			case files <- compared{o, items}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return g.Wait()
}

// walk goes through the manifest: makes directories and links, hands out the
// files with their chunks, and writes backup_manifest as it goes.
func (r *run) walk(list *backupManifest, in *intake, emit func(*output, []item) error) error {
	for {
		e, err := r.manifest.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.entry(&e, list, in, emit); err != nil {
			return err
		}
	}
}

func (r *run) entry(e *repo.FileEntry, list *backupManifest, in *intake, emit func(*output, []item) error) error {
	if e.Path == "PG_VERSION" {
		r.self = selfFrom(e)
	}
	switch {
	case r.isKept(e.Path):
		return nil
	case e.Type == repo.Directory:
		return r.tree.mkdir(e)
	case e.Type == repo.Symlink:
		return r.tree.symlink(e)
	case e.Path == "tablespace_map":
		// The server would make the links anew where they were, over ours.
		return nil
	}
	zeroes := e.Type == repo.RegularFile && r.databases.has(e.Path)
	if zeroes {
		e.Chunks, e.Extents, e.BadPages, e.CRC, e.CRCUnknown = nil, nil, nil, crcOfZeroes(e.Size), false
	}
	if e.CRCUnknown {
		r.late.expect(e)
	} else {
		list.add(e.Path, e.Size, e.MTime, e.CRC)
	}
	d, err := r.tree.dirOf(e.Path)
	if err != nil {
		return err
	}
	o := &output{dir: d, owner: r.owners, entry: *e, late: r.late.found, zeroes: zeroes}
	o.entry.Chunks, o.entry.Extents, o.entry.BadPages = nil, nil, nil
	items := itemsOf(o, e.Chunks, e.Extents)
	if e.Path == controlFile {
		return r.keepControl(items)
	}
	if r.opts.Delta {
		if o.inPlace, err = d.isThere(path.Base(e.Path)); err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return in.addEmpty(o)
	}
	if !o.inPlace {
		items = r.under.fillHoles(o, items, e.Chunks, e.Extents)
	}
	return emit(o, items)
}

// keepControl holds pg_control back. It is 8 KiB in one chunk.
func (r *run) keepControl(items []item) error {
	if len(items) != 1 {
		return &repo.DamageError{Key: r.manifestKey, Why: controlFile + " is not in one chunk"}
	}
	r.control = &items[0]
	return nil
}

// selfFrom is PGDATA as PG_VERSION shows it: same owner, and open to the group
// if that file is (initdb --allow-group-access).
func selfFrom(version *repo.FileEntry) repo.FileEntry {
	self := repo.FileEntry{Path: ".", Mode: 0o700, Owner: version.Owner, Group: version.Group}
	if version.Mode&0o040 != 0 {
		self.Mode = 0o750
	}
	return self
}

// create makes one of our own files.
func (r *run) create(name string) (*os.File, error) {
	pl, inside := r.tree.split(name)
	f, err := pl.root.OpenFile(inside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make file %s: %w", name, noSpace(err))
	}
	return f, nil
}

// seal ends one of our own files: owner, mode, durable.
func (r *run) seal(f *os.File, name string) error {
	e := repo.FileEntry{Path: name, Mode: r.self.Mode & 0o640, Owner: r.self.Owner, Group: r.self.Group, MTime: time.Now()}
	if err := dress(f, &e, r.owners); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync file %s: %w", name, noSpace(err))
	}
	return nil
}

// owner is the name under which the files were given away.
func (r *run) owner() string {
	if _, ok := r.owners.users[r.self.Owner]; ok {
		return r.self.Owner
	}
	return fmt.Sprint(r.owners.uid)
}

// tell adds to an error what went wrong where.
func (r *run) tell(err error) error {
	if errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w; the remains can be removed, or the restore run again into the same directory when there is room", err)
	}
	return err
}
