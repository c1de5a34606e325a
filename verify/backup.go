package verify

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type packName struct {
	label  repo.Label
	number uint32
	read   bool // else only looked at
}

// packs remembers what was found of packs: several backups name the same ones.
type packs struct {
	mu    sync.Mutex // guards state
	state map[packName]error
}

// once looks at a pack if nobody did, and returns what was found.
func (p *packs) once(ref repo.PackRef, read bool, look func() error) error {
	name := packName{ref.Label, ref.Number, read}
	p.mu.Lock()
	err, ok := p.state[name]
	p.mu.Unlock()
	if ok {
		return err
	}
	err = look()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state[name] = err
	return err
}

func (v *verifier) backupVerified(e *repo.Epoch, l repo.Label) bool {
	for _, k := range v.known {
		if depth[Level(k.Level)] < depth[v.Level] {
			continue
		}
		for _, b := range k.Backups {
			if b.Label == l && b.SystemID == e.SystemID() {
				return true
			}
		}
	}
	return false
}

// backup verifies one backup, and notes it if it is whole.
func (v *verifier) backup(ctx context.Context, e *repo.Epoch, s repo.Summary, seen *packs) (err error) {
	lease, _, err := e.UseBackup(ctx, s.Label, repo.LeaseOptions{What: "verify"})
	switch {
	case err == nil:
		defer func() { err = errors.Join(err, lease.Release(context.WithoutCancel(ctx))) }()
	case errors.Is(err, repo.ErrNotFound):
		return nil // it has expired since
	case errors.Is(err, repo.ErrIntegrity) || ctx.Err() != nil:
		return v.damage(s.Label, err)
	default:
		v.addNote("backups are not marked as in use: " + err.Error())
	}
	v.report.Backups++
	before := len(v.report.Problems)
	m, err := e.OpenManifest(ctx, s)
	if err != nil {
		return v.damage(s.Label, err)
	}
	defer m.Close()
	level := v.Level
	if level != Exists && !v.due(v.backupVerified(e, s.Label)) {
		v.report.Skipped.Backups++
		v.report.Skipped.Packs += len(m.Packs())
		level = Exists
	}
	if err := v.packs(ctx, e, s, m, level, seen); err != nil {
		return err
	}
	complete := level != Exists
	if len(v.report.Problems) == before { // else decoding finds the same again
		decoded, err := v.entries(ctx, e, s, m, level)
		if err != nil {
			return err
		}
		complete = complete && decoded
	}
	if level != Exists {
		v.report.Read.Backups++
		if complete && len(v.report.Problems) == before {
			v.note.Backups = append(v.note.Backups, repo.VerifiedBackup{SystemID: e.SystemID(), Label: s.Label})
		}
	}
	return nil
}

func (v *verifier) packs(ctx context.Context, e *repo.Epoch, s repo.Summary, m *repo.ManifestReader, level Level, seen *packs) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.Workers)
	for _, ref := range m.Packs() {
		group.Go(func() error {
			fresh := false
			err := seen.once(ref, level != Exists, func() error {
				fresh = true
				if level == Exists {
					return e.StatPack(ctx, ref)
				}
				return e.DigestPack(ctx, ref)
			})
			v.mu.Lock()
			if fresh {
				v.report.Packs++
				if level != Exists {
					v.report.Read.Packs++
				}
			}
			v.mu.Unlock()
			return v.damage(s.Label, err)
		})
	}
	return group.Wait()
}

// entries reads the manifest to its end, and at level full all chunks. decoded
// is false if there is no identity to decode with.
func (v *verifier) entries(ctx context.Context, e *repo.Epoch, s repo.Summary, m *repo.ManifestReader, level Level) (decoded bool, err error) {
	d := &decoder{e: e, dec: codec.NewDecoder(), readers: map[int]*repo.PackReader{}, refs: m.Packs()}
	decoded = true
	if level == Full && m.Header().DataChecksums {
		if d.segmentBlocks, err = v.segmentBlocks(ctx, d, m); err != nil {
			return false, v.damage(s.Label, err)
		}
		d.start = m.Header().StartLSN
	}
	for {
		f, err := m.Next()
		if err == io.EOF {
			return decoded, nil
		}
		if err != nil {
			return false, v.damage(s.Label, err)
		}
		if level != Full || f.Type != repo.RegularFile || !decoded {
			continue
		}
		err = d.file(ctx, &f)
		var wrong *fileError
		if err == nil {
			err = d.judge(&f)
		}
		switch {
		case errors.Is(err, repo.ErrNoIdentity):
			v.addNote("chunks were not decoded: no identity for data is configured here")
			decoded = false
		case errors.As(err, &wrong):
			v.problem(Problem{Object: fmt.Sprintf("%s/backup/%s/manifest", e.SystemID(), s.Label), Backup: s.Label, What: err.Error()})
		default:
			if err := v.damage(s.Label, err); err != nil {
				return false, err
			}
		}
	}
}

