package backup

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// pageChecker decides which pages are damaged.
//
// A page whose checksum is wrong is not damaged if the server wrote to it
// while it was read. Such a page is either whole when it is read again, or it
// carries an LSN from after the start of the backup, and then replay restores
// it from the full-page image that the server logged before that write
// (pg_backup_start forces full_page_writes). An LSN beyond what the server has
// written so far is no such proof: damaged pages carry anything.
type pageChecker struct {
	start         pg.LSN // pg_backup_start's
	segmentBlocks uint32 // blocks per gigabyte file

	// current asks the server how far its WAL has come. Called seldom, from
	// one goroutine at a time.
	current func(context.Context) (pg.LSN, error)
	// pause waits before the n-th reading of a page, n from 1.
	pause func(ctx context.Context, n int) error

	damaged atomic.Int64 // all damaged pages so far

	mu     sync.Mutex // guards latest, and serializes current
	latest pg.LSN     // what current said last
}

const (
	rereads = 5
	// After so many damaged pages this is not about torn ones: no more
	// patience with every single page.
	patience = 200
)

// pauseBetween spreads the readings of a page over about a tenth of a second.
func pauseBetween(ctx context.Context, n int) error {
	if n == 1 {
		return ctx.Err()
	}
	t := time.NewTimer(time.Millisecond << (2 * (n - 2))) // 1, 4, 16, 64 ms
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readerAt reads like io.ReaderAt, but a short read at the end of the file is
// no error.
type readerAt func(ctx context.Context, p []byte, off int64) (int, error)

// check verifies the whole pages in buf, which were read at off from a
// relation file, and reads suspicious ones again into their place. It returns
// the damaged blocks, counted from the start of this file, and how many bytes
// of buf still count: fewer than before if the file was cut meanwhile.
func (c *pageChecker) check(ctx context.Context, buf []byte, off int64, segment uint32, read readerAt) (bad []uint32, keep int, err error) {
	whole := len(buf) &^ (pg.PageSize - 1)
	first := segment*c.segmentBlocks + uint32(off/pg.PageSize)
	suspects := pg.VerifyPages(buf[:whole], first)
	keep = len(buf)
	for n := 1; ; n++ {
		suspects, err = c.excuse(ctx, suspects, buf, first)
		if err != nil || len(suspects) == 0 {
			return nil, keep, err
		}
		if n > rereads || n > 2 && c.damaged.Load() > patience {
			break
		}
		if err := c.pause(ctx, n); err != nil {
			return nil, 0, err
		}
		if suspects, keep, err = c.readAgain(ctx, suspects, buf[:keep], off, first, read); err != nil {
			return nil, 0, err
		}
	}
	c.damaged.Add(int64(len(suspects)))
	for i := range suspects {
		suspects[i] -= segment * c.segmentBlocks
	}
	return suspects, keep, nil
}

// readAgain reads the suspects once more and returns those that are still bad.
func (c *pageChecker) readAgain(ctx context.Context, suspects []uint32, buf []byte, off int64, first uint32, read readerAt) ([]uint32, int, error) {
	var still []uint32
	for _, block := range suspects {
		at := int(block-first) * pg.PageSize
		page := buf[at : at+pg.PageSize]
		n, err := read(ctx, page, off+int64(at))
		if err != nil {
			return nil, 0, err
		}
		if n < len(page) {
			return still, at, nil // the file was truncated below this page
		}
		still = append(still, pg.VerifyPages(page, block)...)
	}
	return still, len(buf), nil
}

// excuse removes from suspects the pages that replay will restore.
func (c *pageChecker) excuse(ctx context.Context, suspects []uint32, buf []byte, first uint32) ([]uint32, error) {
	still := suspects[:0]
	for _, block := range suspects {
		at := int(block-first) * pg.PageSize
		lsn := pg.PageLSN(buf[at : at+pg.PageSize])
		ok := lsn >= c.start
		if ok {
			var err error
			if ok, err = c.reached(ctx, lsn); err != nil {
				return nil, err
			}
		}
		if !ok {
			still = append(still, block)
		}
	}
	return still, nil
}

// reached reports whether the server's WAL has come to lsn yet.
func (c *pageChecker) reached(ctx context.Context, lsn pg.LSN) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lsn <= c.latest {
		return true, nil
	}
	now, err := c.current(ctx)
	if err != nil {
		return false, fmt.Errorf("ask the server for its WAL position: %w", err)
	}
	c.latest = max(c.latest, now)
	return lsn <= c.latest, nil
}
