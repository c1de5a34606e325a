package repo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"filippo.io/age"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
)

// A journal is what a backup that is killed leaves for the next one: which
// pages of which files its packs hold. It is written beside the packs, in
// parts, each an object of its own under <sysid>/resume/<label>/. A part holds
// only entries of whose chunks every pack was acknowledged as stored before the
// part was begun: so whatever a part speaks of is there, at every moment, and a
// crash in between loses what came after the last part, never more.
//
// The journal is of no use any more when the summary exists, and is deleted
// then; killed in between, garbage collection finds parts of a label that has
// a summary, or of one whose packs it deletes.
type journal struct {
	b      *BackupWriter
	header Header
	lsn    func(context.Context) (pg.LSN, error)

	mu     sync.Mutex // guards what follows
	file   *os.File   // the lines that are not in a part yet
	size   int64      // written to file
	groups []lineGroup
	err    error // the journal ends here

	begun  time.Time
	parts  uint32 // stored
	keys   []string
	cancel context.CancelFunc
	ended  chan struct{}
}

// lineGroup are consecutive lines and the packs that they speak of.
type lineGroup struct {
	end   int64 // in the file
	packs map[int]bool
	count counts
}

const (
	// groupBytes bounds how much of a journal waits for one pack.
	groupBytes = 1 << 20
	// JournalEvery is how far apart the parts of a journal are at first. They
	// get fewer as the backup goes on: a fiftieth of its time.
	JournalEvery = 2 * time.Second
	journalShare = 50
)

// Journal begins to write the journal of this backup, so that the next one can
// use its packs if this one is killed. h describes the backup as far as it is
// known: a StartLSN above all. lsn is asked for how far WAL has come whenever a
// part is written: no page in the part can be newer. every is the least time
// between parts (0: JournalEvery). A journal that cannot be written costs
// nothing but itself.
func (b *BackupWriter) Journal(ctx context.Context, h Header, every time.Duration, lsn func(context.Context) (pg.LSN, error)) {
	if every == 0 {
		every = JournalEvery
	}
	file, err := b.e.r.tempFile()
	if err != nil {
		b.e.r.log.Warn("no journal: if this backup is killed, the next one begins anew", zap.Error(err))
		return
	}
	h.Format, h.Label, h.Type, h.Cluster, h.SystemID = Format, b.label, b.label.Type(), b.e.r.cluster, b.e.id
	ctx, cancel := context.WithCancel(ctx)
	j := &journal{b: b, header: h, lsn: lsn, file: file, begun: time.Now(), cancel: cancel, ended: make(chan struct{})}
	b.journal = j
	go j.run(ctx, every)
}

// run writes parts until ctx is done.
func (j *journal) run(ctx context.Context, every time.Duration) {
	defer close(j.ended)
	for {
		wait := max(every, time.Since(j.begun)/journalShare)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := j.part(ctx); err != nil {
			if ctx.Err() == nil {
				j.b.e.r.log.Warn("the journal ends here: if this backup is killed, the next one can use less of it", zap.Error(err))
			}
			j.mu.Lock()
			j.err = err
			j.mu.Unlock()
			return
		}
	}
}

// stop ends the journal, as it is.
func (j *journal) stop() {
	if j == nil {
		return
	}
	j.cancel()
	<-j.ended
	_ = j.file.Close()
}

// add appends an entry's line.
func (j *journal) add(line []byte, f *FileEntry) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return
	}
	n, err := j.file.WriteAt(line, j.size)
	if err != nil {
		j.err = fmt.Errorf("write the journal: %w", err)
		return
	}
	last := len(j.groups) - 1
	begin := int64(0)
	if last > 0 {
		begin = j.groups[last-1].end
	}
	if last < 0 || j.size-begin > groupBytes {
		j.groups = append(j.groups, lineGroup{packs: map[int]bool{}})
		last++
	}
	g := &j.groups[last]
	j.size += int64(n)
	g.end = j.size
	g.count.add(f)
	for i := range f.Chunks {
		g.packs[f.Chunks[i].Pack] = true
	}
}

// take is the lines that can go into a part, and the packs that they speak of.
func (j *journal) take() (to int64, refs []PackRef, count counts, done int, own bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, nil, count, 0, false, j.err
	}
	j.b.mu.Lock()
	defer j.b.mu.Unlock()
	seen, own := map[int]bool{}, false
	for _, g := range j.groups {
		for id := range g.packs {
			if !j.b.packs[id].ready {
				return to, refs, count, done, own, nil
			}
		}
		for id := range g.packs {
			if ref := j.b.packs[id].ref; !seen[id] {
				seen[id], own = true, own || ref.Label == j.b.label
				refs = append(refs, ref)
			}
		}
		to = g.end
		count.sum(g.count)
		done++
	}
	return to, refs, count, done, own, nil
}

