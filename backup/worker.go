package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
)

// castagnoli makes CRC-32C, which the CPU computes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// codecGroup are the targets that get the same frames.
type codecGroup struct {
	codec   codec.Codec
	targets []int
}

func groupByCodec(targets []*target) []codecGroup {
	var groups []codecGroup
next:
	for i, t := range targets {
		for g := range groups {
			if groups[g].codec == t.repo.Codec() {
				groups[g].targets = append(groups[g].targets, i)
				continue next
			}
		}
		groups = append(groups, codecGroup{codec: t.repo.Codec(), targets: []int{i}})
	}
	return groups
}

// worker reads, checks, compresses and stores units, one after the other. It
// owns one buffer of plain data that was read, one of compressed data per
// codec, one of data to be stored for each set of targets that it is for (one
// set, unless their parents differ), and one open pack per repository, and uses
// them for its whole life.
type worker struct {
	p        *pipeline
	all      targetSet
	groups   []codecGroup
	encoders []*codec.Encoder // by group
	frames   [][]byte         // by group
	packs    []*repo.PackWriter
	buf      []byte
	needed   []targetSet // by page of buf: who lacks it
	waiting  map[targetSet]*waiting
}

// waiting is data that is gathered into a chunk.
type waiting struct {
	buf   []byte
	chunk *ownChunk
}

func (p *pipeline) newWorker() (*worker, error) {
	w := &worker{
		p: p, all: allTargets(len(p.targets)), groups: groupByCodec(p.targets),
		packs:   make([]*repo.PackWriter, len(p.targets)),
		buf:     make([]byte, chunkSize),
		needed:  make([]targetSet, chunkSize/pg.PageSize),
		waiting: map[targetSet]*waiting{},
	}
	for _, g := range w.groups {
		e, err := codec.NewEncoder(g.codec)
		if err != nil {
			return nil, fmt.Errorf("prepare %s compression: %w", g.codec, err)
		}
		w.encoders = append(w.encoders, e)
		w.frames = append(w.frames, make([]byte, 0, codec.Bound(chunkSize)))
	}
	return w, nil
}

// finish closes the worker's packs and waits until they are stored.
func (w *worker) finish() {
	for i, pack := range w.packs {
		if pack == nil {
			continue
		}
		if err := pack.Close(); err != nil {
			w.p.targets[i].fail(err)
		}
		w.packs[i] = nil
	}
}

// do works on one unit. Its errors are the cluster's: a file that cannot be
// read. A repository's failure takes out that repository only.
func (w *worker) do(ctx context.Context, u *unit) (*result, error) {
	r := &result{unit: u}
	var err error
	if u.file != nil {
		r.pieces = []piece{w.p.newPiece()}
		err = w.doRange(ctx, u, &r.pieces[0])
	} else {
		err = w.doBatch(ctx, u, r)
	}
	if err == nil {
		err = w.flush(ctx)
	}
	return r, err
}

func (p *pipeline) newPiece() piece { return piece{parts: make([][]part, len(p.targets))} }

// doRange reads a range of a large file.
func (w *worker) doRange(ctx context.Context, u *unit, pc *piece) error {
	read := reader{from: u.file}
	for pc.size < u.length && !pc.short {
		n := min(chunkSize, u.length-pc.size)
		if err := w.window(ctx, u.entry, u.plan, u.off+pc.size, int(n), pc, read.at); err != nil {
			return err
		}
	}
	pc.gone = read.gone && u.off+pc.size == 0
	return nil
}

// reader reads a file for one unit. A file that vanishes while it is read ends
// there: its removal is in the WAL, and replay repeats it.
type reader struct {
	from file
	gone bool
}

func (r *reader) at(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := r.from.readAt(ctx, p, off)
	if errors.Is(err, fs.ErrNotExist) {
		r.gone = true
		return 0, nil
	}
	return n, err
}

// doBatch reads small files into shared chunks. One that has grown meanwhile
// simply takes chunks of its own.
func (w *worker) doBatch(ctx context.Context, u *unit, r *result) error {
	r.pieces = make([]piece, len(u.batch))
	for i, e := range u.batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.kind != kindFile {
			continue
		}
		r.pieces[i] = w.p.newPiece()
		if plan := u.plans[i]; plan != nil && plan.asWas {
			w.asWas(e, plan, &r.pieces[i])
			continue
		}
		if err := w.smallFile(ctx, e, u.plans[i], &r.pieces[i]); err != nil {
			return err
		}
	}
	return nil
}

// smallFile reads one file of a batch.
func (w *worker) smallFile(ctx context.Context, e entry, plan *filePlan, pc *piece) error {
	f, err := w.p.from.open(ctx, e)
	if errors.Is(err, fs.ErrNotExist) {
		pc.gone = true
		return nil
	}
	if err != nil {
		return err
	}
	defer f.close()
	read, size := reader{from: f}, f.size()
	for pc.size < size && !pc.short {
		n := min(chunkSize, size-pc.size)
		if err := w.window(ctx, e, plan, pc.size, int(n), pc, read.at); err != nil {
			return err
		}
	}
	pc.gone = read.gone && pc.size == 0
	return nil
}

// verify checks the pages of a relation file; see pageChecker.check.
func (w *worker) verify(ctx context.Context, e entry, buf []byte, off int64, read readerAt) (int, []uint32, error) {
	if w.p.pages == nil || !e.relation {
		return len(buf), nil, nil
	}
	bad, keep, err := w.p.pages.check(ctx, buf, off, e.segment, read)
	return keep, bad, err
}

// store compresses a chunk once per codec and appends it to the packs of those
// repositories that it is for and that are still there.
func (w *worker) store(ctx context.Context, set targetSet, plain []byte, to *ownChunk) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	to.at = make([]repo.Chunk, len(w.p.targets))
	for g, group := range w.groups {
		if !w.wanted(group, set) {
			continue
		}
		frame, chunk, err := repo.EncodeChunk(w.encoders[g], w.frames[g][:0], plain)
		if err != nil {
			return fmt.Errorf("compress with %s: %w", group.codec, err)
		}
		w.frames[g] = frame
		for _, i := range group.targets {
			t := w.p.targets[i]
			if !set.has(i) || t.out.Load() {
				continue
			}
			c := chunk
			if c.Pack, c.Offset, err = w.append(ctx, i, frame); err != nil {
				t.fail(err)
				continue
			}
			to.at[i] = c
		}
	}
	return nil
}

func (w *worker) wanted(g codecGroup, set targetSet) bool {
	for _, i := range g.targets {
		if set.has(i) && !w.p.targets[i].out.Load() {
			return true
		}
	}
	return false
}

// append adds a frame to the worker's pack in one repository.
func (w *worker) append(ctx context.Context, i int, frame []byte) (id int, off int64, err error) {
	t, pack := w.p.targets[i], w.packs[i]
	if err := wait(ctx, w.p.uploadLimit, len(frame)); err != nil {
		return 0, 0, err
	}
	if pack == nil {
		if pack, err = t.writer.NewPack(ctx); err != nil {
			return 0, 0, err
		}
		w.packs[i] = pack
	}
	if off, err = pack.Append(frame); err != nil {
		return 0, 0, err
	}
	id = pack.ID()
	if pack.Size() >= w.p.packSize {
		w.packs[i] = nil
		t.retire(ctx, pack)
	}
	return id, off, nil
}
