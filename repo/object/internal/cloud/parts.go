package cloud

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/walkeep/walkeep/repo/object"
)

const mebibyte = 1 << 20

// Parts says how bodies are cut and how many bytes may be in memory.
type Parts struct {
	Size     int64 // bytes of the first part
	Max      int64 // bytes the store takes as one part, at most
	Count    int   // parts the store takes as one object, at most
	InFlight int   // parts sent at once
	Buffers  *Buffers
}

// First returns the size of the first buffer for a body of size bytes (0: not
// known): all of it where it is small.
func (p *Parts) First(size int64) int64 {
	if size > 0 && size <= p.Size {
		return size
	}
	return p.size(1, size)
}

// size returns the length of part number (from 1) of a body of total bytes, or
// of unknown length when total is 0.
//
// A known total is cut evenly. Of an unknown one the parts double after each
// tenth of the count: with 10,000 parts from 8 MiB on, the first 8 GiB go in
// parts of 8 MiB, and 8 TiB fit, more than a store takes as one object.
func (p *Parts) size(number int, total int64) int64 {
	n := p.Size
	if total > 0 {
		if even := total/int64(p.Count) + 1; even > n {
			n = (even + mebibyte - 1) / mebibyte * mebibyte
		}
	} else {
		n <<= (number - 1) / max(p.Count/10, 1)
	}
	return min(n, p.Max)
}

// Send reads body to its end and calls send for part after part, first being
// the first one, already read, into a buffer from p.Buffers. Up to InFlight
// calls run at once, all with a context that ends with the first failure. Send
// returns after the last of them; body is only read in the calling goroutine.
//
// Parts being read or sent take at most InFlight × Size bytes, or one part
// where parts have grown larger than that.
func (p *Parts) Send(ctx context.Context, body *Body, first []byte, total int64,
	send func(ctx context.Context, number int, part []byte) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	budget := int64(p.InFlight) * p.Size
	memory := semaphore.NewWeighted(budget)
	start := func(number int, part []byte, weight int64) {
		group.Go(func() error {
			defer memory.Release(weight)
			if err := send(ctx, number, part); err != nil {
				return err
			}
			p.Buffers.Put(part)
			return nil
		})
	}
	weight := min(int64(cap(first)), budget)
	if err := memory.Acquire(ctx, weight); err != nil {
		return err
	}
	start(1, first, weight)
	bodyErr := p.rest(ctx, body, total, memory, budget, start)
	if bodyErr != nil {
		// Ends what is in flight: the group's context follows its functions.
		group.Go(func() error { return bodyErr })
	}
	return group.Wait()
}

// rest reads and starts parts 2 and on.
func (p *Parts) rest(ctx context.Context, body *Body, total int64, memory *semaphore.Weighted, budget int64,
	start func(number int, part []byte, weight int64),
) error {
	for number, more := 2, true; more; number++ {
		if number > p.Count {
			return object.Permanent(fmt.Errorf("the object needs more than %d parts", p.Count))
		}
		size := p.size(number, total)
		weight := min(size, budget)
		if err := memory.Acquire(ctx, weight); err != nil {
			return err
		}
		buf := p.Buffers.Get(size)
		n, goesOn, err := body.Fill(buf)
		if err != nil {
			memory.Release(weight)
			return err
		}
		start(number, buf[:n], weight)
		more = goesOn
	}
	return nil
}