// part stores what can be stored, if anything.
func (j *journal) part(ctx context.Context) error {
	to, refs, count, done, own, err := j.take()
	if err != nil || !own {
		return err // nothing that is not known from elsewhere
	}
	h := j.header
	if h.StopLSN, err = j.lsn(ctx); err != nil {
		return err
	}
	file, err := j.b.e.r.tempFile()
	if err != nil {
		return err
	}
	defer file.Close()
	digest := sha256.New()
	if err := j.write(io.MultiWriter(file, digest), h, refs, count, to); err != nil {
		return err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	key := j.b.e.journalKey(j.b.label, j.parts, hex.EncodeToString(digest.Sum(nil)))
	if _, err := j.b.e.r.store.Put(ctx, key, file, object.PutOptions{IfAbsent: true, Size: size}); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	j.keys = append(j.keys, key)
	j.parts++
	return j.drop(done, to)
}

// drop forgets the lines that are stored.
func (j *journal) drop(done int, to int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	buf := make([]byte, 256<<10)
	for from := to; from < j.size; from += int64(len(buf)) {
		n := min(int64(len(buf)), j.size-from)
		if _, err := j.file.ReadAt(buf[:n], from); err != nil && err != io.EOF {
			return fmt.Errorf("read the journal: %w", err)
		}
		if _, err := j.file.WriteAt(buf[:n], from-to); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	j.size -= to
	j.groups = append([]lineGroup(nil), j.groups[done:]...)
	for i := range j.groups {
		j.groups[i].end -= to
	}
	return nil
}

// write writes one part: a manifest of some of the files.
func (j *journal) write(to io.Writer, h Header, refs []PackRef, count counts, n int64) error {
	buffered := bufio.NewWriterSize(to, 256<<10)
	var w io.Writer = buffered
	closeAge := func() error { return nil }
	if keys := j.b.e.r.keys; keys != nil {
		enc, err := age.Encrypt(buffered, keys.metadata.recipients...)
		if err != nil {
			return fmt.Errorf("encrypt the journal: %w", err)
		}
		w, closeAge = enc, enc.Close
	}
	cw, err := codec.NewWriter(w, j.b.e.r.manifestCodec)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(cw)
	enc.SetEscapeHTML(false)
	err = enc.Encode(headerLine{kindHeader, h})
	for _, p := range refs {
		if err == nil {
			err = enc.Encode(packLine{kindPack, p.ID, p.Label, p.Number, p.Size, p.Plain, hex.EncodeToString(p.SHA256[:])})
		}
	}
	if err == nil {
		_, err = io.Copy(cw, io.NewSectionReader(j.file, 0, n))
	}
	count.Packs = int64(len(refs))
	if err == nil {
		err = enc.Encode(endLine{kindEnd, count})
	}
	if err == nil {
		err = cw.Close()
	}
	if err == nil {
		err = closeAge()
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// AddBeginning notes in the journal, and nowhere else, what is stored of the
// beginning of a file whose entry will come later: an entry with the size that
// is stored so far. Like AddFile in other respects.
func (b *BackupWriter) AddBeginning(f FileEntry) error {
	if b.journal == nil {
		return nil
	}
	if err := b.useChunks(&f); err != nil {
		return err
	}
	if err := checkContent(&f); err != nil {
		return fmt.Errorf("journal entry %q: %w", f.Path, err)
	}
	b.journal.add(append(appendFile(nil, &f), '\n'), &f)
	return nil
}

// Journalled is the number of parts of the journal that are stored. Only when
// no part is being written any more.
func (b *BackupWriter) Journalled() int {
	if b.journal == nil {
		return 0
	}
	return int(b.journal.parts)
}

// Leave gives a backup up like Abort, but leaves what was stored for the next
// one to use, if there is a journal that says what that is; else it is Abort.
func (b *BackupWriter) Leave(ctx context.Context) error {
	b.journal.stop()
	if b.done || b.Journalled() == 0 || b.summary || b.manifest {
		return b.Abort(ctx)
	}
	b.finish()
	b.endUploads()
	b.releaseMarks(ctx)
	return nil
}
