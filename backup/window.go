package backup

import (
	"context"

	"github.com/walkeep/walkeep/pg"
)

// mostChanged is the share of a window's pages, in fifths, from which all of
// it is stored: a few pages more, and much fewer pieces.
const mostChanged = 4

// window backs up n bytes of a file from off on, up to a megabyte: it finds
// out which pages each repository lacks, stores them, and refers to the
// parents' chunks for the others.
func (w *worker) window(ctx context.Context, e entry, plan *filePlan, off int64, n int, pc *piece, read readerAt) error {
	if plan != nil && plan.changed != nil {
		return w.reread(ctx, e, plan, w.byPlan(plan, off, n), off, n, pc, read)
	}
	if err := wait(ctx, w.p.readLimit, n); err != nil {
		return err
	}
	got, err := read(ctx, w.buf[:n], off)
	if err != nil {
		return err
	}
	got, bad, err := w.verify(ctx, e, w.buf[:got], off, read)
	if err != nil {
		return err
	}
	pc.bad = append(pc.bad, bad...)
	pc.short = got < n
	if got == 0 {
		return nil
	}
	data := w.buf[:got]
	pc.read(data)
	defer w.p.done(int64(got))
	if plan == nil {
		return w.keepWhole(ctx, data, pc)
	}
	needed := w.byLook(plan, off, data)
	for _, page := range bad {
		needed[int64(page)-off/pg.PageSize] = w.all
	}
	return w.split(ctx, plan, needed, off, data, pc)
}

// keepWhole stores all of a window. Small files lie in one chunk each.
func (w *worker) keepWhole(ctx context.Context, data []byte, pc *piece) error {
	if b := w.waiting[w.all]; b != nil && len(b.buf)+len(data) > chunkSize {
		if err := w.flushOne(ctx, w.all, b); err != nil {
			return err
		}
	}
	return w.keep(ctx, w.all, data, pc)
}

// byLook finds out from the pages themselves who lacks which.
func (w *worker) byLook(plan *filePlan, off int64, data []byte) []targetSet {
	needed := w.needed[:(len(data)+pg.PageSize-1)/pg.PageSize]
	for k := range needed {
		needed[k] = w.all
		at := k * pg.PageSize
		if at+pg.PageSize > len(data) {
			continue
		}
		page := data[at : at+pg.PageSize]
		for i, from := range plan.from {
			if from != nil && from.has(off/pg.PageSize+int64(k)) && !changedSince(page, plan.start[i]) {
				needed[k] &^= 1 << i
			}
		}
	}
	return w.round(needed)
}

// byPlan says who lacks which page, by what is known of the changes.
func (w *worker) byPlan(plan *filePlan, off int64, n int) []targetSet {
	needed := w.needed[:(n+pg.PageSize-1)/pg.PageSize]
	for k := range needed {
		needed[k] = w.all
		page := off/pg.PageSize + int64(k)
		if (k+1)*pg.PageSize > n || plan.changed.has(page) {
			continue
		}
		for i, from := range plan.from {
			if from != nil && from.has(page) {
				needed[k] &^= 1 << i
			}
		}
	}
	return w.round(needed)
}

// round takes a window whole when most of it has changed.
func (w *worker) round(needed []targetSet) []targetSet {
	n := 0
	for _, s := range needed {
		if s != 0 {
			n++
		}
	}
	if n < len(needed) && n*5 >= len(needed)*mostChanged {
		for k := range needed {
			needed[k] = w.all
		}
	}
	return needed
}

// split stores the pages that somebody lacks and refers to parents for the
// others. data is what was read at off; needed is by its pages.
func (w *worker) split(ctx context.Context, plan *filePlan, needed []targetSet, off int64, data []byte, pc *piece) error {
	for k := 0; k < len(needed); {
		end := k + 1
		for end < len(needed) && needed[end] == needed[k] {
			end++
		}
		from, to := k*pg.PageSize, min(end*pg.PageSize, len(data))
		if needed[k] != 0 {
			if err := w.keep(ctx, needed[k], data[from:to], pc); err != nil {
				return err
			}
		}
		w.refer(plan, needed[k], off+int64(from), int64(to-from), pc)
		k = end
	}
	return nil
}

