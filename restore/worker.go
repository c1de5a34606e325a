package restore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
)

// worker fetches and decodes batches, and has them written by a goroutine of
// its own, so that processor and disk work at the same time. It has its own
// buffers: about 4.5 MiB.
type worker struct {
	r        *run
	packs    *packCache
	progress Progress

	dec     *codec.Decoder
	frame   []byte
	in      *bufio.Reader // of the batch
	laterIn *bufio.Reader // of later chunks that go into it
	spareIn *bufio.Reader // of other repositories

	free    chan []byte // buffers of repo.MaxChunk that nobody uses
	decoded chan chunkData
}

// chunkData is a decoded chunk on its way to the writer. The data is in the
// buffer, or of its own.
type chunkData struct {
	it     *item
	data   []byte
	buffer []byte
}

// writeBuffers is how many chunks a worker holds: one being decoded, one being
// written, one between them.
const writeBuffers = 3

func newWorker(r *run) *worker {
	w := &worker{
		r: r, packs: r.packs, progress: r.opts.Progress,
		dec: codec.NewDecoder(),
		in:  bufio.NewReaderSize(nil, 128<<10), laterIn: bufio.NewReaderSize(nil, 16<<10), spareIn: bufio.NewReaderSize(nil, 16<<10),
		free: make(chan []byte, writeBuffers), decoded: make(chan chunkData, writeBuffers),
	}
	for range writeBuffers {
		w.free <- alignedBuffer(repo.MaxChunk)
	}
	return w
}

// run works off batches until there are no more, or ctx ends.
func (w *worker) run(ctx context.Context, q *ready, t taste) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(w.decoded)
		return w.decodeAll(ctx, q, t)
	})
	g.Go(func() error {
		for c := range w.decoded {
			if err := w.write(ctx, c.it, c.data); err != nil {
				return err
			}
			w.free <- c.buffer
		}
		return nil
	})
	return g.Wait()
}

func (w *worker) decodeAll(ctx context.Context, q *ready, t taste) error {
	for {
		b, err := q.take(ctx, t)
		if err != nil || b == nil {
			return err
		}
		if err := w.batch(ctx, b); err != nil {
			return err
		}
	}
}

// batch decodes a batch's chunks for the writer. decoded has room for all
// buffers that there are.
func (w *worker) batch(ctx context.Context, b *batch) (err error) {
	src := &packSource{cache: w.packs, ref: b.pack, end: b.end, in: w.in}
	defer src.close()
	for i := range b.items {
		it := &b.items[i]
		if it.chunk.Plain == 0 {
			if err := w.r.fileDone(it.out); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case plain := <-w.free:
			data, err := w.fetch(ctx, src, it, plain[:0])
			if err == nil {
				err = w.fill(ctx, it, data)
			}
			if err != nil {
				return err
			}
			w.decoded <- chunkData{it, data, plain}
		}
	}
	return nil
}

// fetch brings the data of a chunk, from another repository if need be. It is in
// the buffer, or of its own.
func (w *worker) fetch(ctx context.Context, src *packSource, it *item, into []byte) ([]byte, error) {
	if w.r.spares.dead.Load() {
		if data, err := w.r.spares.chunk(ctx, w, src.ref, it, into, nil); err == nil {
			return data, nil
		}
	}
	data, err := src.chunk(ctx, w, it.chunk, into)
	if err == nil || ctx.Err() != nil {
		return data, err
	}
	src.close() // the next chunk begins anew
	if data, err = w.r.spares.chunk(ctx, w, src.ref, it, into, err); err == nil {
		return data, nil
	}
	return w.r.lose(it, err)
}

// write writes the data of a chunk to all places that it belongs to.
func (w *worker) write(ctx context.Context, it *item, data []byte) error {
	if err := it.out.write(ctx, it, data); err != nil {
		return err
	}
	w.progress.Add(it.bytes())
	if it.out.left.Add(-1) == 0 {
		return w.r.fileDone(it.out)
	}
	return nil
}

// packSource reads chunks of a pack, in order, with one ranged read up to end.
type packSource struct {
	cache *packCache
	ref   repo.PackRef
	end   int64
	in    *bufio.Reader // of nobody else meanwhile

	pack *repo.PackReader
	body io.ReadCloser
	at   int64 // where body is
}

func (s *packSource) close() {
	if s.body != nil {
		_ = s.body.Close()
		s.body = nil
	}
}

// chunk reads and decodes one, into a buffer.
func (s *packSource) chunk(ctx context.Context, w *worker, c repo.Chunk, into []byte) ([]byte, error) {
	if cap(w.frame) < c.Stored {
		w.frame = make([]byte, c.Stored)
	}
	frame := w.frame[:c.Stored]
	if err := s.read(ctx, c, frame); err != nil {
		return nil, err
	}
	return s.pack.DecodeChunk(w.dec, into, frame, c)
}

// read reads one as it is stored. It lies behind the one that was read before.
func (s *packSource) read(ctx context.Context, c repo.Chunk, frame []byte) (err error) {
	if s.body == nil {
		if s.pack, err = s.cache.open(ctx, s.ref); err != nil {
			return err
		}
		if s.body, err = s.pack.ReadRange(ctx, c.Offset, s.end-c.Offset); err != nil {
			s.body = nil
			return err
		}
		s.at = c.Offset
		s.in.Reset(s.body)
	}
	if _, err = s.in.Discard(int(c.Offset - s.at)); err == nil {
		s.at = endOf(c)
		_, err = io.ReadFull(s.in, frame)
	}
	if err != nil {
		return fmt.Errorf("read pack %d of backup %s: %w", s.ref.Number, s.ref.Label, err)
	}
	return nil
}

// fileDone ends a file of which all is written.
func (r *run) fileDone(o *output) error {
	err := o.finish()
	var bad *fileDamage
	if errors.As(err, &bad) {
		return &repo.DamageError{Key: r.manifestKey, Why: bad.Error()}
	}
	return err
}

// packCache keeps opened packs: on an encrypted repository opening one costs
// two requests.
type packCache struct {
	epoch *repo.Epoch
	mu    sync.Mutex // guards known
	known map[packKey]*repo.PackReader
}

type packKey struct {
	label  repo.Label
	number uint32
}

// packCacheSize bounds the cache; the packs in use at a time are few.
const packCacheSize = 64

func newPackCache(e *repo.Epoch) *packCache {
	return &packCache{epoch: e, known: map[packKey]*repo.PackReader{}}
}

func (c *packCache) open(ctx context.Context, ref repo.PackRef) (*repo.PackReader, error) {
	key := packKey{ref.Label, ref.Number}
	c.mu.Lock()
	p := c.known[key]
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := c.epoch.OpenPack(ctx, ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.known {
		if len(c.known) < packCacheSize {
			break
		}
		delete(c.known, k) // any: the order of a map is as good as another
	}
	c.known[key] = p
	return p, nil
}
