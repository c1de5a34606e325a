package repo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"filippo.io/age"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo/object"
)

// BackupWriter stores one backup: packs, manifest, summary, in this order,
// each only where nothing is yet. Killed at any moment it leaves no summary,
// so no backup is listed, and what it leaves is garbage below its own label;
// with the summary stored, all that it names was stored before.
//
// From CreateBackup to Commit or Abort it holds the lease of its label, so
// that nobody takes what it stores for the remains of a killed backup, and a
// mark on its parent, so that this does not expire. See use.go.
type BackupWriter struct {
	e     *Epoch
	label Label
	lock  *Lease // of the label

	parent     Label // in use; "" for none
	parentMark *Lease

	mu     sync.Mutex // guards what follows
	next   uint32     // number of the next pack
	packs  []packState
	known  map[packName]int // packs of other backups, by id
	stored []string         // keys of packs that are stored
	size   int64            // their bytes
	active []uploading      // the packs that are uploading

	copied  bool     // it is a copy of a backup in another repository
	journal *journal // nil: none
	remains []usedRemains

	// Used by one goroutine at a time, as AddFile, Commit and Abort are.
	spool    *fileSpool
	manifest bool // it was stored, by us
	summary  bool // storing it was tried, so it may be there
	done     bool // committed or aborted
}

type packName struct {
	label  Label
	number uint32
}

// packState is one id of the pack table.
type packState struct {
	ref   PackRef
	ready bool  // stored, or of another backup
	empty bool  // closed without chunks
	used  int64 // end of the last chunk that the manifest names
}

// uploading is what Abort needs to end the upload of a pack.
type uploading struct {
	pipe *pipe
	done chan struct{}
}

// CreateBackup begins a backup. Nothing but a lease is stored yet; it is kept
// until Commit or Abort, or until ctx is done. ErrExists: the label is taken,
// or remains of a killed backup lie there.
func (e *Epoch) CreateBackup(ctx context.Context, label Label) (*BackupWriter, error) {
	if _, err := ParseLabel(string(label)); err != nil {
		return nil, err
	}
	lock, err := e.r.LockLabel(ctx, label, LeaseOptions{What: "writing backup " + string(label)})
	if errors.Is(err, ErrBusy) {
		return nil, fmt.Errorf("begin backup %s in %s: %w: %w", label, e.r.name, ErrExists, err)
	}
	if err != nil {
		return nil, fmt.Errorf("begin backup %s in %s: %w", label, e.r.name, err)
	}
	if err := e.labelFree(ctx, label); err != nil {
		return nil, errors.Join(fmt.Errorf("begin backup %s in %s: %w", label, e.r.name, err), lock.Release(context.WithoutCancel(ctx)))
	}
	return &BackupWriter{e: e, label: label, lock: lock, known: map[packName]int{}}, nil
}