// refer takes bytes from the parents of all targets but those of set.
func (w *worker) refer(plan *filePlan, set targetSet, off, n int64, pc *piece) {
	for i := range pc.parts {
		if !set.has(i) {
			pc.parts[i] = plan.from[i].parts(pc.parts[i], off, n)
		}
	}
}

// reread reads only those pages of a window that somebody lacks. A file that
// was cut meanwhile ends at the first page that is not there; what else the
// parents have of it is as good as if it had been read before the cut.
func (w *worker) reread(ctx context.Context, e entry, plan *filePlan, needed []targetSet, off int64, n int, pc *piece, read readerAt) error {
	pc.crcUnknown = true
	for k := 0; k < len(needed); {
		end := k + 1
		for end < len(needed) && (needed[end] == 0) == (needed[k] == 0) {
			end++
		}
		from, to := k*pg.PageSize, min(end*pg.PageSize, n)
		at := off + int64(from)
		if needed[k] == 0 {
			w.refer(plan, 0, at, int64(to-from), pc)
			pc.size += int64(to - from)
			k = end
			continue
		}
		if err := wait(ctx, w.p.readLimit, to-from); err != nil {
			return err
		}
		got, err := read(ctx, w.buf[from:to], at)
		if err != nil {
			return err
		}
		got, bad, err := w.verify(ctx, e, w.buf[from:from+got], at, read)
		if err != nil {
			return err
		}
		pc.bad = append(pc.bad, bad...)
		pc.short = got < to-from
		pages := (got + pg.PageSize - 1) / pg.PageSize
		for _, page := range bad {
			needed[int64(page)-off/pg.PageSize] = w.all
		}
		if err := w.split(ctx, plan, needed[k:k+pages], at, w.buf[from:from+got], pc); err != nil {
			return err
		}
		pc.size += int64(got)
		if pc.short {
			break
		}
		k = end
	}
	w.p.done(int64(n))
	return nil
}

// asWas takes a whole file from the parents.
func (w *worker) asWas(e entry, plan *filePlan, pc *piece) {
	pc.size = e.size
	for i, from := range plan.from {
		if from == nil { // of a repository that is out
			continue
		}
		pc.parts[i] = from.parts(nil, 0, e.size)
	}
	w.p.done(e.size)
}

// keep stores data for a set of targets, in chunks that it may share with what
// comes before and after it.
func (w *worker) keep(ctx context.Context, set targetSet, data []byte, pc *piece) error {
	if len(data) == chunkSize {
		c := &ownChunk{}
		pc.own(set, c, 0, chunkSize)
		return w.store(ctx, set, data, c)
	}
	b := w.waiting[set]
	if b == nil {
		b = &waiting{buf: make([]byte, 0, chunkSize)}
		w.waiting[set] = b
	}
	for len(data) > 0 {
		if b.chunk == nil {
			b.chunk = &ownChunk{}
		}
		n := min(len(data), chunkSize-len(b.buf))
		pc.own(set, b.chunk, int64(len(b.buf)), int64(n))
		b.buf = append(b.buf, data[:n]...)
		data = data[n:]
		if len(b.buf) == chunkSize {
			if err := w.flushOne(ctx, set, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// own appends data of an own chunk to what the targets of set have.
func (pc *piece) own(set targetSet, c *ownChunk, off, n int64) {
	for i := range pc.parts {
		if set.has(i) {
			pc.parts[i] = appendPart(pc.parts[i], part{own: c, off: off, length: n})
		}
	}
}

// flush stores what is waiting, so that chunks are not shared between units.
func (w *worker) flush(ctx context.Context) error {
	for set, b := range w.waiting {
		if err := w.flushOne(ctx, set, b); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) flushOne(ctx context.Context, set targetSet, b *waiting) error {
	if len(b.buf) == 0 {
		return nil
	}
	err := w.store(ctx, set, b.buf, b.chunk)
	b.buf, b.chunk = b.buf[:0], nil
	return err
}
