package backup

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
)

// page makes a valid page of a relation.
func page(block uint32, lsn pg.LSN, seed uint64) []byte {
	p := make([]byte, pg.PageSize)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	binary.LittleEndian.PutUint32(p, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(p[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(p[14:], pg.PageSize-100) // pd_upper
	binary.LittleEndian.PutUint16(p[8:], pg.PageChecksum(p, block))
	return p
}

func TestPageChecker(t *testing.T) {
	const start, current = pg.LSN(0x1000000), pg.LSN(0x2000000)
	ctx := context.Background()
	var pauses, asked int
	newChecker := func() *pageChecker {
		pauses, asked = 0, 0
		return &pageChecker{
			start: start, segmentBlocks: 131072,
			current: func(context.Context) (pg.LSN, error) { asked++; return current, nil },
			pause:   func(context.Context, int) error { pauses++; return nil },
		}
	}
	// Three pages from block 5 of the third gigabyte on; what is on disk is
	// what a later read yields.
	const segment, firstInFile = 2, 5
	off := int64(firstInFile * pg.PageSize)
	block := func(i int) uint32 { return segment*131072 + firstInFile + uint32(i) }
	disk := func() []byte {
		var b []byte
		for i := range 3 {
			b = append(b, page(block(i), start-100, uint64(i))...)
		}
		return b
	}
	reads := func(contents ...[]byte) readerAt {
		return func(_ context.Context, p []byte, at int64) (int, error) {
			now := contents[0]
			if len(contents) > 1 {
				contents = contents[1:]
			}
			if int(at-off) >= len(now) {
				return 0, nil
			}
			return copy(p, now[at-off:]), nil
		}
	}
	torn := func(b []byte, i int, lsn pg.LSN) []byte {
		// The first half is from a newer version of the page.
		b = append([]byte{}, b...)
		copy(b[i*pg.PageSize:], page(block(i), lsn, 99)[:4096])
		return b
	}

	t.Run("good pages are read once", func(t *testing.T) {
		bad, keep, err := newChecker().check(ctx, disk(), off, segment, nil)
		require.NoError(t, err)
		require.Empty(t, bad)
		require.Equal(t, 3*pg.PageSize, keep)
		require.Zero(t, pauses)
	})
	t.Run("a torn page is whole when read again", func(t *testing.T) {
		buf := torn(disk(), 1, start-1)
		bad, keep, err := newChecker().check(ctx, buf, off, segment, reads(torn(disk(), 1, start-2), disk()))
		require.NoError(t, err)
		require.Empty(t, bad)
		require.Equal(t, 3*pg.PageSize, keep)
		require.Equal(t, disk(), buf, "the buffer has the good page")
		require.Equal(t, 2, pauses)
		require.Zero(t, asked)
	})
	t.Run("a torn page newer than the start is left to replay", func(t *testing.T) {
		c := newChecker()
		for range 3 {
			buf := torn(disk(), 2, start)
			bad, _, err := c.check(ctx, buf, off, segment, nil)
			require.NoError(t, err)
			require.Empty(t, bad)
		}
		require.Equal(t, 1, asked)
	})
	t.Run("an LSN from the future excuses nothing", func(t *testing.T) {
		buf := torn(disk(), 2, current+1)
		bad, _, err := newChecker().check(ctx, buf, off, segment, reads(buf))
		require.NoError(t, err)
		require.Equal(t, []uint32{firstInFile + 2}, bad)
	})
	t.Run("damaged pages are named", func(t *testing.T) {
		buf := disk()
		buf[100]++
		buf[2*pg.PageSize+5000]++
		c := newChecker()
		bad, keep, err := c.check(ctx, buf, off, segment, reads(append([]byte{}, buf...)))
		require.NoError(t, err)
		require.Equal(t, []uint32{firstInFile, firstInFile + 2}, bad)
		require.Equal(t, 3*pg.PageSize, keep)
		require.Equal(t, int64(2), c.damaged.Load())
		require.Equal(t, rereads, pauses)
	})
	t.Run("a file cut meanwhile ends there", func(t *testing.T) {
		buf := torn(disk(), 1, start-1)
		bad, keep, err := newChecker().check(ctx, buf, off, segment, reads(disk()[:pg.PageSize+77]))
		require.NoError(t, err)
		require.Empty(t, bad)
		require.Equal(t, pg.PageSize, keep)
	})
	t.Run("pages of zeroes are good, and an odd end is not looked at", func(t *testing.T) {
		buf := append(make([]byte, 2*pg.PageSize), 1, 2, 3)
		bad, keep, err := newChecker().check(ctx, buf, off, segment, nil)
		require.NoError(t, err)
		require.Empty(t, bad)
		require.Equal(t, len(buf), keep)
	})
}