// labelFree is ErrExists if anything is stored under the label.
func (e *Epoch) labelFree(ctx context.Context, label Label) error {
	taken := errors.New("taken")
	for _, prefix := range []string{e.summaryKey(label), e.backupPrefix(label)} {
		err := e.r.store.List(ctx, prefix, object.ListOptions{}, func(i object.Info) error {
			if i.Key == prefix || prefix[len(prefix)-1] == '/' {
				return taken
			}
			return nil
		})
		if err == taken {
			return ErrExists
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// UseParent marks the backup that this one builds on as in use until Commit
// or Abort, and reads its summary. Commit does it itself if nobody did, but a
// parent that nobody marks can expire while the backup runs. ErrNotFound: it
// has expired already. Not together with Commit or Abort.
func (b *BackupWriter) UseParent(ctx context.Context, parent Label) (Summary, error) {
	lease, s, err := b.e.UseBackup(ctx, parent, LeaseOptions{What: "parent of " + string(b.label)})
	if err != nil {
		return Summary{}, err
	}
	b.releaseParent(ctx)
	b.parent, b.parentMark = parent, lease
	return s, nil
}

// checkParent makes sure, at the last moment, that what the backup references
// was not removed. What is removed after it is found by expiry to be in use,
// because of the mark, and later to be referenced, by the summary.
func (b *BackupWriter) checkParent(ctx context.Context, s Summary) error {
	if len(s.References) == 0 || s.Parent == "" {
		return nil
	}
	if b.parent != s.Parent {
		if _, err := b.UseParent(ctx, s.Parent); err != nil {
			return fmt.Errorf("its parent %s: %w", s.Parent, err)
		}
		return nil
	}
	if err := b.parentMark.Check(ctx); err != nil {
		return fmt.Errorf("its parent %s: %w", s.Parent, err)
	}
	if _, err := b.e.Summary(ctx, s.Parent); err != nil {
		return fmt.Errorf("its parent %s: %w", s.Parent, err)
	}
	return nil
}

// releaseMarks gives the leases back. That one of them cannot be is no
// failure of the backup: it goes stale.
func (b *BackupWriter) releaseMarks(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	b.releaseParent(ctx)
	for _, u := range b.remains {
		if err := u.lock.Release(ctx); err != nil {
			b.e.r.log.Warn("the lease of a killed backup's label stays until it is stale", zap.Error(err))
		}
	}
	b.remains = nil
	if err := b.lock.Release(ctx); err != nil {
		b.e.r.log.Warn("the lease of the label stays until it is stale", zap.Error(err))
	}
}

func (b *BackupWriter) releaseParent(ctx context.Context) {
	if b.parentMark == nil {
		return
	}
	if err := b.parentMark.Release(ctx); err != nil {
		b.e.r.log.Warn("the mark on the parent stays until it is stale", zap.Error(err))
	}
	b.parent, b.parentMark = "", nil
}

// Label is the backup's label.
func (b *BackupWriter) Label() Label { return b.label }

// NewPack begins a pack. Packs may be written at the same time by different
// goroutines. ctx bounds the pack's upload.
func (b *BackupWriter) NewPack(ctx context.Context) (*PackWriter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return nil, errors.New("new pack: the backup is finished")
	}
	p := &PackWriter{b: b, ctx: ctx, id: len(b.packs), number: b.next}
	b.next++
	b.packs = append(b.packs, packState{})
	return p, nil
}

// UsePack enters a pack of another backup into the table and returns the id
// that chunks name it by. The same pack gets the same id.
func (b *BackupWriter) UsePack(p PackRef) (id int, err error) {
	if p.Label == b.label {
		return 0, fmt.Errorf("use pack %d of %s: it is this backup's own", p.Number, p.Label)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	name := packName{p.Label, p.Number}
	id, ok := b.known[name]
	if !ok {
		id = len(b.packs)
		p.ID = id
		b.known[name] = id
		b.packs = append(b.packs, packState{ref: p, ready: true})
	}
	return id, nil
}

func (b *BackupWriter) packStarted(u uploading) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return errAborted
	}
	b.active = append(b.active, u)
	return nil
}

// packEnded forgets an upload, and with it the memory of its pipe: a backup has
// any number of packs.
func (b *BackupWriter) packEnded(p *pipe) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = slices.DeleteFunc(b.active, func(u uploading) bool { return u.pipe == p })
}

func (b *BackupWriter) packStored(key string, ref PackRef) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.packs[ref.ID].ref, b.packs[ref.ID].ready = ref, true
	b.stored = append(b.stored, key)
	b.size += ref.Size
}

func (b *BackupWriter) packEmpty(id int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.packs[id].empty = true
}

// AddFile appends an entry to the manifest; see FileEntry for the order and
// the rules, which are checked. The packs of its chunks need not be closed
// yet. The entry is not kept. One goroutine at a time.
func (b *BackupWriter) AddFile(f FileEntry) (err error) {
	if b.spool == nil {
		if b.spool, err = b.e.r.newFileSpool(); err != nil {
			return err
		}
	}
	if err := b.useChunks(&f); err != nil {
		return err
	}
	if err := b.spool.add(&f); err != nil {
		return err
	}
	b.journal.add(b.spool.line, &f)
	return nil
}

