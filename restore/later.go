package restore

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/walkeep/walkeep/repo"
)

// later is a chunk of a later backup of which pieces belong into holes of chunks
// of the full backup. Whoever decodes the first of those fetches it, and it stays
// in memory until the last of them has its pieces: a file's chunks are restored in
// about its order, and changed pages lie in a later chunk in that order, so that few
// are in memory at a time. If they are too many after all (laters), one is fetched
// again.
type later struct {
	item item   // with the pieces that go into holes
	next *later // of the same file
	uses atomic.Int32

	mu    sync.Mutex // guards what follows; held while one waits for that of a next one
	data  []byte     // decoded; nil: not there
	frame []byte     // as stored, read together with the one before; nil: not there
}

// laters bounds what is in memory of later chunks.
type laters struct {
	max int

	mu      sync.Mutex // guards what follows; nothing is waited for under it
	decoded []*later   // the one used last at the end
	free    [][]byte   // buffers of MaxChunk; with decoded at most max
}

// Limits of what is fetched of later chunks.
const (
	// latersPerWorker is how many decoded ones are in memory, of MaxChunk each.
	latersPerWorker = 4
	// readAhead is how many stored bytes are read at once: of such chunks as a file
	// has next to each other in a pack. Each request for itself would wait for the
	// store.
	readAhead = 1 << 20
)

// fill puts into the holes of an item's data what belongs there.
func (w *worker) fill(ctx context.Context, it *item, data []byte) error {
	var from *later
	var piecesOf []byte
	for _, f := range it.fills {
		if f.from != from {
			if from != nil {
				w.r.laters.used(from)
			}
			from = f.from
			var err error
			if piecesOf, err = w.later(ctx, from); err != nil {
				return err
			}
		}
		copy(data[f.at:f.at+f.piece.length], piecesOf[f.piece.chunkOffset:])
	}
	if from != nil {
		w.r.laters.used(from)
	}
	return nil
}

// later returns the data of a later chunk. It stays as it is.
func (w *worker) later(ctx context.Context, l *later) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.data == nil {
		data, err := w.fetchLater(ctx, l)
		if err != nil {
			return nil, err
		}
		l.data = data
	}
	w.r.laters.touch(l)
	return l.data, nil
}

// fetchLater reads and decodes a later chunk, and reads those behind it.
func (w *worker) fetchLater(ctx context.Context, l *later) ([]byte, error) {
	c := l.item.chunk
	ref := w.r.packRefs[c.Pack]
	into := w.r.laters.buffer()
	if frame := l.frame; frame != nil {
		l.frame = nil
		if pack, err := w.packs.open(ctx, ref); err == nil {
			if data, err := pack.DecodeChunk(w.dec, into, frame, c); err == nil {
				return data, nil
			}
		}
		// It is read again, and if it is still bad, others are asked.
	}
	src := &packSource{cache: w.packs, ref: ref, end: l.endOfRun(), in: w.laterIn}
	defer src.close()
	data, err := w.fetch(ctx, src, &l.item, into)
	if err != nil {
		return nil, err
	}
	for n := l.next; src.body != nil && n != nil && endOf(n.item.chunk) <= src.end; n = n.next {
		if n.item.chunk.Pack != c.Pack || !n.readFrame(ctx, src) {
			break
		}
	}
	return data, nil
}

// readFrame reads the chunk as it is stored, if nobody has it or is about to.
func (l *later) readFrame(ctx context.Context, src *packSource) bool {
	if !l.mu.TryLock() {
		return true
	}
	defer l.mu.Unlock()
	if l.data != nil || l.frame != nil || l.uses.Load() == 0 {
		return true
	}
	frame := make([]byte, l.item.chunk.Stored)
	if err := src.read(ctx, l.item.chunk, frame); err != nil {
		return false // who needs it reads it again, and says so
	}
	l.frame = frame
	return true
}

// endOfRun is the end in the pack of what is read together with the chunk.
func (l *later) endOfRun() int64 {
	first := l.item.chunk
	end := endOf(first)
	for n := l.next; n != nil; n = n.next {
		c := n.item.chunk
		if c.Pack != first.Pack || c.Offset < end || c.Offset > end+batchGap || endOf(c)-first.Offset > readAhead {
			break
		}
		end = endOf(c)
	}
	return end
}

// buffer is an empty one of MaxChunk.
func (s *laters) buffer() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		b := s.free[n-1]
		s.free = s.free[:n-1]
		return b
	}
	return make([]byte, 0, repo.MaxChunk)
}

// touch notes that a chunk was used, and forgets the one that was not for longest.
func (s *laters) touch(l *later) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(l)
	s.decoded = append(s.decoded, l)
	for i := 0; len(s.decoded) > s.max && i < len(s.decoded)-1; {
		if old := s.decoded[i]; old.mu.TryLock() {
			old.data = nil // not free: somebody may still copy from it
			old.mu.Unlock()
			s.decoded = append(s.decoded[:i], s.decoded[i+1:]...)
		} else {
			i++ // in use
		}
	}
}

// used notes that a chunk of the full backup has its pieces of a later one. After
// the last one nobody reads its data, and the buffer is another's.
func (s *laters) used(l *later) {
	if l.uses.Add(-1) > 0 {
		return
	}
	l.mu.Lock()
	data := l.data
	l.data, l.frame = nil, nil
	l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(l)
	if cap(data) == repo.MaxChunk && len(s.free)+len(s.decoded) < s.max {
		s.free = append(s.free, data[:0])
	}
}

func (s *laters) remove(l *later) {
	for i, d := range s.decoded {
		if d == l {
			s.decoded = append(s.decoded[:i], s.decoded[i+1:]...)
			return
		}
	}
}
