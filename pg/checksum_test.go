package pg

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// testPages makes n valid pages, every fifth one new.
func testPages(n int, firstBlock uint32) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, n*PageSize)
	for i := range n {
		page := buf[i*PageSize:][:PageSize]
		if i%5 == 4 {
			continue
		}
		for at := 0; at < PageSize; at += 8 {
			binary.LittleEndian.PutUint64(page[at:], r.Uint64())
		}
		page[pageUpper] |= 1
		binary.LittleEndian.PutUint16(page[pageChecksum:], PageChecksum(page, firstBlock+uint32(i)))
	}
	return buf
}

// slowChecksum is the algorithm as the server's header describes it, without
// any cleverness.
func slowChecksum(page []byte, block uint32) uint16 {
	p := append([]byte(nil), page...)
	p[pageChecksum], p[pageChecksum+1] = 0, 0
	sums := checksumBase
	for row := range 64 {
		for c := range sums {
			sums[c] = mix(sums[c], binary.LittleEndian.Uint32(p[row*128+c*4:]))
		}
	}
	var all uint32
	for c := range sums {
		all ^= mix(mix(sums[c], 0), 0)
	}
	return uint16((all^block)%65535 + 1)
}

func TestVerifyPages(t *testing.T) {
	for _, verify := range []func([]byte, uint32) []uint32{VerifyPages, verifyPagesGo} {
		const first = 131072 - 3
		buf := testPages(23, first)
		require.Empty(t, verify(buf, first))
		require.Equal(t, slowChecksum(buf[:PageSize], first), PageChecksum(buf, first))

		// Another place: every page that carries a checksum is bad.
		require.Len(t, verify(buf, first+1), 23-4)

		// One flipped bit anywhere in a page is found, the checksum included.
		r := rand.New(rand.NewPCG(3, 4))
		for range 2000 {
			at := r.IntN(len(buf))
			buf[at] ^= 1 << r.IntN(8)
			require.Equal(t, []uint32{first + uint32(at/PageSize)}, verify(buf, first), "byte %d", at)
			copy(buf, testPages(23, first))
		}
	}
	require.Nil(t, VerifyPages(nil, 0))
	require.Panics(t, func() { VerifyPages(make([]byte, PageSize+1), 0) })
}

func TestPageLSN(t *testing.T) {
	page := make([]byte, PageSize)
	binary.LittleEndian.PutUint32(page[0:], 0x16)
	binary.LittleEndian.PutUint32(page[4:], 0xB374D848)
	require.Equal(t, "16/B374D848", PageLSN(page).String())
	require.True(t, PageIsNew(page))
}

func FuzzVerifyPages(f *testing.F) {
	f.Add(testPages(2, 7), uint32(7))
	f.Add(make([]byte, PageSize), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, block uint32) {
		b = b[:len(b)/PageSize*PageSize]
		require.Equal(t, verifyPagesGo(b, block), VerifyPages(b, block))
		for i := 0; i < len(b); i += PageSize {
			require.Equal(t, slowChecksum(b[i:][:PageSize], block), PageChecksum(b[i:], block))
		}
	})
}

func BenchmarkVerifyPages(b *testing.B) {
	for name, verify := range map[string]func([]byte, uint32) []uint32{"default": VerifyPages, "go": verifyPagesGo} {
		b.Run(name, func(b *testing.B) {
			buf := testPages(128, 0) // 1 MiB, as a backup reads it
			for i := range 128 {
				if i%5 == 4 {
					copy(buf[i*PageSize:], buf[:PageSize])
					binary.LittleEndian.PutUint16(buf[i*PageSize+pageChecksum:], PageChecksum(buf[:PageSize], uint32(i)))
				}
			}
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if verify(buf, 0) != nil {
					b.Fatal("bad pages")
				}
			}
		})
	}
}