func (b *BackupWriter) useChunks(f *FileEntry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range f.Chunks {
		c := &f.Chunks[i]
		if c.Pack < 0 || c.Pack >= len(b.packs) {
			return fmt.Errorf("manifest entry %q: chunk %d names pack %d, which does not exist", f.Path, i, c.Pack)
		}
		p := &b.packs[c.Pack]
		p.used = max(p.used, c.Offset+int64(c.Stored))
	}
	return nil
}

// table is the pack table, when all packs are stored.
func (b *BackupWriter) table() ([]PackRef, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	refs := make([]PackRef, 0, len(b.packs))
	for id, p := range b.packs {
		switch {
		case p.empty && p.used == 0:
		case !p.ready:
			return nil, fmt.Errorf("pack %d is not stored", id)
		case p.used > p.ref.Plain:
			return nil, fmt.Errorf("the manifest names chunks beyond the end of pack %d", id)
		case p.used > 0 || p.ref.Label == b.label:
			refs = append(refs, p.ref)
		}
	}
	return refs, nil
}

// Commit stores the manifest, then the summary, and returns the summary as
// stored. All packs must be closed. h and s are the caller's facts; format,
// label, type, cluster, counts, codec and references are filled in. After an
// error call Abort.
func (b *BackupWriter) Commit(ctx context.Context, h Header, s Summary) (Summary, error) {
	if b.done {
		return Summary{}, errors.New("commit: the backup is finished")
	}
	b.journal.stop()
	refs, err := b.table()
	if err != nil {
		return Summary{}, fmt.Errorf("commit backup %s: %w", b.label, err)
	}
	if b.spool == nil {
		return Summary{}, fmt.Errorf("commit backup %s: it has no files", b.label)
	}
	r := b.e.r
	h.Format, h.Label, h.Type, h.Cluster, h.SystemID = Format, b.label, b.label.Type(), r.cluster, b.e.id
	s.Format, s.Label, s.Type, s.SystemID = Format, b.label, b.label.Type(), b.e.id
	s.Encrypted = r.Encrypted()
	if !b.copied { // frames stay as they are
		s.Codec = r.codec.String()
	}
	s.References = sortedLabels(refs, b.label)
	if s.Manifest, err = b.putManifest(ctx, h, refs); err != nil {
		return Summary{}, fmt.Errorf("commit backup %s: %w", b.label, err)
	}
	c := b.spool.count
	s.Bytes, s.Files, s.PageErrors = c.Bytes, c.Files, c.BadPages
	s.StoredBytes = b.size + b.remainsBytes(refs) + s.Manifest.Size
	if err := s.check(); err != nil {
		return Summary{}, fmt.Errorf("commit backup %s: %w", b.label, err)
	}
	if err := b.checkParent(ctx, s); err != nil {
		return Summary{}, fmt.Errorf("commit backup %s: %w", b.label, err)
	}
	if err := b.checkRemains(ctx, refs); err != nil {
		return Summary{}, fmt.Errorf("commit backup %s: %w", b.label, err)
	}
	if err := b.lock.Check(ctx); err != nil {
		return Summary{}, fmt.Errorf("commit backup %s: %w", b.label, err)
	}
	b.summary = true
	if _, err := r.putSealed(ctx, b.e.summaryKey(b.label), s, r.Encrypted()); err != nil {
		b.summary = !errors.Is(err, ErrExists) // then it is another's
		return Summary{}, fmt.Errorf("commit backup %s: %w", b.label, err)
	}
	b.finish()
	b.deleteJournals(ctx)
	b.releaseMarks(ctx)
	return s, nil
}

// deleteJournals removes what nobody needs when the summary is there. What
// cannot be removed expiry removes.
func (b *BackupWriter) deleteJournals(ctx context.Context) {
	var errs []error
	if b.journal != nil && len(b.journal.keys) > 0 {
		errs = append(errs, b.e.r.store.Delete(ctx, b.journal.keys...))
	}
	for _, u := range b.remains {
		errs = append(errs, b.e.DeleteJournal(ctx, u.Remains))
	}
	if err := errors.Join(errs...); err != nil {
		b.e.r.log.Warn("the journal of the backup stays until the next expiry", zap.Error(err))
	}
}

func (b *BackupWriter) finish() {
	b.mu.Lock()
	b.done = true
	b.mu.Unlock()
	if b.spool != nil {
		b.spool.close()
	}
}