// fileError: the chunks are whole, and are not the file.
type fileError struct{ path, what string }

func (e *fileError) Error() string { return fmt.Sprintf("file %q: %s", e.path, e.what) }

// decoder decodes files, one chunk in memory at a time but for those that
// extents go back to.
type decoder struct {
	e       *repo.Epoch
	dec     *codec.Decoder
	refs    map[int]repo.PackRef
	readers map[int]*repo.PackReader
	frame   []byte
	plain   []byte
	at      int // index of the chunk in plain; valid for one file

	// segmentBlocks is how many pages a relation's file has at most; 0: there
	// are no page checksums. start is that of the backup.
	segmentBlocks uint32
	start         pg.LSN
	pages         pageCheck
}

func (d *decoder) file(ctx context.Context, f *repo.FileEntry) error {
	extents := f.Extents
	if extents == nil {
		var at int64
		for i, c := range f.Chunks {
			extents = append(extents, repo.Extent{FileOffset: at, Length: int64(c.Plain), Chunk: i})
			at += int64(c.Plain)
		}
	}
	d.at = -1
	d.pages = pageCheck{relation: false}
	if d.segmentBlocks > 0 {
		d.pages = newPageCheck(f.Path, d.segmentBlocks, d.start)
	}
	sum, size := uint32(0), int64(0)
	for _, x := range extents {
		if x.Chunk != d.at {
			if err := d.load(ctx, f.Chunks[x.Chunk]); err != nil {
				return err
			}
			d.at = x.Chunk
		}
		part := d.plain[x.ChunkOffset : x.ChunkOffset+x.Length]
		sum = crc32.Update(sum, castagnoli, part)
		size += x.Length
		d.pages.add(part)
	}
	if !f.CRCUnknown && sum != f.CRC || size != f.Size {
		return &fileError{f.Path, "what its chunks hold does not have its size and CRC-32C"}
	}
	return nil
}

// judge looks at the pages of the file that was decoded last.
func (d *decoder) judge(f *repo.FileEntry) error {
	for _, page := range d.pages.bad {
		if !slices.Contains(f.BadPages, page) {
			return &fileError{f.Path, fmt.Sprintf("the checksum of page %d is wrong, and the manifest does not say so", page)}
		}
	}
	return nil
}

// segmentBlocks reads from the backup's pg_control into how many pages
// relations are cut.
func (v *verifier) segmentBlocks(ctx context.Context, d *decoder, m *repo.ManifestReader) (uint32, error) {
	for {
		f, err := m.Next()
		if err == io.EOF {
			return 0, m.Rewind()
		}
		if err != nil {
			return 0, err
		}
		if f.Path != controlFile || len(f.Chunks) != 1 {
			continue
		}
		err = d.load(ctx, f.Chunks[0])
		if errors.Is(err, repo.ErrNoIdentity) {
			return 0, m.Rewind() // the files will say so
		}
		if err != nil {
			return 0, err
		}
		control := d.plain
		if f.Extents != nil {
			control = control[f.Extents[0].ChunkOffset:]
		}
		c, err := pg.ParseControl(control)
		if err != nil {
			return 0, errors.Join(v.damage("", &repo.DamageError{Key: controlFile, Why: err.Error()}), m.Rewind())
		}
		return uint32(c.RelSegBlocks), m.Rewind()
	}
}

func (d *decoder) load(ctx context.Context, c repo.Chunk) (err error) {
	p := d.readers[c.Pack]
	if p == nil {
		if p, err = d.e.OpenPack(ctx, d.refs[c.Pack]); err != nil {
			return err
		}
		d.readers[c.Pack] = p
	}
	body, err := p.ReadRange(ctx, c.Offset, int64(c.Stored))
	if err != nil {
		return err
	}
	defer body.Close()
	if cap(d.frame) < c.Stored {
		d.frame = make([]byte, c.Stored)
	}
	d.frame = d.frame[:c.Stored]
	if _, err := io.ReadFull(body, d.frame); err != nil {
		return err
	}
	d.plain, err = p.DecodeChunk(d.dec, d.plain[:0], d.frame, c)
	return err
}
