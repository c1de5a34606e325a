package restore

import (
	"context"
	"slices"
	"sync"
)

// ready are the batches that no worker has taken yet. They are handed out so that
// processors and disk have work at the same time: what compresses badly takes long
// to decode, what compresses well takes long to write. A manifest goes table by
// table, and in its order either would wait for the other for long stretches. So
// of two workers one takes what compresses better than all that waits taken together,
// and the other what compresses worse.
//
// Each takes in the order of the manifest, so that the pages of a file that later
// backups bring are still needed about in their order (see later).
type ready struct {
	mu      sync.Mutex // guards what follows
	changed sync.Cond  // on mu
	batches []*batch   // in the order of the manifest
	pieces  int        // of files, in them
	stored  int64      // bytes
	plain   int64      // bytes
	ended   bool       // no more will come
}

// maxReady bounds the pieces of files that wait, some hundred bytes of memory each:
// 32 GiB of large files.
const maxReady = 32 << 10

// taste is which batches a worker prefers.
type taste int

const (
	inOrder taste = iota
	dense         // what compresses badly
	sparse        // what compresses well
)

// tasteOf is that of the i-th of n workers.
func tasteOf(i, n int) taste {
	switch {
	case n < 2:
		return inOrder
	case i%2 == 0:
		return dense
	}
	return sparse
}

func newReady() *ready {
	q := &ready{}
	q.changed.L = &q.mu
	return q
}

// put adds a batch, and waits for room before.
func (q *ready) put(ctx context.Context, b *batch) error {
	defer context.AfterFunc(ctx, q.wake)()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.batches) > 0 && q.pieces >= maxReady && ctx.Err() == nil {
		q.changed.Wait()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	q.batches = append(q.batches, b)
	q.count(b, 1)
	q.changed.Broadcast()
	return nil
}

// end says that no more will come.
func (q *ready) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.changed.Broadcast()
}

// take returns the next batch, and waits for it; nil if there will be none.
func (q *ready) take(ctx context.Context, t taste) (*batch, error) {
	defer context.AfterFunc(ctx, q.wake)()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.batches) == 0 && !q.ended && ctx.Err() == nil {
		q.changed.Wait()
	}
	if ctx.Err() != nil || len(q.batches) == 0 {
		return nil, ctx.Err()
	}
	i := max(0, slices.IndexFunc(q.batches, func(b *batch) bool { return q.suits(b, t) }))
	b := q.batches[i]
	q.batches = slices.Delete(q.batches, i, i+1)
	q.count(b, -1)
	q.changed.Broadcast()
	return b, nil
}

// suits reports whether a batch is to somebody's taste. mu is held.
func (q *ready) suits(b *batch, t taste) bool {
	// stored/plain of the batch against that of all, without a division.
	own, all := b.stored*q.plain, q.stored*b.plain
	return t == inOrder || t == dense && own >= all || t == sparse && own <= all
}

// count takes a batch into account, or, with -1, out again. mu is held.
func (q *ready) count(b *batch, sign int) {
	for i := range b.items {
		q.pieces += sign * (1 + len(b.items[i].pieces) + len(b.items[i].fills))
	}
	q.stored += int64(sign) * b.stored
	q.plain += int64(sign) * b.plain
}

// wake has everybody look whether the context has ended.
func (q *ready) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.changed.Broadcast()
}