// putManifest writes the manifest into a temporary file, to know size and
// digest before it is sent, and to be able to send it again.
func (b *BackupWriter) putManifest(ctx context.Context, h Header, refs []PackRef) (ref ManifestRef, err error) {
	file, err := b.e.r.tempFile()
	if err != nil {
		return ref, err
	}
	defer file.Close()
	digest := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(file, digest), 1<<20)
	if err := b.writeManifest(buffered, h, refs); err != nil {
		return ref, err
	}
	if err := buffered.Flush(); err != nil {
		return ref, fmt.Errorf("write the manifest: %w", err)
	}
	if ref.Size, err = file.Seek(0, io.SeekCurrent); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return ref, fmt.Errorf("write the manifest: %w", err)
	}
	ref.SHA256 = hex.EncodeToString(digest.Sum(nil))

	key := b.e.manifestKey(b.label)
	_, err = b.e.r.store.Put(ctx, key, file, object.PutOptions{IfAbsent: true, Size: ref.Size})
	if errors.Is(err, ErrExists) && b.sameManifest(ctx, key, ref) {
		err = nil // an earlier try of ours got through, and its answer got lost
	}
	if err != nil {
		return ref, fmt.Errorf("store %s: %w", key, err)
	}
	b.manifest = true
	return ref, nil
}

func (b *BackupWriter) writeManifest(w io.Writer, h Header, refs []PackRef) error {
	keys := b.e.r.keys
	if keys == nil {
		return b.spool.assemble(w, h, refs)
	}
	enc, err := age.Encrypt(w, keys.metadata.recipients...)
	if err != nil {
		return fmt.Errorf("encrypt the manifest: %w", err)
	}
	if err := b.spool.assemble(enc, h, refs); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("encrypt the manifest: %w", err)
	}
	return nil
}

func (b *BackupWriter) sameManifest(ctx context.Context, key string, want ManifestRef) bool {
	body, err := b.e.r.store.Get(ctx, key, 0, want.Size+1)
	if err != nil {
		return false
	}
	defer body.Close()
	h := sha256.New()
	n, err := io.Copy(h, body)
	return err == nil && n == want.Size && hex.EncodeToString(h.Sum(nil)) == want.SHA256
}

// endUploads ends the uploads that still run.
func (b *BackupWriter) endUploads() {
	b.mu.Lock()
	active := slices.Clone(b.active) // no more come after finish
	b.mu.Unlock()
	for _, u := range active {
		u.pipe.closeWrite(errAborted)
		<-u.done
	}
}

// abortTime is how long Abort goes on when its context is done already.
const abortTime = time.Minute

// Abort deletes what was stored, also when ctx is done already: it then takes
// up to a minute of its own. Uploads that still run are ended first. After a
// Commit that succeeded it does nothing.
//
// It deletes only what this writer is known to have stored, and in the order
// of expiry: a summary whose fate is unknown first, and if that fails nothing
// else, so that a listed backup is never without its packs.
func (b *BackupWriter) Abort(ctx context.Context) error {
	if b.done {
		return nil
	}
	b.journal.stop()
	b.finish()
	b.endUploads()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	defer b.releaseMarks(ctx)
	if b.lock.takenOver(ctx) {
		// We were stopped for so long that another may have taken our packs
		// over (see UseRemains), or may be deleting them.
		return fmt.Errorf("what backup %s stored is left to others: %w", b.label, ErrLeaseLost)
	}
	var steps [][]string
	if b.journal != nil && len(b.journal.keys) > 0 {
		steps = append(steps, b.journal.keys)
	}
	if b.summary {
		steps = append(steps, []string{b.e.summaryKey(b.label)})
	}
	if b.manifest {
		steps = append(steps, []string{b.e.manifestKey(b.label)})
	}
	b.mu.Lock()
	steps = append(steps, b.stored)
	b.mu.Unlock()
	for _, keys := range steps {
		if len(keys) == 0 {
			continue
		}
		if err := b.e.r.store.Delete(ctx, keys...); err != nil {
			return fmt.Errorf("remove what backup %s stored: %w", b.label, err)
		}
	}
	return nil
}
